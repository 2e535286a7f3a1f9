# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Files below /proc/sys/net, which show the network namespace that the thread is in."""

from __future__ import annotations

import errno
import os

from ._model.operation import Sysctl
from ._netlink_socket import Refused

DIRECTORY = "/proc/sys/net"


def read_sysctl(path: str) -> str | None:
    """The value of a file, None if there is none: the kernel lacks it, or its device is gone."""
    try:
        with open(_file(path), encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def change_sysctl(wanted: Sysctl) -> Refused | None:
    """Write a value; what the kernel had against it."""
    try:
        with open(_file(wanted.name), "w", encoding="ascii") as file:
            file.write(wanted.value)
    except OSError as exc:
        return Refused(exc.errno or errno.EIO, exc.strerror or "")
    return None


def _file(path: str) -> str:
    if ".." in path.split("/"):
        raise ValueError(f"{path!r} leaves {DIRECTORY}")
    return os.path.join(DIRECTORY, path.lstrip("/"))
