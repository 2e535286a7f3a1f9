# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A copy of a host for lookups: devices, addresses, rules and routes put into an empty network namespace.

Also the choice of routes out of a dump by their destination alone: to decode a message takes a hundred times as long.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import ipaddress
import os
import struct
import typing as t

from . import _netlink_host as host_messages
from . import _netlink_route as route_messages
from . import _netlink_rule as rule_messages
from ._model import fields
from ._model.route import Route
from ._model.rule import Rule
from ._model.state import Address, Link
from ._netlink_answers import device_index
from ._netlink_apply import Channel
from ._netlink_codec import Codec, Content, Message
from ._netlink_socket import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST

_PREFIX_LENGTH = 17  # where struct rtmsg has it, behind the header
_ATTRIBUTES = 28
_ATTRIBUTE = struct.Struct("=HH")
_RTA_DST = 1
_LOOPBACK = "lo"

Prefix = tuple[int, bytes]


@functools.lru_cache(maxsize=2)
def covering(destinations: frozenset[str]) -> frozenset[Prefix]:
    """Every prefix that holds one of the destinations, as messages have it."""
    return frozenset(prefix for address in destinations for prefix in _prefixes(address))


def _prefixes(address: str) -> t.Iterator[Prefix]:
    packed = ipaddress.ip_address(address).packed
    value, width = int.from_bytes(packed, "big"), 8 * len(packed)
    for length in range(width + 1):
        rest = width - length
        yield length, (value >> rest << rest).to_bytes(len(packed), "big") if length else b""


def destination(message: bytes) -> Prefix:
    """The destination of the route in a message."""
    length, offset = message[_PREFIX_LENGTH], _ATTRIBUTES
    while length and offset + _ATTRIBUTE.size <= len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, offset)
        if kind == _RTA_DST:
            return length, message[offset + _ATTRIBUTE.size : offset + size]
        offset += (max(size, _ATTRIBUTE.size) + 3) & ~3
    return length, b""


@dataclasses.dataclass(frozen=True)
class Copied:
    """What goes into the namespace, in the kernel's order. C(sysctls) are files below /proc/sys/net."""

    links: tuple[Link, ...]
    addresses: tuple[Address, ...]
    rules: tuple[Rule, ...]
    routes: tuple[Route, ...]
    sysctls: t.Mapping[str, str]


Lost = t.Union[Address, Rule, Route]


class Scratch:
    """The namespace that the thread is in, which must be a new one."""

    def __init__(self, kernel: Channel, codec: Codec, sysctls: str) -> None:
        self._kernel = kernel
        self._codec = codec
        self._sysctls = sysctls

    def load(self, copied: Copied) -> list[Lost]:
        """Put everything in; what the kernel did not take. Raises Refused for a device that it does not make."""
        self._write("ipv6/conf/default/addr_gen_mode", "1")  # no link-local addresses of its own
        self._tell_all(_devices(copied.links), "RTM_NEWLINK", NLM_F_CREATE)
        for path, value in copied.sysctls.items():
            self._write(path, value)
        index = functools.lru_cache(maxsize=None)(device_index)
        added = [
            (a, host_messages.NEW_ADDRESS, host_messages.encode_address(a, index(a.dev))) for a in copied.addresses
        ]
        lost = self._lost(added, "RTM_NEWADDR", NLM_F_CREATE | NLM_F_EXCL)
        lost += self._copy_rules(copied.rules)
        ways = [(r, route_messages.MESSAGE, route_messages.encode(_onlink(r), index)) for r in copied.routes]
        return lost + self._lost(ways, "RTM_NEWROUTE", NLM_F_CREATE | NLM_F_APPEND)

    def _copy_rules(self, rules: t.Sequence[Rule]) -> list[Lost]:
        """The kernel's own rules are there, unless the host has lost one."""
        known = [rule for family in fields.FAMILY_NAMES for rule in self._kernel.rules(family)]
        surplus = [rule for rule in known if rule not in rules]
        self._lost(_rules(surplus), "RTM_DELRULE", 0)
        return self._lost(_rules([rule for rule in rules if rule not in known]), "RTM_NEWRULE", NLM_F_CREATE)

    def _lost(self, added: t.Sequence[tuple[Lost, Message, Content]], request: str, flags: int) -> list[Lost]:
        """What was refused, unless it is there already."""
        requests = [self._encode(kind, request, flags, content) for _each, kind, content in added]
        answers = self._kernel.tell(requests)
        return [
            each
            for (each, _kind, _content), refused in zip(added, answers)
            if refused and refused.errno != errno.EEXIST
        ]

    def _tell_all(self, messages: t.Sequence[tuple[Message, Content]], request: str, flags: int) -> None:
        answers = self._kernel.tell([self._encode(kind, request, flags, content) for kind, content in messages])
        for refused in answers:
            if refused is not None:
                raise refused

    def _encode(self, kind: Message, request: str, flags: int, content: Content) -> bytearray:
        return self._codec.encode(kind, request, NLM_F_REQUEST | NLM_F_ACK | flags, content)

    def _write(self, path: str, value: str) -> None:
        try:
            with open(os.path.join(self._sysctls, path), "r+", encoding="ascii") as file:
                if file.read().strip() != value:
                    file.seek(0)
                    file.write(value)
        except OSError:
            pass  # what that makes of the answers shows where they are compared with the host's


def _devices(links: t.Sequence[Link]) -> list[tuple[Message, Content]]:
    """The stand-ins in their order, then the other ends of their cables, which no other device is named like."""
    names = {link.name for link in links}
    free = (name for name in (f"peer{number}" for number in range(2 * len(links) + 1)) if name not in names)
    peers = {link: next(free) for link in sorted(links, key=lambda link: link.index) if link.name != _LOOPBACK}
    made = [host_messages.encode_stand_in(link, peer) for link, peer in peers.items()]
    made += [host_messages.encode_up(peer) for link, peer in peers.items() if link.carrier]
    made += [host_messages.encode_up(link.name) for link in links if link.name == _LOOPBACK and link.up]
    return [(host_messages.NEW_LINK, content) for content in made]


def _rules(rules: t.Iterable[Rule]) -> list[tuple[Lost, Message, Content]]:
    return [(rule, rule_messages.MESSAGE, rule_messages.encode(rule)) for rule in rules]


def _onlink(route: Route) -> Route:
    """The kernel has found the gateway reachable once; by what, need not be here."""
    if route.nexthops:
        hops = (dataclasses.replace(hop, onlink=hop.gateway is not None) for hop in route.nexthops)
        return dataclasses.replace(route, nexthops=tuple(hops))
    return dataclasses.replace(route, onlink=route.gateway is not None)
