# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the lab that are managed as hosts are: by ssh, as an ordinary user with sudo, from another host."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import typing as t

import pyroute2

from tests.functional.onhost import PRIVATE, REPOSITORY, files, networking
from tests.lab import Lab
from tests.lab.host import Host
from tests.lab.tunnel import Client

USER = "fvt"
LOG = "/run/sshd.log"
LOCK = "/run/fleetvpn/lock"
_SSHD = """
HostKey /run/host_key
PidFile /run/sshd.pid
AuthorizedKeysFile /run/fvt/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp internal-sftp
MaxStartups 100
LogLevel VERBOSE
"""
_ACCOUNT = f"""
mkdir -p /run/sshd /run/fvt {PRIVATE}
echo '{USER}:x:4321:4321::/run/fvt:/bin/sh' >>/etc/passwd
echo '{USER}:x:4321:' >>/etc/group
echo '{USER}:*:19000:0:99999:7:::' >>/etc/shadow
echo "127.0.1.1 $(hostname)" >>/etc/hosts
echo '{USER} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/fvt
chmod 440 /etc/sudoers.d/fvt
chown 4321:4321 /run/fvt
ln -s {pathlib.Path(pyroute2.__file__).parent} {PRIVATE}/pyroute2
"""


@dataclasses.dataclass(frozen=True)
class Told:
    """What came of a task on each host."""

    results: dict[str, dict[str, t.Any]]
    text: str

    def of(self, host: str) -> dict[str, t.Any]:
        """Of one host."""
        assert host in self.results, self.text
        return self.results[host]


class Clock(threading.Thread):
    """When changes were armed, and when they were gone, by client."""

    def __init__(self, clients: t.Sequence[Client]) -> None:
        super().__init__(daemon=True)
        self._files = {c.name: pathlib.Path(f"/proc/{c.host.pid}/root/run/fleetvpn/armed.json") for c in clients}
        self.armed: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self._stop_it = threading.Event()

    def run(self) -> None:
        while not self._stop_it.wait(0.02):
            for name, file in self._files.items():
                there = file.exists()
                if there:
                    self.armed.setdefault(name, time.monotonic())
                elif name in self.armed:
                    self.gone.setdefault(name, time.monotonic())

    def __enter__(self) -> Clock:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop_it.set()
        self.join()


class Fleet:
    """A controller in the Internet, and clients that run sshd."""

    def __init__(self, lab: Lab, directory: pathlib.Path) -> None:
        self.lab, self._directory = lab, directory
        self._sockets = directory / "s"
        self._sockets.mkdir()
        for name in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)

    def manage(self, *hosts: Host) -> None:
        """Give hosts an account and a server."""
        for host in hosts:
            host.run(["sh", "-ec", _ACCOUNT])
            host.write("/run/host_key", (self._directory / "host_key").read_text(), 0o600)
            host.write("/run/sshd_config", _SSHD)
            host.write("/run/fvt/authorized_keys", (self._directory / "key.pub").read_text())
            host.popen(["/usr/sbin/sshd", "-D", "-f", "/run/sshd_config", "-E", LOG])

    def play(
        self,
        hosts: t.Mapping[str, t.Mapping[str, t.Any]],
        *,
        task: t.Mapping[str, t.Any] | None = None,
        forks: int = 50,
        seconds: int = 10,
    ) -> Told:
        """Run one task, the endpoint of variable C(plan) unless said otherwise, on hosts given with their variables."""
        command, environment = self._prepared(hosts, task, forks, seconds)
        done = self.lab.outside.run(command, env=environment, check=False, timeout=300)
        return _told(done.stdout, done.stdout + done.stderr)

    def begin(self, hosts: t.Mapping[str, t.Mapping[str, t.Any]]) -> subprocess.Popen[str]:
        """The same, begun and not waited for."""
        command, environment = self._prepared(hosts, None, 50, 10)
        return self.lab.outside.popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def _prepared(
        self,
        hosts: t.Mapping[str, t.Mapping[str, t.Any]],
        task: t.Mapping[str, t.Any] | None,
        forks: int,
        seconds: int,
    ) -> tuple[list[str], dict[str, str]]:
        """A command line and its environment."""
        inventory, playbook = self._directory / "inventory.json", self._directory / "site.yml"
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": self._variables()}}))
        whole = {
            "hosts": "all",
            "gather_facts": False,
            "become": True,
            "tasks": [dict(task or ENDPOINT)],
        }
        playbook.write_text(json.dumps([whole]))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build" / "collections"),
            "ANSIBLE_HOME": str(self._directory / "home"),
            "ANSIBLE_HOST_KEY_CHECKING": "0",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile=/dev/null",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_TIMEOUT": str(seconds),
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, playbook, "-f", forks]
        return [str(each) for each in command], environment

    def jump(self, client: Client) -> str:
        """What ssh has to be told so that it goes through a client, which heeds only a file of settings."""
        settings = self._directory / "ssh_config"
        settings.write_text(
            f"IdentityFile {self._directory}/key\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n"
        )
        return f"-F {settings} -o ProxyJump={USER}@{client.outside[0]}"

    def works(self, clients: t.Sequence[Client], *, family: int = 4) -> set[str]:
        """The clients that can be reached by a new connection."""
        by = outside if family == 4 else outside6
        asked = self.play({client.name: by(client) for client in clients}, task={"ansible.builtin.ping": None})
        return {name for name, result in asked.results.items() if result.get("ping") == "pong"}

    def connections(self, client: Client) -> int:
        """How many connections its server has accepted so far."""
        return client.host.read(LOG).count("Accepted publickey")

    def _variables(self) -> dict[str, t.Any]:
        return {
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(self._directory / "key"),
            "ansible_python_interpreter": "/usr/bin/python3",
        }


def _told(output: str, text: str) -> Told:
    try:
        found = json.loads(output[output.index("{") :])
    except ValueError:
        raise AssertionError(text) from None
    return Told(found["plays"][0]["tasks"][-1]["hosts"], text)


def outside(client: Client, **variables: t.Any) -> dict[str, t.Any]:
    """A client by its outside address."""
    return {"ansible_host": client.outside[0], **variables}


def outside6(client: Client, **variables: t.Any) -> dict[str, t.Any]:
    """The same in IPv6."""
    return {"ansible_host": client.outside[1], **variables}


def inside(client: Client, **variables: t.Any) -> dict[str, t.Any]:
    """A client by its inside address."""
    return {"ansible_host": client.inside[0], **variables}


def state(client: Client) -> list[str]:
    """Everything on a host that a change may touch, once nobody changes it any more."""
    client.host.run(["flock", LOCK, "true"], check=False)
    return [*networking(client.host), *files(client.host)]


_OPTIONS = (
    "identities",
    "tables",
    "rules",
    "routes",
    "set",
    "numbers",
    "confirm",
    "what_if",
    "state",
    "netns",
)
ENDPOINT: dict[str, t.Any] = {
    "fleetvpn.routing.endpoint": {name: f"{{{{ plan.{name} | default(omit) }}}}" for name in _OPTIONS}
}
