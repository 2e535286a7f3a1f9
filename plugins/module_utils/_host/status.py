# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""How the sets stand: the kernel against what was declared. Changes nothing."""

from __future__ import annotations

import dataclasses
import typing as t

from .._paths import PENDING, PROVEN, WRONG
from .._suspension import as_result
from .._version import VERSION
from .apply import Applied, converge_sets, withdraw_sets
from .notes import told

if t.TYPE_CHECKING:
    from .._kernel import Kernel

DRIFTED, SUSPENDED, UNREADABLE = "drifted", "suspended", "unreadable"
_WORST_FIRST = (UNREADABLE, WRONG, DRIFTED, SUSPENDED, PENDING, PROVEN)
_COLUMNS = ("set", "identity", "verdict", "interface", "addresses", "table", "priority")


def read_status(kernel: Kernel, netns: str | None) -> dict[str, t.Any]:
    """The state of the host and of every set, as `status --json` shows it. Raises NotPermitted."""
    suspended = as_result(netns)
    wanted = converge_sets if suspended is None else withdraw_sets
    sets = [_set(applied) for applied in wanted(kernel, netns, dry_run=True)]
    states = [entry["state"] for entry in sets]
    return {
        "version": VERSION,
        "state": next((state for state in _WORST_FIRST if state in states), PROVEN),
        "ok": all(entry["ok"] for entry in sets),
        "suspended": suspended,
        "sets": sets,
        "history": [dataclasses.asdict(repair) for repair in told(netns)],
    }


def as_table(status: t.Mapping[str, t.Any]) -> str:
    """The same for people."""
    rows = [_COLUMNS, *(row for entry in status["sets"] for row in _rows(entry))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines += [f"{entry['name']}: {line}" for entry in status["sets"] for line in _remarks(entry)]
    return "\n".join([*_suspended(status), *(lines if status["sets"] else ["no sets"]), ""])


def history_table(status: t.Mapping[str, t.Any]) -> str:
    """What happened, the last first, below what holds now."""
    lines = [
        f"{entry['last']}  {entry['times']} times  {entry['set']}: {entry['done']} {entry['object']}"
        for entry in status["history"]
    ]
    return "\n".join([*_suspended(status), *(lines or ["nothing had to be put right since the boot"]), ""])


def _suspended(status: t.Mapping[str, t.Any]) -> list[str]:
    return [f"this host is {status['suspended']['text']}"] if status["suspended"] else []


def _set(applied: Applied) -> dict[str, t.Any]:
    kept, result = applied.kept, applied.result
    record = kept.record
    required = {entry["key"] for entry in (record.identities if record else []) if entry["required"]}
    identities = list(result.proof.identities) if result else []
    state = _state(applied)
    lacking = [entry["key"] for entry in identities if entry["verdict"] == PENDING and entry["key"] in required]
    return {
        "name": kept.name,
        "persistent": kept.persistent,
        "state": state,
        "ok": state in (PROVEN, PENDING) and not lacking,
        "identities": identities,
        "wrong": list(result.proof.wrong()) if result else [],
        "required": lacking,
        "drift": _drift(applied),
        "expires": record.declaration.get("expires") if record else None,
        "error": None if applied.error is None else applied.error.line(),
        "warnings": applied.remarks(),
        "last_change": dict(record.meta) if record else {},
    }


def _state(applied: Applied) -> str:
    if applied.result is None:
        return UNREADABLE if applied.kept.record is None else WRONG
    if _drift(applied):
        return DRIFTED
    if applied.gone:
        return SUSPENDED
    verdicts = [entry["verdict"] for entry in applied.result.proof.identities]
    return next((state for state in _WORST_FIRST if state in verdicts), PROVEN)


def _drift(applied: Applied) -> list[str]:
    """What `apply` would change."""
    if applied.result is None:
        return []
    steps = [f"{step['op']} {step['kind']} {step['text']}" for step in applied.result.plan.as_result()]
    return [*steps, *(f"table name {line}" for line in applied.result.names)]


def _rows(entry: t.Mapping[str, t.Any]) -> list[tuple[str, ...]]:
    return [
        (
            entry["name"],
            found["key"],
            found["verdict"] or entry["state"],
            found["interface"] or "-",
            ",".join([*found["addresses"], *found["pools"]]) or "-",
            str(found["table"]),
            str(found["priority"] or "-"),
        )
        for found in entry["identities"]
    ] or [(entry["name"], "-", entry["state"], "-", "-", "-", "-")]


def _remarks(entry: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    if entry["error"]:
        yield entry["error"]
    if entry["expires"]:
        yield f"ends at {entry['expires']}"
    yield from entry["wrong"]
    yield from (f"{key} is required and pending" for key in entry["required"])
    yield from (f"would {line}" for line in entry["drift"])
