# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nebula 1.6: a lighthouse on the gateway, one daemon on each client. IPv4 only inside, and no hooks at all."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import typing as t

from . import addresses as plan
from .host import Host
from .tunnel import wait_for

PORT = 4242
DEVICE = "nebula0"
_DIRECTORY = "/etc/nebula"
# What clients may reach by the gateway, and what may come from there: Nebula holds every packet against it.
_BEHIND = (plan.CORPORATE[0], plan.OUTSIDE_NET[0])


class NebulaGateway:
    """The gateway's end, and the authority that signs."""

    def __init__(self, host: Host, directory: pathlib.Path) -> None:
        self.host = host
        self._directory = directory
        directory.mkdir()
        self._sign("ca", "-name", "corp")
        self._process: subprocess.Popen[t.Any] | None = None

    def sync(self) -> None:
        """Start the daemon unless it runs."""
        if self._process is not None:
            return
        self.issue(self.host, plan.first(plan.NEBULA_POOL)[0], *_BEHIND)
        _write(self.host, {"am_lighthouse": True}, routes=())
        self._process = daemon(self.host)
        wait_for(lambda: self.host.owns(plan.first(plan.NEBULA_POOL)[0]), "gateway's nebula")

    def issue(self, host: Host, address: str, *behind: str) -> None:
        """A new certificate for a host, put where it looks for it; the address is in it."""
        length = plan.length(plan.NEBULA_POOL[0])
        networks = ["-subnets", ",".join(behind)] if behind else []
        for path in self._directory.glob("host.*"):
            path.unlink()
        self._sign("sign", "-name", host.name, "-ip", f"{address}/{length}", *networks, *_out("host"))
        for name in ("ca.crt", "host.crt", "host.key"):
            host.write(f"{_DIRECTORY}/{name}", (self._directory / name).read_text(), 0o600)

    def _sign(self, *arguments: str) -> None:
        subprocess.run(["nebula-cert", *arguments], cwd=self._directory, check=True, capture_output=True)


class Nebula:
    """A client's end, from /etc/nebula/corp.yml."""

    kind = "overlay"
    device = DEVICE
    connection = "corp"

    def __init__(self, host: Host, gateway: NebulaGateway, inside: t.Sequence[str], mode: str) -> None:
        if mode != "split" or any(":" in address for address in inside):
            raise ValueError(f"{host.name}: Nebula writes the routes that it can use itself, and is IPv4 only inside")
        self.host, self._gateway = host, gateway
        self._process: subprocess.Popen[t.Any] | None = None
        self.configure(inside, mode)
        lighthouse = plan.first(plan.NEBULA_POOL)[0]
        _write(host, {"am_lighthouse": False, "interval": 5, "hosts": [lighthouse]}, routes=_BEHIND)

    def configure(self, inside: t.Sequence[str], mode: str) -> None:
        """The certificate for the next start."""
        self._inside, self._mode = tuple(inside), mode
        self._gateway.issue(self.host, self._inside[0])

    def begin(self) -> None:
        """Start the daemon."""
        self._gateway.sync()
        self._process = daemon(self.host)

    def finish(self) -> None:
        """Wait for the address, and for an answer by the tunnel."""
        wait_for(lambda: all(self.host.owns(address) for address in self._inside), f"{self.host.name}: nebula: address")
        far = plan.first(plan.NEBULA_POOL)[0]
        wait_for(
            lambda: self.host.run(["ping", "-c1", "-W1", far], check=False).returncode == 0,
            f"{self.host.name}: nebula: {self.host.root / 'nebula.log'}",
        )

    def stop(self) -> None:
        """SIGTERM: the device goes."""
        self.host.signal("nebula", signal.SIGTERM)
        self._wait_for_end()

    def renumber(self, inside: t.Sequence[str]) -> None:
        """By a restart: a reload refuses a certificate with another address."""
        self.stop()
        self.configure(inside, self._mode)
        self.begin()
        self.finish()

    def kill(self) -> None:
        """End the daemon without notice."""
        self.host.signal("nebula", signal.SIGKILL)
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        wait_for(lambda: not self.host.has_device(DEVICE), f"{self.host.name}: {DEVICE} gone")
        wait_for(lambda: not self.host.pids("nebula"), f"{self.host.name}: nebula gone")


def daemon(host: Host) -> subprocess.Popen[t.Any]:
    """Start nebula."""
    with (host.root / "nebula.log").open("wb") as log:
        command = ["nebula", "-config", f"{_DIRECTORY}/corp.yml"]
        return host.popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def _write(host: Host, lighthouse: dict[str, t.Any], routes: t.Sequence[str]) -> None:
    """The configuration, as YAML in its JSON form."""
    far = plan.first(plan.NEBULA_POOL)[0]
    everybody = [{"port": "any", "proto": "any", "host": "any"}]
    settings = {
        "pki": {
            name: f"{_DIRECTORY}/{file}" for name, file in (("ca", "ca.crt"), ("cert", "host.crt"), ("key", "host.key"))
        },
        "static_host_map": {} if lighthouse["am_lighthouse"] else {far: [f"{plan.GATEWAY[0]}:{PORT}"]},
        "lighthouse": lighthouse,
        "listen": {"host": "0.0.0.0", "port": PORT if lighthouse["am_lighthouse"] else 0},
        "punchy": {"punch": True},
        "tun": {"dev": DEVICE, "mtu": 1300, "unsafe_routes": [{"route": prefix, "via": far} for prefix in routes]},
        "firewall": {"outbound": everybody, "inbound": everybody},
    }
    host.write(f"{_DIRECTORY}/corp.yml", json.dumps(settings, indent=1) + "\n", 0o600)


def _out(name: str) -> list[str]:
    return ["-out-crt", f"{name}.crt", "-out-key", f"{name}.key"]
