# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What a delete takes: the kernel compares less than all of a rule or route, and so may take another one."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ._model.route import Route
from ._model.rule import Rule

if t.TYPE_CHECKING:
    from ._model.operation import Target
    from ._netlink_apply import Channel

# What a delete of a rule does not compare, whatever the request says.
_NOT_COMPARED = ("invert", "goto")


class Held:
    """What the kernel holds of what a delete can miss, read once, and kept up with the deletes asked about."""

    def __init__(self, kernel: Channel) -> None:
        self._kernel = kernel
        self._rules: dict[int, list[Rule]] = {}
        self._routes: dict[tuple[int, int], dict[t.Any, list[Route]]] = {}

    def misses(self, target: Target) -> bool:
        """Whether a delete of the rule C(target) would take something else."""
        return isinstance(target, Rule) and self._misses_rule(target)

    def takes(self, target: Target) -> Target | None:
        """What a delete of C(target) takes of the routes that are meant; None if there is none of them.

        Without a metric, a delete takes any; IPv6 routes always have one.
        """
        if not (isinstance(target, Route) and target.family == 4 and target.metric == 0):
            return target
        routes = self._routes_like(target).get(target.key, [])
        fitting = [route for route in routes if describes(target, route)]
        if not fitting:
            return None
        meant = target if target in fitting else fitting[0]
        routes.remove(meant)
        return target if meant == fitting[0] else fitting[0]

    def _misses_rule(self, target: Rule) -> bool:
        if target.family not in self._rules:
            self._rules[target.family] = self._kernel.rules(target.family)
        current = self._rules[target.family]
        hit = first_hit(target, current)
        if hit is not None and same(hit, target):
            current.remove(hit)
            return False
        return hit is not None

    def _routes_like(self, target: Route) -> dict[t.Any, list[Route]]:
        """Routes of its table and owner by key, which can be there more than once (append), in the kernel's order."""
        where = (target.table, target.protocol)
        if where not in self._routes:
            found = self._kernel.routes(4, table=target.table, protocol=target.protocol or None)
            self._routes[where] = collections.defaultdict(list)
            for route in found:
                self._routes[where][route.key].append(route)
        return self._routes[where]


def first_hit(target: Rule, rules: t.Iterable[Rule]) -> Rule | None:
    """The rule that a delete of C(target) removes: the first that agrees on everything that is not left out."""
    return next((rule for rule in rules if _agrees(target, rule)), None)


def _agrees(target: Rule, rule: Rule) -> bool:
    if target.protocol not in (0, rule.protocol) or target.priority != rule.priority:
        return False
    compared = (field.name for field in dataclasses.fields(Rule) if field.compare and field.name not in _NOT_COMPARED)
    return all(
        _is_any(name, getattr(target, name)) or getattr(target, name) == getattr(rule, name) for name in compared
    )


def _is_any(name: str, value: object) -> bool:
    """What a delete takes as any. A suppressor of 0 is one, a mark of 0 is none."""
    return value is None or value is False or (value == 0 and not name.startswith("suppress"))


def same(one: Rule, other: Rule) -> bool:
    return one == other and one.protocol == other.protocol


def count(wanted: Rule, rules: t.Iterable[Rule]) -> int:
    return sum(same(wanted, rule) for rule in rules)


def describes(target: Route, route: Route) -> bool:
    """Whether the kernel takes C(route), of the same key, for a delete of C(target)."""
    if (target.key, target.type, target.scope) != (route.key, route.type, route.scope):
        return False
    if target.nexthops and target.nexthops != route.nexthops:
        return False
    stated = ("gateway", "dev", "src", "nexthop_id", "mtu", "advmss")
    return all(getattr(target, name) in (None, getattr(route, name)) for name in stated)
