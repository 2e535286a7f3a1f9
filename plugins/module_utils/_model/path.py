# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Flows with what is expected of them, the kernel's answers, and verdicts, as values."""

from __future__ import annotations

import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from .state import Flow, Path

# What Path.type says of an error.
ERRORS = ("unreachable", "prohibit", "blackhole")
_TCP = 6


@dataclasses.dataclass(frozen=True)
class IdentityPaths:
    """What a path needs to know of an identity."""

    name: str
    addresses: tuple[str, ...] = ()  # those it has, or had last
    devices: tuple[str, ...] = ()  # the devices of its egress that are up now; none: the egress is gone
    tables: tuple[int, ...] = ()
    gateways: tuple[str, ...] = ()
    required: bool = False


@dataclasses.dataclass(frozen=True)
class Expect:
    """How a path shall be; what is None is not compared."""

    identity: str | None = None
    dev: str | None = None
    gateway: str | None = None  # "none": without one
    table: int | None = None
    src: str | None = None
    type: str | None = None


@dataclasses.dataclass(frozen=True)
class PathSpec:
    """One entry of option C(paths): the flows that it stands for, and what is expected of each."""

    field: str
    family: int
    to: str
    origin: str | None  # `from` as it was written
    identity: str | None  # the identity that `from` names
    flows: tuple[Flow, ...]  # none when that identity has no address of the family
    expect: Expect | None = None
    unchanged: bool = False


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the kernel does with a flow."""

    flow: Flow
    first: Path
    second: Path | None = None
    source: str | None = None  # of the packet: stated, or chosen by the kernel

    @property
    def decided(self) -> Path:
        """What a connected socket gets."""
        return dataclasses.replace(self.second or self.first, src=self.source)

    @property
    def unconnected(self) -> Path:
        """What a socket that is not connected gets (sendto)."""
        if self._retried:
            return self.decided
        return dataclasses.replace(self.first, src=self.source)

    @property
    def _retried(self) -> bool:
        """IPv6 forgets an error of the source-less lookup, and asks again with a source from any device."""
        return self.second is not None and self.first.type in ERRORS

    def counting(self) -> list[tuple[str, Path]]:
        """The lookups that decide where packets go, each with what to call it.

        IPv4 TCP always connects, so its first lookup carries no packet. IPv6 keeps the first answer until a route or
        rule changes and then asks with the source, so both carry packets.
        """
        found = [("", self.decided)]
        tcp = self.flow.family == 4 and self.flow.ipproto == _TCP
        if self.second is not None and not self._retried and not tcp:
            found.append(("first lookup: ", self.unconnected))
        return found


@dataclasses.dataclass(frozen=True)
class Verdict:
    """C(status) is proven, pending, wrong, or None when nothing was expected."""

    status: str | None
    differs: tuple[str, ...] = ()
