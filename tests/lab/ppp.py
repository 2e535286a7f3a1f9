# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for pppd, which needs a kernel with PPP: a TUN named ppp0, and the distribution's own /etc/ppp scripts.

The order is pppd's: the address is put on, ip-pre-up is waited for, the link comes up, the default is set if that was
asked for, ip-up runs and is not waited for. Packets are carried to the gateway's TUN by this process.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import typing as t

from . import addresses as plan
from . import pppd, syscalls
from .host import Host
from .topology import single
from .tunnel import wait_for

DEVICE = "ppp0"
CONNECTION = "corp"


class Ppp:
    """A client's end, and the gateway's."""

    kind = "ppp"
    device = DEVICE
    connection = CONNECTION

    def __init__(self, host: Host, gateway: Host, inside: t.Sequence[str], mode: str) -> None:
        self.host, self._gateway = host, gateway
        self._peer = f"p-{host.name}"
        self._inside: tuple[str, ...] = ()
        self._wire: _Wire | None = None
        self._replaced: list[str] = []
        self.configure(inside, mode)
        host.write(f"/etc/ppp/peers/{CONNECTION}", f"ifname {DEVICE}\n", 0o640)
        if mode == "split":
            host.write("/etc/ppp/ip-up.d/10routes", _routes(), 0o755)

    def configure(self, inside: t.Sequence[str], mode: str) -> None:
        """What the next start will use."""
        self._inside, self._mode = tuple(inside), mode

    def begin(self) -> None:
        """As pppd comes up."""
        self._cut()  # the host may have rebooted
        self._wire = _Wire((self._gateway, self._peer), (self.host, DEVICE))
        self._gateway.up(self._peer)
        for address in single(self._inside):
            self._gateway.route(address, dev=self._peer)
        local = next(address for address in self._inside if ":" not in address)
        remote = plan.first(plan.PPP_POOL)[0]
        self.host.run(["ip", "address", "add", local, "peer", remote, "dev", DEVICE])
        self.script("ip-pre-up", local, remote).wait(60)
        self.host.up(DEVICE)
        self._wire.connect()
        if self._mode == "full":
            self._replace_default()
        self.script("ip-up", local, remote)
        # By router advertisement, as an address of more than the link's own scope comes.
        self.host.address(DEVICE, *(address for address in single(self._inside) if ":" in address))

    def _replace_default(self) -> None:
        """Options replacedefaultroute and defaultroute6."""
        self._replaced = self.host.run(["ip", "route", "show", "default"]).stdout.split()
        self.host.run(["ip", "route", "replace", "default", "dev", DEVICE])
        self.host.run(["ip", "-6", "route", "add", "default", "dev", DEVICE, "metric", "512"])

    def script(self, name: str, local: str, remote: str) -> subprocess.Popen[t.Any]:
        """A script as pppd runs it: an environment that is almost empty, and nothing to read or write."""
        command = pppd.script(name, DEVICE, local, remote, CONNECTION)
        nothing = subprocess.DEVNULL
        return self.host.popen(command, stdin=nothing, stdout=nothing, stderr=nothing)

    def finish(self) -> None:
        """Wait for what the scripts do."""
        wait_for(lambda: not self.host.pids("ip-up"), f"{self.host.name}: ip-up's end")

    def stop(self) -> None:
        """As pppd ends: it puts back the default that it replaced."""
        self.kill()
        if self._replaced:
            self.host.run(["ip", "route", "replace", *self._replaced])
            self._replaced = []

    def kill(self) -> None:
        """End without notice: the device goes with the process."""
        self._cut()
        wait_for(lambda: not self.host.has_device(DEVICE), f"{self.host.name}: {DEVICE} gone")

    def _cut(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def renumber(self, inside: t.Sequence[str]) -> None:
        """A new link brings other addresses."""
        self.configure(inside, self._mode)
        self.stop()
        self.begin()
        self.finish()


def _routes() -> str:
    """What the owner of a split tunnel writes."""
    lines = [f"ip route replace {prefix} dev {DEVICE}" for prefix in plan.CORPORATE]
    return "\n".join(["#!/bin/sh", *lines, ""])


class _Wire:
    """Two TUN devices, which live as long as it does, and a thread that carries packets between them when told to."""

    def __init__(self, *ends: tuple[Host, str]) -> None:
        self._devices = [_tun(host, name) for host, name in ends]
        self._end, self._ending = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def connect(self) -> None:
        """From now on packets pass."""
        self._thread.start()

    def _carry(self) -> None:
        one, other = self._devices
        pairs = {one: other, other: one}
        while self._end not in (ready := select.select([one, other, self._end], [], [])[0]):
            for source in ready:
                with contextlib.suppress(OSError):  # the other end is down
                    os.write(pairs[source], os.read(source, 65536))

    def close(self) -> None:
        """Both devices go."""
        os.close(self._ending)
        if self._thread.is_alive():
            self._thread.join()
        for descriptor in (*self._devices, self._end):
            os.close(descriptor)


def _tun(host: Host, name: str) -> int:
    with syscalls.network_of(host.pid):
        return pppd.tun(name)
