# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What a user may write in a field, and its one canonical form.

Every reader takes what was written and the field's name for messages, and returns a normalised value or raises
InvalidInput. Nothing here asks the host: names of tables are resolved by a function that is handed in.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import socket
import typing as t

from .._errors import InvalidInput

T = t.TypeVar("T")

U32_MAX = 4294967295
FAMILIES = {"ipv4": 4, "ipv6": 6}
FAMILY_NAMES = {4: "ipv4", 6: "ipv6"}
HOST_LENGTH = {4: 32, 6: 128}
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254}
KERNEL = 2  # RTPROT_KERNEL: what the kernel makes of itself, as the prefixes of a device
RESERVED_TABLES = {"default": 253, "main": 254, "local": 255}
# Of those the kernel chooses the priorities itself: local 0, main 32766, default 32767.
RESERVED_PRIORITIES = (0, 32766, 32767)
# Enough for hosts without /etc/protocols, which minimal images lack.
PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
DEVICE = "1 to 15 bytes without blank, slash or colon"
WITH_PORTS = (6, 17, 33, 132, 136)

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}


class Params:
    """The options of one object, with the place where they were written for messages (`rules[3].priority`)."""

    def __init__(self, params: t.Mapping[str, t.Any], field: str = "") -> None:
        self.params = params
        self.field = field

    def name(self, key: str) -> str:
        """The field's full name."""
        return f"{self.field}.{key}" if self.field else key

    def given(self, key: str) -> bool:
        """Whether the option was written."""
        return self.params.get(key) is not None

    def read(self, key: str, reader: t.Callable[[object, str], T]) -> T | None:
        """The option's normalised value, None if it was not written."""
        return reader(self.params[key], self.name(key)) if self.given(key) else None

    def number(self, key: str, low: int, high: int) -> int | None:
        """The option as a number within limits, None if it was not written."""
        return number(self.params[key], self.name(key), low, high) if self.given(key) else None

    def flag(self, key: str) -> bool:
        """The option as a switch that is off unless written."""
        return bool(self.params.get(key))

    def refuse(self, key: str, msg: str, accepted: str) -> InvalidInput:
        """The error for an option that does not go with the others."""
        return InvalidInput(msg, field=self.name(key), value=self.params.get(key), accepted=accepted)


def number(value: object, field: str, low: int, high: int) -> int:
    """A whole number within limits, decimal or with 0x."""
    if value is None:
        raise InvalidInput("must be given", field=field, accepted=f"{low} to {high}")
    found = _int(value)
    if found is None or not low <= found <= high:
        raise InvalidInput("is not in range", field=field, value=value, accepted=f"{low} to {high}")
    return found


def _int(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        return int(str(value).strip(), 0)
    except ValueError:
        return None


def family(value: object, field: str) -> int:
    """C(ipv4) or C(ipv6) as 4 or 6."""
    found = FAMILIES.get(str(value))
    if found is None:
        raise InvalidInput("is no address family", field=field, value=value, accepted="ipv4, ipv6")
    return found


def family_of(text: str) -> int:
    """The family of an address or prefix that is already canonical."""
    return 6 if ":" in text else 4


def address(value: object, field: str) -> str:
    """An address without length, as inet_ntop(3) writes it."""
    found = _address(str(value).strip())
    if found is None:
        raise InvalidInput("is no IP address", field=field, value=value, accepted="an address such as 192.0.2.1")
    return found


def interface_address(value: object, field: str) -> str:
    """An address, with or without a length as `ip address show` prints it; the length is dropped."""
    text, sep, length = str(value).strip().partition("/")
    found = address(text, field)
    if sep and _length(length, HOST_LENGTH[family_of(found)]) is None:
        raise InvalidInput("has no valid length", field=field, value=value, accepted=found)
    return found


def _address(text: str) -> str | None:
    version = family_of(text)
    try:
        return socket.inet_ntop(_AF[version], socket.inet_pton(_AF[version], text))
    except (OSError, ValueError):  # ValueError: a NUL or something else that C cannot hold
        return None


def prefix(value: object, field: str) -> str:
    """A prefix without host bits, `address/length`; an address alone is a prefix of its full length."""
    text, _sep, length_text = str(value).strip().partition("/")
    base = _address(text)
    if base is None:
        raise InvalidInput("is no IP prefix", field=field, value=value, accepted="a prefix such as 192.0.2.0/24")
    full = HOST_LENGTH[family_of(base)]
    length = full if not _sep else _length(length_text, full)
    if length is None:
        raise InvalidInput("has no valid length", field=field, value=value, accepted=f"{base}/0 to {base}/{full}")
    network = _masked(base, length)
    if network != base:
        raise InvalidInput("has host bits set", field=field, value=value, accepted=f"{network}/{length}")
    return f"{base}/{length}"


def _length(text: str, full: int) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text) if int(text) <= full else None


def _masked(base: str, length: int) -> str:
    version = family_of(base)
    packed = int.from_bytes(socket.inet_pton(_AF[version], base), "big")
    rest = HOST_LENGTH[version] - length
    return socket.inet_ntop(_AF[version], (packed >> rest << rest).to_bytes(HOST_LENGTH[version] // 8, "big"))


@functools.lru_cache(maxsize=64)
def prefixes_of(address: str) -> frozenset[str]:
    """Every prefix that an address is in, in canonical form: a large table is searched for one without reading it as
    numbers.
    """
    return frozenset(f"{_masked(address, length)}/{length}" for length in range(HOST_LENGTH[family_of(address)] + 1))


def shown(text: str) -> str:
    """A canonical prefix as iproute2 writes it: without the length of a single address."""
    base, _sep, length = text.partition("/")
    return base if int(length) == HOST_LENGTH[family_of(base)] else text


def device(value: object, field: str) -> str:
    """The name of a network device, by the kernel's rules for names; it need not exist."""
    name = str(value)
    if not is_device(name):
        raise InvalidInput("is no device name", field=field, value=value, accepted=DEVICE)
    return name


def is_device(name: str) -> bool:
    """Whether the kernel takes a name for a device (dev_valid_name); it takes the wildcards of fnmatch too."""
    plain = name.isprintable() and not any(c in "/:" or c.isspace() for c in name) and name not in (".", "..")
    return plain and 1 <= len(name.encode(errors="replace")) <= 15


def mark(value: object, field: str) -> tuple[int, int]:
    """`MARK` or `MARK/MASK` as two numbers; without a mask every bit counts."""
    left, sep, right = str(value).partition("/")
    bits, mask = _int(left), _int(right) if sep else U32_MAX
    if bits is None or mask is None or not 0 <= bits <= U32_MAX or not 1 <= mask <= U32_MAX:
        raise InvalidInput("is no mark", field=field, value=value, accepted="0x1 or 0x1/0xff, 32 bits, mask not 0")
    if bits & ~mask:
        accepted = f"a mark within the mask, such as {bits & mask:#x}/{mask:#x}"
        raise InvalidInput("has bits outside its mask", field=field, value=value, accepted=accepted)
    return bits, mask


def ports(value: object, field: str) -> tuple[int, int]:
    """`53` or `1000-2000`; the kernel takes 1 to 65534."""
    return _range(value, field, 1, 65534)


def uids(value: object, field: str) -> tuple[int, int]:
    """`1000` or `1000-1999`, numbers of users."""
    return _range(value, field, 0, U32_MAX - 1)


def _range(value: object, field: str, low: int, high: int) -> tuple[int, int]:
    left, sep, right = str(value).partition("-")
    first = _int(left)
    last = _int(right) if sep else first
    if first is None or last is None or not low <= first <= high or not low <= last <= high:
        raise InvalidInput("is not in range", field=field, value=value, accepted=f"N or N-M, {low} to {high}")
    if first > last:
        raise InvalidInput("is reversed", field=field, value=value, accepted=f"{last}-{first}")
    return first, last


def ip_protocol(value: object, field: str) -> int:
    """The number of an IP protocol, from its number or name."""
    name = str(value).strip().lower()
    found = _int(value) if _int(value) is not None else PROTOCOLS.get(name, _etc_protocol(name))
    if found is None or not 1 <= found <= 255:
        accepted = f"1 to 255, {', '.join(PROTOCOLS)}"
        raise InvalidInput("is no IP protocol", field=field, value=value, accepted=accepted)
    return found


def protocol_name(number_: int) -> str:
    """The name of an IP protocol as iproute2 writes it, or its number."""
    return next((name for name, found in PROTOCOLS.items() if found == number_), str(number_))


def _etc_protocol(name: str) -> int | None:
    try:
        return socket.getprotobyname(name)
    except (OSError, ValueError):
        return None


def priority(value: object, field: str) -> int:
    """A rule's priority, apart from those that belong to the kernel's own rules."""
    accepted = f"1 to {U32_MAX} except 32766 and 32767"
    found = _int(value)
    if found is None or not 1 <= found <= U32_MAX:
        raise InvalidInput("is no priority", field=field, value=value, accepted=accepted)
    if found in RESERVED_PRIORITIES:
        raise InvalidInput("belongs to a rule of the kernel", field=field, value=value, accepted=accepted)
    return found


def table_id(value: object, field: str) -> int:
    """A table by number, or by one of the three names that every kernel has."""
    named = RESERVED_TABLES.get(str(value))
    found = named if named is not None else _int(value)
    if found is None or not 1 <= found <= U32_MAX:
        accepted = f"1 to {U32_MAX}, {', '.join(RESERVED_TABLES)}"
        raise InvalidInput("is no routing table", field=field, value=value, accepted=accepted)
    return found


TASK_PROTOCOL = 152  # of what modules rule and route make


def protocol(value: object, field: str) -> int:
    """The number that says who owns a rule or route. 0 stands for anybody when the kernel deletes, 2 is the kernel."""
    found = number(value, field, 1, 255)
    if found == 2:
        raise InvalidInput("is the kernel's own", field=field, value=value, accepted="1 to 255 except 2")
    return found


def dsfield(value: object, field: str) -> int:
    """A type of service byte; its two lowest bits are ECN, which nothing can match on."""
    found = number(value, field, 0, 255)
    if found & 3:
        accepted = f"multiples of 4, such as {found & ~3:#04x}"
        raise InvalidInput("has ECN bits set", field=field, value=value, accepted=accepted)
    return found


def scope(value: object, field: str) -> int:
    """The scope of an IPv4 route, by name or number."""
    named = SCOPES.get(str(value))
    found = named if named is not None else _int(value)
    if found is None or not 0 <= found <= 254:
        raise InvalidInput("is no scope", field=field, value=value, accepted=f"0 to 254, {', '.join(SCOPES)}")
    return found


def choice(value: object, field: str, accepted: t.Collection[str]) -> str:
    """One of a closed list of words."""
    if value not in accepted:
        raise InvalidInput("is unknown", field=field, value=value, accepted=", ".join(accepted))
    return str(value)


def one_family(params: Params, texts: t.Mapping[str, str | None]) -> int:
    """The family of an object, from C(family) or from the addresses in its options, which must all agree."""
    found = params.read("family", family)
    for key, text in texts.items():
        if text is None:
            continue
        if found is not None and family_of(text) != found:
            accepted = f"an address of {FAMILY_NAMES[found]}, as everywhere else in it"
            raise params.refuse(key, "is of the other address family", accepted)
        found = family_of(text)
    if found is None:
        raise params.refuse("family", "must be given where no address tells it", "ipv4, ipv6")
    return found


def moment(value: object, field: str) -> datetime.datetime:
    """A point in time, in UTC. Host and author may live in different zones, so it has to name one."""
    text = str(value).strip()
    found = None
    with contextlib.suppress(ValueError):
        found = datetime.datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text)
    if found is None or found.tzinfo is None:
        accepted = "a date and a time with its zone, as 2026-12-24T18:00:00+01:00"
        raise InvalidInput("is no point in time", field=field, value=text, accepted=accepted)
    return found.astimezone(datetime.timezone.utc)


def now() -> datetime.datetime:
    """This moment in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
