# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A host on which nothing is declared: its devices by what they look like, and what hand-made tables say of them."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

from ._model.fields import DEFAULT, FAMILY_NAMES, family_of
from ._model.rule import Rule
from ._recipe.facts import LOOPBACK, WIDTH, Facts, by_nexthop, devices_of, looks_like_tunnel, uplink_devices

if t.TYPE_CHECKING:
    from ._model.route import Route
    from ._model.state import Address, Policy
    from ._tunnels.client import Client


@dataclasses.dataclass(frozen=True)
class Seen:
    """A host as it is found."""

    facts: Facts
    rules: t.Sequence[Rule] = ()  # of others than the kernel
    tables: t.Mapping[int, t.Sequence[Route]] = dataclasses.field(default_factory=dict)  # that those look up
    clients: t.Mapping[str, Client] = dataclasses.field(default_factory=dict)  # by device
    policies: t.Sequence[Policy] = ()  # of IPsec, for what this host sends

    def defaults_of(self, rule: Rule) -> list[Route]:
        """The defaults of the table that a rule looks up, each nexthop as a route of its own."""
        found = self.tables.get(rule.table, ()) if rule.table is not None else ()
        plain = [r for r in found if (r.family, r.dst, r.type) == (rule.family, DEFAULT[rule.family], "unicast")]
        return [single for route in plain for single in by_nexthop(route)]

    def beyond(self, device: str) -> list[Address]:
        """The addresses of a device that others than its neighbours may know."""
        return [address for family in (4, 6) for address in self.facts.on(device, family)]

    def uplinks(self) -> list[str]:
        """Devices of main's defaults; those that a hand-made table, a lease or an advertisement has a gateway for."""
        facts = self.facts
        by_default = [d for family in (4, 6) for route in facts.defaults(family) for d in devices_of(route)]
        by_table = [
            route.dev
            for rule in self.rules
            for route in self.defaults_of(rule)
            if route.gateway and self._has_address(route)
        ]
        by_lease = [link.name for link in facts.links if link.name in facts.leases and self.beyond(link.name)]
        found = [device for device in (*by_default, *by_table, *by_lease) if device and not self.is_tunnel(device)]
        return list(dict.fromkeys(found)) or uplink_devices(facts, ())

    def _has_address(self, route: Route) -> bool:
        """Whether the device of a route has an address to answer from."""
        return route.dev is not None and bool(self.beyond(route.dev))

    def is_tunnel(self, device: str) -> bool:
        """Whether a device has no link layer, as VPNs make them."""
        return looks_like_tunnel(self.facts.link(device))

    def tunnels(self) -> list[str]:
        """Tunnels as they look, and devices without a gateway that a hand-made table sends everything to."""
        by_look = [link.name for link in self.facts.links if looks_like_tunnel(link)]
        by_table = [r.dev for rule in self.rules if rule.src for r in self.defaults_of(rule) if r.dev and not r.gateway]
        return [device for device in dict.fromkeys((*by_look, *by_table)) if self.beyond(device) or self.claims(device)]

    def claims(self, device: str) -> list[str]:
        """The sources that hand-made rules send by a device."""
        return [
            rule.src
            for rule in self.rules
            if rule.src is not None and by_source_alone(rule) and device in {r.dev for r in self.defaults_of(rule)}
        ]

    def told_families(self, device: str) -> set[int]:
        """The families for which main or a lease tells the gateway at each run."""
        told = {r.family for family in FAMILY_NAMES for r in self.facts.defaults(family) if device in devices_of(r)}
        return told | {family_of(gateway) for gateway in self.facts.leases.get(device, ())}

    def stated_gateways(self, device: str) -> dict[int, str]:
        """Gateways by family that only a hand-made table knows."""
        told = self.told_families(device)
        found = [r for rule in self.rules for r in self.defaults_of(rule) if r.dev == device and r.family not in told]
        first = {route.family: route.gateway for route in reversed(found) if route.gateway}
        return dict(sorted(first.items()))

    def holder(self, address: str) -> str | None:
        """The device that has an address."""
        return next((a.dev for a in self.facts.addresses if a.address == address), None)


def is_address(prefix: str) -> bool:
    """Whether a prefix is a single address."""
    return ipaddress.ip_network(prefix).prefixlen == WIDTH[family_of(prefix)]


def by_source_alone(rule: Rule) -> bool:
    """Whether a rule looks at nothing but where a packet comes from, as an identity does."""
    plain = Rule(rule.family, rule.priority, table=rule.table, src=rule.src, iif=rule.iif)
    return rule == plain and rule.src is not None and rule.iif in (None, LOOPBACK)
