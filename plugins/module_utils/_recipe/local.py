# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""T_loc: the ways to host-internal networks (containers, virtual machines), which every tunnel identity must keep.

A table of its own, because a rule over main would end at any error route there and obey whatever the local network
pushes into it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import ipaddress
import typing as t

from .._model.declaration import Network
from .._model.route import Route
from .._model.state import Link
from .facts import LOOPBACK, NOWHERE_DEVICE, Facts, devices_of, is_default

# Ports that make a bridge an uplink's: hardware (no kind) and what stacks on hardware.
UPLINK_PORTS = frozenset({None, "bond", "team", "vlan", "macvlan"})


def local_devices(patterns: t.Sequence[str], facts: Facts, uplinks: t.Collection[str]) -> list[str]:
    """The host-internal devices: those named, and for C(auto) the bridges without an uplink port."""
    names = [link.name for link in facts.links if _is_local(link, patterns, facts)]
    return [name for name in names if name not in uplinks and name not in (LOOPBACK, NOWHERE_DEVICE)]


def _is_local(link: Link, patterns: t.Sequence[str], facts: Facts) -> bool:
    if any(fnmatch.fnmatchcase(link.name, pattern) for pattern in patterns if "/" not in pattern):
        return True
    return "auto" in patterns and _is_internal_bridge(link, facts)


def _is_internal_bridge(link: Link, facts: Facts) -> bool:
    ports = [port for port in facts.links if port.master == link.index]
    return link.kind == "bridge" and not any(port.kind in UPLINK_PORTS for port in ports)


def local_routes(
    patterns: t.Sequence[str], devices: t.Collection[str], facts: Facts, table: int, protocol: int
) -> list[Route]:
    """What main has by host-internal devices, and a throw for each route of main inside those prefixes.

    The throw lets the lookup go on: to the tunnel for an inside address, to main for unbound traffic.
    """
    prefixes = [ipaddress.ip_network(pattern) for pattern in patterns if "/" in pattern]
    inside = [r for r in facts.main if not is_default(r) and _is_inside(r, devices, prefixes)]
    networks = [ipaddress.ip_network(route.dst) for route in inside]
    foreign = [r for r in facts.main if r not in inside and not is_default(r) and within(networks, r.dst)]
    copies = {r.key[2:]: dataclasses.replace(r, table=table, protocol=protocol, through=()) for r in inside}
    throws = {r.dst: throw(r, table, protocol) for r in foreign}
    preferred = [c for c in copies.values() if c.dst not in throws or _beats(c, c.dst, foreign)]
    return [*preferred, *(t_ for dst, t_ in throws.items() if dst not in {c.dst for c in preferred})]


def _beats(copy: Route, dst: str, foreign: t.Sequence[Route]) -> bool:
    """Whether main would choose the host-internal route of two for one prefix."""
    return all(copy.metric < route.metric for route in foreign if route.dst == dst)


def throw(route: Route, table: int, protocol: int) -> Route:
    """A route that sends the lookup on to the next rule."""
    return Route(route.family, route.dst, table, "throw", metric=1024 if route.family == 6 else 0, protocol=protocol)


def _is_inside(route: Route, devices: t.Collection[str], prefixes: t.Sequence[Network]) -> bool:
    found = devices_of(route)
    return (bool(found) and all(device in devices for device in found)) or within(prefixes, route.dst)


def within(networks: t.Iterable[Network], dst: str) -> bool:
    """Whether one of the networks holds the whole prefix."""
    inner = ipaddress.ip_network(dst)
    return any(outer.version == inner.version and inner.subnet_of(t.cast(t.Any, outer)) for outer in networks)
