# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many rtnetlink requests in one write.

pyroute2 builds the messages; sending them is ours, so that a thousand hosts need neither a thousand netlink objects
nor one round trip per address.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import typing as t

from pyroute2 import IPBatch

from . import syscalls

_HEADER = struct.Struct("IHHII")
_NLMSG_ERROR = 2
_CHUNK = 100  # the acknowledgements of this many requests fit the socket's receive buffer

_local = threading.local()


class Batch:
    """Requests for one network namespace, carried out in order by `send`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._requests: list[tuple[bytes, str]] = []

    def add(self, what: str, command: str, /, **arguments: t.Any) -> Batch:
        """Queue a request as pyroute2 names it: add("addr", "add", index=1, ...)."""
        builder = _builder()
        getattr(builder, what)(command, **arguments)
        self._requests.append((bytes(builder.batch), f"{what} {command} {arguments}"))
        builder.reset()
        return self

    def send(self) -> None:
        """Carry them out. Raises OSError, with the request's text, for the first that the kernel refuses."""
        if not self._requests:
            return
        with syscalls.network_of(self._pid):
            connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        with connection:
            connection.bind((0, 0))
            for start in range(0, len(self._requests), _CHUNK):
                _exchange(connection, self._requests[start : start + _CHUNK])
        self._requests.clear()


def _builder() -> IPBatch:
    """One for each thread: making one costs ten times what a message costs."""
    if not hasattr(_local, "builder"):
        _local.builder = IPBatch()
    return _local.builder


def _exchange(connection: socket.socket, requests: list[tuple[bytes, str]]) -> None:
    connection.send(b"".join(_numbered(data, number) for number, (data, _text) in enumerate(requests)))
    waiting = len(requests)
    while waiting:
        for number, code in _acknowledgements(connection.recv(1 << 16)):
            waiting -= 1
            if code:
                raise OSError(-code, f"{os.strerror(-code)}: {requests[number][1]}")


def _numbered(request: bytes, number: int) -> bytes:
    length, kind, flags, _sequence, _port = _HEADER.unpack_from(request)
    return _HEADER.pack(length, kind, flags, number, 0) + request[_HEADER.size :]


def _acknowledgements(data: bytes) -> t.Iterator[tuple[int, int]]:
    position = 0
    while position < len(data):
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, position)
        if kind == _NLMSG_ERROR:
            yield sequence, struct.unpack_from("i", data, position + _HEADER.size)[0]
        position += (length + 3) & ~3
