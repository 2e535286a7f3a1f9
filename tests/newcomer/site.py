# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller and hosts of somebody who has never seen this collection: fresh containers that reach each other.

The controller is also the hosts' router, and the other end of their VPNs; an address of the Internet is on it.
Without a network, this machine's pip and apt have put packages there before (tests/tools/image.sh).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

from tests.lab.machines import Machine
from tests.lab.runs import Run
from tests.lab.tunnel import wait_for
from tests.lab.wireguard import make_keys

if t.TYPE_CHECKING:
    from tests.lab.host import Host

REPOSITORY = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent
INTERNET = "203.0.113.5"
USER = "ann"
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
_DONE = "-- done"
_SETUP = f"""
useradd --create-home --shell /bin/bash {USER}
echo "{USER} ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/{USER}
"""
_ROUTER = f"""
printf '[global]\\nno-index = true\\nfind-links = /srv/wheels\\n' >/etc/pip.conf
runuser -u {USER} -- ssh-keygen -q -t ed25519 -N '' -f /home/{USER}/.ssh/id_ed25519
ip address add {INTERNET}/32 dev lo
"""


class Failed(AssertionError):
    """A command of the text that a newcomer would be stuck at."""


class Shell:
    """A login shell on a host, as people have it: what one command sets, the next one finds."""

    def __init__(self, host: Host, user: str) -> None:
        self._process = host.popen(
            ["runuser", "--login", user, "--command", "exec bash 2>&1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str) -> str:
        """What a command says. It gets no input."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{command} </dev/null\nprintf '\\n%s %s\\n' '{_DONE}' $?\n")
        self._process.stdin.flush()
        said = []
        for line in self._process.stdout:
            if line.startswith(_DONE):
                break
            said.append(line)
        else:
            raise Failed(f"{command}: the shell ended: {''.join(said)}")
        if line.split()[-1] != "0":
            raise Failed(f"{command}: {''.join(said)}")
        return "".join(said)


class Site:
    """The controller as `controller`, hosts by their names, each with a shell."""

    def __init__(self, run: Run, names: t.Sequence[str], stack: contextlib.ExitStack) -> None:
        self._machines = {}
        for name in ("controller", *names):
            self._machines[name] = Machine(run.id, name, fresh=True)
            stack.callback(self._machines[name].close)
        self.hosts = {name: machine.host for name, machine in self._machines.items()}
        self.controller = self.hosts["controller"]
        self._connect(names)
        for host in self.hosts.values():
            host.shell(_SETUP)
        self._equip()
        for name in names:
            self._admit(name)
        self.shells = {name: Shell(host, "root") for name, host in self.hosts.items() if name in names}
        self.shells["controller"] = Shell(self.controller, USER)

    def _connect(self, names: t.Sequence[str]) -> None:
        """A cable from each host's eth0 to the router's bridge; the first has .10 and ::10."""
        links = []
        for number, name in enumerate(names):
            links.append(
                [
                    {
                        "host": self._machines["controller"].full_name,
                        "dev": f"port{number}",
                        "bridge": "lan0",
                        "addresses": ["192.0.2.1/24", "2001:db8:2::1/64"],
                    },
                    {
                        "host": self._machines[name].full_name,
                        "dev": "eth0",
                        "addresses": [f"192.0.2.1{number}/24", f"2001:db8:2::1{number}/64"],
                        "routes": ["default via 192.0.2.1", "default via 2001:db8:2::1"],
                    },
                ]
            )
        wire = REPOSITORY / "extensions" / "molecule" / "shared" / "wire.py"
        subprocess.run([sys.executable, str(wire), json.dumps(links)], check=True, capture_output=True)

    def _equip(self) -> None:
        """The wheels that pip would find, and the tarball that stands in for Galaxy."""
        self.controller.shell(_ROUTER)
        # What comes from an inside address by the uplink is dropped, as providers do (BCP 38).
        self.controller.sysctl(ipv4__conf__lan0__rp_filter=1)
        shutil.copytree(_wheels(), self.controller.root / "srv" / "wheels")
        build = [str(BIN / "ansible-galaxy"), "collection", "build", "--output-path"]
        subprocess.run([*build, str(self.controller.root / "srv"), str(REPOSITORY)], check=True, capture_output=True)
        (tarball,) = (self.controller.root / "srv").glob("fleetvpn-routing-*.tar.gz")
        self.tarball = f"/srv/{tarball.name}"

    def _admit(self, name: str) -> None:
        """The controller's user logs in to a host without a question, by its name or its address."""
        host = self.hosts[name]
        host.write(f"/home/{USER}/.ssh/authorized_keys", self.controller.read(f"/home/{USER}/.ssh/id_ed25519.pub"))
        address = host.ip_json("-4", "address", "show", "dev", "eth0")[0]["addr_info"][0]["local"]
        names = f"{name}.example.com"
        self.controller.shell(f"echo {address} {names} >>/etc/hosts")
        wait_for(lambda: bool(self._scan(address)), f"{name}'s sshd")
        self.controller.shell(f"ssh-keyscan {address} {names} >>/etc/ssh/ssh_known_hosts 2>/dev/null")

    def _scan(self, address: str) -> str:
        return self.controller.run(["ssh-keyscan", address], check=False).stdout

    # -- VPNs -----------------------------------------------------------------------------------------------------

    def wireguard(self, name: str) -> None:
        """wg0 with the addresses of the guide, up and enabled at boot."""
        ours, our_key = make_keys()
        theirs, their_key = make_keys()
        inside = "198.51.100.10/32, 2001:db8:51::10/128"
        gateway = ["[Interface]", f"PrivateKey = {theirs}", "ListenPort = 51820", "Address = 198.51.100.1/24"]
        gateway += ["[Peer]", f"PublicKey = {our_key}", f"AllowedIPs = {inside}"]
        client = ["[Interface]", f"PrivateKey = {ours}", f"Address = {inside}", "Table = off"]
        client += ["PostUp = ip route add 10.0.0.0/8 dev %i"]
        client += ["[Peer]", f"PublicKey = {their_key}", "AllowedIPs = 0.0.0.0/0, ::/0"]
        client += ["Endpoint = 192.0.2.1:51820", "PersistentKeepalive = 2"]
        for host, lines in ((self.controller, gateway), (self.hosts[name], client)):
            host.write("/etc/wireguard/wg0.conf", "\n".join([*lines, ""]), 0o600)
            host.run(["systemctl", "enable", "--now", "wg-quick@wg0"])

    def openvpn(self, name: str) -> None:
        """The connection `corp` of the README, by Debian's units."""
        ends = {"server": self.controller, "client": self.hosts[name]}
        certificates = {kind: _certify(host, kind) for kind, host in ends.items()}
        common = ["dev tun0", "dev-type tun", "proto udp", "cert corp.crt", "key corp.key"]
        lines = {
            "server": ["topology subnet", "server 10.8.0.0 255.255.0.0", "server-ipv6 fd00:8::/64", "dh none"],
            "client": ["client", "remote 192.0.2.1", "nobind", "connect-retry 1 2"],
        }
        lines["server"].append("keepalive 2 6")
        for kind, other in (("server", "client"), ("client", "server")):
            text = [*common, *lines[kind], "<ca>", certificates[other].strip(), "</ca>", ""]
            ends[kind].write(f"/etc/openvpn/{kind}/corp.conf", "\n".join(text))
            ends[kind].run(["systemctl", "enable", "--now", f"openvpn-{kind}@corp"])
        wait_for(lambda: self.hosts[name].has_device("tun0"), "OpenVPN")

    def answers(self, inside: str) -> bool:
        """Whether an inside address answers the Internet."""
        ask = ["ping", "-c", "1", "-W", "2", "-I", INTERNET, inside]
        return self.controller.run(ask, check=False).returncode == 0


def _certify(host: Host, kind: str) -> str:
    """A certificate that signs itself, and so is the only authority that the other end knows."""
    host.shell(
        f"cd /etc/openvpn/{kind}; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
        f" -subj /CN={kind} -keyout corp.key -out corp.crt 2>/dev/null"
    )
    return host.read(f"/etc/openvpn/{kind}/corp.crt")


def _wheels() -> pathlib.Path:
    """What `pip install ansible-core` gets on that Debian."""
    python = PYTHON[os.environ.get("FLEETVPN_SUITE") or "bookworm"]
    wheels = REPOSITORY / "build" / "newcomer" / python
    command = [str(BIN / "pip"), "download", "--quiet", "--quiet", "--only-binary", ":all:", "--python-version", python]
    subprocess.run([*command, "--dest", str(wheels), "ansible-core"], check=True)
    return wheels


@contextlib.contextmanager
def site(*names: str) -> t.Iterator[Site]:
    """Controller and hosts."""
    with contextlib.ExitStack() as stack:
        run = Run()
        stack.callback(run.close)
        yield Site(run, names, stack)
