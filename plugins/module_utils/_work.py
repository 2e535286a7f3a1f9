# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What a run does with its plan: announce it, or arm, apply, verify and write down."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import typing as t

from ._confirm import NONE, PROBE, RECONNECT, Armed, new, settle, take_back
from ._controller import named
from ._errors import RoutingError, VerificationError
from ._model.declaration import Declaration
from ._model.path import Answer
from ._model.state import Flow, Path
from ._paths import walk, without_neighbours
from ._plan import Plan
from ._questions import Questions
from ._record import Record
from ._refuse import unguarded_warning
from ._request import ENFORCE, SKIP, Request, Result, Situation, Surroundings
from ._verify import Proof, prove

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._management import Watched
    from ._outlook import Outlook

# A change can uncover another (a second copy of a rule, an object that came meanwhile); a kernel that needs more rounds
# than this is being fought over.
ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Work:
    """The part of a run that comes after the plan."""

    kernel: Kernel
    host: Surroundings
    request: Request
    situation: Situation
    questions: Questions
    record: Record
    plan: Plan
    names: tuple[str, ...]
    recorded: bool
    replan: t.Callable[[], Plan]  # from a fresh dump
    warnings: tuple[str, ...]  # of the preflight: why a path may be wrong

    @property
    def idle(self) -> bool:
        """Whether there is nothing to change, also nothing that somebody left and whose time is over."""
        armed = self.host.window.read()
        overdue = armed is not None and armed.expired
        return not (self._changes or overdue)

    @property
    def _changes(self) -> bool:
        return bool(self.plan.operations or self.names or self.recorded)

    def run(self) -> Result:
        """Announce, carry out, or verify."""
        management = self._management()
        outlook = self._look_ahead(management)
        remarks = [*self._foreseen(outlook, management), *self._unanswered()] if outlook else []
        if self.request.dry_run:
            return _with_connections(self._result(*self._announce(outlook), None, *remarks), outlook, management)
        if self._changes:
            done = self._carry_out(management, remarks)
            return _with_connections(_with_outlook(done, outlook), outlook, management)
        return self._result(*self._verify())

    def _result(
        self, proof: Proof, paths: t.Sequence[dict[str, t.Any]], armed: Armed | None = None, *more: str
    ) -> Result:
        situation = self.situation
        warnings = (*self.warnings, *more, *([unguarded_warning(situation.unguarded)] if situation.unguarded else ()))
        return Result(
            plan=self.plan,
            names=self.names,
            recorded=self.recorded,
            proof=proof,
            paths=tuple(paths),
            warnings=warnings,
            record=self.record,
            situation=situation,
            armed=armed,
        )

    def _management(self) -> Watched | None:
        """The connection that must not be cut off, if there is something to change."""
        if not self.plan.operations or self.request.what_if == SKIP:
            return None
        from ._management import watched  # what a run without changes does not need takes it time to load

        return watched(self.kernel)

    def _look_ahead(self, management: Watched | None) -> Outlook | None:
        """What the plan comes to; None where nothing would be done or it shall not be asked."""
        if self.plan.empty or self.request.what_if == SKIP:
            return None
        from ._connections import live_connections
        from ._outlook import look_ahead

        managed = [management.flow] if management else []
        live, situation = live_connections(self.kernel, self.plan, *managed), self.situation
        more = [*managed, *live.flows]
        found = look_ahead(self.kernel, self.plan, situation.outcome, situation.facts, self.questions, more)
        return found.with_connections(live, without_neighbours(self.kernel.links()))

    def _foreseen(self, outlook: Outlook, management: Watched | None) -> list[str]:
        """Refuse a plan that would go wrong, before anything is changed; what to say if it shall be no failure."""
        if outlook.unavailable:
            return [f"what would come of the plan was not asked: {outlook.unavailable}"]
        found = [] if self.request.absent else _wrong(outlook.proof, outlook.paths, self.situation.declaration)
        remarks = self._managed(management, lambda flow: _decided(outlook.planned(flow)))
        remarks += [*self._unmanaged(outlook, management), *outlook.remarks()]
        if not found:
            return remarks
        line = f"the kernel would not give the declared path: {'; '.join([*found, *self.warnings])}"
        if self.request.what_if == ENFORCE:
            raise VerificationError(
                line,
                field="paths",
                paths=[*outlook.proof.paths, *outlook.paths],
                tunnels=self.host.clients_told(self.record, self.request.name),
            )
        return [line, *remarks]

    def _unanswered(self) -> list[str]:
        """Refuse a plan by whose gateway nothing would arrive; what to say if it shall be no failure."""
        if self.request.absent:
            return []
        from ._gateways import silent

        found = silent(self.kernel, self.plan, self.situation.outcome.ways)
        if found and self.request.what_if == ENFORCE:
            raise VerificationError(
                "; ".join(found),
                field="gateway",
                accepted="a router that answers there, auto, or what_if: report",
            )
        return found

    def _announce(self, outlook: Outlook | None) -> tuple[Proof, t.Sequence[dict[str, t.Any]]]:
        """What can be said without a change: the proof if nothing is to be done, else what is foreseen."""
        if self.plan.empty:
            return self._proof(), self.questions.after()
        if outlook is not None and not outlook.unavailable:
            return outlook.proof, outlook.paths
        return Proof(
            (), tuple({**entry, "verdict": None} for entry in self._proof().identities)
        ), self.questions.before()

    def _verify(self) -> tuple[Proof, list[dict[str, t.Any]]]:
        """Ask the kernel; a wrong answer fails the run."""
        proof, paths = self._proof(), self.questions.after()
        wrong = [] if self.request.absent else _wrong(proof, paths, self.situation.declaration)
        if wrong and self.request.undo_wrong:
            raise VerificationError(
                f"the kernel does not give the declared path: {'; '.join([*wrong, *self.warnings])}",
                field="paths",
                paths=[*proof.paths, *paths],
                tunnels=self.host.clients_told(self.record, self.request.name),
            )
        return proof, paths

    def _carry_out(self, management: Watched | None, foreseen: t.Sequence[str]) -> Result:
        """Write down what is about to be done, do it, prove it, and write down that it is done or wait until then."""
        if self.request.waiting:
            self._apply(self.plan, [])
            return self._result(*self._verify())
        armed, done = self._begin(), list[Plan]()
        try:
            self._apply(self.plan, done)
            found = self._verify()
            remarks = [*foreseen, *self._managed(management, lambda flow: walk(self.kernel, flow).decided)]
            if armed is not None and self.request.terms.by == PROBE:
                self._reach(armed)
            if armed is None or self.request.terms.by == PROBE:
                self._persist()
            else:
                self.host.window.refuse_dead()
        except BaseException as exc:
            self._undo(done, exc)
            raise
        return self._result(*found, armed if self.request.terms.by == RECONNECT else None, *remarks)

    def _reach(self, armed: Armed) -> None:
        from ._management import reach

        reach(self.request.terms, self.questions.kept(), armed)

    def _begin(self) -> Armed | None:
        """Write down what is about to be done, and arm. What changes nothing in the kernel cuts nobody off."""
        store, name, terms = self.host.store, self.request.name, self.request.terms
        store.begin(name, self.record)
        if terms.by == NONE or self.plan.empty:
            return None
        who = named(self.record.meta)
        armed = new(name, store, terms, who, absent=self.request.absent, names=self._names_before())
        try:
            return self.host.window.open(armed, self.plan.inverse().operations)
        except BaseException:
            self.host.window.close()
            store.discard(name)
            raise

    def _apply(self, plan: Plan, done: list[Plan]) -> None:
        """Apply until a fresh dump asks for nothing more."""
        for round_ in range(ROUNDS):
            if plan.empty:
                return
            if round_ or self.request.waiting:
                self.host.window.extend(plan.inverse().operations)
            self.kernel.apply(plan.operations)
            done.append(plan)
            plan = self.replan()
        if not plan.empty:
            raise VerificationError(
                f"the kernel does not keep what was applied, first of it: {plan.operations[0].target.text()}"
            )

    def _managed(self, management: Watched | None, path: t.Callable[[Flow], Path | None]) -> list[str]:
        """Whether the controller can still be answered; what to say if it cannot, and that shall be no failure."""
        planned = path(management.flow) if management else None
        if management is None or planned is None:
            return []
        from ._management import refuse_lost

        try:
            refuse_lost(self.kernel, management, lambda _flow: planned, self.situation.outcome.ways)
        except VerificationError as exc:
            if self.request.what_if == ENFORCE:
                raise
            return [exc.line()]
        return []

    def _unmanaged(self, outlook: Outlook, management: Watched | None) -> list[str]:
        """Why the connection that manages this host could not be judged beforehand."""
        doubt = outlook.flows[management.flow].unjudged if management else None
        return [f"the way of the connection that manages this host is not judged beforehand: {doubt}"] if doubt else []

    def _undo(self, done: t.Sequence[Plan], why: BaseException) -> None:
        """Take everything back. What cannot be taken back now is left to what was armed."""
        store, name = self.host.store, self.request.name
        left = [line for each in reversed(done) for line in take_back(self.kernel, each.inverse().operations)]
        armed = self.host.window.read()
        if left and armed is not None:
            raise RoutingError(
                f"{why}; could not be undone at once: {'; '.join(left)}; {armed.line()}, by hand:"
                f" {shlex.join(self.host.window.command('confirm', armed.token))}"
            ) from why
        steps: tuple[t.Callable[[], None], ...] = (
            lambda: self.host.name_tables(self._names_before(), self.record.names),
            self.host.window.close,
            lambda: store.discard(name),
        )
        for step in steps:
            with contextlib.suppress(RoutingError):  # what is left of them does no harm, and the reason is another
                step()
        if left:
            raise RoutingError(f"{why}; could not be undone: {'; '.join(left)}") from why

    def _names_before(self) -> dict[str, int]:
        return self.situation.record.names if self.situation.record else {}

    def _persist(self) -> None:
        settle(self.host, self.host.store, self.request.name, self._names_before(), absent=self.request.absent)
        with contextlib.suppress(RoutingError):  # it is done; who finds what is left of the window clears it up
            self.host.window.close()

    def _proof(self) -> Proof:
        return prove(self.kernel, self.situation.outcome, self.situation.facts)


def _decided(answer: Answer | None) -> Path | None:
    return None if answer is None else answer.decided


def _with_outlook(result: Result, outlook: Outlook | None) -> Result:
    """Beside each path what was foreseen of it."""
    if outlook is None or outlook.unavailable:
        return result
    proof = dataclasses.replace(result.proof, paths=tuple(outlook.beside(result.proof.paths)))
    return dataclasses.replace(result, proof=proof, paths=tuple(outlook.beside(result.paths)))


def _with_connections(result: Result, outlook: Outlook | None, management: Watched | None) -> Result:
    """And what was foreseen of the connection that manages this host, and of the others."""
    if outlook is None:
        return result
    managed = outlook.entry(management.flow) if management else None
    return dataclasses.replace(result, management=managed, connections=outlook.connections)


def _wrong(proof: Proof, paths: t.Sequence[dict[str, t.Any]], declaration: Declaration) -> list[str]:
    """One line for everything that must fail the task."""
    required = {identity.name for identity in declaration.identities if identity.required}
    pending = [e["key"] for e in proof.identities if e["name"] in required and e["verdict"] == "pending"]
    stated = [f"{p['flow']}: {', '.join(p['differs'])}" for p in paths if p["verdict"] == "wrong"]
    return [*proof.wrong(), *(f"{key} is required and pending" for key in pending), *stated]
