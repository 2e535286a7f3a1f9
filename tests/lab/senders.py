# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses that send without a pause, while something happens to their host."""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t

from . import addresses as plan
from .capture import Capture
from .host import Host
from .topology import UPLINK

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


class Sender:
    """Sends from addresses to the Internet without a pause, whether they are local or not."""

    def __init__(self, host: Host, addresses: t.Iterable[str]) -> None:
        self._sockets = [(self._socket(host, source), plan.OUTSIDE_HOST[":" in source]) for source in addresses]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    @staticmethod
    def _socket(host: Host, source: str) -> socket.socket:
        six = ":" in source
        made = host.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        level, option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if six else (socket.IPPROTO_IP, IP_TRANSPARENT)
        made.setsockopt(level, option, 1)
        made.bind((source, 0))
        return made

    def _send(self) -> None:
        while not self._ending.wait(0.01):
            for made, to in self._sockets:
                with contextlib.suppress(OSError):  # unreachable, as it should be
                    made.sendto(b"?", (to, 9))

    def end(self) -> None:
        """Stop sending."""
        self._ending.set()
        self._thread.join()
        for made, _to in self._sockets:
            made.close()


@contextlib.contextmanager
def sending(host: Host, *addresses: str) -> t.Iterator[Capture]:
    """While it lasts, addresses send; a capture of what passes."""
    with Capture(host) as seen:
        sender = Sender(host, addresses)
        try:
            yield seen
        finally:
            sender.end()
        seen.packets()


@contextlib.contextmanager
def no_leak(host: Host, *addresses: str, devices: t.Collection[str] = (UPLINK,)) -> t.Iterator[Capture]:
    """While it lasts, addresses send, and nothing with such a source leaves by the uplinks."""
    with sending(host, *addresses) as seen:
        yield seen
    missing = [device for device in devices if not host.has_device(device)]  # at a boot they come late
    assert not missing, f"{host.name} has no {missing}: nothing was to be seen there"
    left = [packet for packet in seen.packets(outgoing=True) if packet.dev in devices and packet.source in addresses]
    assert not left, f"{host.name}: {len(left)}: {left[:3]}"
