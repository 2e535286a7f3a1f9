# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the addresses of a network namespace are in use, which the kernel's answer to who added them does not say."""

from __future__ import annotations

import fcntl
import pathlib
import socket
import struct
import time

_THREAD = pathlib.Path("/proc/thread-self/net")
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 0x1
_TENTATIVE = 0x40
_RTF_LOCAL = 0x80000000
_PATIENCE = 2.0  # seconds


def device_flags(device: str) -> int:
    """The flags of a device of the calling thread's network namespace (IFF_*). Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH14x", device.encode(), 0))
    return int(struct.unpack_from("16sH", answer)[1])


def await_ipv6() -> None:
    """Wait until every IPv6 address of the calling thread's network namespace is one of this host for others, too.

    Without duplicate address detection as well, a worker of the kernel joins its group and adds its local route a
    moment later. A neighbour that asks before that asks again after a second.
    """
    deadline = time.monotonic() + _PATIENCE
    while _awaited() - _local() and time.monotonic() < deadline:
        time.sleep(0.001)


def _awaited() -> set[tuple[str, str]]:
    """Address and device of those that are to be local."""
    lines = [line.split() for line in _lines("if_inet6")]
    up = {device for device in {words[5] for words in lines} if device_flags(device) & _IFF_UP}
    return {(words[0], words[5]) for words in lines if words[5] in up and not int(words[4], 16) & _TENTATIVE}


def _local() -> set[tuple[str, str]]:
    lines = [line.split() for line in _lines("ipv6_route")]
    return {(words[0], words[9]) for words in lines if int(words[8], 16) & _RTF_LOCAL}


def _lines(name: str) -> list[str]:
    path = _THREAD / name
    return path.read_text(encoding="ascii").splitlines() if path.exists() else []
