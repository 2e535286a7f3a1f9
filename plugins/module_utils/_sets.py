# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Several sets on one host: what belongs to this one, and what may not be shared with another."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import typing as t

from ._errors import Conflict, InvalidInput
from ._model import fields
from ._model.declaration import Declaration, Numbers
from ._model.fields import family_of
from ._model.guard import Guard, table_of
from ._model.route import Route
from ._model.rule import Rule
from ._recipe.block import BLOCK
from ._recipe.facts import Remembered
from ._record import Record, guard_of, objects_of

if t.TYPE_CHECKING:
    from ._recipe.ways import Way

TABLE_RANGE = 1000  # tables that a base claims, as the block claims priorities
# Of what is not the kernel's: a block that ends ahead of the rule for main, tables behind local.
LIMITS = {
    "priority_base": (1, fields.RESERVED_PRIORITIES[1] - BLOCK),
    "table_base": (fields.RESERVED_TABLES["local"] + 1, fields.U32_MAX - TABLE_RANGE + 1),
    "protocol": (5, 255),  # below are redirect, kernel, boot and static
    "group": (1, fields.U32_MAX - 1),  # 0 is every device's, and the last one means none in a rule
}


@dataclasses.dataclass(frozen=True)
class Scope:
    """Which of the kernel's objects this set owns: they carry our protocol and nobody else has them in its record."""

    numbers: Numbers
    recorded_rules: frozenset[Rule]
    recorded_routes: frozenset[Route]
    foreign_rules: frozenset[Rule]  # of other sets
    foreign_routes: frozenset[Route]
    foreign_tables: frozenset[int]
    links: frozenset[str] = frozenset()  # devices that this set alone has made
    guard_table: str = ""
    recorded_guards: tuple[Guard, ...] = ()
    unfinished: bool = False  # a run was killed, and what it found may be in no record any more

    def owns_rule(self, rule: Rule) -> bool:
        """A rule of our block, or one that this set wrote down."""
        if rule.protocol != self.numbers.protocol or rule in self.foreign_rules:
            return False
        base = self.numbers.priority_base
        return base <= rule.priority < base + BLOCK or rule in self.recorded_rules

    def owns_route(self, route: Route, tables: t.Container[int]) -> bool:
        """A route in a table of this set, or one that it wrote down."""
        if route.protocol != self.numbers.protocol or self.is_foreign(route):
            return False
        base = self.numbers.table_base
        claimed = route.table in tables or base <= route.table < base + TABLE_RANGE
        return claimed or route.key in self._recorded_keys

    def owns_guard(self, guard: Guard) -> bool:
        """A table that carries our mark, or stands where this set wrote one down."""
        return guard.marked or bool(self.recorded_guards)

    def is_foreign(self, route: Route) -> bool:
        """Whether another set has the route in its record."""
        return route.table in self.foreign_tables or route.key in self._foreign_keys

    @functools.cached_property
    def _recorded_keys(self) -> frozenset[object]:
        return frozenset(route.key for route in self.recorded_routes)

    @functools.cached_property
    def _foreign_keys(self) -> frozenset[object]:
        return frozenset(route.key for route in self.foreign_routes)


def scope_of(
    numbers: Numbers,
    mine: t.Sequence[Record],
    others: t.Iterable[Record],
    *,
    name: str = "main",
    unfinished: bool = False,
) -> Scope:
    """The scope of a set, from its own records (current and begun) and those of the others."""
    rules, routes = _objects(mine)
    guards = tuple(guard for record in mine if (guard := guard_of(record)) is not None)
    other_rules, other_routes = _objects(records := list(others))
    tables = frozenset(number for record in records for number in _tables(record))
    links = frozenset(link for record in mine for link in record.links)
    links -= {link for record in records for link in record.links}
    return Scope(numbers, rules, routes, other_rules, other_routes, tables, links, table_of(name), guards, unfinished)


def _objects(records: t.Iterable[Record]) -> tuple[frozenset[Rule], frozenset[Route]]:
    pairs = [objects_of(record) for record in records]
    rules = frozenset(rule for rules, _routes in pairs for rule in rules)
    return rules, frozenset(route for _rules, routes in pairs for route in routes)


def choose_numbers(stated: t.Mapping[str, t.Any], mine: Record | None, others: t.Mapping[str, Record]) -> Numbers:
    """Explicit wins, else what this set has, else (for the block of priorities) the next one that no other set has."""
    given = {key: value for key, value in stated.items() if value is not None}
    kept = mine.numbers if mine else {}
    taken = {record.numbers.get("priority_base", 0): name for name, record in others.items()}
    base = Numbers.priority_base
    while any(abs(base - other) < BLOCK for other in taken):
        base += BLOCK
    chosen = {} if "priority_base" in kept else {"priority_base": base}
    numbers = Numbers(**{**kept, **_read({**chosen, **given})})
    _refuse_shared_block(numbers, taken)
    return numbers


def _read(stated: t.Mapping[str, t.Any]) -> dict[str, int]:
    """The numbers that were written, each within its limits. What a set has already is not asked again."""
    found = {key: fields.number(value, f"numbers.{key}", *LIMITS[key]) for key, value in stated.items()}
    if found.get("protocol") == fields.TASK_PROTOCOL:
        raise InvalidInput(
            "is that of single tasks",
            field="numbers.protocol",
            value=stated["protocol"],
            accepted=f"5 to 255 except {fields.TASK_PROTOCOL}",
        )
    return found


def _refuse_shared_block(numbers: Numbers, taken: t.Mapping[int, str]) -> None:
    for other, name in taken.items():
        if abs(numbers.priority_base - other) < BLOCK:
            raise Conflict(
                f"is inside the block of set {name} ({other} to {other + BLOCK - 1})",
                field="numbers.priority_base",
                value=numbers.priority_base,
                accepted=f"{BLOCK} priorities that no other set has",
            )


def remembered(record: Record | None) -> dict[str, Remembered]:
    """What the record knows of each way."""
    if record is None:
        return {}
    known = {entry["key"]: entry for entry in record.identities}
    return {key: _remembered(table, known.get(key, {})) for key, table in record.tables.items()}


def _remembered(table: int, entry: t.Mapping[str, t.Any]) -> Remembered:
    return Remembered(
        table,
        entry.get("interface"),
        *(tuple(entry.get(key, ())) for key in ("addresses", "gateways", "retired")),
    )


def refuse_shared(declaration: Declaration, others: t.Mapping[str, Record]) -> None:
    """Two sets may not share an address, a pool, a table, its name, a priority or a destination. Raises Conflict."""
    for name, record in others.items():
        for identity in declaration.identities:
            _refuse_claimed(name, record, "addresses", identity.addresses, _addresses(record))
            inside = identity.addresses if identity.by_tunnel else ()
            _refuse_claimed(name, record, "addresses", _in_pools(inside, record), set(inside))
            _refuse_claimed(name, record, "pools", _overlapping(identity.pools, record), set(identity.pools))
            _refuse_claimed(name, record, "table", [identity.table], _tables(record))
            _refuse_claimed(name, record, "destinations", identity.destinations, _destinations(record))
        _refuse_claimed(name, record, "tables", [named for named, _number in declaration.tables], record.names)
        _refuse_shared_rules(name, record, declaration)
        _refuse_shared_routes(name, record, declaration)


def _refuse_shared_rules(name: str, record: Record, declaration: Declaration) -> None:
    base = record.numbers.get("priority_base", Numbers.priority_base)
    stated = {rule.priority for rule in objects_of(record)[0]}
    priorities = [rule.priority for rule in declaration.rules]
    _refuse_claimed(name, record, "rules", priorities, stated | set(range(base, base + BLOCK)))
    theirs = record.declaration.get("mark")
    if theirs is not None and declaration.mark is not None and fields.mark(theirs, "mark")[1] & declaration.mark[1]:
        shared = f"{declaration.mark[0]:#x}/{declaration.mark[1]:#x}"
        _refuse_claimed(name, record, "mark", [shared], [shared])


def _refuse_shared_routes(name: str, record: Record, declaration: Declaration) -> None:
    keys = {route.key for route in objects_of(record)[1]}
    tables = _tables(record)
    shared = [route.text() for route in declaration.routes if route.table in tables or route.key in keys]
    _refuse_claimed(name, record, "routes", shared, set(shared))


def _tables(record: Record) -> set[int]:
    """The tables of a set: of its identities, and those that its routes are in; main is everybody's."""
    stated = {route.table for route in objects_of(record)[1]}
    return {*record.tables.values(), *(stated - set(fields.RESERVED_TABLES.values()))}


def _destinations(record: Record) -> set[str]:
    identities = record.declaration.get("identities") or ()
    return {fields.prefix(d, "destinations") for entry in identities for d in entry.get("destinations") or ()}


def refuse_found(ways: t.Sequence[Way], others: t.Mapping[str, Record]) -> None:
    """The same for addresses that were found on a device."""
    found = [address for way in ways for address in way.addresses]
    inside = [address for way in ways if way.identity.by_tunnel for address in way.addresses]
    for name, record in others.items():
        _refuse_claimed(name, record, "addresses", found, {*_addresses(record), *_in_pools(inside, record)})


def _addresses(record: Record) -> set[str]:
    return {address for entry in record.identities for address in entry.get("addresses", ())}


def _inside(record: Record) -> set[str]:
    """The addresses of its tunnels, also while no device has them. An uplink's is spared by every pool."""
    said = record.declaration.get("identities") or ()
    tunnels = [entry for entry in said if entry.get("tunnel") or entry.get("gateway") == ["none"]]
    stated = {fields.interface_address(a, "addresses") for entry in tunnels for a in entry.get("addresses") or ()}
    names = {entry["name"] for entry in tunnels}
    found = (entry for entry in record.identities if entry["key"].partition(".")[0] in names)
    return stated | {address for entry in found for address in entry.get("addresses", ())}


def _pools(record: Record) -> set[str]:
    return {pool for entry in record.identities for pool in entry.get("pools", ())}


def _in_pools(addresses: t.Iterable[str], record: Record) -> list[str]:
    return [address for address in addresses if _meets(address, _pools(record))]


def _overlapping(pools: t.Iterable[str], record: Record) -> list[str]:
    return [pool for pool in pools if _meets(pool, _pools(record) | _inside(record))]


def _meets(text: str, others: t.Iterable[str]) -> bool:
    """Whether an address or prefix has addresses in common with any of the others."""
    network: t.Any = ipaddress.ip_network(text)
    return any(
        family_of(other) == network.version and network.overlaps(ipaddress.ip_network(other)) for other in others
    )


def _refuse_claimed(
    name: str, record: Record, field: str, values: t.Sequence[object], claimed: t.Container[object]
) -> None:
    for value in values:
        if value in claimed:
            raise Conflict(
                f"is claimed by set {name} already",
                field=field,
                value=value,
                accepted="what no other set on this host claims",
            )
