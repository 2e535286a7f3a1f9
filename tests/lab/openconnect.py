# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenConnect: ocserv on the gateway, openconnect with the distribution's vpnc-script on each client.

A client's daemon is started again while one waits for it, as its unit would: it ends if at first it finds no server.
Once it is up, a test that wants it again calls `begin`.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import pathlib
import signal
import subprocess
import typing as t

from . import addresses as plan
from .host import Host
from .openvpn import Authority
from .tunnel import wait_for

DEVICE = "oc0"
CONNECTION = "openconnect@corp"
PASSWORD = "not-a-secret-in-the-lab"
_CONFIG, _SOCKET = "/etc/ocserv/ocserv.conf", "/run/ocserv-control"
_USERS, _PASSWORDS = "/etc/ocserv/users", "/etc/ocserv/passwords"
# As vpnc-script's users do it who want the addresses alone: no network to route, and so no default either.
_NO_ROUTES = "CISCO_SPLIT_INC=0\nCISCO_IPV6_SPLIT_INC=0\n"


class OpenconnectGateway:
    """The gateway's end."""

    def __init__(self, host: Host, directory: pathlib.Path) -> None:
        self.host = host
        self._certificate, self._key = Authority(directory / "pki").issue("gateway", "serverAuth")
        self._log = directory / "ocserv.log"
        self._process: subprocess.Popen[t.Any] | None = None

    @property
    def pin(self) -> str:
        """The server's key as clients are told it."""
        key = ["openssl", "x509", "-in", str(self._certificate), "-pubkey", "-noout"]
        public = subprocess.run(key, capture_output=True, text=True, check=True).stdout.splitlines()[1:-1]
        digest = hashlib.sha256(base64.b64decode("".join(public))).digest()
        return f"pin-sha256:{base64.b64encode(digest).decode()}"

    def allow(self, user: str, inside: t.Sequence[str], mode: str) -> None:
        """What the user gets at the next connect. The server reads the file anew for each."""
        lines = [f"explicit-ipv{6 if ':' in address else 4} = {address}" for address in inside]
        if mode != "full":
            lines += [f"route = {prefix}" for prefix in plan.CORPORATE]
        self.host.write(f"{_USERS}/{user}", "\n".join(lines) + "\n")
        self.host.run(["ocpasswd", "-c", _PASSWORDS, user], stdin=f"{PASSWORD}\n{PASSWORD}\n")

    def sync(self) -> None:
        """Start the server unless it runs."""
        if self._process is not None:
            return
        self.host.write(_CONFIG, self._text(), 0o600)
        with self._log.open("wb") as output:
            self._process = self.host.popen(
                ["ocserv", "-f", "-d", "2", "-c", _CONFIG],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        listening = ["sh", "-c", "ss -Hltn 'sport = :443' | grep -q ."]
        wait_for(lambda: self.host.run(listening, check=False).returncode == 0, f"ocserv: {self._log}")

    def restart(self) -> None:
        """SIGKILL and a new one: it knows no session any more."""
        self.host.signal("ocserv-main", signal.SIGKILL)
        wait_for(lambda: not self.host.pids("ocserv-main"), "ocserv's end")
        self._process = None
        self.sync()

    def disconnect(self, user: str) -> None:
        """End a user's session. His client is told, and his cookie is worth nothing any more."""
        self.host.run(["occtl", "-s", _SOCKET, "disconnect", "user", user])

    def _text(self) -> str:
        pool = ipaddress.IPv4Network(plan.OPENCONNECT_POOL[0])
        values = {
            "auth": f'"plain[passwd={_PASSWORDS}]"',
            "listen-host": plan.GATEWAY[0],
            "tcp-port": 443,
            "udp-port": 443,
            "run-as-user": "nobody",
            "run-as-group": "nogroup",
            "socket-file": "/run/ocserv-socket",
            "occtl-socket-file": _SOCKET,
            "use-occtl": "true",
            "pid-file": "/run/ocserv.pid",
            "server-cert": self._certificate,
            "server-key": self._key,
            "isolate-workers": "false",
            "device": "vpns",
            "ipv4-network": pool.network_address,
            "ipv4-netmask": pool.netmask,
            "ipv6-network": plan.OPENCONNECT_POOL[1],
            "ipv6-subnet-prefix": 128,
            "predictable-ips": "true",
            "config-per-user": f"{_USERS}/",
            "rate-limit-ms": 0,
            "max-ban-score": 0,
            "max-same-clients": 0,
            "dpd": 5,
            "cisco-client-compat": "true",
        }
        return "".join(f"{key} = {value}\n" for key, value in values.items())


class Openconnect:
    """A client's end."""

    kind = "openconnect"
    device = DEVICE
    connection = CONNECTION

    def __init__(self, host: Host, gateway: OpenconnectGateway, inside: t.Sequence[str], mode: str) -> None:
        self.host, self._gateway = host, gateway
        self._inside: tuple[str, ...] = ()
        self.log = host.root / "openconnect.log"
        self._process: subprocess.Popen[t.Any] | None = None
        self._said = 0  # what it held before the running daemon
        self.configure(inside, mode)
        if mode == "identity":
            for event in ("connect", "disconnect"):
                host.write(f"/etc/vpnc/{event}.d/00-no-routes", _NO_ROUTES)

    def configure(self, inside: t.Sequence[str], mode: str) -> None:
        """What the server will hand out at the next connect."""
        self._inside, self._mode = tuple(inside), mode
        self._gateway.allow(self.host.name, inside, mode)

    def begin(self) -> None:
        """Start the daemon."""
        self._gateway.sync()
        families = [] if any(":" in address for address in self._inside) else ["--disable-ipv6"]
        command = [
            *("openconnect", "--protocol=anyconnect", "--non-inter", "--passwd-on-stdin", *families),
            *(f"--user={self.host.name}", f"--servercert={self._gateway.pin}", f"--interface={DEVICE}"),
            *("--reconnect-timeout=5", f"https://{plan.GATEWAY[0]}"),
        ]
        self._said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = self.host.popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        self._process.stdin.write(f"{PASSWORD}\n".encode())
        self._process.stdin.close()

    def finish(self) -> None:
        """Wait until the addresses are there and vpnc-script has done what it does."""
        wait_for(self._has_addresses, f"{self.host.name}: {self.log}")
        wait_for(lambda: not self.host.pids("vpnc-script"), f"{self.host.name}: vpnc-script's end")
        # Until then packets pass by TLS; some are lost as they change over.
        wait_for(lambda: b"Established DTLS" in self.log.read_bytes()[self._said :], f"{self.host.name}: {self.log}")

    def _has_addresses(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            self.begin()
        return all(self.host.owns(address) for address in self._inside)

    def stop(self) -> None:
        """SIGINT: the daemon logs off, and vpnc-script puts the routes back."""
        self.host.signal("openconnect", signal.SIGINT)
        self.wait_for_end()

    def renumber(self, inside: t.Sequence[str]) -> None:
        """Other addresses come with a new daemon only: the old one ends rather than take them."""
        self.configure(inside, self._mode)
        self._gateway.disconnect(self.host.name)
        self.wait_for_end()
        self.begin()
        self.finish()

    def reconnect(self) -> None:
        """SIGUSR2: a new connection for the same session, with the same addresses."""
        self._said = self.log.stat().st_size
        self.host.signal("openconnect", signal.SIGUSR2)
        self.finish()

    def kill(self) -> None:
        """End the daemon without notice: main's default by the uplink, which it had replaced, does not come back."""
        self.host.signal("openconnect", signal.SIGKILL)
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Until daemon and device are gone."""
        wait_for(lambda: not self.host.pids("openconnect"), f"{self.host.name}: end of openconnect")
        wait_for(lambda: not self.host.has_device(DEVICE), f"{self.host.name}: {DEVICE} gone")
