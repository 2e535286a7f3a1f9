# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Another network namespace for as long as a context lasts."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import typing as t

from ._errors import InvalidInput, NotPermitted, NotSupported

NETNS_DIRECTORY = "/run/netns"
THIS_NETNS = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def inside(netns: str | None) -> t.Iterator[None]:
    """The calling thread in a network namespace (name below /run/netns, or path), and back again whatever happens.

    Raises InvalidInput for an unknown namespace, NotPermitted.
    """
    if netns is None:
        yield
        return
    with open(THIS_NETNS, "rb") as home, _namespace(netns) as there:
        _enter(there.fileno(), netns)
        try:
            yield
        finally:
            _enter(home.fileno(), "the namespace before")


@contextlib.contextmanager
def scratch() -> t.Iterator[None]:
    """The calling thread in a new network namespace, and back again whatever happens.

    It has no name and no process of its own, so it is gone as soon as the thread has left it and its sockets are
    closed, also after SIGKILL. Raises NotPermitted or NotSupported where none can be made.
    """
    with open(THIS_NETNS, "rb") as home:
        _unshare()
        try:
            yield
        finally:
            _setns(home.fileno())  # if that fails nothing may go on, so the error is none that somebody handles


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EPERM:
        raise NotPermitted("may not make a network namespace", accepted="root with CAP_SYS_ADMIN")
    raise NotSupported(f"cannot make a network namespace: {os.strerror(number)}")


def is_this(netns: str | None) -> bool:
    """Whether that is the namespace that the calling thread is in: not if it is none, or may not be looked at."""
    try:
        return netns is None or os.path.samestat(os.stat(_path(netns)), os.stat(THIS_NETNS))
    except (OSError, ValueError):
        return False


def _path(netns: str) -> str:
    return netns if "/" in netns else os.path.join(NETNS_DIRECTORY, netns)


def _namespace(netns: str) -> t.BinaryIO:
    try:
        return open(_path(netns), "rb")
    except PermissionError as exc:
        raise NotPermitted("entering a namespace needs root", field="netns", value=netns) from exc
    except (OSError, ValueError) as exc:
        raise _unknown(netns) from exc


def _unknown(netns: str) -> InvalidInput:
    accepted = f"the name of a network namespace below {NETNS_DIRECTORY}, or a path"
    return InvalidInput("is no network namespace", field="netns", value=netns, accepted=accepted)


def _enter(descriptor: int, netns: str) -> None:
    try:
        _setns(descriptor)
    except OSError as exc:
        if exc.errno == errno.EPERM:
            raise NotPermitted("entering a namespace needs root", field="netns", value=netns) from exc
        if exc.errno == errno.EINVAL:
            raise _unknown(netns) from exc
        raise


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
