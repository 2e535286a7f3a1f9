# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A plan judged before it is made: every path of identities and of option C(paths) as it is foreseen, and the live
connections that would go another way.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._model.path import ERRORS, Answer
from ._model.state import Flow
from ._paths import compare, path_fields, text
from ._policies import in_clear
from ._verify import Proof, asked, judge
from ._whatif import Foreseen, foresee

if t.TYPE_CHECKING:
    from ._connections import LiveConnections
    from ._kernel import Kernel
    from ._plan import Plan
    from ._questions import Questions
    from ._recipe import Outcome
    from ._recipe.facts import Facts

Entry = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What is foreseen. C(unavailable) says why nothing is."""

    flows: t.Mapping[Flow, Foreseen]
    proof: Proof
    paths: tuple[Entry, ...]
    unavailable: str | None
    connections: tuple[Entry, ...] = ()  # the live ones that go another way, or of which it is not known
    unasked: str | None = None  # why there may be more of them

    def planned(self, flow: Flow) -> Answer | None:
        """The answer after the plan, if it is known."""
        return self.flows[flow].planned

    def entry(self, flow: Flow) -> Entry:
        """What is said of a flow that nobody has stated anything about."""
        return {"flow": text(flow), **_said(self.flows[flow])}

    def with_connections(self, live: LiveConnections, tunnels: t.Collection[str]) -> Outlook:
        """With those of the live connections, which have been asked for, that go another way."""
        turning = () if self.unavailable else (flow for flow in live.flows if _turns(self.flows[flow], tunnels))
        return dataclasses.replace(self, connections=tuple(map(self.entry, turning)), unasked=live.unjudged)

    def remarks(self) -> list[str]:
        """What to say of the live connections."""
        found = [f"not every live connection is judged: {self.unasked}"] if self.unasked else []
        lost = [each["flow"] for each in self.connections if each["planned"] and each["planned"]["type"] in ERRORS]
        return [*found, f"live connections that would have no way any more: {', '.join(lost)}"] if lost else found

    def beside(self, entries: t.Iterable[Entry]) -> list[Entry]:
        """Entries of what has come, each with what was foreseen of it."""
        known = {text(flow): foreseen for flow, foreseen in self.flows.items()}
        return [{**entry, **_said(known[entry["flow"]])} if entry["flow"] in known else entry for entry in entries]


def look_ahead(
    kernel: Kernel, plan: Plan, outcome: Outcome, facts: Facts, questions: Questions, more: t.Iterable[Flow] = ()
) -> Outlook:
    """Ask for all flows that the set is about, and for C(more)."""
    forecast = foresee(kernel, plan, [*asked(outcome, facts), *questions.flows, *more])
    flows = forecast.flows
    if forecast.unavailable:
        flows = {flow: dataclasses.replace(each, unjudged="nothing is foreseen") for flow, each in flows.items()}
    proof = judge(outcome, facts, lambda flow: flows[flow].planned, in_clear(kernel, outcome.ways))
    paths = questions.foreseen(flows)
    found = Outlook(flows, proof, (), forecast.unavailable)
    return dataclasses.replace(
        found,
        proof=dataclasses.replace(proof, paths=tuple(found.beside(map(_not_yet, proof.paths)))),
        paths=tuple(found.beside(map(_not_yet, paths))),
    )


def _turns(foreseen: Foreseen, tunnels: t.Collection[str]) -> bool:
    """Whether a flow that has an answer today goes another way, or may."""
    if foreseen.before is None or foreseen.planned is None:
        return foreseen.before is not None
    return bool(compare(foreseen.before, foreseen.planned, without_neighbours=tunnels))


def _not_yet(entry: Entry) -> Entry:
    """An entry as long as nothing was changed."""
    return {**entry, **path_fields(None), "unconnected": None}


def _said(foreseen: Foreseen) -> Entry:
    """The keys of an entry that tell of before and after the plan."""
    return {
        "before": _fields(foreseen.before),
        "planned": _fields(foreseen.planned),
        "unjudged": foreseen.unjudged,
    }


def _fields(answer: Answer | None) -> Entry | None:
    return None if answer is None else path_fields(answer.decided)
