# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Why the kernel answers as it does: the walk behind each lookup of an answer, beside the answer itself."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ._explain import Scene, Step, explain
from ._model.path import Answer
from ._model.state import Flow, Path
from ._paths import as_bound, path_fields, path_text
from ._reading import Reading

if t.TYPE_CHECKING:
    from ._kernel import Kernel

Entry = dict[str, t.Any]


def walks(kernel: Kernel, answer: Answer) -> list[Entry]:
    """One entry for each lookup, the second with the source that the kernel chose."""
    asked = [(answer.flow, answer.first)]
    if answer.second is not None:
        asked.append((dataclasses.replace(answer.flow, source=answer.source), answer.second))
    scene = read_scene(kernel, answer.flow.family)
    return [_walk(kernel, scene, flow, found) for flow, found in asked]


def read_scene(kernel: Kernel, family: int) -> Scene:
    """What a lookup looks at. Tables are read as they are looked into, each once."""
    reading = Reading(kernel)
    links = {link.name: link for link in reading.links()}
    knob = f"ipv{family}/conf/{{}}/ignore_routes_with_linkdown"
    ignored = [n for n, link in links.items() if link.up and not link.carrier and kernel.sysctl(knob.format(n)) == "1"]
    return Scene(reading.rules(family), lambda table: reading.routes(family, table=table), links, ignored)


def _walk(kernel: Kernel, scene: Scene, flow: Flow, answer: Path) -> Entry:
    uid = os.getuid() if flow.uid is None else flow.uid
    walk = explain(scene, dataclasses.replace(flow, uid=uid))
    walk = dataclasses.replace(walk, paths=tuple(as_bound(kernel, flow, path) for path in walk.paths))
    return {
        "from": flow.source,
        "steps": [_step(step) for step in walk.steps],
        "expected": [path_fields(path) for path in walk.paths],
        "answer": path_fields(answer),
        "agrees": walk.agrees(answer),
    }


def _step(step: Step) -> Entry:
    return {
        "rule": step.rule.text().replace("\t", " "),
        "outcome": step.outcome,
        "why": step.why,
        "route": None if step.route is None else step.route.text(),
    }


def as_lines(entry: Entry) -> list[str]:
    """One lookup for people, rule by rule."""
    source = f"with source {entry['from']}" if entry["from"] else "without a source"
    width = max((len(step["rule"]) for step in entry["steps"]), default=0)
    lines = [f"lookup {source}", *(f"  {step['rule']:<{width}}  {_remark(step)}" for step in entry["steps"])]
    answer = path_text(entry["answer"])
    if entry["agrees"]:
        return [*lines, f"  the kernel says so: {answer}"]
    expected = " or ".join(path_text(path) for path in entry["expected"])
    return [*lines, f"  the two differ: {expected} by the rules, {answer} by the kernel"]


def _remark(step: Entry) -> str:
    found = ": ".join(part for part in (step["outcome"], step["why"]) if part)
    return found if step["route"] is None else f"{found}: {step['route']}"
