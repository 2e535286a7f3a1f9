# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Files that are whole or absent, and believed only if nobody else can have written them."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from pathlib import Path

from ._errors import Conflict, NotPermitted, NotSupported


def write_whole(path: Path, content: bytes) -> None:
    """The whole file (mode 0600) or none: a new file, then renamed into place. Nothing waits for the disk."""
    temporary = unfinished(path)
    with permitted(path):
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
        temporary.replace(path)


def unfinished(path: Path) -> Path:
    """Where a file is written until it is whole; always the same name, so that a killed run leaves one at most."""
    return path.with_name(f".{path.name}.new")


def trusted(path: Path, *, owner: int, mode: int, directory: bool = False) -> None:
    """Refuse what another user may have written, or may read. Raises Conflict."""
    with permitted(path):
        found = path.lstat()
    what = "directory" if directory else "file"
    right_type = stat.S_ISDIR(found.st_mode) if directory else stat.S_ISREG(found.st_mode)
    seen = stat.S_IMODE(found.st_mode)
    if not right_type or found.st_uid != owner or seen != mode:
        raise Conflict(
            f"is not to be trusted: owner {found.st_uid}, mode {seen:04o}{'' if right_type else ', no ' + what}",
            field="set", value=str(path), accepted=f"a {what} of user {owner} with mode {mode:04o}",
        )  # fmt: skip


def present(path: Path) -> bool:
    """Unlike Path.exists this tells "is not there" from "may not look", and sees a dangling link."""
    try:
        with permitted(path):
            path.lstat()
    except FileNotFoundError:
        return False
    return True


def sync(path: Path) -> None:
    """Make the content of a file, or the renames in a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def permitted(path: Path) -> t.Iterator[None]:
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
