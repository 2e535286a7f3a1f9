# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Option C(paths): what a user writes of a flow, checked and normalised."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

from ._errors import InvalidInput
from ._model.path import Expect, IdentityPaths, PathSpec
from ._model.route import TYPES
from ._model.state import Flow

UNCHANGED = "unchanged"
EXPECTED = ("identity", "dev", "gateway", "table", "src", "type")
OPTIONS = ("from", "to", "iif", "oif", "fwmark", "uid", "ipproto", "sport", "dport", "expect")

# RTM_GETROUTE takes these alone (rtm_getroute_parse_ip_proto), each ICMP in its own family.
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58}
_ICMP = {4: 1, 6: 58}
_TCP, _UDP = _PROTOCOLS["tcp"], _PROTOCOLS["udp"]


def parse_flow(
    params: t.Mapping[str, t.Any],
    field: str,
    identities: t.Sequence[IdentityPaths],
    tables: t.Mapping[str, int],
    *,
    unchanged_allowed: bool = False,
) -> PathSpec:
    """One entry of C(paths). Raises InvalidInput, with C(field) (as C(paths[0])) ahead of the option's name.

    C(tables) gives the number of each table name. The word C(unchanged) is accepted only where there is a before.
    """
    _known(params, OPTIONS, field)
    to = _address(params.get("to"), f"{field}.to", "an IPv4 or IPv6 address")
    family = to.version
    name, sources = _sources(params.get("from"), family, f"{field}.from", identities)
    base = _flow(params, field, family, str(to))
    _check_combination(params, field, base, name)
    expect, unchanged = _expect(params.get("expect"), f"{field}.expect", family, identities, tables)
    if unchanged and not unchanged_allowed:
        raise InvalidInput(
            "has no before to compare with here",
            field=f"{field}.expect",
            value=UNCHANGED,
            accepted=f"a dictionary of {', '.join(EXPECTED)}",
        )
    flows = tuple(dataclasses.replace(base, source=source) for source in sources)
    return PathSpec(field, family, str(to), params.get("from"), name, flows, expect, unchanged)


def _known(params: t.Mapping[str, t.Any], accepted: t.Sequence[str], field: str) -> None:
    for key in params:
        if key not in accepted:
            raise InvalidInput("is not an option", field=f"{field}.{key}", accepted=", ".join(accepted))


def _address(value: object, field: str, accepted: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if value is None:
        raise InvalidInput("is missing", field=field, accepted=accepted)
    try:
        found = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidInput("is not an address", field=field, value=value, accepted=accepted) from None
    if getattr(found, "scope_id", None):
        raise InvalidInput("has a zone; name the device in oif", field=field, value=value, accepted=accepted)
    return found


def _sources(
    value: object, family: int, field: str, identities: t.Sequence[IdentityPaths]
) -> tuple[str | None, tuple[str | None, ...]]:
    """The identity that was named, and the sources to ask for."""
    if value is None:
        return None, (None,)
    by_name = {identity.name: identity for identity in identities}
    if isinstance(value, str) and value in by_name:
        return value, tuple(each for each in by_name[value].addresses if family_of(each) == family)
    accepted = f"an address of family ipv{family}, or an identity: {', '.join(sorted(by_name)) or 'none is known'}"
    found = _address(value, field, accepted)
    if found.version != family:
        raise InvalidInput("is of another family than to", field=field, value=value, accepted=accepted)
    return None, (str(found),)


def family_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def _flow(params: t.Mapping[str, t.Any], field: str, family: int, to: str) -> Flow:
    return Flow(
        family=family,
        to=to,
        iif=_device(params.get("iif"), f"{field}.iif"),
        oif=_device(params.get("oif"), f"{field}.oif"),
        fwmark=_number(params.get("fwmark"), f"{field}.fwmark", 0, 0xFFFFFFFF, "a mark without mask, as 0x1"),
        uid=_number(params.get("uid"), f"{field}.uid", 0, 0xFFFFFFFE, "a numeric user id"),
        ipproto=_ipproto(params.get("ipproto"), f"{field}.ipproto", family),
        sport=_number(params.get("sport"), f"{field}.sport", 1, 65535, "one port, 1 to 65535"),
        dport=_number(params.get("dport"), f"{field}.dport", 1, 65535, "one port, 1 to 65535"),
    )


def _device(value: object, field: str) -> str | None:
    if value is None:
        return None
    accepted = "a device name of at most 15 characters"
    if not isinstance(value, str) or not 0 < len(value) <= 15 or "/" in value or any(c.isspace() for c in value):
        raise InvalidInput("is not a device name", field=field, value=value, accepted=accepted)
    return value


def _number(value: object, field: str, low: int, high: int, accepted: str) -> int | None:
    if value is None:
        return None
    try:
        number = -1 if isinstance(value, bool) else int(str(value), 0)
    except ValueError:
        number = -1
    if not low <= number <= high:
        raise InvalidInput("is not in range", field=field, value=value, accepted=accepted)
    return number


def _ipproto(value: object, field: str, family: int) -> int | None:
    if value is None:
        return None
    offered = [name for name, number in _PROTOCOLS.items() if number in (_TCP, _UDP, _ICMP[family])]
    accepted = f"{', '.join(offered)} (the kernel looks up no other)"
    by_number = {str(number): number for number in _PROTOCOLS.values()}
    found = _PROTOCOLS.get(str(value).lower(), by_number.get(str(value)))
    if found not in (_TCP, _UDP, _ICMP[family]):
        raise InvalidInput("cannot be looked up", field=field, value=value, accepted=accepted)
    return found


def _check_combination(params: t.Mapping[str, t.Any], field: str, flow: Flow, identity: str | None) -> None:
    for port in ("sport", "dport"):
        if params.get(port) is not None and flow.ipproto not in (_TCP, _UDP):
            raise InvalidInput(
                "needs ipproto", field=f"{field}.{port}", value=params[port], accepted="ipproto tcp or udp"
            )
    if flow.iif is None:
        return
    if flow.iif == "lo":
        raise InvalidInput("is this host itself", field=f"{field}.iif", value="lo", accepted="no iif")
    for other in ("oif", "uid"):
        if params.get(other) is not None:
            raise InvalidInput(
                "cannot be known of a packet that is forwarded", field=f"{field}.{other}", value=params[other],
                accepted=f"iif or {other}",
            )  # fmt: skip
    if params.get("from") is None or identity is not None:
        raise InvalidInput(
            "cannot be the source of a packet that is forwarded", field=f"{field}.from", value=params.get("from") or "",
            accepted="with iif: an address of another host",
        )  # fmt: skip


def _expect(
    value: object, field: str, family: int, identities: t.Sequence[IdentityPaths], tables: t.Mapping[str, int]
) -> tuple[Expect | None, bool]:
    if value is None or value == {}:
        return None, False
    if value == UNCHANGED:
        return None, True
    if not isinstance(value, t.Mapping):
        raise InvalidInput(
            "is not a dictionary", field=field, value=value, accepted=f"a dictionary of {', '.join(EXPECTED)}"
        )
    _known(value, EXPECTED, field)
    found = Expect(
        identity=_choice(value.get("identity"), f"{field}.identity", [identity.name for identity in identities]),
        dev=_device(value.get("dev"), f"{field}.dev"),
        gateway=_gateway(value.get("gateway"), f"{field}.gateway"),
        table=_table(value.get("table"), f"{field}.table", tables),
        src=_src(value.get("src"), f"{field}.src", family),
        type=_choice(value.get("type"), f"{field}.type", TYPES),
    )
    return (None if found == Expect() else found), False


def _choice(value: object, field: str, accepted: t.Sequence[str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in accepted:
        raise InvalidInput("is not known", field=field, value=value, accepted=", ".join(accepted) or "none is known")
    return value


def _gateway(value: object, field: str) -> str | None:
    if value is None:
        return None
    return "none" if value == "none" else str(_address(value, field, "an address, or none"))


def _src(value: object, field: str, family: int) -> str | None:
    if value is None:
        return None
    accepted = f"an address of family ipv{family}"
    found = _address(value, field, accepted)
    if found.version != family:
        raise InvalidInput("is of another family than to", field=field, value=value, accepted=accepted)
    return str(found)


def _table(value: object, field: str, tables: t.Mapping[str, int]) -> int | None:
    if isinstance(value, str) and value in tables:
        return tables[value]
    return _number(value, field, 1, 0xFFFFFFFF, f"a number from 1, or a name: {', '.join(sorted(tables)) or 'none'}")
