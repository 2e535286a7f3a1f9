# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The tables of the ways: what T and T_O hold, and the routes in main that C(destinations) asks for."""

from __future__ import annotations

import ipaddress
import typing as t

from .._model.declaration import Declaration
from .._model.fields import family_of
from .._model.route import Route
from .facts import LINK_SCOPE, MAIN, Facts, is_default
from .ways import Way

DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}
# IPv6 gives 1024 to a route without a metric; written out, so that what is asked for is what is read back.
METRICS = {4: 0, 6: 1024}
DESTINATION_METRIC = 151  # of our own, so that a client's route for the same prefix is neither replaced nor outdone
LAST_METRIC = 0xFFFFFFFF


def way_routes(way: Way, declaration: Declaration, facts: Facts, *, several_uplinks: bool) -> list[Route]:
    """The routes of one way's own table. Empty as long as its device is away: then the backstop holds."""
    link = facts.link(way.device)
    if link is None or not link.up:
        return []
    protocol = declaration.numbers.protocol
    if way.identity.by_tunnel:
        return [r for family in way.identity.families for r in _tunnel_table(way, family, facts, protocol)]
    families = way.identity.families
    return [r for family in families for r in _uplink_table(way, family, facts, protocol, several_uplinks)]


def source(way: Way, family: int, facts: Facts) -> str | None:
    """The identity's first current address: the C(src) of its default, for it may sit on another device."""
    return next((address for address in way.in_family(family) if facts.is_local(address)), None)


def _tunnel_table(way: Way, family: int, facts: Facts, protocol: int) -> list[Route]:
    address = source(way, family, facts)
    if address is None:
        return []
    gateway = way.gateway(family)
    links = _with_gateway(way, family, _link_routes(way, family, facts, protocol), protocol)
    default = Route(
        family,
        DEFAULTS[family],
        way.table,
        gateway=gateway,
        dev=way.device,
        src=address,
        metric=METRICS[family],
        # Scope link would make this route answer other programs' gateway checks in lookups without a source.
        scope=0,
        onlink=_needs_onlink(gateway, links),
        mtu=way.identity.mtu,
        advmss=way.identity.advmss,
        protocol=protocol,
    )
    return [*links, default]


def _uplink_table(way: Way, family: int, facts: Facts, protocol: int, several_uplinks: bool) -> list[Route]:
    if not way.in_family(family):
        return []
    links = _own_routes(way, family, facts, protocol) if several_uplinks else []
    links = _with_gateway(way, family, links or _link_routes(way, family, facts, protocol), protocol)
    gateway = way.gateway(family)
    if gateway is None and not _leads_out_alone(way, family, facts):
        return links
    default = Route(
        family,
        DEFAULTS[family],
        way.table,
        gateway=gateway,
        dev=way.device,
        metric=METRICS[family],
        scope=0 if gateway or family == 6 else LINK_SCOPE,
        onlink=_needs_onlink(gateway, links),
        protocol=protocol,
    )
    return [*links, default]


def _leads_out_alone(way: Way, family: int, facts: Facts) -> bool:
    """Whether the device needs no gateway: stated, or main's own default has none (point-to-point uplinks)."""
    if way.identity.gateway == ("none",):
        return True
    return any(r.dev == way.device and r.gateway is None for r in facts.defaults(family))


def _link_routes(way: Way, family: int, facts: Facts, protocol: int) -> list[Route]:
    """The device's own prefixes, as the kernel made them in main; link-local among them."""
    found = (r for r in facts.main if r.family == family and r.dev == way.device)
    return [_copy(r, way, protocol) for r in found if r.protocol == 2 and r.gateway is None and not is_default(r)]


def _with_gateway(way: Way, family: int, links: list[Route], protocol: int) -> list[Route]:
    """An IPv6 gateway outside the link's prefix gets a route in the same table.

    C(onlink) would not do: IPv6 refuses it where main reaches the gateway by another device, as with a VPN's 2000::/3.
    """
    gateway = way.gateway(family)
    if family == 4 or gateway is None or not _needs_onlink(gateway, links):
        return links
    return [*links, Route(6, f"{gateway}/128", way.table, dev=way.device, metric=METRICS[6], protocol=protocol)]


def _own_routes(way: Way, family: int, facts: Facts, protocol: int) -> list[Route]:
    """All of main's routes by this device: with two uplinks main cannot be asked for them."""
    found = (r for r in facts.main if r.family == family and r.dev == way.device and not is_default(r))
    return [_copy(r, way, protocol) for r in found if r.protocol != protocol]


def _copy(route: Route, way: Way, protocol: int) -> Route:
    """In the way's table; without C(src), which would take the route away with the address it names."""
    gateway = route.gateway
    return Route(
        route.family,
        route.dst,
        way.table,
        gateway=gateway,
        dev=way.device,
        metric=METRICS[route.family],
        scope=route.scope,
        onlink=gateway is not None and (route.onlink or route.family == 4),
        protocol=protocol,
    )


def _needs_onlink(gateway: str | None, links: t.Sequence[Route]) -> bool:
    """Unless a prefix in the same table covers it: cloud gateways lie outside, and main may not know them at boot."""
    if gateway is None or (ipaddress.ip_address(gateway).is_link_local and family_of(gateway) == 6):
        return False
    networks = [ipaddress.ip_network(r.dst) for r in links if r.gateway is None]
    return not any(ipaddress.ip_address(gateway) in n for n in networks if n.version == family_of(gateway))


def destination_routes(way: Way, declaration: Declaration, facts: Facts) -> list[Route]:
    """Prefixes that unbound traffic reaches by this identity: routes in main, as long as its address is there."""
    link = facts.link(way.device)
    routes = []
    for prefix in way.identity.destinations:
        family = family_of(prefix)
        address = source(way, family, facts) if link is not None and link.up else None
        if address is not None:
            routes.append(_destination(way, prefix, address, declaration.numbers.protocol))
        if way.identity.destinations_backstop:
            routes.append(unreachable(prefix, MAIN, declaration.numbers.protocol))
    return routes


def _destination(way: Way, prefix: str, address: str, protocol: int) -> Route:
    family = family_of(prefix)
    gateway = way.gateway(family)
    return Route(
        family,
        prefix,
        MAIN,
        gateway=gateway,
        dev=way.device,
        src=address,
        metric=DESTINATION_METRIC,
        scope=0 if gateway or family == 6 else LINK_SCOPE,
        onlink=gateway is not None,
        protocol=protocol,
    )


def unreachable(prefix: str, table: int, protocol: int) -> Route:
    """An error route at the last metric, where it collides with nobody's."""
    return Route(family_of(prefix), prefix, table, "unreachable", metric=LAST_METRIC, protocol=protocol)
