# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A kernel that is read once: what one round of planning sees is one state, and each dump is paid for once."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from ._model.guard import Guard
    from ._model.route import Route
    from ._model.rule import Rule
    from ._model.state import Address, Flow, Link, Path, Policy


class Readable(t.Protocol):
    """The part of a kernel that only tells."""

    def links(self) -> list[Link]:
        """All network devices."""

    def addresses(self) -> list[Address]:
        """All addresses, both families."""

    def rules(self, family: int) -> list[Rule]:
        """All rules of a family in the kernel's order, duplicates included."""

    def routes(
        self, family: int, *, table: int | None = None, protocol: int | None = None, dev: str | None = None
    ) -> list[Route]:
        """Routes, filtered by the kernel itself. A table that does not exist is empty. Cached clones are left out."""

    def policies(self) -> list[Policy]:
        """The IPsec policies for what this host sends. Raises NotPermitted."""

    def guard(self, table: str) -> Guard | None:
        """The nftables table of that name, family inet; None if there is none.

        Raises NotSupported where there is no nft, or the kernel lacks nf_tables; NotPermitted.
        """

    def lookup(self, flow: Flow) -> Path:
        """The kernel's answer for one flow, one lookup.

        IPv4 takes a flow without C(ipproto) for UDP, IPv6 for none. Raises InvalidInput if a device of the flow does
        not exist, NotSupported for protocols that the kernel does not look up (all but TCP, UDP and ICMP).
        """

    def sysctl(self, path: str) -> str | None:
        """The value of a file below /proc/sys/net, such as C(ipv4/conf/all/rp_filter); None if there is none."""


class Reading:
    """A Readable that remembers. Lookups and sysctls are answered by the kernel itself."""

    def __init__(self, kernel: Readable) -> None:
        self._kernel = kernel
        self._known: dict[object, list[t.Any]] = {}
        self.lookup = kernel.lookup
        self.sysctl = kernel.sysctl

    def links(self) -> list[Link]:
        """All network devices."""
        return self._once("links", self._kernel.links)

    def addresses(self) -> list[Address]:
        """All addresses, both families."""
        return self._once("addresses", self._kernel.addresses)

    def rules(self, family: int) -> list[Rule]:
        """All rules of a family."""
        return self._once(("rules", family), lambda: self._kernel.rules(family))

    def routes(
        self, family: int, *, table: int | None = None, protocol: int | None = None, dev: str | None = None
    ) -> list[Route]:
        """Routes, filtered."""
        key = ("routes", family, table, protocol, dev)
        return self._once(key, lambda: self._kernel.routes(family, table=table, protocol=protocol, dev=dev))

    def policies(self) -> list[Policy]:
        """IPsec policies."""
        return self._once("policies", self._kernel.policies)

    def guard(self, table: str) -> Guard | None:
        """The nftables table of that name."""
        found: list[Guard | None] = self._once(("guard", table), lambda: [self._kernel.guard(table)])
        return found[0]

    def _once(self, key: object, read: t.Callable[[], list[t.Any]]) -> list[t.Any]:
        if key not in self._known:
            self._known[key] = read()
        return self._known[key]
