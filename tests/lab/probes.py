# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes: one packet or connection from a host, by every kind of socket that routing tells apart."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import socket
import struct
import time
import typing as t

from .host import Host, family_of
from .responder import PORT

SO_MARK = 36
_ECHO: dict[int, tuple[int, int]] = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
_ICMP = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a probe met. True if it was answered."""

    ok: bool
    name: str = ""  # who answered; empty for icmp
    seen: str = ""  # the source that the other side saw; empty for icmp
    error: str = ""  # the errno's name, "TIMEOUT" if nothing came

    def __bool__(self) -> bool:
        return self.ok


@dataclasses.dataclass(frozen=True)
class Probe:
    """A question to ask from a host. `source` binds, `dev` binds to a device; `connected` is about udp."""

    host: Host
    to: str
    proto: str = "icmp"
    source: str | None = None
    dev: str | None = None
    connected: bool = True
    port: int = PORT
    sport: int = 0
    mark: int = 0
    timeout: float = 2.0

    def ask(self) -> Answer:
        """Send it and wait for the answer."""
        asks = {"icmp": _ask_icmp, "udp": _ask_udp, "tcp": _ask_tcp}
        try:
            with self._socket() as opened:
                return asks[self.proto](self, opened)
        except OSError as error:
            return Answer(False, error=_name_of(error))

    @property
    def family(self) -> socket.AddressFamily:
        """The address family of the destination."""
        return socket.AF_INET6 if family_of(self.to) == 6 else socket.AF_INET

    @property
    def target(self) -> tuple[t.Any, ...]:
        """The destination for the socket calls; a device's index behind `%` becomes the scope."""
        address, _percent, scope = self.to.partition("%")
        return (address, self.port, 0, int(scope)) if scope else (address, self.port)

    @contextlib.contextmanager
    def _socket(self) -> t.Iterator[socket.socket]:
        kind = {"icmp": socket.SOCK_RAW, "udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}[self.proto]
        with self.host.socket(self.family, kind, _ICMP[self.family] if self.proto == "icmp" else 0) as opened:
            opened.settimeout(self.timeout)
            if self.dev:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.dev.encode() + b"\0")
            if self.mark:
                opened.setsockopt(socket.SOL_SOCKET, SO_MARK, self.mark)
            if self.source or self.sport:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                wildcard = "::" if self.family == socket.AF_INET6 else "0.0.0.0"
                opened.bind((self.source or wildcard, self.sport))
            yield opened


def _name_of(error: OSError) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return "TIMEOUT"
    return errno.errorcode.get(error.errno or 0, str(error))


def _ask_udp(probe: Probe, opened: socket.socket) -> Answer:
    if probe.connected:
        opened.connect(probe.target)
        opened.send(b"?\n")
    else:
        opened.sendto(b"?\n", probe.target)
    return _read(opened.recv(2048))


def _ask_tcp(probe: Probe, opened: socket.socket) -> Answer:
    opened.connect(probe.target)
    opened.sendall(b"?\n")
    return _read(opened.recv(2048))


def _read(data: bytes) -> Answer:
    if not data:
        return Answer(False, error="EOF")
    told = json.loads(data)
    return Answer(True, told["name"], told["seen"])


def _ask_icmp(probe: Probe, opened: socket.socket) -> Answer:
    request, reply = _ECHO[probe.family]
    cookie = os.urandom(8)
    identity = int.from_bytes(cookie[:2], "big")
    packet = struct.pack("!BBHHH", request, 0, 0, identity, 1) + cookie
    if probe.family == socket.AF_INET:
        packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
    opened.sendto(packet, dataclasses.replace(probe, port=0).target)
    deadline = time.monotonic() + probe.timeout
    while (left := deadline - time.monotonic()) > 0:
        opened.settimeout(left)
        data, _peer = opened.recvfrom(2048)
        if probe.family == socket.AF_INET:
            data = data[(data[0] & 15) * 4 :]
        if data[:1] == bytes([reply]) and data[8:16] == cookie:
            return Answer(True)
    return Answer(False, error="TIMEOUT")


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Conversation:
    """A TCP connection that stays open: does it still work after something has changed?"""

    def __init__(self, probe: Probe) -> None:
        self._context = dataclasses.replace(probe, proto="tcp")._socket()
        self._opened = self._context.__enter__()
        self._opened.connect(probe.target)

    def ask(self) -> Answer:
        """One question more on the same connection."""
        try:
            self._opened.sendall(b"?\n")
            return _read(self._opened.recv(2048))
        except OSError as error:
            return Answer(False, error=_name_of(error))

    def close(self) -> None:
        """Close it."""
        self._opened.close()
