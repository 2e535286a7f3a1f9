# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Options C(paths) and C(keep_paths) of module endpoint: the same flows are asked before and after the change."""

from __future__ import annotations

import typing as t

from ._model.path import Answer, IdentityPaths, PathSpec, Verdict
from ._model.state import Flow
from ._paths import (
    PENDING,
    PROVEN,
    WRONG,
    answer_all,
    compare,
    judged,
    obstacle,
    parse_flow,
    result,
    unasked,
    walk,
    without_neighbours,
)

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._whatif import Foreseen

KEEP = "keep_paths"
Entry = dict[str, t.Any]


class Questions:
    """The stated paths, with the kernel's answers from before the change."""

    def __init__(
        self,
        kernel: Kernel,
        params: t.Sequence[tuple[str, t.Mapping[str, t.Any]]],
        identities: t.Sequence[IdentityPaths],
        tables: t.Callable[[object, str], int],
    ) -> None:
        """C(params) are entries, each with its name for error messages."""
        self._kernel = kernel
        self._identities = identities
        self._tunnels = without_neighbours(kernel.links()) if params else frozenset()
        self._specs = [parse_flow(entry, field, identities, tables, unchanged_allowed=True) for field, entry in params]
        self._before = {flow: self._ask(flow) for spec in self._specs for flow in spec.flows}

    def before(self) -> list[Entry]:
        """The answers as they are now, nothing judged: what check mode can say."""
        return [
            result(spec, flow, None, Verdict(None), self._identities, self._before[flow])
            for spec in self._specs
            for flow in spec.flows
        ]

    @property
    def flows(self) -> list[Flow]:
        """All flows."""
        return [flow for spec in self._specs for flow in spec.flows]

    def foreseen(self, flows: t.Mapping[Flow, Foreseen]) -> list[Entry]:
        """What is foreseen of them, each judged by what is expected of it."""
        return [
            entry
            for spec in self._specs
            for entry in ([self._ahead(spec, flow, flows[flow]) for flow in spec.flows] or [unasked(spec)])
        ]

    def _ahead(self, spec: PathSpec, flow: Flow, foreseen: Foreseen) -> Entry:
        if foreseen.unjudged:
            return result(spec, flow, None, Verdict(None), self._identities)
        if not spec.unchanged:
            return judged(spec, flow, foreseen.planned, foreseen.obstacle, self._identities)
        verdict = self._unchanged(foreseen.before, foreseen.planned)
        return result(spec, flow, foreseen.planned, verdict, self._identities)

    def kept(self) -> list[Flow]:
        """The flows of option C(keep_paths)."""
        return [flow for spec in self._specs if spec.field.startswith(KEEP) for flow in spec.flows]

    def after(self) -> list[Entry]:
        """The answers after the change, each judged by what was expected of it."""
        return [entry for spec in self._specs for entry in self._judged(spec)]

    def _judged(self, spec: PathSpec) -> list[Entry]:
        if not spec.unchanged:
            entries = answer_all(self._kernel, [spec], self._identities)
            earlier = [self._before.get(flow) for flow in spec.flows] or [None] * len(entries)
            return [{**e, "before": _before(spec, a, self._identities)} for e, a in zip(entries, earlier)]
        return [self._compared(spec, flow) for flow in spec.flows]

    def _compared(self, spec: PathSpec, flow: Flow) -> Entry:
        before, after = self._before[flow], self._ask(flow)
        return result(spec, flow, after, self._unchanged(before, after), self._identities, before)

    def _unchanged(self, before: Answer | None, after: Answer | None) -> Verdict:
        """A flow that could not be asked both times, as source or device came or went, is not known to be the same."""
        if before is None or after is None:
            lacking = " and ".join(word for word, answer in (("before", before), ("now", after)) if answer is None)
            return Verdict(PENDING, (f"has no answer {lacking}: its source or device is not there",))
        differs = compare(before, after, without_neighbours=self._tunnels)
        return Verdict(WRONG if differs else PROVEN, differs)

    def _ask(self, flow: Flow) -> Answer | None:
        devices = {link.name for link in self._kernel.links()}
        return walk(self._kernel, flow) if obstacle(self._kernel, flow, devices) is None else None


def _before(spec: PathSpec, answer: Answer | None, identities: t.Sequence[IdentityPaths]) -> t.Any:
    if answer is None:
        return None
    return result(spec, answer.flow, None, Verdict(None), identities, answer)["before"]
