# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IPsec: strongSwan's charon-systemd and swanctl on both ends, with virtual addresses.

By kernel-libipsec, which does ESP in user space behind one tun device `ipsec0`, so that no kernel support is needed.
"""

from __future__ import annotations

import pathlib
import secrets
import signal
import subprocess
import typing as t

from . import addresses as plan
from .host import Host, family_of
from .tunnel import wait_for

DEVICE = "ipsec0"
CONNECTION = "corp"
DAEMON = "charon-systemd"
MARK = 0x42
# split and identity: the corporate network, and the part of the Internet that the lab has, so that answers from the
# inside address to there are within the selectors.
_SELECTORS = (*plan.CORPORATE, *plan.OUTSIDE_NET)
_EVERYTHING = ("0.0.0.0/0", "::/0")
_SETTINGS = """
charon {
    retransmit_tries = 2
    retransmit_timeout = 1.0
    filelog {
        log {
            path = %s
            time_format = %%T
            default = 1
            flush_line = yes
        }
    }
}
"""
# For selectors that hold the gateway's own address: outer packets are marked, and the rule of charon's table spares
# what is marked.
_MARKED = f"""
charon {{
    plugins {{
        kernel-netlink {{
            fwmark = !{MARK:#x}
        }}
        socket-default {{
            fwmark = {MARK:#x}
        }}
    }}
}}
"""


class StrongswanGateway:
    """The gateway's end. Starts with the first client."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.clients: dict[str, tuple[tuple[str, ...], str]] = {}  # name: inside addresses, secret
        self._process: subprocess.Popen[t.Any] | None = None

    def sync(self) -> None:
        """Make the daemon know the clients as they are. A pool with a lease stays: a change brings a new one."""
        if self._process is None:
            self._process = daemon(self.host)
        self.host.write("/etc/swanctl/swanctl.conf", self._text(), 0o600)
        swanctl(self.host, "--load-all")

    def _text(self) -> str:
        parts = [self._connection(name, inside) for name, (inside, _secret) in self.clients.items()]
        pools = [
            f"{_pool(address)} {{\n addrs = {address}-{address}\n}}"
            for inside, _secret in self.clients.values()
            for address in inside
        ]
        keys = [f"ike-{name} {{\n id = {name}\n secret = {key}\n}}" for name, (_own, key) in self.clients.items()]
        sections = (("connections", parts), ("pools", pools), ("secrets", keys))
        return "".join(f"{name} {{\n" + "\n".join(entries) + "\n}\n" for name, entries in sections)

    @staticmethod
    def _connection(name: str, inside: t.Sequence[str]) -> str:
        families = {family_of(address) for address in inside}
        local = ",".join(prefix for prefix in _EVERYTHING if family_of(prefix) in families)
        lines = [
            f"{name} {{",
            f"local_addrs = {plan.GATEWAY[0]}\npools = {','.join(_pool(address) for address in inside)}",
            "unique = replace\ndpd_delay = 20s",
            "local {\nauth = psk\nid = gateway\n}",
            f"remote {{\nauth = psk\nid = {name}\n}}",
            f"children {{\nnet {{\nlocal_ts = {local}\ndpd_action = clear\n}}\n}}\n}}",
        ]
        return "\n".join(lines)


class Strongswan:
    """A client's end, from /etc/swanctl/swanctl.conf."""

    kind = "ipsec"
    device = DEVICE
    connection = CONNECTION

    def __init__(self, host: Host, gateway: StrongswanGateway, inside: t.Sequence[str], mode: str) -> None:
        self.host, self._gateway = host, gateway
        self._secret = secrets.token_hex(16)
        self._mode = mode
        self._inside: tuple[str, ...] = ()
        self.configure(inside, mode)
        host.write("/etc/swanctl/swanctl.conf", self._text(), 0o600)
        if mode == "full":
            host.write("/etc/strongswan.d/marked.conf", _MARKED)

    def configure(self, inside: t.Sequence[str], mode: str) -> None:
        """What the gateway will give at the next connect."""
        self._inside, self._mode = tuple(inside), mode
        self._gateway.clients[self.host.name] = (self._inside, self._secret)

    def _text(self) -> str:
        families = {family_of(address) for address in self._inside}
        wanted = _EVERYTHING if self._mode == "full" else _SELECTORS
        remote = ",".join(prefix for prefix in wanted if family_of(prefix) in families)
        virtual = ",".join({4: "0.0.0.0", 6: "::"}[family] for family in sorted(families))
        lines = [
            f"connections {{\n{CONNECTION} {{",
            f"remote_addrs = {plan.GATEWAY[0]}\nvips = {virtual}\ndpd_delay = 20s",
            f"local {{\nauth = psk\nid = {self.host.name}\n}}",
            "remote {\nauth = psk\nid = gateway\n}",
            f"children {{\nnet {{\nremote_ts = {remote}",
            "start_action = start\nclose_action = start\ndpd_action = restart\n}\n}\n}\n}",
            f"secrets {{\nike-1 {{\nid = gateway\nsecret = {self._secret}\n}}\n}}",
        ]
        return "\n".join(lines) + "\n"

    def begin(self) -> None:
        """Start the daemon, and the connection with it."""
        self._gateway.sync()
        daemon(self.host)
        swanctl(self.host, "--load-all")

    def finish(self) -> None:
        """Wait for the child SA and for the virtual addresses."""
        wait_for(self._is_up, f"{self.host.name}: strongSwan: {log(self.host)}")

    def _is_up(self) -> bool:
        return all(self.host.owns(address) for address in self._inside) and (
            "INSTALLED" in swanctl(self.host, "--list-sas")
        )

    def stop(self) -> None:
        """SIGTERM: the daemon takes its rule, its routes and its device away."""
        self.host.signal(DAEMON, signal.SIGTERM)
        self._wait_for_end()

    def renumber(self, inside: t.Sequence[str]) -> None:
        """The gateway ends the connection; the client takes it up again and is given other addresses."""
        self.configure(inside, self._mode)
        self._gateway.sync()
        swanctl(self._gateway.host, "--terminate", "--ike", self.host.name)
        self.finish()

    def kill(self) -> None:
        """End the daemon without notice; its rule stays."""
        self.host.signal(DAEMON, signal.SIGKILL)
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        wait_for(lambda: not self.host.has_device(DEVICE), f"{self.host.name}: {DEVICE} gone")
        wait_for(lambda: not self.host.pids(DAEMON), f"{self.host.name}: {DAEMON} gone")


def daemon(host: Host) -> subprocess.Popen[t.Any]:
    """Start charon with ESP in user space and wait until it can be talked to."""
    host.write("/etc/strongswan.d/charon/kernel-libipsec.conf", "kernel-libipsec {\n load = yes\n}\n")
    host.write("/etc/strongswan.d/lab.conf", _SETTINGS % log(host))
    # Its control socket outlives a daemon that was killed.
    host.run(["rm", "-f", "/run/charon.vici"])
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = host.popen([f"/usr/sbin/{DAEMON}"], **quiet)
    wait_for(lambda: host.run(["test", "-S", "/run/charon.vici"], check=False).returncode == 0, f"{host.name}: charon")
    return started


def log(host: Host) -> pathlib.Path:
    """What the daemon writes."""
    return host.root / "charon.log"


def swanctl(host: Host, *arguments: str) -> str:
    """Talk to the daemon."""
    return host.run(["swanctl", *arguments]).stdout


def _pool(address: str) -> str:
    return "p" + address.replace(".", "-").replace(":", "-")
