# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Reading what VPN clients wrote. Nothing of it is ever shown: those files hold private keys."""

from __future__ import annotations

import os
import re
import stat
import typing as t

from .._errors import NotPermitted

if t.TYPE_CHECKING:
    import pathlib


def exists(path: pathlib.Path) -> bool:
    """Whether a file is there. Raises NotPermitted where one may not look."""
    try:
        return path.exists()
    except PermissionError as exc:
        raise NotPermitted(f"cannot read {path.parent}", field="tunnel") from exc


def lines(path: pathlib.Path) -> list[str]:
    """The lines of a file; none where there is no such file. Raises NotPermitted."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except PermissionError as exc:
        raise NotPermitted(f"cannot read {path}", field="tunnel") from exc


def process_file(path: pathlib.Path) -> bytes:
    """The content of a file below /proc; nothing when the process is gone."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def tun_devices(process: pathlib.Path) -> list[str]:
    """The tun devices that a process, a directory below /proc, holds open."""
    entries = [process_file(entry).decode(errors="replace") for entry in (process / "fdinfo").glob("*")]
    return [device for text in entries for device in re.findall(r"^iff:\s*(\S+)", text, re.MULTILINE)]


def is_ours(path: pathlib.Path) -> bool:
    """Whether a file is there that nobody but root can have written: what root is made to run has to be."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    except PermissionError as exc:
        raise NotPermitted(f"cannot read {path.parent}", field="tunnel") from exc
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
