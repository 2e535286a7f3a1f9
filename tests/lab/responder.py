# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that answer with their own name and the source they saw: TCP and UDP on one port, both families.

One thread of this process serves all hosts: the sockets live in the hosts' namespaces, no process does.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import threading
import typing as t

from . import syscalls
from .host import Host

PORT = 7000
_PKTINFO4 = struct.Struct("i4s4s")
_PKTINFO6 = struct.Struct("16si")
# Missing from the socket module of Python 3.11.
_IP_PKTINFO = 8


class Responder:
    """The thread and its sockets."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, waker = os.pipe()
        self._waker = waker
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, name="lab-responder", daemon=True)
        self._served: set[tuple[int, int, str]] = set()
        self._thread.start()

    def listen(self, host: Host, *, port: int = PORT, address: str = "::") -> None:
        """Answer on a host, wildcard or one address. UDP answers come from the address that was asked."""
        if (host.pid, port, address) in self._served:
            return
        self._served.add((host.pid, port, address))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with syscalls.network_of(host.pid):
            stream, datagrams = (
                _bound(family, kind, address, port) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
            )
        stream.listen(4096)
        self._selector.register(stream, selectors.EVENT_READ, (self._accept, host.name))
        self._selector.register(datagrams, selectors.EVENT_READ, (_answer_datagram, host.name))
        os.write(self._waker, b"\0")

    def forget(self, host: Host) -> None:
        """Close what listens on a host that is about to end: open sockets would keep its devices alive."""
        for key in list(self._selector.get_map().values()):
            if key.data is not None and key.data[1] == host.name:
                self._drop(key.fileobj)
        self._served = {served for served in self._served if served[0] != host.pid}

    def close(self) -> None:
        """End the thread, close all sockets."""
        os.write(self._waker, b"q")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake)
        os.close(self._waker)

    def _serve(self) -> None:
        while True:
            for key, _events in self._selector.select():
                if key.data is None:
                    if b"q" in os.read(self._wake, 4096):
                        return
                    continue
                action, name = key.data
                try:
                    action(key.fileobj, name)
                except OSError:
                    # The answer cannot be sent or the peer is gone: whoever asked sees it as no answer.
                    if action == self._converse:
                        self._drop(key.fileobj)

    def _accept(self, listener: socket.socket, name: str) -> None:
        connection, _peer = listener.accept()
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, (self._converse, name))

    def _converse(self, connection: socket.socket, name: str) -> None:
        data = connection.recv(1 << 16)
        if not data:
            self._drop(connection)
            return
        for _line in range(data.count(b"\n")):
            connection.send(_answer(name, connection.getpeername()) + b"\n")

    def _drop(self, connection: t.Any) -> None:
        self._selector.unregister(connection)
        connection.close()


def _bound(family: int, kind: int, address: str, port: int) -> socket.socket:
    server = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    server.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    server.bind((address, port))
    server.setblocking(False)
    return server


def _answer_datagram(server: socket.socket, name: str) -> None:
    _data, controls, _flags, peer = server.recvmsg(2048, 256)
    server.sendmsg([_answer(name, peer)], [_from_asked(*control) for control in controls], 0, peer)


def _from_asked(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """The control message that makes the asked address the source, and leaves the device to the routing."""
    if level == socket.IPPROTO_IPV6:
        asked, _index = _PKTINFO6.unpack(data)
        return level, socket.IPV6_PKTINFO, _PKTINFO6.pack(asked, 0)
    _index, _local, asked = _PKTINFO4.unpack(data)
    return level, kind, _PKTINFO4.pack(0, asked, b"\0\0\0\0")


def _answer(name: str, peer: tuple[t.Any, ...]) -> bytes:
    seen = str(peer[0]).removeprefix("::ffff:")
    return json.dumps({"name": name, "seen": seen, "port": peer[1]}).encode()
