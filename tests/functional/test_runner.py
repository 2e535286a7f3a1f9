# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The artefact under ansible-runner, which is what AWX starts: everything it knows is in one directory."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from tests.functional.onhost import IDENTITIES, INSIDE, REPOSITORY, connect, rules_from
from tests.lab import Host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def install(directory: pathlib.Path) -> pathlib.Path:
    """Build the collection and install it there; nothing of the tree is in the path then."""
    galaxy = [str(pathlib.Path(sys.executable).with_name("ansible-galaxy")), "collection"]
    subprocess.run([*galaxy, "build", str(REPOSITORY), "--output-path", str(directory)], check=True)
    (artefact,) = directory.glob("fleetvpn-routing-*.tar.gz")
    collections = directory / "collections"
    # Else Galaxy finds the linked tree, and that nothing is to do.
    only = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections)}
    subprocess.run([*galaxy, "install", str(artefact), "--offline", "-p", str(collections)], env=only, check=True)
    return collections


def project(directory: pathlib.Path, host: Host) -> None:
    """A private data directory: the collection, the play, the inventory, the settings."""
    files: dict[str, t.Any] = {
        "project/site.yml": [{"name": "Roll out", "ansible.builtin.import_playbook": "fleetvpn.routing.rollout"}],
        "inventory/hosts.json": {
            "vpn_endpoints": {
                "hosts": {
                    "h": {
                        "ansible_connection": "lab",
                        "ansible_lab_pid": host.pid,
                        "ansible_python_interpreter": sys.executable,
                    }
                },
                "vars": {"endpoint_identities": IDENTITIES},
            }
        },
        "env/envvars": {
            "ANSIBLE_COLLECTIONS_PATH": str(install(directory)),
            "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
            "ANSIBLE_PIPELINING": "1",
        },
        "env/settings": {"job_timeout": 300, "suppress_ansible_output": True},
    }
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def test_a_rollout_as_awx_runs_it(make: t.Callable[[str], Host], tmp_path: pathlib.Path) -> None:
    """Twice: the second one changes nothing, and the events say which host is how."""
    # Not at the top: the environments of other versions have it not, and they read this file too.
    import ansible_runner

    host = make("h")
    host.write("/etc/hosts", "127.0.0.1 localhost h\n")  # sudo looks its host up, and there is nobody to ask
    connect(host, INSIDE)
    project(tmp_path, host)
    changed = []
    for _round in range(2):
        ran = ansible_runner.run(private_data_dir=str(tmp_path), playbook="site.yml")
        assert (ran.status, ran.rc) == ("successful", 0), ran.stdout.read()
        changed.append(ran.stats["changed"])
        assert not ran.stats["failures"]
    assert rules_from(host, INSIDE)
    assert changed == [{"h": 1}, {}]
    proven = [
        path["verdict"]
        for event in ran.events
        for path in event["event_data"].get("res", {}).get("paths", ())
        if event["event"] == "runner_on_ok"
    ]
    assert proven
    assert set(proven) == {"proven"}
