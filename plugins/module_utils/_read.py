# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Reading a host: facts for the recipe, and what of our objects the kernel holds."""

from __future__ import annotations

import contextlib
import typing as t

from ._adopt import is_twin
from ._errors import Conflict, NotPermitted, NotSupported
from ._model.fields import KERNEL
from ._model.guard import Guard
from ._model.operation import LinkGroup, OwnLink, Sysctl
from ._model.path import ERRORS
from ._model.route import Route
from ._model.rule import Rule, marks_meet
from ._plan import Current, Desired
from ._recipe.facts import MAIN, Facts, Remembered
from ._sets import Scope

if t.TYPE_CHECKING:
    from ._reading import Readable

FAMILIES = (4, 6)
LOCAL_TABLE = 255
STRONGSWAN_TABLE = 220
NAMED = 3  # of many objects alike in a warning


def read_facts(
    kernel: Readable,
    remembered: t.Mapping[str, Remembered],
    tunnels: t.Mapping[str, str],
    leases: t.Mapping[str, tuple[str, ...]],
    taken: t.AbstractSet[int],
    protocol: int,
) -> Facts:
    """What the recipe needs to know. C(taken) are tables that other sets, foreign rules or names already have."""

    def is_free(table: int) -> bool:
        """No set has the table, and nobody else has routes in it."""
        return table not in taken and not any(
            route.protocol != protocol for family in FAMILIES for route in kernel.routes(family, table=table)
        )

    return Facts(
        links=tuple(kernel.links()),
        addresses=tuple(kernel.addresses()),
        main=tuple(route for family in FAMILIES for route in kernel.routes(family, table=MAIN)),
        tunnels=tunnels,
        leases=leases,
        remembered=remembered,
        is_free=is_free,
        sysctl=kernel.sysctl,
    )


def read_current(kernel: Readable, desired: Desired, scope: Scope) -> Current:
    """What the kernel holds of what this set owns or wants, from a fresh dump."""
    tables = {route.table for route in desired.routes} | {route.table for route in scope.recorded_routes}
    asked = {route.key for route in desired.routes}
    own = [
        route
        for family in FAMILIES
        for route in kernel.routes(family, protocol=scope.numbers.protocol)
        if scope.owns_route(route, tables - {MAIN}) or (route.key in asked and not scope.is_foreign(route))
    ]
    wanted = set(desired.rules)
    rules = [
        rule
        for family in FAMILIES
        for rule in kernel.rules(family)
        if scope.owns_rule(rule) or _ours(rule, wanted, scope)
    ]
    groups = [LinkGroup(link.name, link.group) for link in kernel.links()]
    occupied = tuple(_occupied(kernel, desired, scope))
    return Current(
        rules=tuple(rules),
        routes=tuple(own),
        occupied=occupied,
        groups=tuple(groups),
        sysctls=tuple(_sysctls(kernel, desired)),
        links=tuple(_own_links(kernel, desired, scope)),
        guard=_held_guard(kernel, desired, scope),
    )


def _own_links(kernel: Readable, desired: Desired, scope: Scope) -> t.Iterator[OwnLink]:
    """Devices that this set has made, or that it shares with another."""
    asked = {link.name for link in desired.links}
    for link in kernel.links():
        if link.name in asked | scope.links:
            yield OwnLink(link.name, link.up)


def _sysctls(kernel: Readable, desired: Desired) -> t.Iterator[Sysctl]:
    for wanted in (*desired.sysctls, *desired.loosened):
        value = kernel.sysctl(wanted.name)
        if value is not None:
            yield Sysctl(wanted.name, value)


def _held_guard(kernel: Readable, desired: Desired, scope: Scope) -> Guard | None:
    """Our nftables table, looked for only where it may be: that starts a program."""
    held = None
    if desired.guard or scope.recorded_guards or scope.unfinished:
        # Who may not look, as check mode without privilege, has no set yet; who has no nft has been told.
        with contextlib.suppress(NotSupported, NotPermitted):
            held = kernel.guard(scope.guard_table)
    if held is None or scope.owns_guard(held):
        return held
    if desired.guard is not None:
        raise Conflict(
            "is somebody else's: no set has it in its record",
            field="nftables",
            value=held.text(),
            accepted=f"that table removed by its owner (nft delete {held.text()}), or strict_egress: false",
        )
    return None


def _ours(rule: Rule, wanted: t.Container[Rule], scope: Scope) -> bool:
    """A rule outside the block that is asked for (twins compare equal, so the protocol decides)."""
    return rule in wanted and rule.protocol == scope.numbers.protocol


def _occupied(kernel: Readable, desired: Desired, scope: Scope) -> t.Iterator[Route]:
    """Foreign routes in the tables that we write, main apart: there our metric keeps us clear of others."""
    for table in sorted({route.table for route in desired.routes}):
        for family in FAMILIES:
            for route in kernel.routes(family, table=table):
                if route.protocol != scope.numbers.protocol or scope.is_foreign(route):
                    yield route


def foreign_tables(kernel: Readable, scope: Scope) -> set[int]:
    """Tables that somebody else's rules look up."""
    rules = [rule for family in FAMILIES for rule in kernel.rules(family)]
    return {rule.table for rule in rules if rule.table is not None and rule.protocol != scope.numbers.protocol}


def preflight(kernel: Readable, desired: Desired, scope: Scope, *, adopt: bool = False) -> list[str]:
    """Refuse a host whose C(local) rule is not in front; name the foreign rules ahead of ours, and twins that stay."""
    warnings = []
    wanted = set(desired.rules)
    for family in sorted({rule.family for rule in wanted}):
        rules = kernel.rules(family)
        _refuse_late_local(rules, family, scope.numbers.priority_base)
        staying = [rule for rule in rules if not (adopt and is_twin(rule, wanted, scope))]
        warnings += [text for rule in staying if (text := _in_the_way(rule, wanted, scope)) is not None]
        if any(rule.family == family and rule.table == MAIN for rule in wanted):
            warnings += _error_routes(kernel.routes(family, table=MAIN), scope.numbers.protocol)
    return list(dict.fromkeys(warnings))


def shared_marks(kernel: Readable, scope: Scope, mask: int) -> list[str]:
    """Foreign rules that look at the bits of our marks: one program's marks would be taken for the other's."""
    foreign = [rule for family in FAMILIES for rule in kernel.rules(family) if rule.protocol != scope.numbers.protocol]
    return [f"foreign rule with bits of our marks: {rule.text()}" for rule in foreign if marks_meet(rule, mask)]


def _error_routes(main: t.Iterable[Route], protocol: int) -> list[str]:
    """An error ends a lookup where a route that leads nowhere for us would be passed over: it cannot be mended here."""
    found = [r.text() for r in main if r.type in ERRORS and r.protocol not in (protocol, KERNEL)]
    more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
    named = ", ".join(found[:NAMED])
    return [f"error routes in main end the lookup of an uplink's address: {named}{more}"] if found else []


def _refuse_late_local(rules: t.Sequence[Rule], family: int, base: int) -> None:
    local = [rule.priority for rule in rules if rule.action == "lookup" and rule.table == LOCAL_TABLE]
    if not local or min(local) >= base:
        raise Conflict(
            f"the kernel's rule for table local must stand ahead of our rules (IPv{family})",
            field="numbers.priority_base",
            value=base,
            accepted="that rule at priority 0, where the kernel puts it",
        )


def _in_the_way(rule: Rule, wanted: t.Container[Rule], scope: Scope) -> str | None:
    if rule.protocol == scope.numbers.protocol or rule.table == LOCAL_TABLE:
        return None
    if rule in wanted:
        return f"foreign twin (protocol {rule.protocol}) of a rule of ours: {rule.text()}"
    if rule.priority < scope.numbers.priority_base:
        return f"foreign rule ahead of ours: {rule.text()}{_whose(rule)}"
    return None


def _whose(rule: Rule) -> str:
    """What a rule that is known means for us."""
    if rule.action != "lookup" or rule.table != STRONGSWAN_TABLE:
        return ""
    return (
        " (strongSwan's: what an uplink's address answers to the networks of its selectors follows its routes;"
        " role fleetvpn.routing.vpn_ipsec lets it stand behind ours from its next start)"
    )
