# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tunnel without a daemon: a cable to the VPN gateway that behaves like a layer 3 device.

For fleets of a thousand, and for cases that the daemons cannot be made to do. Both ends have the same link-layer
address and no ARP, so that nothing has to be resolved on it.
"""

from __future__ import annotations

import typing as t

from . import addresses as plan
from .host import Host
from .topology import single
from .tunnel import connect

DEVICE = "vpn0"
_NOARP = 0x80
_MAC = "02:00:00:76:70:6e"


class Standin:
    """A client's end, and the gateway's."""

    kind = "standin"
    device = DEVICE
    connection = DEVICE

    def __init__(self, host: Host, gateway: Host, inside: t.Sequence[str], mode: str) -> None:
        self.host, self._gateway = host, gateway
        self.peer = f"s-{host.name}"  # the gateway's end
        if len(self.peer) > 15:
            raise ValueError(f"{host.name}: a device of the gateway is named after it, so 13 characters at most")
        self._inside: tuple[str, ...] = ()
        self._mode = mode
        self.configure(inside, mode)

    def configure(self, inside: t.Sequence[str], mode: str) -> None:
        """What the next start will use."""
        self._inside, self._mode = tuple(inside), mode

    def begin(self) -> None:
        """Both ends up, addresses and routes as a client would write them."""
        if self._gateway.has_device(self.peer):
            # The client has rebooted, and its old namespace is not quite gone.
            self._gateway.remove(self.peer)
        peer = {"ifname": DEVICE, "net_ns_pid": self.host.pid, "address": _MAC}
        self._gateway.batch().add("link", "add", ifname=self.peer, kind="veth", peer=peer, address=_MAC).send()
        for host, device in ((self._gateway, self.peer), (self.host, DEVICE)):
            host.batch().add("link", "set", index=host.index(device), flags=_NOARP, change=_NOARP).send()
        connect(self._gateway, self.peer, self.host, DEVICE)
        self.host.address(DEVICE, *single(self._inside))
        for address in single(self._inside):
            self._gateway.route(address, dev=self.peer)
        for prefix in self._routes():
            self.host.route(prefix, dev=DEVICE)

    def _routes(self) -> list[str]:
        if self._mode == "identity":
            return []
        families = {":" in address for address in self._inside}
        full = ("0.0.0.0/1", "128.0.0.0/1", "2000::/3")
        prefixes = full if self._mode == "full" else plan.CORPORATE
        return [prefix for prefix in prefixes if (":" in prefix) in families]

    def finish(self) -> None:
        """It is up at once."""

    def stop(self) -> None:
        """Both ends vanish."""
        self.host.batch().add("link", "del", index=self.host.index(DEVICE)).send()

    def kill(self) -> None:
        """As `stop`: there is no daemon."""
        self.stop()

    def renumber(self, inside: t.Sequence[str]) -> None:
        """Other inside addresses, on a new device."""
        self.configure(inside, self._mode)
        self.stop()
        self.begin()
