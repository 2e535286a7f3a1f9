# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""From a declaration to a kernel that proves it: read, plan, apply, verify, persist.

Check mode is "do not call apply", and nothing else.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import typing as t

from ._model.operation import LinkGroup
from ._parse import parse_declaration
from ._path_options import UNCHANGED
from ._plan import Plan, make_plan
from ._questions import Questions
from ._read import foreign_tables, preflight, read_current, read_facts
from ._reading import Reading
from ._recipe import Outcome, build
from ._recipe.facts import Facts
from ._recipe.ways import Way
from ._record import Record, objects_from
from ._refuse import fitted, refuse_lost_gotos
from ._sets import choose_numbers, refuse_found, refuse_shared, remembered, scope_of
from ._verify import identity_paths
from ._work import Request, Result, Situation, Surroundings, Work

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._reading import Readable

__all__ = ["Request", "Result", "Surroundings", "converge", "prepare"]


def converge(kernel: Kernel, host: Surroundings, request: Request) -> Result:
    """Bring the kernel to what is asked for, and prove it; the caller holds the lock of the host.

    After a RoutingError the state is what it was before.
    """
    return prepare(kernel, host, request).run()


def prepare(kernel: Kernel, host: Surroundings, request: Request) -> Work:
    """Read, refuse and plan; nothing is changed, and no lock is needed."""
    reading = Reading(kernel)
    situation = _look(reading, host, request)
    warnings = preflight(reading, situation.desired, situation.scope)
    identities = identity_paths(situation.outcome, situation.facts)
    asked = [] if request.absent else [(f"paths[{at}]", path) for at, path in enumerate(request.paths)]
    kept = [(f"keep_paths[{at}]", {**path, "expect": UNCHANGED}) for at, path in enumerate(request.keep_paths)]
    questions = Questions(kernel, [*asked, *kept], identities, host.table)
    plan = _difference(reading, situation, request)
    record = _record(situation, request, plan)
    names = host.misnamed_tables(record.names, situation.record.names if situation.record else {})
    recorded = _is_stale(host, request, record)
    if request.waiting:
        names, recorded = [], False
    replan = functools.partial(_difference, kernel, situation, request)
    return Work(
        *(kernel, host, request, situation, questions, record, plan),
        *(tuple(names), recorded, replan, tuple(warnings)),
    )


def _look(kernel: Readable, host: Surroundings, request: Request) -> Situation:
    """Everything that is read, and everything that can be refused."""
    mine, others = _records(host, request.name)
    record = mine[0] if mine else None
    numbers = choose_numbers(request.params.get("numbers") or {}, record, others)
    declaration = parse_declaration(request.name, {} if request.absent else request.params, numbers, host.table)
    declaration = fitted(declaration, kernel, patient=not request.undo_wrong)
    refuse_shared(declaration, others)
    scope = scope_of(numbers, mine, others.values())
    taken = set(scope.foreign_tables) | foreign_tables(kernel, scope) | _named_by_others(host, record)
    facts = read_facts(kernel, remembered(record), host.tunnels(declaration), host.gateways(), taken, numbers.protocol)
    outcome = build(declaration, facts)
    refuse_lost_gotos(declaration.rules, outcome.desired.rules, kernel)
    refuse_found([address for way in outcome.ways for address in way.addresses], others)
    desired = dataclasses.replace(outcome.desired, restored=_restored(record, outcome, facts, numbers.group))
    return Situation(declaration, record, scope, facts, outcome, desired)


def _records(host: Surroundings, name: str) -> tuple[list[Record], dict[str, Record]]:
    """The records of this set, the current one first and one that was begun after it, and those of the others."""
    mine: list[Record] = []
    others: dict[str, Record] = {}
    begun: list[Record] = []
    for store in host.stores:
        found = store.read_all()
        mine += [record for key, record in found.items() if key == name]
        others.update({key: record for key, record in found.items() if key != name})
        pending = {key: record for key in store.names() if (record := store.pending(key)) is not None}
        begun += [record for key, record in pending.items() if key == name]
        others.update({f"{key} (begun)": record for key, record in pending.items() if key != name})
    return [*mine, *begun], others


def _named_by_others(host: Surroundings, record: Record | None) -> set[int]:
    own = set(record.names) if record else set()
    return {number for name, number in host.named_tables().items() if name not in own}


def _restored(record: Record | None, outcome: Outcome, facts: Facts, group: int) -> tuple[LinkGroup, ...]:
    """Devices that we moved into our group and no longer need there."""
    kept = {entry.name for entry in outcome.desired.groups}
    before = record.groups if record else {}
    ours = {link.name for link in facts.links if link.group == group}
    return tuple(LinkGroup(name, old) for name, old in sorted(before.items()) if name in ours - kept)


def _difference(kernel: Readable, situation: Situation, request: Request) -> Plan:
    """The plan from a fresh dump."""
    plan = make_plan(situation.desired, read_current(kernel, situation.desired, situation.scope))
    if request.prune or request.absent:
        return plan
    return Plan(tuple(operation for operation in plan.operations if operation.op != "remove"))


def _record(situation: Situation, request: Request, plan: Plan) -> Record:
    """What this run will have put into the kernel, if it succeeds."""
    rules, routes = set(situation.desired.rules), set(situation.desired.routes)
    if not request.prune:
        rules |= situation.scope.recorded_rules
        routes |= situation.scope.recorded_routes
    ways = situation.outcome.ways
    return Record(
        declaration=dict(request.params),
        objects=objects_from(rules, routes),
        groups=_groups_before(situation),
        tables={"local": situation.outcome.local, **{way.key: way.table for way in ways}} if ways else {},
        names=dict(situation.outcome.names),
        identities=[_entry(way) for way in ways],
        numbers=dataclasses.asdict(situation.declaration.numbers),
        meta={**request.meta, "when": _now(), "digest": _digest(plan)},
    )


def _entry(way: Way) -> dict[str, t.Any]:
    """What the next run has to know of a way."""
    return {**way.as_result(), "required": way.identity.required, "retired": list(way.retired)}


def _groups_before(situation: Situation) -> dict[str, int]:
    known = situation.record.groups if situation.record else {}
    ours = situation.declaration.numbers.group
    found = {link.name: 0 if link.group == ours else link.group for link in situation.facts.links}
    return {entry.name: known.get(entry.name, found[entry.name]) for entry in situation.desired.groups}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _digest(plan: Plan) -> str:
    return hashlib.sha256(json.dumps(plan.as_result(), sort_keys=True).encode()).hexdigest()


def _is_stale(host: Surroundings, request: Request, record: Record) -> bool:
    """Whether the files do not say what they will have to say."""
    holders = [store for store in host.stores if request.name in store.names()]
    if request.absent:
        return bool(holders)
    elsewhere = [store for store in holders if store.root != host.store.root]
    kept = host.store.read(request.name)
    unfinished = host.store.pending(request.name) is not None
    return kept is None or bool(elsewhere) or unfinished or _content(kept) != _content(record)


def _content(record: Record) -> Record:
    return dataclasses.replace(record, meta={}, fallback=False)
