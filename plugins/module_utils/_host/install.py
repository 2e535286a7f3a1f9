# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The program and its units on the host: there as long as a persistent set is."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import stat
import tempfile
import typing as t

from .._errors import NotPermitted, RoutingError
from .._version import VERSION
from . import program, release, units

PROGRAM = pathlib.PurePath("usr/local/sbin/fleetvpn-endpoint")
_UNITS = pathlib.PurePath(units.DIRECTORY.lstrip("/"))
_NETWORKD = pathlib.PurePath("etc/systemd/networkd.conf.d/fleetvpn.conf")  # of role endpoint
_STATE = ("etc/fleetvpn/sets.d/generations", "etc/fleetvpn/sets.d", "etc/fleetvpn")


@dataclasses.dataclass(frozen=True)
class File:
    """A file as it has to be; without content it must not be there."""

    path: pathlib.Path
    content: bytes | None
    mode: int = 0o644

    @property
    def op(self) -> str | None:
        """What has to be done: C(add), C(replace), C(remove) or nothing."""
        there = os.path.lexists(self.path)
        if self.content is None:
            return "remove" if there else None
        if not there:
            return "add"
        return None if self._is_right() else "replace"

    def _is_right(self) -> bool:
        found = self.path.lstat()
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        return ours and stat.S_IMODE(found.st_mode) == self.mode and self.is_content(_content(self.path))

    def is_content(self, found: bytes) -> bool:
        """Whether a file has what it has to."""
        return found == self.content

    def to_write(self) -> bytes:
        """What a file gets."""
        return self.content or b""


class ProgramFile(File):
    """The program. It is compiled when it is written, which takes longer than all else in a run without changes."""

    def is_content(self, found: bytes) -> bool:
        """Whatever its bytecode: that is for the Python that was there then."""
        return program.is_made_of(found, self.content or b"")

    def to_write(self) -> bytes:
        """With bytecode."""
        return program.compiled(self.content or b"")


@dataclasses.dataclass(frozen=True)
class Installation:
    """What has to be done about the program, found out before anything is."""

    root: pathlib.Path
    version: str | None  # of the program that will be there
    program: tuple[tuple[str, File], ...]
    units: tuple[tuple[str, File], ...]
    warnings: tuple[str, ...] = ()

    @property
    def plan(self) -> list[dict[str, t.Any]]:
        """As results show it."""
        steps = [*self.program, *self.units]
        return [{"op": op, "kind": "file", "family": None, "text": str(file.path)} for op, file in steps]

    def carry_out(self) -> None:
        """Do it. Raises NotPermitted, RoutingError."""
        for op, file in [*self.program, *self.units]:
            with _permitted(file.path):
                if op == "remove":
                    file.path.unlink()
                else:
                    _write(file)
        if self.version is None:
            _remove_empty(self.root)

    def as_result(self) -> dict[str, t.Any]:
        """The key C(program) of the result of module endpoint."""
        wants = self.root / _UNITS / "multi-user.target.wants"
        # systemd keeps this link as long as the unit is active; asking systemctl would cost more than a whole run.
        running = self.root / "run/systemd/units" / f"invocation:{units.WATCH}"
        return {
            "path": str(self.root / PROGRAM),
            "version": self.version,
            "changed": bool(self.program),
            "units_changed": bool(self.units),
            "systemd": _is_booted(self.root),
            "boot_enabled": os.path.lexists(self.root / _UNITS / "sysinit.target.wants" / units.BOOT),
            "watch_active": os.path.lexists(running) and os.path.lexists(wants / units.WATCH),
            "networkd_dropin": os.path.lexists(self.root / _NETWORKD),
        }


def look(*, wanted: bool, root: pathlib.Path = pathlib.Path("/")) -> Installation:
    """What has to be done so that the program is there, or is not. An older one never replaces a newer one."""
    path = root / PROGRAM
    if not wanted:
        files = [File(root / _UNITS / name, None) for name in (units.BOOT, units.WATCH)]
        return Installation(root, None, _steps([File(path, None)]), _steps([*files, *_links(root)]))
    steps = _steps([ProgramFile(path, program.build(), 0o755)])
    newer = _newer(path) if steps else None
    if newer is not None:
        warning = f"{path} is version {newer}, newer than this collection ({VERSION}), and stays as it is"
        return Installation(root, newer, (), (), (warning,))
    texts = units.unit_texts(f"/{PROGRAM}") if _has_systemd(root) else {}
    files = [File(root / _UNITS / name, text.encode()) for name, text in texts.items()]
    # Said when the program comes or is replaced, and not at every run.
    return Installation(root, VERSION, steps, _steps(files), tuple(release.remarks(root)) if steps else ())


def _steps(files: t.Iterable[File]) -> tuple[tuple[str, File], ...]:
    return tuple((op, file) for file in files if (op := file.op) is not None)


def _links(root: pathlib.Path) -> list[File]:
    """The links that enabled our units, dangling or not."""
    folders = sorted((root / _UNITS).glob("*.wants"))
    return [File(folder / name, None) for name in (units.BOOT, units.WATCH) for folder in folders]


def _newer(path: pathlib.Path) -> str | None:
    """The version of the installed program if that is newer than ours."""
    found = program.version_of(_content(path)) if path.is_file() else None
    return ".".join(map(str, found)) if found is not None and found > program.as_numbers(VERSION) else None


def _has_systemd(root: pathlib.Path) -> bool:
    """It runs, or will once this root is booted."""
    return _is_booted(root) or shutil.which("systemctl") is not None


def _is_booted(root: pathlib.Path) -> bool:
    return (root / "run/systemd/system").is_dir()


def _content(path: pathlib.Path) -> bytes:
    with _permitted(path):
        return path.read_bytes()


def _write(file: File) -> None:
    """The whole file or none."""
    file.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{file.path.name}.", dir=file.path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(file.to_write())
            stream.flush()
            os.fchmod(stream.fileno(), file.mode)
            os.fsync(stream.fileno())
        os.replace(temporary, file.path)
    except BaseException:
        os.unlink(temporary)
        raise


def _remove_empty(root: pathlib.Path) -> None:
    """The directories of the state, as far as nothing is left in them."""
    for folder in (root / name for name in _STATE):
        with _permitted(folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


@contextlib.contextmanager
def _permitted(path: pathlib.Path) -> t.Iterator[None]:
    try:
        yield
    except PermissionError as exc:
        raise NotPermitted(f"cannot write {path}") from exc
    except OSError as exc:
        raise RoutingError(f"cannot write {path}: {exc.strerror}") from exc
