# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""One address on two devices: the kernel takes that without a word, and then nobody can say whose it is."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import Conflict, InvalidInput
from .._model.declaration import Declaration
from .._model.route import Route
from .facts import LOOPBACK, Facts
from .ways import Way


def refuse_twins(ways: t.Sequence[Way], facts: Facts) -> list[str]:
    """Refuse an address of two ways, and one of a tunnel that sits on a second device. No warnings."""
    for address, first, other in _twins(ways):
        raise Conflict(
            f"is an address of {first.key} ({first.device}) and of {other.key} ({other.device})",
            field="identities",
            value=address,
            accepted="each address on one device and in one identity",
        )
    for way, address, holders in _second_holders(ways, facts):
        raise Conflict(
            "sits on several devices",
            field=f"identity {way.identity.name}: addresses",
            value=address,
            accepted=f"one of {', '.join(holders)}",
        )
    return []


def keep_first(ways: list[Way], facts: Facts) -> list[str]:
    """Leave an address of two ways to the one that had it, else to the first; one line for each that is held twice."""
    warnings = []
    for address, first, other in list(_twins(ways)):
        last = facts.remembered.get(other.key)
        owner, loser = (other, first) if last and address in last.addresses else (first, other)
        place = next(at for at, way in enumerate(ways) if way.key == loser.key)
        addresses = tuple(a for a in ways[place].addresses if a != address)
        ways[place] = dataclasses.replace(ways[place], addresses=addresses)
        warnings.append(f"{address} is on {owner.device} and on {loser.device}: {owner.key} had it first and keeps it")
    for way, address, holders in _second_holders(ways, facts):
        others = ", ".join(holder for holder in holders if holder != way.device)
        if not any(line.startswith(f"{address} ") for line in warnings):
            warnings.append(f"{address} of {way.key} ({way.device}) is on {others}, too")
    return warnings


def distinct(
    routes: t.Iterable[Route], declaration: Declaration, *, patient: bool
) -> tuple[tuple[Route, ...], list[str]]:
    """Each route once. Two that the kernel takes for one are refused; at boot the first stays, with a warning."""
    kept: dict[object, Route] = {}
    warnings = []
    for route in routes:
        other = kept.setdefault(route.key, route)
        if other != route and not patient:
            raise InvalidInput(
                f"stands in the way of {other.text()!r}",
                field=_stated_by(route, declaration),
                value=route.text(),
                accepted="one route for each table, destination, tos and metric",
            )
        if other != route:
            warnings.append(f"{route.text()} is left out: {other.text()} stands in its way")
    return tuple(kept.values()), warnings


def _stated_by(route: Route, declaration: Declaration) -> str:
    """The last option that asks for such a route."""
    leading = [at for at, identity in enumerate(declaration.identities) if route.dst in identity.destinations]
    asking = [f"identities[{at}].destinations" for at in leading]
    asking += [f"routes[{at}]" for at, stated in enumerate(declaration.routes) if stated == route]
    return asking[-1] if asking else f"table {route.table}"


def _twins(ways: t.Sequence[Way]) -> t.Iterator[tuple[str, Way, Way]]:
    owners: dict[str, Way] = {}
    for way in ways:
        for address in way.addresses:
            first = owners.setdefault(address, way)
            if first is not way:
                yield address, first, way


def _second_holders(ways: t.Sequence[Way], facts: Facts) -> t.Iterator[tuple[Way, str, list[str]]]:
    for way in ways:
        for address in way.addresses if way.identity.by_tunnel else ():
            holders = sorted({a.dev for a in facts.addresses if a.address == address} - {LOOPBACK})
            if len(holders) > 1:
                yield way, address, holders
