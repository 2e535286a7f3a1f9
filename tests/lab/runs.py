# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves on this machine, and how the next run removes what a killed one left.

A run is a directory below the root; it is alive as long as somebody holds the lock on its file `lock`. It is made
before anything else of the run and removed last, so that whatever a run left can be told from its name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import shutil
import signal
import time
import typing as t

from . import syscalls

PREFIX = "fvt-"
# Overlay mounts need a real file system for their upper directory: no tmpfs, no overlay.
ROOT = pathlib.Path(os.environ.get("FLEETVPN_LAB_ROOT", "/var/tmp/fvt-lab"))
NAMED = pathlib.Path("/run/netns")


class Run:
    """One run's directory, lock and named network namespaces."""

    def __init__(self) -> None:
        ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _root_locked():
            _make_mount_point(NAMED)
            _sweep()
            self.id = secrets.token_hex(3)
            self.directory = ROOT / self.id
            self.directory.mkdir(mode=0o700)
            self._lock = _try_lock(self.directory / "lock")
        self._closed = False

    def namespace(self, host: str) -> str:
        """The name of a host's network namespace, as `ip netns` knows it."""
        return f"{PREFIX}{self.id}-{host}"

    def name_namespace(self, host: str, pid: int) -> None:
        """Make a host's network namespace known to `ip netns`."""
        handle = NAMED / self.namespace(host)
        handle.touch(mode=0o444, exist_ok=False)
        syscalls.mount(f"/proc/{pid}/ns/net", str(handle), flags=syscalls.MS_BIND)

    def forget_namespace(self, host: str) -> None:
        """The opposite: without a process and a name the namespace is gone."""
        handle = NAMED / self.namespace(host)
        syscalls.umount(str(handle))
        handle.unlink()

    def close(self) -> None:
        """Remove all that carries this run's name. The processes must have ended."""
        if self._closed:
            return
        self._closed = True
        with _root_locked():
            _remove(self.directory)
            if self._lock is not None:
                os.close(self._lock)


def leftovers(run: str) -> list[str]:
    """What still carries the name of a run: named namespaces and its directory."""
    found = [str(path) for path in NAMED.glob(f"{PREFIX}{run}-*")] if NAMED.is_dir() else []
    directory = ROOT / run
    return found + ([str(directory)] if directory.exists() else [])


@contextlib.contextmanager
def _root_locked() -> t.Iterator[None]:
    """One run at a time looks at the root, so that a directory without a lock is not one that is being made."""
    descriptor = os.open(ROOT / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_lock(path: pathlib.Path) -> int | None:
    """The locked descriptor, or None while a living run holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep() -> None:
    for directory in ROOT.iterdir():
        if not directory.is_dir():
            continue
        lock = _try_lock(directory / "lock")
        if lock is not None:
            _remove(directory)
            os.close(lock)


def _remove(directory: pathlib.Path) -> None:
    handles = list(NAMED.glob(f"{PREFIX}{directory.name}-*"))
    _end_processes({handle.stat().st_ino for handle in handles if _is_namespace(handle)})
    for handle in handles:
        if _is_namespace(handle):
            syscalls.umount(str(handle))
        handle.unlink()
    shutil.rmtree(directory)


def _end_processes(namespaces: set[int]) -> None:
    """Kill what lives in these namespaces, and wait until it is dead: it might still write to the run's directory."""
    deadline = time.monotonic() + 10
    while namespaces and (pids := _inhabitants(namespaces)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of an earlier run do not end: {pids}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _inhabitants(namespaces: set[int]) -> list[int]:
    """As `ip netns pids` for all of them, in one walk over /proc."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        # Unreadable even for us: certainly none of ours.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if (process / "ns/net").stat().st_ino in namespaces and process.name != str(os.getpid()):
                found.append(int(process.name))
    return found


def _is_namespace(handle: pathlib.Path) -> bool:
    """Whether the namespace is still mounted on its name; the file system behind it tells."""
    return handle.stat().st_dev != NAMED.stat().st_dev


def _make_mount_point(path: pathlib.Path) -> None:
    """As `ip netns add` does it, so that neither hides what the other has mounted."""
    path.mkdir(mode=0o755, exist_ok=True)
    try:
        syscalls.mount("", str(path), flags=syscalls.MS_SHARED | syscalls.MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        syscalls.mount(str(path), str(path), flags=syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.mount("", str(path), flags=syscalls.MS_SHARED | syscalls.MS_REC)
