# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tinc 1.0: one daemon on the gateway, one on each client; the address is set by the user's own tinc-up."""

from __future__ import annotations

import signal
import subprocess
import typing as t

from . import addresses as plan
from .host import Host, family_of
from .tunnel import wait_for

NETWORK = "corp"
DEVICE = "tinc0"
_DIRECTORY = f"/etc/tinc/{NETWORK}"
_GATEWAY = "gateway"


class TincGateway:
    """The gateway's end. It is the way to everywhere; a client's own addresses are told when it connects."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._process: subprocess.Popen[t.Any] | None = None
        own = [f"{address}/{plan.length(pool)}" for address, pool in zip(_first(), plan.TINC_POOL, strict=True)]
        host.write(f"{_DIRECTORY}/tinc.conf", _settings(_GATEWAY))
        host.write(f"{_DIRECTORY}/tinc-up", _script(own, []), 0o755)
        self.about = f"Address = {plan.GATEWAY[0]}\nSubnet = 0.0.0.0/0\nSubnet = ::/0\n{make_key(host, _GATEWAY)}"
        host.write(f"{_DIRECTORY}/hosts/{_GATEWAY}", self.about)

    def sync(self, name: str, about: str) -> None:
        """Make the daemon know a client. It reads the file when the client connects."""
        self.host.write(f"{_DIRECTORY}/hosts/{name}", about)
        if self._process is None:
            self._process = daemon(self.host)
            wait_for(lambda: self.host.owns(_first()[1]), "gateway's tinc")


class Tinc:
    """A client's end, from /etc/tinc/corp."""

    kind = "overlay"
    device = DEVICE
    connection = NETWORK

    def __init__(self, host: Host, gateway: TincGateway, inside: t.Sequence[str], mode: str) -> None:
        self.host, self._gateway = host, gateway
        self._name = host.name.replace("-", "_")  # tinc takes nothing else
        self._key = make_key(host, self._name)
        self._process: subprocess.Popen[t.Any] | None = None
        host.write(f"{_DIRECTORY}/tinc.conf", _settings(self._name) + f"ConnectTo = {_GATEWAY}\n")
        host.write(f"{_DIRECTORY}/hosts/{_GATEWAY}", gateway.about)
        self.configure(inside, mode)

    def configure(self, inside: t.Sequence[str], mode: str) -> None:
        """What the next start will use: tinc itself has no idea of the host's addresses."""
        self._inside, self._mode = tuple(inside), mode
        own = [f"{address}/{32 if family_of(address) == 4 else 128}" for address in inside]
        families = {family_of(address) for address in inside}
        full = ("0.0.0.0/1", "128.0.0.0/1", "2000::/3")
        prefixes = {"identity": (), "full": full, "split": plan.CORPORATE}[mode]
        # As people write it who send everything through tinc.
        past = (
            [f"ip route replace {plan.GATEWAY[0]} $(ip route show default | cut -d' ' -f2-5)"] if mode == "full" else []
        )
        routes = [f"ip route replace {p} dev $INTERFACE" for p in prefixes if family_of(p) in families]
        about = "".join(f"Subnet = {address}\n" for address in own) + self._key
        self.host.write(f"{_DIRECTORY}/tinc-up", _script(own, [*past, *routes]), 0o755)
        self.host.write(f"{_DIRECTORY}/hosts/{self._name}", about)
        self._about = about

    def begin(self) -> None:
        """Start the daemon."""
        self._gateway.sync(self._name, self._about)
        self._process = daemon(self.host)

    def finish(self) -> None:
        """Wait for the addresses and for the far end."""
        wait_for(self._is_up, f"{self.host.name}: tinc: {self.host.root / 'tinc.log'}")

    def _is_up(self) -> bool:
        log = (self.host.root / "tinc.log").read_text()
        return "activated" in log and all(self.host.owns(address) for address in self._inside)

    def stop(self) -> None:
        """SIGTERM: the device goes."""
        self.host.signal("tincd", signal.SIGTERM)
        self._wait_for_end()

    def renumber(self, inside: t.Sequence[str]) -> None:
        """By a restart: tinc knows no other way."""
        self.stop()
        self.configure(inside, self._mode)
        self.begin()
        self.finish()

    def kill(self) -> None:
        """End the daemon without notice."""
        self.host.signal("tincd", signal.SIGKILL)
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        wait_for(lambda: not self.host.has_device(DEVICE), f"{self.host.name}: {DEVICE} gone")
        wait_for(lambda: not self.host.pids("tincd"), f"{self.host.name}: tincd gone")


def make_key(host: Host, name: str) -> str:
    """A new private key below /etc/tinc/corp, and the public one as the file of a host holds it."""
    host.write(f"{_DIRECTORY}/tinc.conf", f"Name = {name}\n")
    host.write(f"{_DIRECTORY}/hosts/{name}", "")
    host.run(["tincd", "-n", NETWORK, "-K2048"], stdin="\n\n")
    return host.read(f"{_DIRECTORY}/hosts/{name}")


def daemon(host: Host) -> subprocess.Popen[t.Any]:
    """Start tincd."""
    # The file of one that was killed is in the way of the next.
    host.run(["rm", "-f", "/run/tinc.pid"])
    with (host.root / "tinc.log").open("wb") as log:
        return host.popen(
            ["tincd", "-n", NETWORK, "-D", "-d2", "--pidfile=/run/tinc.pid"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _settings(name: str) -> str:
    return f"Name = {name}\nDeviceType = tun\nInterface = {DEVICE}\nMode = router\nPingInterval = 2\nPingTimeout = 2\n"


def _script(addresses: t.Sequence[str], more: t.Sequence[str]) -> str:
    lines = [f"ip addr add {address} dev $INTERFACE {'nodad' * (':' in address)}" for address in addresses]
    return "\n".join(["#!/bin/sh -e", "ip link set $INTERFACE up", *lines, *more, ""])


def _first() -> tuple[str, str]:
    return plan.first(plan.TINC_POOL)
