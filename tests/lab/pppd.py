# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for pppd, which needs a kernel with PPP: a TUN, the distribution's own /etc/ppp scripts, UDP as the line.

It needs Python alone, so that it can also be copied into a container, there to be the daemon of a unit:

    pppd.py dial FILE      a client's end, until SIGTERM
    pppd.py answer FILE    the server's end, for all clients

FILE is JSON: `line` (address and port of the server), `device`, `inside` (the end's own addresses) and, of a client,
`remote` (the server's IPv4 address), `connection` and `default` (whether it replaces the default).
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import typing as t

LINK_LOCAL = ("fe80::a", "fe80::1")
_TTY, _SPEED = "/dev/pts/9", "115200"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_GREETING = b"\0"  # no IP packet begins like that
_BEAT = 1  # seconds between two greetings


def tun(name: str) -> int:
    """A TUN, which lives as long as its descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def script(name: str, device: str, local: str, remote: str, connection: str) -> list[str]:
    """How pppd runs a script: an environment that is almost empty, and six arguments."""
    ends = ("LLLOCAL", "LLREMOTE") if name.startswith("ipv6") else ("IPLOCAL", "IPREMOTE")
    values = {"DEVICE": _TTY, "IFNAME": device, ends[0]: local, ends[1]: remote, "SPEED": _SPEED}
    values |= {"PEERNAME": connection, "LINKNAME": "", "PPPD_PID": str(os.getpid())}
    values |= {"ORIG_UID": "0", "PPPLOGNAME": "root"}
    if name.endswith("down"):
        values |= {"CONNECT_TIME": "1", "BYTES_SENT": "0", "BYTES_RCVD": "0"}
    variables = [f"{key}={value}" for key, value in values.items()]
    return ["env", "-i", *variables, f"/etc/ppp/{name}", device, _TTY, _SPEED, local, remote, connection]


class Dial:
    """A client's end. The order is pppd's: address, ip-pre-up, which is waited for, link, default if it was asked for;
    the other scripts are not waited for, but for those of the end.
    """

    def __init__(self, settings: dict[str, t.Any]) -> None:
        self._device, self._inside = settings["device"], settings["inside"]
        self._line, self._remote = tuple(settings["line"]), settings["remote"]
        self._connection, self._default = settings["connection"], settings["default"]
        self._replaced: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def run(self) -> None:
        """Until SIGTERM."""
        device = tun(self._device)
        self._begin()
        try:
            self._carry(device)
        finally:
            self._finish()

    def _begin(self) -> None:
        local, beyond = self._inside
        _ip("link", "set", self._device, "addrgenmode", "none")
        _ip("address", "add", local, "peer", self._remote, "dev", self._device)
        self._script("ip-pre-up").wait()
        _ip("link", "set", self._device, "up")
        if self._default:
            self._replace_default()
        self._script("ip-up")
        _ip("address", "add", LINK_LOCAL[0], "peer", f"{LINK_LOCAL[1]}/128", "dev", self._device, "nodad")
        self._script("ipv6-up")
        # By router advertisement, as an address of more than the link's own scope comes.
        _ip("address", "add", beyond, "dev", self._device, "nodad")

    def _replace_default(self) -> None:
        """Options replacedefaultroute and defaultroute6."""
        self._replaced = _ip("route", "show", "default").split()
        _ip("route", "replace", "default", "dev", self._device)
        _ip("-6", "route", "add", "default", "dev", self._device, "metric", "512")

    def _finish(self) -> None:
        """The link goes first; then the default that was replaced comes back."""
        _ip("link", "set", self._device, "down")
        if self._replaced:
            _ip("route", "replace", *self._replaced)
        for name in ("ip-down", "ipv6-down"):
            self._script(name).wait()

    def _script(self, name: str) -> subprocess.Popen[t.Any]:
        local, remote = LINK_LOCAL if name.startswith("ipv6") else (self._inside[0], self._remote)
        nothing = subprocess.DEVNULL
        command = script(name, self._device, local, remote, self._connection)
        return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)

    def _carry(self, device: int) -> None:
        greeting, greeted = _GREETING + json.dumps(self._inside).encode(), 0.0
        while True:
            if time.monotonic() > greeted + _BEAT:
                greeted = time.monotonic()
                self._send(greeting)
            ready = select.select([device, self._socket], [], [], _BEAT)[0]
            if device in ready:
                self._send(os.read(device, 65536))
            if self._socket in ready:
                _write(device, self._socket.recv(65536))

    def _send(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # no uplink yet
            self._socket.sendto(packet, self._line)


class Answer:
    """The server's end: as most do, it takes packets only with the address that it gave to who sends them."""

    def __init__(self, settings: dict[str, t.Any]) -> None:
        self._device, self._inside = settings["device"], settings["inside"]
        self._clients: dict[str, t.Any] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(tuple(settings["line"]))

    def run(self) -> None:
        """Until it is ended."""
        device = tun(self._device)
        for address in self._inside:
            _ip("address", "add", address, "dev", self._device)
        _ip("link", "set", self._device, "up")
        while True:
            ready = select.select([device, self._socket], [], [])[0]
            if device in ready:
                self._to_client(os.read(device, 65536))
            if self._socket in ready:
                self._from_client(device, *self._socket.recvfrom(65536))

    def _to_client(self, packet: bytes) -> None:
        client = self._clients.get(_ends(packet)[1])
        if client is not None:
            self._socket.sendto(packet, client)

    def _from_client(self, device: int, packet: bytes, sender: t.Any) -> None:
        if packet.startswith(_GREETING):
            others = {address: client for address, client in self._clients.items() if client != sender}
            self._clients = {**others, **dict.fromkeys(json.loads(packet[1:]), sender)}
        elif self._clients.get(_ends(packet)[0]) == sender:
            _write(device, packet)


def _ends(packet: bytes) -> tuple[str, str]:
    """Source and destination."""
    if packet[0] >> 4 == 4:
        return str(ipaddress.IPv4Address(packet[12:16])), str(ipaddress.IPv4Address(packet[16:20]))
    return str(ipaddress.IPv6Address(packet[8:24])), str(ipaddress.IPv6Address(packet[24:40]))


def _write(device: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # the device is down
        os.write(device, packet)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def _end(_signal: int, _frame: t.Any) -> None:
    raise SystemExit(0)


def main() -> None:
    """One end, as the arguments say."""
    kinds: dict[str, type[Dial | Answer]] = {"dial": Dial, "answer": Answer}
    end, file = sys.argv[1:]
    settings = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    signal.signal(signal.SIGTERM, _end)
    kinds[end](settings).run()


if __name__ == "__main__":
    main()
