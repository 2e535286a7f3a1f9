# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few system calls that Python 3.11 does not offer: namespaces and mounts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import typing as t

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SHARED = 0x100000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
SYS_CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return int(result)


def clone(flags: int) -> int:
    """Fork into new namespaces. Returns the child's pid, in the child 0. The child should soon exec."""
    return _checked(_libc.syscall(SYS_CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0), "clone")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind a descriptor."""
    _checked(_libc.setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Give the calling process namespaces of its own."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _checked(_libc.mount(*arguments), f"mount {target}")


def umount(target: str) -> None:
    """umount2(2), detached: the mount goes when its last user goes."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def die_with_parent() -> None:
    """Ask for SIGKILL when the parent ends."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


@contextlib.contextmanager
def network_of(pid: int) -> t.Iterator[None]:
    """The calling thread is in the network namespace of a process while the context lasts.

    Sockets opened inside stay in that namespace afterwards.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
