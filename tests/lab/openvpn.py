# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenVPN 2.6: one server on the gateway, one client daemon per host, certificates by openssl."""

from __future__ import annotations

import ipaddress
import pathlib
import signal
import subprocess
import typing as t

from . import addresses as plan
from .host import Host
from .tunnel import wait_for

PORT = 1194
DEVICE = "tun0"
CONNECTION = "corp"
_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]


class Authority:
    """A certificate authority for one run."""

    def __init__(self, directory: pathlib.Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._openssl("ca", "-x509", *_NEW_KEY, "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, name: str, usage: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Certificate and key for a name; usage is serverAuth or clientAuth."""
        signer = ["-CA", str(self.certificate), "-CAkey", str(self.directory / "ca.key")]
        extensions = ("basicConstraints=CA:FALSE", "keyUsage=digitalSignature", f"extendedKeyUsage={usage}")
        added = [word for extension in extensions for word in ("-addext", extension)]
        self._openssl(name, "-x509", *_NEW_KEY, *signer, *added)
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"

    def _openssl(self, name: str, *options: str) -> None:
        key, certificate = self.directory / f"{name}.key", self.directory / f"{name}.crt"
        subject = ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)]
        # No configuration file of this machine adds an extension a second time.
        done = subprocess.run(
            ["openssl", "req", "-config", "/dev/stdin", *options, *subject],
            input="[req]\ndistinguished_name = dn\n[dn]\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"openssl: {done.stderr}")
        key.chmod(0o600)


class OpenvpnGateway:
    """The gateway's end."""

    def __init__(self, host: Host, directory: pathlib.Path, keepalive: tuple[int, int]) -> None:
        self.host = host
        self.authority = Authority(directory / "pki")
        self.clients = directory / "ccd"
        self.clients.mkdir()
        self.log = directory / "server.log"
        self._keepalive = keepalive
        self._process: subprocess.Popen[t.Any] | None = None

    def sync(self) -> None:
        """Start the server unless it runs. It reads a client's file at each connect."""
        if self._process is not None:
            return
        self.host.write("/etc/openvpn/server/corp.conf", self._text(), 0o600)
        self._process = _daemon(self.host, "/etc/openvpn/server/corp.conf", self.log)
        wait_for(lambda: "Initialization Sequence Completed" in self.log.read_text(), f"openvpn server: {self.log}")

    def _text(self) -> str:
        certificate, key = self.authority.issue("gateway", "serverAuth")
        pool = ipaddress.IPv4Network(plan.OPENVPN_POOL[0])
        lines = [
            f"local {plan.GATEWAY[0]}\nport {PORT}\nproto udp\ndev {DEVICE}\ndev-type tun\ntopology subnet",
            f"server {pool.network_address} {pool.netmask}\nserver-ipv6 {plan.OPENVPN_POOL[1]}",
            f"ca {self.authority.certificate}\ncert {certificate}\nkey {key}\ndh none",
            f"client-config-dir {self.clients}\nccd-exclusive",
            "keepalive {} {}".format(*self._keepalive),
            "verb 3\n",
        ]
        return "\n".join(lines)


class Openvpn:
    """A client's end, from /etc/openvpn/client/corp.conf."""

    kind = "openvpn"
    device = DEVICE
    connection = CONNECTION
    path = f"/etc/openvpn/client/{CONNECTION}.conf"

    def __init__(self, host: Host, gateway: OpenvpnGateway, inside: t.Sequence[str], mode: str) -> None:
        self.host, self._gateway = host, gateway
        self.inside: tuple[str, ...] = ()
        self._mode = mode
        self._process: subprocess.Popen[t.Any] | None = None
        self.log = host.root / "openvpn.log"
        self.configure(inside)
        self._certified = gateway.authority.issue(host.name, "clientAuth")
        self.write()

    def write(self, *options: str) -> None:
        """The client's file, with more lines if there are any; a running client reads it at its next start."""
        self.host.write(self.path, self._text(options), 0o600)

    def configure(self, inside: t.Sequence[str]) -> None:
        """What the server will push at the next connect."""
        self.inside = tuple(inside)
        families = {":" in address for address in inside}
        lines = [_push_address(address) for address in inside]
        if False not in families:
            lines.append("push-remove ifconfig")
        if True not in families:
            lines.append("push-remove ifconfig-ipv6")
        lines += _push_routes(families, self._mode)
        (self._gateway.clients / self.host.name).write_text("\n".join(lines) + "\n")

    def _text(self, options: t.Sequence[str]) -> str:
        inline = [f"<{name}>\n{text.strip()}\n</{name}>" for name, text in self.certificates().items()]
        lines = [
            f"client\ndev {DEVICE}\ndev-type tun\nproto udp\nremote {plan.GATEWAY[0]} {PORT}\nnobind",
            "remote-cert-tls server\nconnect-retry 1 2\nverb 3",
            *options,
            *inline,
        ]
        return "\n".join(lines) + "\n"

    def certificates(self) -> dict[str, str]:
        """What the file holds, each by the name that OpenVPN has for it."""
        certificate, key = self._certified
        files = {"ca": self._gateway.authority.certificate, "cert": certificate, "key": key}
        return {name: path.read_text() for name, path in files.items()}

    def sync(self) -> None:
        """Start the server unless it runs."""
        self._gateway.sync()

    def begin(self) -> None:
        """Start the daemon."""
        self.sync()
        self._process = _daemon(self.host, self.path, self.log)

    def finish(self) -> None:
        """Wait until all pushed addresses are there and the daemon has done what it does at start."""
        wait_for(lambda: self._starts() > 0, f"{self.host.name}: openvpn: {self.log}")
        wait_for(lambda: all(self.host.owns(address) for address in self.inside), f"{self.host.name}: addresses")

    def _starts(self) -> int:
        """How often the daemon has connected since it was started."""
        return self.log.read_text().count("Initialization Sequence Completed")

    def stop(self) -> None:
        """SIGTERM: the daemon removes its routes and its device."""
        self.host.signal("openvpn", signal.SIGTERM)
        wait_for(lambda: not self.host.has_device(DEVICE), f"{self.host.name}: {DEVICE} gone")

    def renumber(self, inside: t.Sequence[str]) -> None:
        """The server pushes other addresses when the client reconnects (SIGUSR1)."""
        self.configure(inside)
        before = self._starts()
        self.host.signal("openvpn", signal.SIGUSR1)
        wait_for(lambda: self._starts() > before, f"{self.host.name}: openvpn: {self.log}")
        wait_for(lambda: all(self.host.owns(address) for address in self.inside), f"{self.host.name}: addresses")

    def kill(self) -> None:
        """End the daemon without notice."""
        self.host.signal("openvpn", signal.SIGKILL)
        wait_for(lambda: not self.host.has_device(DEVICE), f"{self.host.name}: {DEVICE} gone")


def _daemon(host: Host, config: str, log: pathlib.Path) -> subprocess.Popen[t.Any]:
    with log.open("wb") as output:
        return host.popen(
            ["openvpn", "--config", config], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


def _push_address(address: str) -> str:
    if ":" in address:
        return f"ifconfig-ipv6-push {address}/{plan.length(plan.OPENVPN_POOL[1])} {plan.first(plan.OPENVPN_POOL)[1]}"
    return f"ifconfig-push {address} {ipaddress.IPv4Network(plan.OPENVPN_POOL[0]).netmask}"


def _push_routes(families: set[bool], mode: str) -> list[str]:
    if mode == "full":
        words = ["def1" if False in families else "!ipv4", *(["ipv6"] if True in families else [])]
        return [f'push "redirect-gateway {" ".join(words)}"']
    if mode == "identity":
        return []
    network = ipaddress.IPv4Network(plan.CORPORATE[0])
    routes = {False: f'push "route {network.network_address} {network.netmask}"'}
    routes[True] = f'push "route-ipv6 {plan.CORPORATE[1]}"'
    return [routes[family] for family in sorted(families)]
