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
import functools
import json
import os
import re
import stat
import typing as t
from pathlib import Path

from ._errors import Conflict, InvalidInput, NotPermitted, NotSupported
from ._model.route import Nexthop, Route
from ._model.rule import Rule

PERSISTENT_ROOT = Path("/etc/fleetvpn")
RUNTIME_ROOT = Path("/run/fleetvpn")
GENERATIONS = 10
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORMAT = 1  # of the file; a reader refuses what it does not know


@dataclasses.dataclass(frozen=True)
class Record:
    """One set: what was declared, and what came of it. All of it is plain JSON data."""

    declaration: dict[str, t.Any] = dataclasses.field(default_factory=dict)  # as the user gave it, normalised
    objects: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)  # rules and routes, see objects_from
    groups: dict[str, int] = dataclasses.field(default_factory=dict)  # device: its group before us
    tables: dict[str, int] = dataclasses.field(default_factory=dict)  # identity or device: table number
    names: dict[str, int] = dataclasses.field(default_factory=dict)  # names given to tables
    identities: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)  # as last found
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)
    meta: dict[str, t.Any] = dataclasses.field(default_factory=dict)  # when, controller, user, play, version, digest
    # Of this reading, not of the file: the current file was unreadable and this is an older generation.
    fallback: bool = dataclasses.field(default=False, compare=False)


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
        with _permitted(self.root):
            entries = [entry for entry in self.root.iterdir() if entry.suffix in (".json", ".pending")]
        return sorted({entry.stem for entry in entries if _NAME.fullmatch(entry.stem)})

    def read(self, name: str) -> Record | None:
        """The current record; the last readable generation (C(fallback)) where the current file is unreadable.

        None when the set does not exist. Raises Conflict when nothing of it can be read.
        """
        path = self._path(name)
        if not self._exists() or not _present(path):
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
        return self._load(path) if self._exists() and _present(path) else None

    def begin(self, name: str, record: Record) -> None:
        """Write down what is about to be done, before it is done.

        It does not have to survive a power cut, which takes along what it speaks of, and nothing waits for the disk.
        """
        path = self._path(name, ".pending")
        self._prepare(self.root)
        self._write(path, record)

    def commit(self, name: str) -> None:
        """What was begun is done: it becomes current, and what was current a generation."""
        pending, current = self._path(name, ".pending"), self._path(name)
        self._checked(self.root)
        self._checked(pending)
        with _permitted(self.root):
            if _present(current):
                self._keep(name, current)
            _sync(pending)
            pending.replace(current)
            _sync(self.root)

    def discard(self, name: str) -> None:
        """What was begun has been undone."""
        self._unlink([self._path(name, ".pending")])

    def remove(self, name: str) -> None:
        """Forget the set, with its generations and what a killed run was writing."""
        pending = self._path(name, ".pending")
        paths = [self._path(name), pending, _unfinished(pending), self._link(name)]
        self._unlink([*paths, *self.generations(name)] if self._exists() else [])

    def generations(self, name: str) -> list[Path]:
        """The files of older records, oldest first."""
        self._path(name)
        folder = self.root / "generations"
        if not self._exists() or not _present(folder):
            return []
        self._checked(folder)
        pattern = re.compile(re.escape(name) + r"\.(\d+)\.json")
        with _permitted(folder):
            found = [(pattern.fullmatch(entry.name), entry) for entry in folder.iterdir()]
        return [entry for _number, entry in sorted((int(match[1]), entry) for match, entry in found if match)]

    def _path(self, name: str, suffix: str = ".json") -> Path:
        check_name(name)
        return self.root / f"{name}{suffix}"

    def _exists(self) -> bool:
        """Whether the directory is there; it is checked before anything in it is believed."""
        if not _present(self.root):
            return False
        self._checked(self.root)
        return True

    def _checked(self, path: Path) -> None:
        """Refuse what another user may have written, or may read."""
        with _permitted(path):
            found = path.lstat()
        wanted, what = (0o700, "directory") if path in (self.root, self.root / "generations") else (0o600, "file")
        right_type = stat.S_ISDIR(found.st_mode) if what == "directory" else stat.S_ISREG(found.st_mode)
        mode = stat.S_IMODE(found.st_mode)
        if not right_type or found.st_uid != self.owner or mode != wanted:
            raise Conflict(
                f"is not to be trusted: owner {found.st_uid}, mode {mode:04o}{'' if right_type else ', no ' + what}",
                field="set", value=str(path), accepted=f"a {what} of user {self.owner} with mode {wanted:04o}",
            )  # fmt: skip

    def _load(self, path: Path) -> Record | None:
        """The record in a file; None when it is damaged."""
        self._checked(path)
        with _permitted(path):
            content = path.read_bytes()
        return _parsed(content)

    def _prepare(self, folder: Path) -> None:
        with _permitted(folder):
            if not _present(folder):
                folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)
                _sync(folder.parent)
        self._checked(folder)

    def _write(self, path: Path, record: Record) -> None:
        """The whole file or none: a new file, then renamed into place."""
        content = json.dumps(_to_json(record), indent=1, sort_keys=True) + "\n"
        temporary = _unfinished(path)
        with _permitted(path):
            temporary.unlink(missing_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(content)
            temporary.replace(path)

    def _keep(self, name: str, current: Path) -> None:
        """The current record becomes the newest generation; a link, so that no moment is without a current file.

        It takes the place of one with the same declaration: what a roaming host finds anew must not push out what its
        author wrote.
        """
        folder = self.root / "generations"
        self._prepare(folder)
        kept = self.generations(name)
        newest = int(kept[-1].name.split(".")[1]) if kept else 0
        number = newest if kept and self._declares_the_same(kept[-1], current) else newest + 1
        link = self._link(name)
        link.unlink(missing_ok=True)
        os.link(current, link)
        link.replace(folder / f"{name}.{number}.json")
        link.unlink(missing_ok=True)  # a file that a killed run has kept already is not replaced by itself
        for oldest in self.generations(name)[:-GENERATIONS]:
            oldest.unlink()
        _sync(folder)

    def _link(self, name: str) -> Path:
        """Where a file is linked before it becomes a generation."""
        return self.root / "generations" / f".{name}.link"

    def _declares_the_same(self, one: Path, other: Path) -> bool:
        first, second = self._load(one), self._load(other)
        return first is not None and second is not None and first.declaration == second.declaration

    def _unlink(self, paths: t.Iterable[Path]) -> None:
        if not self._exists():
            return
        with _permitted(self.root):
            for path in paths:
                path.unlink(missing_ok=True)
            _sync(self.root)


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


def objects_from(rules: t.Iterable[Rule], routes: t.Iterable[Route]) -> list[dict[str, t.Any]]:
    """Rules and routes as a record keeps them: their fields, without those that have their default, and their kind."""
    found: list[tuple[str, Rule | Route]] = [("rule", each) for each in rules]
    found += [("route", each) for each in routes]
    return sorted(({"kind": kind, **_plain(each)} for kind, each in found), key=json.dumps)


def objects_of(record: Record) -> tuple[set[Rule], set[Route]]:
    """The rules and routes of a record as values again."""
    rules = {Rule(**_arguments(each)) for each in record.objects if each["kind"] == "rule"}
    return rules, {_route(each) for each in record.objects if each["kind"] == "route"}


def _plain(value: Rule | Route) -> dict[str, t.Any]:
    found = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: _as_json(stated) for field, stated in found if stated != field.default}


def _as_json(value: object) -> object:
    """As it comes back from a file."""
    if isinstance(value, tuple):
        return [_as_json(each) for each in value]
    if dataclasses.is_dataclass(value):
        return {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def _arguments(stored: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """JSON has no tuples."""
    return {key: tuple(each) if isinstance(each, list) else each for key, each in stored.items() if key != "kind"}


def _route(stored: t.Mapping[str, t.Any]) -> Route:
    nexthops = tuple(Nexthop(**each) for each in stored.get("nexthops", ()))
    return Route(**{**_arguments(stored), "nexthops": nexthops})


def _to_json(record: Record) -> dict[str, t.Any]:
    return {"format": _FORMAT, **{name: getattr(record, name) for name in _stored_fields()}}


@functools.lru_cache(maxsize=32)
def _parsed(content: bytes) -> Record | None:
    """The record that a file's content is; None when it is damaged. A run reads the same files several times."""
    try:
        return _from_json(json.loads(content))
    except (ValueError, TypeError, KeyError):
        return None


def _from_json(content: object) -> Record:
    if not isinstance(content, dict) or content.pop("format") != _FORMAT:
        raise ValueError("not a record")
    record = Record(**{name: content[name] for name in _stored_fields()})
    objects_of(record)
    return record


def _stored_fields() -> list[str]:
    return [field.name for field in dataclasses.fields(Record) if field.name != "fallback"]


def _unfinished(path: Path) -> Path:
    """Where a file is written until it is whole; always the same name, so that a killed run leaves one at most."""
    return path.with_name(f".{path.name}.new")


def _present(path: Path) -> bool:
    """Unlike Path.exists this tells "is not there" from "may not look", and sees a dangling link."""
    try:
        with _permitted(path):
            path.lstat()
    except FileNotFoundError:
        return False
    return True


def _sync(path: Path) -> None:
    """Make the content of a file, or the renames in a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _permitted(path: Path) -> t.Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotPermitted("is not accessible to this user", field="set", value=str(path)) from error
    except FileNotFoundError:
        raise
    except OSError as error:  # full, read-only, not a directory
        raise NotSupported(
            f"cannot be used: {error.strerror}", field="set", value=str(path), accepted="a writable directory"
        ) from error
