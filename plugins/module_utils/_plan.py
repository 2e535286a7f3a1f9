# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Desired against current: the ordered difference, as a value. Nothing here touches a kernel.

The order is the safety: after each single operation no packet leaves by a wrong device. Devices of our own and the
nftables table come first and go last. Routes and device groups go in before the rules that look them up, groups behind
the routes that replace what main answered before; rules in the order of their desired list (which the recipe makes
safe), then routes in main that draw unbound traffic. Sysctls change once the rules are there that strict reverse-path
filtering asks, and back while they still are. What is no longer asked for goes out in the opposite order, the backstop
of an identity after all else of it. A foreign rule that is taken over goes once ours stands beside it.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ._errors import Conflict
from ._model.guard import Guard
from ._model.operation import LinkGroup, Operation, OwnLink, Sysctl
from ._model.route import Route
from ._model.rule import Rule

MAIN = 254

Setting = t.TypeVar("Setting", LinkGroup, Sysctl)


@dataclasses.dataclass(frozen=True)
class Desired:
    """What is asked for. The order of C(rules) is the order in which they may safely appear."""

    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    groups: tuple[LinkGroup, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    restored: tuple[LinkGroup, ...] = ()  # devices that get back the group which they had before us
    loosened: tuple[Sysctl, ...] = ()  # sysctls that get back their value
    links: tuple[OwnLink, ...] = ()
    guard: Guard | None = None


@dataclasses.dataclass(frozen=True)
class Current:
    """What the kernel holds of it.

    C(rules) and C(routes) are ours (duplicates included); C(occupied) are foreign routes in tables that we write;
    C(groups) are the groups of all devices, C(sysctls) those that are asked for or put back.
    """

    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    occupied: tuple[Route, ...] = ()
    groups: tuple[LinkGroup, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    links: tuple[OwnLink, ...] = ()  # that are ours to remove, or that are asked for
    guard: Guard | None = None
    twins: tuple[Rule | Route, ...] = ()  # foreign, and to be taken over


@dataclasses.dataclass(frozen=True)
class Plan:
    """The ordered difference."""

    operations: tuple[Operation, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done."""
        return not self.operations

    def inverse(self) -> Plan:
        """What takes the plan back, last operation first."""
        return Plan(tuple(operation.inverse() for operation in reversed(self.operations)))

    def as_result(self) -> list[dict[str, t.Any]]:
        """The operations as modules return them."""
        return [
            {"op": o.op, "kind": o.kind, "family": _family_name(o.target), "text": o.text()} for o in self.operations
        ]


def make_plan(desired: Desired, current: Current) -> Plan:
    """The operations that lead from C(current) to C(desired). Raises Conflict where a foreign route is in the way."""
    _refuse_occupied(desired.routes, current.occupied)
    incoming, outgoing = _route_changes(desired.routes, current.routes, _twin_routes(current))
    steps = [
        *_missing_links(desired.links, current.links),
        *_guard_change(desired.guard, current.guard),
        *(o for o in incoming if not _draws_unbound(o)),
        *_settings(desired.groups, current.groups),
        *_missing_rules(desired.rules, current.rules),
        *(o for o in incoming if _draws_unbound(o)),
        *_settings((*desired.sysctls, *desired.loosened), current.sysctls),
        *(o for o in outgoing if _draws_unbound(o)),
        *_surplus_rules(desired.rules, current.rules),
        *(Operation("remove", twin, adopted=True) for twin in current.twins if isinstance(twin, Rule)),
        *_settings(desired.restored, current.groups),
        *(o for o in outgoing if not _draws_unbound(o)),
        *_surplus_links(desired.links, current.links),
    ]
    leaving = [Operation("remove", current.guard)] if current.guard and not desired.guard else []
    return Plan((*steps, *_second_look(steps, desired.rules), *leaving))


def _guard_change(desired: Guard | None, current: Guard | None) -> t.Iterator[Operation]:
    if desired is not None and current is None:
        yield Operation("add", desired)
    elif desired is not None and desired != current:
        yield Operation("replace", desired, current)


def _second_look(steps: t.Sequence[Operation], rules: t.Sequence[Rule]) -> t.Iterator[Operation]:
    """A rule that comes and goes, where an IPv6 route appeared and no rule changed.

    A connected IPv6 socket keeps its path, for good, when a route appears in a table that rules look up before the one
    its path came from. Any change of a rule makes it look again. IPv4 needs no such help.
    """
    changed = [step.target for step in steps if step.op == "add"]
    appeared = any(isinstance(target, Route) and target.family == 6 and target.table != MAIN for target in changed)
    told = any(isinstance(step.target, Rule) and step.target.family == 6 for step in steps)
    end = next((rule for rule in rules if rule.family == 6 and rule.action == "nop"), None)
    if appeared and not told and end is not None:
        passing = dataclasses.replace(end, iif="lo")
        yield Operation("add", passing)
        yield Operation("remove", passing)


def _family_name(target: object) -> str | None:
    family = getattr(target, "family", None)
    return None if family is None else f"ipv{family}"


def _draws_unbound(operation: Operation) -> bool:
    """Whether a route operation is in main, where it decides for traffic without a source."""
    return isinstance(operation.target, Route) and operation.target.table == MAIN


def _refuse_occupied(desired: t.Iterable[Route], occupied: t.Iterable[Route]) -> None:
    foreign = {route.key: route for route in occupied}
    for route in desired:
        if route.key in foreign:
            raise Conflict(
                f"stands in the way of {route.text()!r} and belongs to protocol {foreign[route.key].protocol}",
                field=f"table {route.table}",
                value=foreign[route.key].text(),
                accepted="another table, that route removed by its owner, or adopt: true if it leads the same way",
            )


def _missing_links(desired: t.Sequence[OwnLink], current: t.Sequence[OwnLink]) -> t.Iterator[Operation]:
    found = {link.name: link for link in current}
    for link in desired:
        if link.name not in found:
            yield Operation("add", link)
        elif found[link.name] != link:
            yield Operation("set", link, found[link.name])


def _surplus_links(desired: t.Sequence[OwnLink], current: t.Sequence[OwnLink]) -> list[Operation]:
    wanted = {link.name for link in desired}
    return [Operation("remove", link) for link in current if link.name not in wanted]


def _settings(desired: t.Sequence[Setting], current: t.Sequence[Setting]) -> t.Iterator[Operation]:
    """Values of what is always there, as long as its device is."""
    found = {entry.name: entry for entry in current}
    for entry in desired:
        if entry.name in found and found[entry.name] != entry:
            yield Operation("set", entry, found[entry.name])


def _twin_routes(current: Current) -> dict[object, Route]:
    return {twin.key: twin for twin in current.twins if isinstance(twin, Route)}


def _route_changes(
    desired: t.Sequence[Route], current: t.Sequence[Route], twins: t.Mapping[object, Route]
) -> tuple[list[Operation], list[Operation]]:
    """Additions and replacements in one list, removals in the other.

    IPv6 may hold several routes of one key, by several devices; then one of them is kept or replaced. A twin is
    replaced in its place, so that there is always a route.
    """
    present: dict[object, list[Route]] = collections.defaultdict(list)
    for route in current:
        present[route.key].append(route)
    incoming = []
    for route in sorted(desired, key=_reachability):
        held = present[route.key]
        kept = next((other for other in held if route.satisfied_by(other)), held[0] if held else None)
        if kept is None:
            twin = twins.get(route.key)
            incoming.append(Operation("replace", route, twin, adopted=True) if twin else Operation("add", route))
            continue
        if not route.satisfied_by(kept):
            incoming.append(Operation("replace", route, kept))
        held.remove(kept)
    return incoming, [Operation("remove", route) for held in present.values() for route in held]


def _reachability(route: Route) -> bool:
    """Routes without a gateway first: the kernel checks a gateway against them."""
    return route.gateway is not None or bool(route.nexthops)


def _missing_rules(desired: t.Sequence[Rule], current: t.Sequence[Rule]) -> t.Iterator[Operation]:
    present = set(current)
    return (Operation("add", rule) for rule in desired if rule not in present)


def _surplus_rules(desired: t.Sequence[Rule], current: t.Sequence[Rule]) -> list[Operation]:
    """Rules nobody asks for, and second copies of those that somebody does."""
    wanted = set(desired)
    surplus = [
        rule
        for rule, count in collections.Counter(current).items()
        for _copy in range(count - 1 if rule in wanted else count)
    ]
    uplinks = {rule.src for rule in surplus if rule.src and rule.table == MAIN}
    return [Operation("remove", rule) for rule in sorted(surplus, key=lambda rule: _leaving_order(rule, uplinks))]


def _leaving_order(rule: Rule, uplinks: t.AbstractSet[str | None]) -> tuple[int, int]:
    """Lookups of tunnels first, in the order of the kernel's walk, then their backstops; what exempts the uplink from
    them stays longer and leaves from its end, so that an uplink's address is never without a way; targets of goto last.
    """
    if rule.action == "nop":
        return (3, rule.priority)
    if rule.action == "goto" or rule.src in uplinks:
        return (2, -rule.priority)
    if rule.action in ("unreachable", "blackhole", "prohibit"):
        return (1, rule.priority)
    return (0, rule.priority)
