# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Names of routing tables and routing protocols, as iproute2 keeps them in files.

A name is for people alone: the kernel knows numbers, and whoever edits those files can make a name lie. So every name
is resolved here, once, and an ambiguous or unknown one is an error, never main. What we write goes into a file of our
own in rt_tables.d and rt_protos.d; no other file is touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import pathlib
import tempfile
import typing as t

from ._errors import Conflict, InvalidInput, NotPermitted, RoutingError
from ._model import fields

TABLES = "rt_tables"
PROTOCOLS = "rt_protos"
OURS = "fleetvpn.conf"
OUR_PROTOCOLS = {151: "fleetvpn", 152: "fleetvpn_task"}

# iproute2 is built with one of them: 6.7 and later, 6.5, 6.6 on multilib systems. Before 6.5 all is in /etc.
_VENDOR_DIRECTORIES = ("usr/share/iproute2", "usr/lib/iproute2", "usr/lib64/iproute2")
_HEADER = "# Names that fleetvpn.routing gave. It changes its own lines alone and removes the file after the last one."


@dataclasses.dataclass(frozen=True)
class Name:
    """One line of a file: a number and its name."""

    id: int
    name: str
    path: pathlib.Path

    @property
    def ours(self) -> bool:
        """Whether the line stands in our own file."""
        return self.path.name == OURS


@dataclasses.dataclass(frozen=True)
class Names:
    """All names of one kind that iproute2 would read, in its order."""

    kind: str
    entries: tuple[Name, ...]
    directory: pathlib.Path  # where our own file is, or would be

    @classmethod
    def read(cls, kind: str = TABLES, *, root: str = "/", netns: str | None = None) -> Names:
        """Read the files below C(root). With C(netns), /etc/netns/NAME/iproute2 stands for /etc/iproute2 if it exists,
        as it does for `ip netns exec`.
        """
        etc = _etc(pathlib.Path(root), netns)
        entries = [entry for path in _files(pathlib.Path(root), etc, kind) for entry in _entries(path)]
        return cls(kind, tuple(entries), etc / f"{kind}.d")

    def table(self, value: object, field: str) -> int:
        """The number of a table from its name or number. Raises InvalidInput; the third argument of from_params."""
        name = str(value)
        if name.isascii() and name[:1].isdigit():
            return fields.table_id(value, field)
        ids = {entry.id for entry in self.entries if entry.name == name}
        ids |= {fields.RESERVED_TABLES[name]} if name in fields.RESERVED_TABLES else set()
        if len(ids) > 1:
            msg = f"is the name of several tables: {', '.join(str(number) for number in sorted(ids))}"
            raise InvalidInput(msg, field=field, value=value, accepted="a number")
        if not ids:
            known = sorted({entry.name for entry in self.entries if entry.id} | set(fields.RESERVED_TABLES))
            accepted = f"a number, {', '.join(known)}"
            raise InvalidInput("is the name of no table", field=field, value=value, accepted=accepted)
        return self._honest(name, ids.pop(), field)

    def _honest(self, name: str, number: int, field: str) -> int:
        right = {wanted: word for word, wanted in fields.RESERVED_TABLES.items()}.get(number, name)
        if number == 0 or right != name:
            msg = f"is said to be table {number}, which is not its name"
            raise InvalidInput(msg, field=field, value=name, accepted="a number" if number == 0 else right)
        return number

    def name_of(self, number: int) -> str | None:
        """The name that iproute2 shows for a number: of several, the last one read."""
        return next((entry.name for entry in reversed(self.entries) if entry.id == number), None)

    @property
    def path(self) -> pathlib.Path:
        """Our own file."""
        return self.directory / OURS

    def own_text(self) -> str:
        """Our own file as it is, empty if there is none."""
        return _text(self.path)


def resolve_table(value: object, field: str = "table", *, root: str = "/", netns: str | None = None) -> int:
    """The number of a table from its name or number, by the files as they are now. Raises InvalidInput."""
    return Names.read(TABLES, root=root, netns=netns).table(value, field)


def refuse_contradiction(names: Names, name: str, number: int, *, field: str = "") -> None:
    """Refuse a name that somebody else gives to another table, and another one for a table that he names."""
    for entry in names.entries:
        if entry.name == name and entry.id != number and not entry.ours:
            msg, accepted = f"is table {entry.id} in {entry.path}", f"id {entry.id}, or another name"
            raise Conflict(msg, field=f"{field}name", value=name, accepted=accepted)
        if entry.id == number and entry.name != name and not entry.ours:
            msg, accepted = f"is named {entry.name} in {entry.path}", f"name {entry.name}, or another id"
            raise Conflict(msg, field=f"{field}id", value=number, accepted=accepted)


def edited(text: str, *, add: t.Mapping[int, str] | None = None, remove: t.Collection[str] = ()) -> str:
    """Our file after names were added (an older line of the same name goes) and removed. Other lines stay. Pure.

    The result is empty when no name is left and nobody else wrote into the file.
    """
    wanted = set((add or {}).items())
    touched = {*remove, *(name for _number, name in wanted)}
    kept, dropped = [], set()
    for line in text.splitlines():
        found = _parsed(line)
        if found and found[1] in touched:
            dropped.add(found)
        else:
            kept.append(line)
    if dropped == wanted:
        return text
    lines = [*kept, *(f"{number}\t{name}" for number, name in sorted(wanted))]
    if not any(line.strip() and line != _HEADER for line in lines):
        return ""
    return "\n".join([*([] if _HEADER in lines else [_HEADER]), *lines]) + "\n"


def edit(names: Names, *, add: t.Mapping[int, str] | None = None, remove: t.Collection[str] = ()) -> bool:
    """Add names to our own file and remove some, in one atomic step. Returns whether it changed anything.

    Raises NotPermitted.
    """
    with _permitted(names.path):
        if edited(names.own_text(), add=add, remove=remove) == names.own_text():
            return False
        names.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _locked(names.directory):
            after = edited(names.own_text(), add=add, remove=remove)
            _write(names.path, after)
        return True


def name_protocols(*, root: str = "/") -> bool:
    """Name the protocols of this collection in rt_protos.d, those that nobody named yet. Returns whether it changed
    anything.
    """
    names = Names.read(PROTOCOLS, root=root)
    foreign = {entry.id for entry in names.entries if not entry.ours}
    return edit(names, add={number: name for number, name in OUR_PROTOCOLS.items() if number not in foreign})


def _etc(root: pathlib.Path, netns: str | None) -> pathlib.Path:
    if netns and "/" not in netns:
        own = root / "etc/netns" / netns / "iproute2"
        if own.is_dir():
            return own
    return root / "etc/iproute2"


def _files(root: pathlib.Path, etc: pathlib.Path, kind: str) -> list[pathlib.Path]:
    """The main file, then *.conf of the directory; a file in /etc hides the vendor's of the same name."""
    vendor = next((root / name for name in _VENDOR_DIRECTORIES if (root / name).is_dir()), None)
    homes = [etc] if vendor is None else [etc, vendor]
    main = [home / kind for home in homes if (home / kind).is_file()][:1]
    extra: dict[str, pathlib.Path] = {}
    for home in homes:
        for path in sorted((home / f"{kind}.d").glob("*.conf")):
            extra.setdefault(path.name, path)
    return main + [extra[name] for name in sorted(extra)]


def _entries(path: pathlib.Path) -> list[Name]:
    return [Name(*found, path=path) for found in map(_parsed, _text(path).splitlines()) if len(found) == 2]


def _parsed(line: str) -> tuple[()] | tuple[int, str]:
    """Number and name of a line; iproute2 allows decimal and 0x numbers, and a remark after the name."""
    words = line.split()
    if len(words) < 2 or words[0].startswith("#"):
        return ()
    try:
        return (int(words[0], 16 if words[0].startswith("0x") else 10), words[1])
    except ValueError:
        return ()


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _write(path: pathlib.Path, text: str) -> None:
    if not text:
        path.unlink()
        return
    # The name must not end in .conf, or iproute2 would read half a file.
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> t.Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _permitted(path: pathlib.Path) -> t.Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            accepted = "root, and a writable file system"
            raise NotPermitted(f"cannot write {path}: {exc.strerror}", accepted=accepted) from exc
        raise RoutingError(f"cannot write {path}: {exc.strerror}") from exc
