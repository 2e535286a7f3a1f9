# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that runs its play itself, from a repository, with what option endpoint_pull of the role has it run.

The units are for systemd, which hosts of the lab have not; Molecule's scenario wireguard starts the timer.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import typing as t

import pytest

from tests.functional.onhost import COLLECTIONS, IDENTITIES, INSIDE, OUTSIDE, rules_from
from tests.functional.playbooks import ansible_playbook
from tests.lab import Host
from tests.lab.host import ENVIRONMENT

pytestmark = [
    pytest.mark.controller,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

PULL = str(pathlib.Path(sys.executable).with_name("ansible-pull"))
PORT = 8080
AUTHOR = "t@example.org"
# A play as the host finds it: nobody connects, so the host confirms by reaching something.
PLAY = {
    "hosts": "localhost",
    "connection": "local",
    "gather_facts": False,
    "vars": {
        "ansible_python_interpreter": "/usr/bin/python3",
        "endpoint_identities": IDENTITIES,
        "endpoint_confirm": {"by": "probe", "timeout": 20, "address": OUTSIDE, "port": PORT},
        "endpoint_keep_paths": [{"to": OUTSIDE}],
    },
    "roles": ["fleetvpn.routing.endpoint"],
}


class Repository:
    """A Git repository with that play in it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._git("init", "--quiet", "--initial-branch=main", str(path))

    def commit(self, key: pathlib.Path | None = None, **variables: t.Any) -> None:
        """The play with other variables, signed with this key of SSH if there is one."""
        play = {**PLAY, "vars": {**t.cast("dict[str, t.Any]", PLAY["vars"]), **variables}}
        (self.path / "site.yml").write_text(json.dumps([play]))
        self._git("-C", str(self.path), "add", "site.yml")
        settings = {"user.name": "t", "user.email": AUTHOR, "commit.gpgsign": "false"}
        if key:
            settings |= {"commit.gpgsign": "true", "gpg.format": "ssh", "user.signingkey": str(key)}
        stated = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._git("-C", str(self.path), *stated, "commit", "--quiet", "--message=change", "--allow-empty")

    @staticmethod
    def _git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], check=True)


def told(host: Host, directory: pathlib.Path, **pull: t.Any) -> tuple[int, str]:
    """What the role says with these values, called from a controller."""
    reached = {"ansible_connection": "lab", "ansible_lab_pid": host.pid, "ansible_python_interpreter": sys.executable}
    (directory / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"h": reached}}}))
    (directory / "bring.yml").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["fleetvpn.routing.endpoint"]}])
    )
    variables = {"endpoint_identities": IDENTITIES, "endpoint_confirm": {"by": "none"}, "endpoint_pull": pull}
    return ansible_playbook(directory, "bring.yml", **variables)


def signer(directory: pathlib.Path) -> tuple[pathlib.Path, dict[str, str]]:
    """A key of SSH, and the variables by which Git takes what it has signed."""
    key, signers = directory / "key", directory / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers.write_text(f"{AUTHOR} {key.with_suffix('.pub').read_text()}")
    setting = {"GIT_CONFIG_KEY_0": "gpg.ssh.allowedSignersFile", "GIT_CONFIG_VALUE_0": str(signers)}
    return key, {"GIT_CONFIG_COUNT": "1", **setting}


def pulled(host: Host, command: str, trusted: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What comes of it when the host runs that."""
    host.shell("mkdir -p /var/lib/fleetvpn-pull")
    host.write("/etc/hosts", "127.0.0.1 localhost h\n")  # it looks itself up, and there is nobody to ask
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "HOME": "/run/root", "ANSIBLE_NOCOLOR": "1", **trusted}
    return host.run(shlex.split(command), env={**ENVIRONMENT, **environment}, check=False, timeout=120)


def test_a_host_declares_itself_from_a_repository(host: Host, tmp_path: pathlib.Path) -> None:
    """Whose commits have to be signed by somebody whom the host knows."""
    repository = Repository(tmp_path / "repository")
    key, trusted = signer(tmp_path)
    repository.commit(key)
    url = repository.path.as_uri()
    status, text = told(host, tmp_path, url=url, command=PULL, checkout="main", verify_commit=True)
    assert status == 0, text
    found = re.search(r"Let its own cron run: (.*?)\"", text)
    assert found, text
    more = [*IDENTITIES, {"name": "second", "addresses": ["10.9.0.9"], "interface": "fvtvpn0", "gateway": "none"}]
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((OUTSIDE, PORT))
        server.listen()
        assert "changed=0" in pulled(host, found[1], trusted).stdout
        repository.commit(key, endpoint_identities=more)
        assert "changed=1" in pulled(host, found[1], trusted).stdout
        assert rules_from(host, "10.9.0.9"), "which was not there before"
        assert rules_from(host, INSIDE)
        assert "changed=0" in pulled(host, found[1], trusted).stdout
        repository.commit(endpoint_identities=IDENTITIES)
        refused = pulled(host, found[1], trusted)
    assert refused.returncode != 0
    assert "Failed to verify GPG signature" in refused.stdout + refused.stderr
    assert rules_from(host, "10.9.0.9"), "nobody signed that it go"


@pytest.mark.parametrize(
    "pull",
    [
        {},
        {"url": "https://example.org/%h.git"},
        {"url": "https://example.org/a.git", "interval": "1h\nExecStart=/bin/false"},
    ],
)
def test_what_a_unit_would_read_in_another_way_is_refused(
    host: Host, pull: dict[str, str], tmp_path: pathlib.Path
) -> None:
    status, text = told(host, tmp_path, **{"state": "present", **pull})
    assert status != 0
    assert "is no plain word; accepted: url, and in all its values no blanks" in text
