# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What a set has put into the kernel, kept in one file per set.

A record is written as NAME.pending before the kernel is changed and renamed to NAME.json after the change has been
verified, so that a run that was killed leaves behind what may have been half done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import typing as t
from pathlib import Path

from ._errors import Conflict, InvalidInput, NotPermitted, NotSupported
from ._files import permitted, present, sync, trusted, unfinished, write_whole
from ._record import Record, parsed, to_json

PERSISTENT_ROOT = Path("/etc/fleetvpn")
RUNTIME_ROOT = Path("/run/fleetvpn")
GENERATIONS = 10
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Store:
    """The sets below one directory.

    Every method raises InvalidInput for an unsafe name, Conflict where owner or mode of directory or file would let
    somebody else decide what we believe, and NotPermitted without the privilege.
    """

    def __init__(self, root: Path, *, owner: int = 0) -> None:
        self.root = root
        self.owner = owner

    def names(self) -> list[str]:
        """The sets that have a current record or one that was begun."""
        if not self._exists():
            return []
        with permitted(self.root):
            entries = [entry for entry in self.root.iterdir() if entry.suffix in (".json", ".pending")]
        return sorted({entry.stem for entry in entries if _NAME.fullmatch(entry.stem)})

    def read(self, name: str) -> Record | None:
        """The current record; the last readable generation (C(fallback)) where the current file is unreadable.

        None when the set does not exist. Raises Conflict when nothing of it can be read.
        """
        path = self._path(name)
        if not self._exists() or not present(path):
            return None
        record = self._load(path)
        if record is not None:
            return record
        for older in reversed(self.generations(name)):
            record = self._load(older)
            if record is not None:
                return dataclasses.replace(record, fallback=True)
        raise Conflict(
            "is unreadable, and so is every older generation", field="set", value=str(path), accepted="a restored file"
        )

    def read_all(self) -> dict[str, Record]:
        """Every current record by the set's name."""
        found = ((name, self.read(name)) for name in self.names())
        return {name: record for name, record in found if record is not None}

    def pending(self, name: str) -> Record | None:
        """What was begun and neither committed nor discarded: its objects may or may not be in the kernel.

        An unreadable one is None: it was not complete, so the kernel was not touched.
        """
        path = self._path(name, ".pending")
        return self._load(path) if self._exists() and present(path) else None

    def begun(self, name: str) -> bool:
        """Whether something was begun and neither committed nor discarded, readable or not."""
        return self._exists() and present(self._path(name, ".pending"))

    def begin(self, name: str, record: Record) -> None:
        """Write down what is about to be done, before it is done.

        It does not have to survive a power cut, which takes along what it speaks of, and nothing waits for the disk.
        """
        path = self._path(name, ".pending")
        self._prepare(self.root)
        content = json.dumps(to_json(record), indent=1, sort_keys=True) + "\n"
        write_whole(path, content.encode())

    def commit(self, name: str) -> None:
        """What was begun is done: it becomes current, and what was current a generation."""
        pending, current = self._path(name, ".pending"), self._path(name)
        self._checked(self.root)
        self._checked(pending)
        with permitted(self.root):
            if present(current):
                self._keep(name, current)
            sync(pending)
            pending.replace(current)
            # It is done. If a power cut takes it back, the earlier state returns, as before any confirmation.
            with contextlib.suppress(OSError):
                sync(self.root)

    def discard(self, name: str) -> None:
        """What was begun has been undone."""
        self._unlink([self._path(name, ".pending")])

    def remove(self, name: str) -> None:
        """Forget the set, with its generations and what a killed run was writing."""
        pending = self._path(name, ".pending")
        self._unlink([self._path(name)])  # now the set is gone
        with contextlib.suppress(NotPermitted, NotSupported):
            paths = [pending, unfinished(pending), self._link(name)]
            self._unlink([*paths, *self.generations(name)] if self._exists() else [])

    def generations(self, name: str) -> list[Path]:
        """The files of older records, oldest first."""
        self._path(name)
        folder = self.root / "generations"
        if not self._exists() or not present(folder):
            return []
        self._checked(folder)
        pattern = re.compile(re.escape(name) + r"\.(\d+)\.json")
        with permitted(folder):
            found = [(pattern.fullmatch(entry.name), entry) for entry in folder.iterdir()]
        return [entry for _number, entry in sorted((int(match[1]), entry) for match, entry in found if match)]

    def older(self, name: str) -> dict[int, Record | None]:
        """The older records by number, oldest first; None is one that is damaged."""
        return {_number(path): self._load(path) for path in self.generations(name)}

    def _path(self, name: str, suffix: str = ".json") -> Path:
        check_name(name)
        return self.root / f"{name}{suffix}"

    def _exists(self) -> bool:
        """Whether the directory is there; it is checked before anything in it is believed."""
        if not present(self.root):
            return False
        self._checked(self.root)
        return True

    def _checked(self, path: Path) -> None:
        """Refuse what another user may have written, or may read."""
        folder = path in (self.root, self.root / "generations")
        trusted(path, owner=self.owner, mode=0o700 if folder else 0o600, directory=folder)

    def _load(self, path: Path) -> Record | None:
        """The record in a file; None when it is damaged."""
        self._checked(path)
        with permitted(path):
            content = path.read_bytes()
        return parsed(content)

    def _prepare(self, folder: Path) -> None:
        with permitted(folder):
            if not present(folder):
                folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)
                sync(folder.parent)
        self._checked(folder)

    def _keep(self, name: str, current: Path) -> None:
        """The current record becomes the newest generation; a link, so that no moment is without a current file.

        It takes the place of one with the same declaration: what a roaming host finds anew must not push out what its
        author wrote.
        """
        folder = self.root / "generations"
        self._prepare(folder)
        kept = self.generations(name)
        newest = _number(kept[-1]) if kept else 0
        number = newest if kept and self._declares_the_same(kept[-1], current) else newest + 1
        link = self._link(name)
        link.unlink(missing_ok=True)
        os.link(current, link)
        link.replace(folder / f"{name}.{number}.json")
        link.unlink(missing_ok=True)  # a file that a killed run has kept already is not replaced by itself
        for oldest in self.generations(name)[:-GENERATIONS]:
            oldest.unlink()
        sync(folder)

    def _link(self, name: str) -> Path:
        """Where a file is linked before it becomes a generation."""
        return self.root / "generations" / f".{name}.link"

    def _declares_the_same(self, one: Path, other: Path) -> bool:
        first, second = self._load(one), self._load(other)
        return first is not None and second is not None and first.declaration == second.declaration

    def _unlink(self, paths: t.Iterable[Path]) -> None:
        if not self._exists():
            return
        with permitted(self.root):
            for path in paths:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it is gone, and would be gone after most power cuts
                sync(self.root)


def _number(generation: Path) -> int:
    return int(generation.name.split(".")[1])


def check_name(name: str) -> None:
    """Refuse a set's name that is not safe as a file's name. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "is not a name", field="set", value=name, accepted="1 to 64 letters, digits, underscores or hyphens"
        )


def store_for(
    persistent: bool,
    netns: str | None,
    *,
    persistent_root: Path = PERSISTENT_ROOT,
    runtime_root: Path = RUNTIME_ROOT,
) -> Store:
    """Where the sets of this kind are kept. A network namespace does not survive a boot, so neither do its sets."""
    if netns is not None:
        return Store(runtime_root / "netns" / netns_key(netns) / "sets.d")
    return Store((persistent_root if persistent else runtime_root) / "sets.d")


def all_stores(
    netns: str | None, *, persistent_root: Path = PERSISTENT_ROOT, runtime_root: Path = RUNTIME_ROOT
) -> list[Store]:
    """Every store that holds sets of this host, or of a network namespace."""
    kinds = (True, False) if netns is None else (False,)
    return [store_for(kind, netns, persistent_root=persistent_root, runtime_root=runtime_root) for kind in kinds]


def netns_key(netns: str) -> str:
    """A directory's name for a namespace, which may be given by name or by path. Raises InvalidInput."""
    key = re.sub(r"^(/var)?/run/netns/", "", netns)
    key = key.strip("/").replace("/", "%") if key.startswith("/") else key
    if not re.fullmatch(r"[A-Za-z0-9_%.-]{1,255}", key) or key in (".", ".."):
        raise InvalidInput(
            "is not a namespace", field="netns", value=netns, accepted="a name as in /run/netns, or a path"
        )
    return key
