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

from ._adopt import with_twins
from ._borrowed import groups_before, loosened_sysctls, restored_groups, sysctls_before
from ._model.guard import Guard
from ._parse import parse_declaration
from ._path_options import UNCHANGED
from ._plan import Plan, make_plan
from ._policies import unencrypted
from ._questions import Questions
from ._read import foreign_tables, preflight, read_current, read_facts, shared_marks
from ._reading import Reading
from ._recipe import build
from ._recipe.ways import Way
from ._record import Record, objects_from
from ._refuse import fitted, refuse_foreign_links, refuse_lost_gotos, why_unguarded
from ._request import Request, Result, Situation, Surroundings
from ._sets import choose_numbers, refuse_found, refuse_shared, remembered, scope_of
from ._verify import identity_paths
from ._work import Work

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
    warnings = [
        *situation.outcome.warnings,
        *preflight(reading, situation.desired, situation.scope, adopt=request.adopt),
        *unencrypted(reading, situation.outcome.ways),
    ]
    if situation.declaration.mark is not None:
        warnings += shared_marks(reading, situation.scope, situation.declaration.mark[1])
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
    mine, others, unfinished = _records(host, request.name)
    record = mine[0] if mine else None
    numbers = choose_numbers(request.params.get("numbers") or {}, record, others)
    declaration = parse_declaration(request.name, {} if request.absent else request.params, numbers, host.table)
    declaration = fitted(declaration, kernel, patient=not request.undo_wrong)
    refuse_shared(declaration, others)
    if request.undo_wrong:  # at boot a name holds nothing up
        host.refuse_contradiction(declaration.tables)
    scope = scope_of(numbers, mine, others.values(), name=request.name, unfinished=unfinished)
    taken = set(scope.foreign_tables) | foreign_tables(kernel, scope) | _named_by_others(host, record)
    facts = read_facts(kernel, remembered(record), host.tunnels(declaration), host.gateways(), taken, numbers.protocol)
    outcome = build(declaration, facts, patient=not request.undo_wrong)
    refuse_foreign_links(outcome.desired.links, {n for each in (*mine, *others.values()) for n in each.links}, kernel)
    leaves = scope.owns_rule if request.prune else lambda _rule: False
    refuse_lost_gotos(declaration.rules, outcome.desired.rules, kernel, leaves)
    refuse_found(outcome.ways, others)
    unguarded = why_unguarded(declaration, outcome.desired.guard, kernel, patient=not request.undo_wrong)
    desired = dataclasses.replace(
        outcome.desired,
        restored=restored_groups(record, outcome.desired, facts, numbers.group),
        loosened=loosened_sysctls(record, others.values(), outcome.desired, facts),
        guard=None if unguarded else outcome.desired.guard,
    )
    return Situation(declaration, record, tuple(others.values()), scope, facts, outcome, desired, unguarded)


def _records(host: Surroundings, name: str) -> tuple[list[Record], dict[str, Record], bool]:
    """The records of this set, the current one first and one that was begun after it, and those of the others.

    The last part tells whether one of this set was begun and never finished.
    """
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
    return [*mine, *begun], others, bool(begun)


def _named_by_others(host: Surroundings, record: Record | None) -> set[int]:
    own = set(record.names) if record else set()
    return {number for name, number in host.named_tables().items() if name not in own}


def _difference(kernel: Readable, situation: Situation, request: Request) -> Plan:
    """The plan from a fresh dump."""
    current = read_current(kernel, situation.desired, situation.scope)
    if request.adopt:
        current = with_twins(current, kernel, situation.desired, situation.scope)
    plan = make_plan(situation.desired, current)
    if request.prune or request.absent:
        return plan
    return Plan(tuple(o for o in plan.operations if o.op != "remove" or o.adopted))


def _record(situation: Situation, request: Request, plan: Plan) -> Record:
    """What this run will have put into the kernel, if it succeeds."""
    rules, routes = set(situation.desired.rules), set(situation.desired.routes)
    if not request.prune:
        rules |= situation.scope.recorded_rules
        routes |= situation.scope.recorded_routes
    before, desired, facts = situation.record, situation.desired, situation.facts
    ways = situation.outcome.ways
    return Record(
        declaration=dict(request.params),
        objects=objects_from(rules, routes, _kept_guard(situation, request)),
        groups=groups_before(before, desired, facts, situation.declaration.numbers.group),
        links=[link.name for link in desired.links],
        sysctls=sysctls_before(before, situation.others, desired, facts),
        tables={**situation.outcome.shared.by_key(), **{way.key: way.table for way in ways}} if ways else {},
        names=dict(situation.outcome.names),
        identities=[_entry(way) for way in ways],
        numbers=dataclasses.asdict(situation.declaration.numbers),
        meta={**request.meta, "when": _now(), "digest": _digest(plan)},
    )


def _kept_guard(situation: Situation, request: Request) -> Guard | None:
    recorded = None if request.prune else next(iter(situation.scope.recorded_guards), None)
    return situation.desired.guard or recorded


def _entry(way: Way) -> dict[str, t.Any]:
    """What the next run has to know of a way."""
    return {**way.as_result(), "required": way.identity.required, "retired": list(way.retired)}


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
