# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Which route events are worth waking up for, as a classic BPF program: the kernel throws the others away.

A router with a full BGP feed, or a cluster that moves its pods, changes thousands of routes a minute, and none of them
concerns us. The table is looked for among the attributes, for the header has 8 bits for it. What a program loads it has
in network order, while all of a netlink message but addresses is in the host's.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
import typing as t

from ._model.fields import KERNEL

MAIN, DEFAULT = 254, 253
# Routing daemons of linux/rtnetlink.h: a host route of theirs is not what a VPN client leaves for its server.
DAEMONS = (11, 12, 14, 16, 18, 42, 99, 186, 187, 188, 189, 192)
# The most that the kernel takes is 4096 instructions.
_LONGEST = 4000

_AF = {4: 2, 6: 10}
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
# Offsets in a message: of nlmsghdr, and of the rtmsg behind it.
_TYPE, _PORT, _FAMILY, _DST_LEN, _PROTOCOL, _ROUTE_TYPE, _ATTRIBUTES = 4, 12, 16, 17, 21, 23, 28
# RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
_ERRORS = (6, 7, 8)
_VALUE = 4  # behind the head of an attribute

_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_NUMBER, _LOAD_AT_X = 0x20, 0x28, 0x30, 0x00, 0x40
_SET_X, _COPY_TO_X, _AND, _JUMP, _EQUAL, _GREATER, _RETURN = 0x01, 0x07, 0x54, 0x05, 0x15, 0x25, 0x06
_FIND_ATTRIBUTE = 0xFFFFF000 + 12  # SKF_AD_OFF + SKF_AD_NLATTR: A is where to start, X what to look for
_PASS, _DROP = 0xFFFFFFFF, 0


@dataclasses.dataclass(frozen=True)
class Interest:
    """Which routes matter: all of C(tables), and of main its defaults and errors, what C(protocols) own and the kernel
    made, what leaves by C(devices) (their indexes) or lies inside C(prefixes), and host routes by C(uplinks).
    """

    tables: frozenset[int] = frozenset()
    protocols: frozenset[int] = frozenset()
    devices: frozenset[int] = frozenset()
    uplinks: frozenset[int] = frozenset()
    prefixes: frozenset[str] = frozenset()


def joined(interests: t.Iterable[Interest]) -> Interest:
    """What matters to any of them."""
    every = list(interests)
    names = [field.name for field in dataclasses.fields(Interest)]
    return Interest(**{name: frozenset().union(*(getattr(one, name) for one in every)) for name in names})


def program(interest: Interest | None, ignored_port: int | None) -> bytes:
    """The program for a socket: it passes all that is no route. Without C(interest) it passes every route, too.

    What was caused by a request of the socket with C(ignored_port) is dropped.
    """
    lines = _Lines()
    if ignored_port is not None:
        lines.load(_LOAD_WORD, _PORT)
        lines.if_equal(_word(ignored_port), _DROP)
    if interest is not None:
        _routes(lines, interest)
    lines.end(_PASS)
    found = lines.assembled()
    return found if len(found) <= _LONGEST * _INSTRUCTION.size else program(None, ignored_port)


def without(kinds: t.Iterable[int]) -> bytes:
    """The program that drops messages of these types, and passes the others."""
    lines = _Lines()
    lines.load(_LOAD_HALF, _TYPE)
    for kind in kinds:
        lines.if_equal(_half(kind), _DROP)
    lines.end(_PASS)
    return lines.assembled()


def _routes(lines: _Lines, interest: Interest) -> None:
    lines.load(_LOAD_HALF, _TYPE)
    for kind in (_RTM_NEWROUTE, _RTM_DELROUTE):
        lines.if_equal(_half(kind), "route")
    lines.end(_PASS)
    lines.label("route")
    lines.attribute(_RTA_TABLE, otherwise=_PASS)
    lines.load(_LOAD_AT_X, _VALUE)
    for table in sorted(interest.tables):
        lines.if_equal(_word(table), _PASS)
    lines.if_equal(_word(MAIN), "main")
    lines.end(_DROP)
    lines.label("main")
    lines.load(_LOAD_BYTE, _DST_LEN)
    lines.unless_greater(1, _PASS)  # the defaults, and the halves that VPN clients lay over them
    lines.load(_LOAD_BYTE, _ROUTE_TYPE)
    for kind in _ERRORS:
        lines.if_equal(kind, _PASS)
    lines.load(_LOAD_BYTE, _PROTOCOL)
    for protocol in sorted({KERNEL, *interest.protocols}):
        lines.if_equal(protocol, _PASS)
    _by_device(lines, interest)
    _inside(lines, interest.prefixes)
    lines.end(_DROP)


def _by_device(lines: _Lines, interest: Interest) -> None:
    lines.attribute(_RTA_OIF, otherwise="prefixes")  # several nexthops
    lines.load(_LOAD_AT_X, _VALUE)
    for device in sorted(interest.devices):
        lines.if_equal(_word(device), _PASS)
    for device in sorted(interest.uplinks):
        lines.if_equal(_word(device), "host")
    lines.jump("prefixes")
    lines.label("host")
    lines.load(_LOAD_BYTE, _PROTOCOL)
    for protocol in DAEMONS:
        lines.if_equal(protocol, "prefixes")
    lines.load(_LOAD_BYTE, _DST_LEN)
    for length in (32, 128):
        lines.if_equal(length, _PASS)
    lines.label("prefixes")


def _inside(lines: _Lines, prefixes: t.Iterable[str]) -> None:
    lines.attribute(_RTA_DST, otherwise=_DROP)
    networks = [ipaddress.ip_network(prefix) for prefix in sorted(prefixes)]
    for number, network in enumerate(networks):
        missed = f"not {number}"
        lines.load(_LOAD_BYTE, _FAMILY)
        lines.unless_equal(_AF[network.version], missed)
        wanted, mask = network.network_address.packed, network.netmask.packed
        for at in range(0, -(-network.prefixlen // 32) * 4, 4):
            lines.load(_LOAD_AT_X, _VALUE + at)
            lines.mask(int.from_bytes(mask[at : at + 4], "big"))
            lines.unless_equal(int.from_bytes(wanted[at : at + 4], "big"), missed)
        lines.end(_PASS)
        lines.label(missed)


class _Lines:
    """An assembler: jumps go forward to labels. A comparison skips one line, for it can reach 255 lines only."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, int, int | str]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._lines)

    def load(self, how: int, at: int) -> None:
        self._lines.append((how, 0, 0, at))

    def mask(self, bits: int) -> None:
        self._lines.append((_AND, 0, 0, bits))

    def end(self, verdict: int) -> None:
        self._lines.append((_RETURN, 0, 0, verdict))

    def jump(self, label: str) -> None:
        self._lines.append((_JUMP, 0, 0, label))

    def if_equal(self, value: int, then: int | str) -> None:
        self._compare((_EQUAL, 0, 1, value), then)

    def unless_equal(self, value: int, then: int | str) -> None:
        self._compare((_EQUAL, 1, 0, value), then)

    def unless_greater(self, value: int, then: int | str) -> None:
        self._compare((_GREATER, 1, 0, value), then)

    def attribute(self, kind: int, *, otherwise: int | str) -> None:
        """X becomes the place of an attribute."""
        self._lines += [(_LOAD_NUMBER, 0, 0, _ATTRIBUTES), (_SET_X, 0, 0, kind)]
        self.load(_LOAD_WORD, _FIND_ATTRIBUTE)
        self.if_equal(0, otherwise)
        self._lines.append((_COPY_TO_X, 0, 0, 0))

    def assembled(self) -> bytes:
        return b"".join(
            _INSTRUCTION.pack(code, yes, no, self._labels[k] - at - 1 if isinstance(k, str) else k)
            for at, (code, yes, no, k) in enumerate(self._lines)
        )

    def _compare(self, line: tuple[int, int, int, int], then: int | str) -> None:
        self._lines.append(line)
        if isinstance(then, str):
            self.jump(then)
        else:
            self.end(then)


def _word(value: int) -> int:
    """A number of the host's order as a program sees it."""
    return int.from_bytes(struct.pack("=I", value), "big")


def _half(value: int) -> int:
    return int.from_bytes(struct.pack("=H", value), "big")
