# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What a set was before: who declared it when, and the way back there."""

from __future__ import annotations

import dataclasses
import typing as t

from .._confirm import Terms, make_way, overdue
from .._controller import author
from .._converge import Request, Result, converge
from .._errors import Conflict, InvalidInput
from .._model import fields
from .._record import has_ended
from .._request import ENFORCE
from .._store import store_for
from .._surroundings import Host
from .._suspension import refuse_suspended
from . import program
from .sets import Kept, kept_sets

if t.TYPE_CHECKING:
    from .._kernel import Kernel
    from .._record import Record

Entry = dict[str, t.Any]
_COLUMNS = ("set", "generation", "when", "user", "controller", "play", "version")


@dataclasses.dataclass(frozen=True)
class Returned:
    """What came of going back."""

    kept: Kept
    number: int
    result: Result
    command: list[str] | None  # what confirms it, if it waits for that


def roll_back(
    kernel: Kernel, netns: str | None, name: str, number: int | None, terms: Terms, what_if: str = ENFORCE
) -> Returned:
    """Declare anew what generation C(number) of a set was, or the last one that declares something else.

    As in a task, a path that would go wrong, a stated gateway that does not answer, or the loss of the SSH connection
    that this came by, refuses it, unless C(what_if) says otherwise. Raises RoutingError.
    """
    host = Host(kernel, netns)
    overdue(host)
    with host.lock():
        refuse_suspended(netns)
        make_way(kernel, host)
        [kept] = kept_sets(netns, name)
        if kept.record is None:
            raise kept.error or Conflict("is unreadable", field="set", value=name)
        number, wanted = _chosen(kept, netns, number)
        host = Host(kernel, netns, persistent=kept.persistent, build=program.build)
        if has_ended(wanted.declaration):
            raise InvalidInput(
                f"has ended at {wanted.declaration['expires']}",
                field="generation",
                value=number,
                accepted="one that has not",
            )
        meta = {**author(), "declared": fields.now().isoformat(), "prune": wanted.meta.get("prune", True)}
        found = converge(kernel, host, Request(name, wanted.declaration, what_if=what_if, terms=terms, meta=meta))
        command = None if found.armed is None else host.window.command("confirm", found.armed.token)
    return Returned(kept, number, found, command)


def _chosen(kept: Kept, netns: str | None, number: int | None) -> tuple[int, Record]:
    older = store_for(kept.persistent, netns).older(kept.name)
    now = None if kept.record is None else kept.record.declaration
    readable = {n: record for n, record in older.items() if record is not None}
    others = [n for n, record in readable.items() if record.declaration != now]
    chosen = number if number is not None else max(others, default=None)
    if chosen is None or chosen not in readable:
        raise InvalidInput(
            f"is no generation of set {kept.name} that can be read",
            field="generation",
            value="the one before" if chosen is None else chosen,
            accepted=", ".join(map(str, readable)) or "none yet",
        )
    return chosen, readable[chosen]


def generations(netns: str | None) -> list[Entry]:
    """Those of every set, the current one first. Raises NotPermitted."""
    return [entry for kept in kept_sets(netns) if kept.record for entry in _of_set(kept, kept.record, netns)]


def _of_set(kept: Kept, current: Record, netns: str | None) -> t.Iterator[Entry]:
    older = store_for(kept.persistent, netns).older(kept.name)
    yield _entry(kept.name, max(older, default=0) + 1, current, current=True)
    for number in reversed(older):
        yield _entry(kept.name, number, older[number], current=False)


def _entry(name: str, number: int, record: Record | None, *, current: bool) -> Entry:
    """One of them; a damaged one says nothing of itself."""
    meta = record.meta if record else {}
    told = {key: meta.get(key) for key in ("user", "controller", "play", "version", "digest")}
    when = meta.get("declared") or meta.get("when")
    return {"set": name, "generation": number, "current": current, "readable": record is not None, "when": when, **told}


def as_table(entries: t.Sequence[Entry]) -> str:
    """The same for people."""
    cells = [_COLUMNS, *(tuple(_cell(entry, key) for key in _COLUMNS) for entry in entries)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(_COLUMNS))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    return "\n".join([*(rows if entries else ["no sets"]), ""])


def _cell(entry: Entry, key: str) -> str:
    if key == "generation":
        return f"{entry[key]}{' (current)' if entry['current'] else '' if entry['readable'] else ' (damaged)'}"
    return str(entry[key] or "-")
