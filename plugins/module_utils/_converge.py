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
import hashlib
import json
import typing as t

from ._borrowed import groups_before, loosened_sysctls, restored_groups, sysctls_before
from ._errors import NotSupported, VerificationError
from ._model.declaration import Declaration
from ._model.guard import Guard
from ._parse import parse_declaration
from ._plan import Desired, Plan, make_plan
from ._questions import Questions
from ._read import foreign_tables, preflight, read_current, read_facts, shared_marks
from ._reading import Reading
from ._recipe import Outcome, build
from ._recipe.facts import Facts
from ._recipe.ways import Way
from ._refuse import fitted, refuse_foreign_links, refuse_lost_gotos, unguarded_warning, why_unguarded
from ._sets import Scope, choose_numbers, refuse_found, refuse_shared, remembered, scope_of
from ._store import Record, Store, objects_from
from ._verify import Proof, identity_paths, prove

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._reading import Readable

# A change can uncover another (a second copy of a rule, an object that came meanwhile); a kernel that needs more rounds
# than this is being fought over.
ROUNDS = 5


class Surroundings(t.Protocol):
    """The host around its kernel: files and VPN clients."""

    store: Store  # where this set is kept
    stores: t.Sequence[Store]  # all that may hold sets of this host

    def table(self, value: object, field: str) -> int:
        """The number of a table that the host knows by name or number."""

    def misnamed_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> list[str]:
        """The lines of the name file that name_tables would change, C(+) or C(-) in front."""

    def name_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> None:
        """Give tables their names, and take away those that are no longer wanted."""

    def named_tables(self) -> t.Mapping[str, int]:
        """All names that the host has."""

    def tunnels(self, declaration: Declaration) -> t.Mapping[str, str]:
        """The device of each tunnel identity that names none, as its VPN client has it. Refuses what cannot work."""

    def gateways(self) -> t.Mapping[str, tuple[str, ...]]:
        """Gateways by device, from leases and router advertisements."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One run for one set."""

    name: str
    params: t.Mapping[str, t.Any]  # the declaration as the user gave it
    paths: t.Sequence[t.Mapping[str, t.Any]] = ()
    absent: bool = False
    prune: bool = True
    dry_run: bool = False
    undo_wrong: bool = True  # whether a path that is proven wrong takes the change back
    meta: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run found and did."""

    plan: Plan
    names: tuple[str, ...]  # lines of rt_tables.d that changed
    recorded: bool  # whether the record had to be written
    proof: Proof
    paths: tuple[dict[str, t.Any], ...]
    warnings: tuple[str, ...]
    record: Record
    unguarded: NotSupported | None = None  # why the egress guard that is asked for cannot be had

    @property
    def changed(self) -> bool:
        """Whether anything was, or would be, changed."""
        return bool(self.plan.operations or self.names or self.recorded)


@dataclasses.dataclass(frozen=True)
class _Situation:
    """What is known before the first change."""

    declaration: Declaration
    record: Record | None
    others: tuple[Record, ...]  # of the other sets
    scope: Scope
    facts: Facts
    outcome: Outcome
    desired: Desired
    unguarded: NotSupported | None


def converge(kernel: Kernel, host: Surroundings, request: Request) -> Result:
    """Bring the kernel to what is asked for, and prove it. After a RoutingError the state is what it was before."""
    reading = Reading(kernel)
    situation = _look(reading, host, request)
    warnings = [*preflight(reading, situation.desired, situation.scope), *situation.outcome.remarks]
    if situation.declaration.mark is not None:
        warnings += shared_marks(reading, situation.scope, situation.declaration.mark[1])
    identities = identity_paths(situation.outcome, situation.facts)
    questions = Questions(kernel, () if request.absent else request.paths, identities, host.table)
    plan = _difference(reading, situation, request)
    record = _record(situation, request, plan)
    names = host.misnamed_tables(record.names, situation.record.names if situation.record else {})
    recorded = _is_stale(host, request, record)
    work = _Work(kernel, host, request, situation, questions, record, tuple(warnings))
    if request.dry_run:
        proof, paths = work.announce(plan)
    elif plan.operations or names or recorded:
        proof, paths = work.carry_out(plan)
    else:
        proof, paths = work.verify()
    warnings += [unguarded_warning(situation.unguarded)] if situation.unguarded else []
    return Result(plan, tuple(names), recorded, proof, tuple(paths), tuple(warnings), record, situation.unguarded)


def _look(kernel: Readable, host: Surroundings, request: Request) -> _Situation:
    """Everything that is read, and everything that can be refused."""
    mine, others, unfinished = _records(host, request.name)
    record = mine[0] if mine else None
    numbers = choose_numbers(request.params.get("numbers") or {}, record, others)
    declaration = parse_declaration(request.name, {} if request.absent else request.params, numbers, host.table)
    declaration = fitted(declaration, kernel, patient=not request.undo_wrong)
    refuse_shared(declaration, others)
    scope = scope_of(numbers, mine, others.values(), name=request.name, unfinished=unfinished)
    taken = set(scope.foreign_tables) | foreign_tables(kernel, scope) | _named_by_others(host, record)
    facts = read_facts(kernel, remembered(record), host.tunnels(declaration), host.gateways(), taken, numbers.protocol)
    outcome = build(declaration, facts)
    refuse_foreign_links(outcome.desired.links, {n for each in (*mine, *others.values()) for n in each.links}, kernel)
    refuse_lost_gotos(declaration.rules, outcome.desired.rules, kernel)
    refuse_found([address for way in outcome.ways for address in way.addresses], others)
    unguarded = why_unguarded(declaration, outcome.desired.guard, kernel, patient=not request.undo_wrong)
    desired = dataclasses.replace(
        outcome.desired,
        restored=restored_groups(record, outcome.desired, facts, numbers.group),
        loosened=loosened_sysctls(record, others.values(), outcome.desired, facts),
        guard=None if unguarded else outcome.desired.guard,
    )
    return _Situation(declaration, record, tuple(others.values()), scope, facts, outcome, desired, unguarded)


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


def _difference(kernel: Readable, situation: _Situation, request: Request) -> Plan:
    """The plan from a fresh dump."""
    plan = make_plan(situation.desired, read_current(kernel, situation.desired, situation.scope))
    if request.prune or request.absent:
        return plan
    return Plan(tuple(operation for operation in plan.operations if operation.op != "remove"))


def _record(situation: _Situation, request: Request, plan: Plan) -> Record:
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


def _kept_guard(situation: _Situation, request: Request) -> Guard | None:
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


@dataclasses.dataclass(frozen=True)
class _Work:
    """The part of a run that comes after the plan."""

    kernel: Kernel
    host: Surroundings
    request: Request
    situation: _Situation
    questions: Questions
    record: Record
    warnings: tuple[str, ...]  # of the preflight: why a path may be wrong

    def announce(self, plan: Plan) -> tuple[Proof, list[dict[str, t.Any]]]:
        """What can be said without a change: the proof if nothing is to be done, else the answers of today."""
        if plan.empty:
            return self._proof(), self.questions.after()
        return Proof(
            (), tuple({**entry, "verdict": None} for entry in self._proof().identities)
        ), self.questions.before()

    def verify(self) -> tuple[Proof, list[dict[str, t.Any]]]:
        """Ask the kernel; a wrong answer fails the run."""
        proof, paths = self._proof(), self.questions.after()
        wrong = [] if self.request.absent else _wrong(proof, paths, self.situation.declaration)
        if wrong and self.request.undo_wrong:
            raise VerificationError(
                f"the kernel does not give the declared path: {'; '.join([*wrong, *self.warnings])}",
                field="paths",
                paths=[*proof.paths, *paths],
            )
        return proof, paths

    def carry_out(self, plan: Plan) -> tuple[Proof, list[dict[str, t.Any]]]:
        """Write down what is about to be done, do it, prove it, and write down that it is done."""
        name, store = self.request.name, self.host.store
        store.begin(name, self.record)
        done: list[Plan] = []
        try:
            self._apply(plan, done)
            found = self.verify()
            self._persist()
        except BaseException:
            for each in reversed(done):
                self.kernel.apply(each.inverse().operations)
            store.discard(name)
            raise
        return found

    def _apply(self, plan: Plan, done: list[Plan]) -> None:
        """Apply until a fresh dump asks for nothing more."""
        for _round in range(ROUNDS):
            if plan.empty:
                return
            self.kernel.apply(plan.operations)
            done.append(plan)
            plan = _difference(self.kernel, self.situation, self.request)
        if not plan.empty:
            raise VerificationError(
                f"the kernel does not keep what was applied, first of it: {plan.operations[0].target.text()}"
            )

    def _persist(self) -> None:
        name, store = self.request.name, self.host.store
        before = self.situation.record.names if self.situation.record else {}
        self.host.name_tables(self.record.names, before)
        if not self.request.absent:
            store.commit(name)
        for other in self.host.stores:
            if self.request.absent or other.root != store.root:
                other.remove(name)

    def _proof(self) -> Proof:
        return prove(self.kernel, self.situation.outcome, self.situation.facts)


def _wrong(proof: Proof, paths: t.Sequence[dict[str, t.Any]], declaration: Declaration) -> list[str]:
    """One line for everything that must fail the task."""
    required = {identity.name for identity in declaration.identities if identity.required}
    pending = [e["key"] for e in proof.identities if e["name"] in required and e["verdict"] == "pending"]
    stated = [f"{p['flow']}: {', '.join(p['differs'])}" for p in paths if p["verdict"] == "wrong"]
    return [*proof.wrong(), *(f"{key} is required and pending" for key in pending), *stated]
