# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The recipe: identities and facts become tables, rules, routes and device groups. Pure: no kernel and no files."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import InvalidInput
from .._model.declaration import Declaration
from .._model.guard import assemble, table_of
from .._model.operation import LinkGroup
from .._model.route import Route
from .._plan import Desired
from .facts import Facts, devices_of, uplink_devices
from .follow import follow_piece
from .guard import Ground, guard_pieces, unnamed
from .local import local_devices, local_routes
from .nowhere import barred_routes, closed_families, nowhere_links, nowhere_piece, nowhere_routes
from .rules import build_rules
from .sysctls import missing_sysctls, sysctls
from .tables import destination_routes, way_routes
from .twins import distinct, keep_first, refuse_twins
from .ways import SharedTables, Way, find_ways, tunnels_of


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the recipe makes of a declaration on one host."""

    desired: Desired
    ways: tuple[Way, ...]
    shared: SharedTables
    ready: frozenset[tuple[str, int]]  # (way, family) pairs that have a usable default now
    names: tuple[tuple[str, int], ...]  # tables to be named
    internal: tuple[str, ...] = ()  # host-internal devices
    warnings: tuple[str, ...] = ()


def build(declaration: Declaration, facts: Facts, *, patient: bool = False) -> Outcome:
    """The whole recipe for one set on one host.

    An address on two devices is refused when somebody declares; on a host that is left to itself (C(patient)) whoever
    had it first keeps it, and a warning says so.
    """
    _refuse_unknown_unbound(declaration)
    ways, shared = find_ways(declaration, facts)
    warnings = keep_first(ways, facts) if patient else refuse_twins(ways, facts)
    closed = closed_families(declaration, ways, facts)
    uplinks = [way for way in ways if not way.identity.by_tunnel]
    several = len({way.device for way in uplinks if way.device}) > 1
    routes = [r for way in ways for r in way_routes(way, declaration, facts, several_uplinks=several)]
    ready = frozenset((way.key, r.family) for way in ways for r in routes if _is_default_of(way, r))
    internal = _internal(declaration, ways, facts) if ways else []
    near = local_routes(_prefixes(declaration), internal, facts, shared.local, declaration.numbers.protocol)
    routes += near
    routes += [r for way in ways for r in destination_routes(way, declaration, facts)]
    routes += nowhere_routes(closed, shared, declaration.numbers.protocol)
    routes += barred_routes(facts, shared, declaration.numbers.protocol)
    links = nowhere_links(closed, shared)
    ground = _ground(declaration, ways, facts, internal, near)
    wanted, left_out = distinct((*routes, *declaration.routes), declaration, patient=patient)
    desired = Desired(
        rules=(*build_rules(declaration, ways, shared, ready, facts), *declaration.rules),
        routes=wanted,
        groups=_groups(declaration, ways, facts, several=several),
        sysctls=sysctls(declaration, ways, facts),
        links=links,
        guard=assemble(
            table_of(declaration.name),
            [
                *guard_pieces(declaration, ground),
                nowhere_piece(links),
                follow_piece(declaration, ways, facts),
            ],
        ),
    )
    warnings += [*left_out, *missing_sysctls(ways, facts, desired.sysctls)]
    warnings += unnamed(ground) if desired.guard else []
    names = _names(declaration, ways, shared)
    return Outcome(desired, tuple(ways), shared, ready, names, tuple(internal), tuple(warnings))


def _is_default_of(way: Way, route: Route) -> bool:
    return route.table == way.table and route.dst in ("0.0.0.0/0", "::/0")


def _refuse_unknown_unbound(declaration: Declaration) -> None:
    tunnels = [identity.name for identity in declaration.identities]
    if declaration.unbound != "keep" and declaration.unbound not in tunnels:
        raise InvalidInput(
            "is no identity of this set",
            field="unbound",
            value=declaration.unbound,
            accepted=", ".join(["keep", *tunnels]),
        )


def _prefixes(declaration: Declaration) -> list[str]:
    return [entry for entry in declaration.local_networks if "/" in entry]


def _internal(declaration: Declaration, ways: t.Sequence[Way], facts: Facts) -> list[str]:
    devices = {way.device for way in ways if way.device}
    outside = devices | set(uplink_devices(facts, tunnels_of(ways)))
    return local_devices(declaration.local_networks, facts, outside)


def _carriers(ways: t.Sequence[Way], facts: Facts) -> set[str]:
    """The devices of uplinks, also where a tunnel's egress is the uplink, as with policy-based IPsec."""
    uplinks = {way.device for way in ways if not way.identity.by_tunnel and way.device}
    return uplinks | set(uplink_devices(facts, tunnels_of(ways)))


def _ground(
    declaration: Declaration, ways: t.Sequence[Way], facts: Facts, internal: t.Sequence[str], near: t.Sequence[Route]
) -> Ground:
    """What the guard has to know. A prefix that is declared to be internal makes its devices so, uplinks apart."""
    carriers = _carriers(ways, facts)
    behind = {device for route in near for device in devices_of(route)} - carriers
    return Ground(
        tuple(ways), tuple(sorted(carriers)), tuple(sorted({*internal, *behind})), tuple(_prefixes(declaration))
    )


def _groups(declaration: Declaration, ways: t.Sequence[Way], facts: Facts, *, several: bool) -> tuple[LinkGroup, ...]:
    """The devices whose routes in main do not count for an uplink's address."""
    uplinks = {way.device for way in ways if not way.identity.by_tunnel and way.device}
    grouped = (tunnels_of(ways) - _carriers(ways, facts)) | (uplinks if several else set())
    return tuple(LinkGroup(name, declaration.numbers.group) for name in sorted(grouped) if facts.link(name))


def _names(declaration: Declaration, ways: t.Sequence[Way], shared: SharedTables) -> tuple[tuple[str, int], ...]:
    """Table names, the set's name among them unless it is the usual one, between dots, which neither it nor an
    identity's name can have.
    """
    prefix = "fleetvpn_" if declaration.name == "main" else f"fleetvpn.{declaration.name}."
    own = {**shared.by_key(), **{way.key: way.table for way in ways}}
    named = tuple((f"{prefix}{key}", table) for key, table in own.items())
    return (*declaration.tables, *named) if ways else declaration.tables
