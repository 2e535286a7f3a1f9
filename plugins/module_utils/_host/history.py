# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What happened on a host: which objects the watch had to put right, when, how often. See C(notes) for more."""

from __future__ import annotations

import dataclasses
import datetime
import json
import stat
import typing as t

from .._errors import NotPermitted
from .._files import permitted, sync, write_whole
from .._model.operation import LinkGroup, Operation, OwnLink, Sysctl
from .._recipe.closed import backstops_alone
from .._record import Record, guard_of, objects_of

if t.TYPE_CHECKING:
    import pathlib

    from .apply import Applied

OWNER = 0
LONGEST = 200  # entries; those that happened last are kept
PUT_BACK, REMOVED = "put back", "removed"


@dataclasses.dataclass(frozen=True)
class Repair:
    """One object that was not as the record of its set said."""

    set: str
    done: str  # PUT_BACK what was gone or changed; REMOVED what has our number and is none of ours; or as in C(notes)
    object: str  # kind, family and text
    first: str = ""  # ISO 8601
    last: str = ""
    times: int = 1

    @property
    def key(self) -> tuple[str, str, str]:
        """What is one repair, done again."""
        return (self.set, self.done, self.object)


def repairs(applied: Applied) -> list[Repair]:
    """What of a run was no change of the host that we followed, but somebody's doing to what is ours."""
    record, result = applied.kept.record, applied.result
    if record is None or result is None or applied.gone:
        return []
    rules, routes = objects_of(record)
    # A round that failed, or had to wait, put backstops in that the next one takes away.
    ours = {*rules, *routes, *backstops_alone(rules, record.numbers["priority_base"]), *_others(record)}
    plan = result.plan.operations
    added = {operation.target for operation in plan if operation.op == "add"}  # what comes and goes in one plan is none
    return [
        _repair(applied.kept.name, operation)
        for operation in plan
        if _is_repair(operation, record, ours) and not (operation.op == "remove" and operation.target in added)
    ]


def _is_repair(operation: Operation, record: Record, ours: t.Container[object]) -> bool:
    """Adding what the record has, or removing what it has not."""
    target = operation.target
    if isinstance(target, LinkGroup):
        return target.name in record.groups and target.group == record.numbers["group"]
    if isinstance(target, Sysctl):
        return target.name in record.sysctls
    return (operation.op != "remove") == (target in ours)


def _others(record: Record) -> t.Iterator[object]:
    """What a set has besides rules and routes."""
    yield guard_of(record)
    yield from (OwnLink(name) for name in record.links)


def _repair(name: str, operation: Operation) -> Repair:
    family = getattr(operation.target, "family", None)
    words = [operation.kind, *([f"ipv{family}"] if family else []), *operation.target.text().split()]
    return Repair(name, REMOVED if operation.op == "remove" else PUT_BACK, " ".join(words))


class History:
    """A file of one host or namespace. Root's alone: it tells addresses. C(lasting): it survives a power cut."""

    def __init__(self, path: pathlib.Path, *, lasting: bool = False) -> None:
        self._path = path
        self._lasting = lasting

    def read(self) -> list[Repair]:
        """The last first. What cannot be believed or read is nothing. Raises NotPermitted."""
        try:
            found = self._path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_uid != OWNER or found.st_mode & 0o077:
                return []
            return [Repair(**entry) for entry in json.loads(self._path.read_bytes())]
        except PermissionError as exc:
            raise NotPermitted(f"cannot read {self._path}") from exc
        except (FileNotFoundError, ValueError, TypeError):
            return []

    def add(self, done: t.Iterable[Repair]) -> None:
        """Count these. Raises NotPermitted, NotSupported."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        known = {entry.key: entry for entry in self.read()}
        for repair in done:
            before = known.pop(repair.key, dataclasses.replace(repair, first=now, times=0))
            known = {repair.key: dataclasses.replace(before, last=now, times=before.times + 1), **known}
        self._write(list(known.values())[:LONGEST])

    def _write(self, entries: t.Sequence[Repair]) -> None:
        with permitted(self._path):
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_whole(self._path, json.dumps([dataclasses.asdict(entry) for entry in entries]).encode())
        if self._lasting:
            sync(self._path)
            sync(self._path.parent)
