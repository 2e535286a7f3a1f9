# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WireGuard: wireguard-go on the gateway, wg-quick with its own wireguard-go on each client."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import time
import typing as t

from . import addresses as plan
from .host import Host
from .tunnel import wait_for

PORT = 51820
DEVICE = "wg0"


@dataclasses.dataclass
class Peer:
    """A client as the gateway knows it."""

    public: str
    allowed: tuple[str, ...]


class WireguardGateway:
    """The gateway's end. Starts with the first client."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._private, self.public = make_keys()
        self.peers: list[Peer] = []
        self._known: list[Peer] = []
        self._process: subprocess.Popen[t.Any] | None = None

    def sync(self) -> None:
        """Make the daemon know the peers as they are listed now."""
        if self._process is None:
            self._start()
        if self._known == self.peers:
            return
        lines = ["[Interface]", f"PrivateKey = {self._private}", f"ListenPort = {PORT}"]
        for peer in self.peers:
            lines += ["[Peer]", f"PublicKey = {peer.public}", f"AllowedIPs = {', '.join(peer.allowed)}"]
        self.host.run(["wg", "syncconf", DEVICE, "/dev/stdin"], stdin="\n".join(lines) + "\n")
        self._known = list(self.peers)

    def has_seen(self, public: str, since: int) -> bool:
        """Whether a peer has shaken hands since a time, seconds of the epoch."""
        lines = self.host.run(["wg", "show", DEVICE, "latest-handshakes"]).stdout.splitlines()
        return any(key == public and int(when) >= since for key, when in (line.split() for line in lines))

    def _start(self) -> None:
        self._process = self.host.popen(
            ["wireguard-go", DEVICE],
            env={"WG_PROCESS_FOREGROUND": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # The device is there before the control socket is.
        socket = f"/run/wireguard/{DEVICE}.sock"
        wait_for(lambda: self.host.run(["test", "-S", socket], check=False).returncode == 0, "gateway's wireguard-go")
        own = zip(plan.first(plan.WIREGUARD_POOL), plan.WIREGUARD_POOL, strict=True)
        self.host.address(DEVICE, *(f"{address}/{plan.length(pool)}" for address, pool in own))
        self.host.up(DEVICE)


class Wireguard:
    """A client's end, run by wg-quick from /etc/wireguard/wg0.conf."""

    kind = "wireguard"
    device = DEVICE
    connection = DEVICE

    def __init__(self, host: Host, gateway: WireguardGateway, inside: t.Sequence[str], mode: str) -> None:
        self.host, self._gateway = host, gateway
        self.private, self.public = make_keys()
        self._starting: subprocess.Popen[t.Any] | None = None
        self._begun = 0
        self.configure(inside, mode)

    def configure(self, inside: t.Sequence[str], mode: str) -> None:
        """Write the configuration and tell the gateway; a running tunnel notices at its next start."""
        self._mode = mode
        allowed = tuple(f"{address}/{128 if ':' in address else 32}" for address in inside)
        others = [peer for peer in self._gateway.peers if peer.public != self.public]
        self._gateway.peers[:] = [*others, Peer(self.public, allowed)]
        self.host.write(f"/etc/wireguard/{DEVICE}.conf", self._text(allowed, mode), 0o600)

    def _text(self, allowed: t.Sequence[str], mode: str) -> str:
        lines = ["[Interface]", f"PrivateKey = {self.private}", f"Address = {', '.join(allowed)}"]
        if mode in ("split", "identity"):
            lines.append("Table = off")
        if mode == "split":
            lines += [f"PostUp = ip route add {prefix} dev %i" for prefix in _corporate(allowed)]
        reach = ", ".join(_corporate(allowed)) if mode == "auto" else "0.0.0.0/0, ::/0"
        lines += ["[Peer]", f"PublicKey = {self._gateway.public}", f"AllowedIPs = {reach}"]
        lines += [f"Endpoint = {plan.GATEWAY[0]}:{PORT}", "PersistentKeepalive = 5", ""]
        return "\n".join(lines)

    def begin(self) -> None:
        """wg-quick up."""
        self._gateway.sync()
        self._begun = int(time.time())
        log = (self.host.root / "wg-quick.log").open("wb")
        with log:
            self._starting = self.host.popen(
                ["wg-quick", "up", DEVICE], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def finish(self) -> None:
        """Wait for wg-quick and for the handshake."""
        if self._starting is not None and self._starting.wait(60):
            raise RuntimeError(f"{self.host.name}: wg-quick: {(self.host.root / 'wg-quick.log').read_text()}")
        self._starting = None
        wait_for(lambda: self._gateway.has_seen(self.public, self._begun), f"{self.host.name}: handshake")

    def stop(self) -> None:
        """wg-quick down."""
        self.host.run(["wg-quick", "down", DEVICE])

    def renumber(self, inside: t.Sequence[str]) -> None:
        """Down, other addresses, up: the way of wg-quick."""
        self.stop()
        self.configure(inside, self._mode)
        self.begin()
        self.finish()

    def kill(self) -> None:
        """End wireguard-go; the device goes with it."""
        self.host.signal("wireguard-go", signal.SIGKILL)
        wait_for(lambda: not self.host.has_device(DEVICE), f"{self.host.name}: {DEVICE} gone")


def make_keys() -> tuple[str, str]:
    """A private key and its public one."""
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip()
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()
    return private, public


def _corporate(own: t.Sequence[str]) -> list[str]:
    """The corporate prefixes of those families in which there is an address."""
    families = {":" in address for address in own}
    return [prefix for prefix in plan.CORPORATE if (":" in prefix) in families]
