# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Foreign twins that option C(adopt) takes over: rules and routes that are asked for, and that somebody else made.

A rule's twin is all that the kernel matches on and does. A route's leads the same way to the same destination in the
same table; its source, MTU and the like become ours.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ._model.fields import KERNEL
from ._model.route import Route
from ._model.rule import Rule
from ._plan import Current, Desired
from ._sets import Scope

if t.TYPE_CHECKING:
    from ._reading import Readable


def with_twins(current: Current, kernel: Readable, desired: Desired, scope: Scope) -> Current:
    """The same with what is to be taken over, which then stands in nobody's way."""
    routes = _routes(current, desired, scope)
    keys = {route.key for route in routes}
    return dataclasses.replace(
        current,
        twins=(*_rules(kernel, desired, scope), *routes),
        occupied=tuple(route for route in current.occupied if route.key not in keys),
    )


def is_twin(rule: Rule, wanted: t.Container[Rule], scope: Scope) -> bool:
    """Whether a rule equals one that is asked for, and belongs neither to a set nor to the kernel itself."""
    foreign = rule.protocol not in (scope.numbers.protocol, KERNEL) and rule not in scope.foreign_rules
    return foreign and rule in wanted


def leads_alike(route: Route, foreign: Route) -> bool:
    """Whether a foreign route of the same key sends packets the way that C(route) would."""
    mine, theirs = ([(way.gateway, way.dev) for way in each.ways] for each in (route, foreign))
    devices = len(mine) == len(theirs) and all(dev in (None, other[1]) for (_via, dev), other in zip(mine, theirs))
    gateways = [gateway for gateway, _dev in mine] == [gateway for gateway, _dev in theirs]
    return devices and gateways and (route.type, route.nexthop_id) == (foreign.type, foreign.nexthop_id)


def _rules(kernel: Readable, desired: Desired, scope: Scope) -> t.Iterator[Rule]:
    wanted = set(desired.rules)
    for family in sorted({rule.family for rule in wanted}):
        yield from (rule for rule in kernel.rules(family) if is_twin(rule, wanted, scope))


def _routes(current: Current, desired: Desired, scope: Scope) -> list[Route]:
    """Only one that is alone: to exchange one of several would take the others with it."""
    asked = {route.key: route for route in desired.routes}
    count = collections.Counter(route.key for route in (*current.occupied, *current.routes))
    return [
        route
        for route in current.occupied
        if count[route.key] == 1
        and route.protocol != KERNEL
        and not scope.is_foreign(route)
        and route.key in asked
        and leads_alike(asked[route.key], route)
    ]
