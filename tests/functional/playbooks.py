# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of the collection, called as an operator calls them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

from tests.functional.onhost import COLLECTIONS, REPOSITORY
from tests.lab import Client, Lab

IDENTITIES = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "tunnel": {"type": "wireguard", "connection": "{{ lab_connection }}"}, "interface": "vpn0"},
]


def play(directory: pathlib.Path, playbook: str, *arguments: str, **variables: t.Any) -> tuple[int, str]:
    """Run a playbook of the collection over the inventory of a directory; its exit status, and what it said."""
    return ansible_playbook(directory, f"fleetvpn.routing.{playbook}", *arguments, **variables)


def ansible_playbook(directory: pathlib.Path, *arguments: str, **variables: t.Any) -> tuple[int, str]:
    """The same for any playbook, with further arguments."""
    program = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run(
        [program, "-i", "inventory.yml", *arguments, "--extra-vars", json.dumps(variables)],
        cwd=directory,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
            "ANSIBLE_HOME": str(directory / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "PWD": str(directory),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


class Fleet:
    """Hosts with a stand-in for a tunnel, and a controller."""

    def __init__(self, lab: Lab, directory: pathlib.Path, count: int) -> None:
        self.lab = lab
        self.directory = directory
        self.clients = [lab.client(f"h{number}", "standin") for number in range(count)]
        lab.start()
        lab.inventory(directory / "inventory.yml")
        self.declare(IDENTITIES)

    def declare(self, identities: list[dict[str, t.Any]]) -> None:
        """What all of them shall have."""
        folder = self.directory / "group_vars"
        folder.mkdir(exist_ok=True)
        text = json.dumps({"endpoint_identities": identities})
        (folder / "vpn_endpoints.yml").write_text(text, encoding="utf-8")

    def host_vars(self, number: int, **variables: t.Any) -> None:
        """Variables of one host."""
        folder = self.directory / "host_vars"
        folder.mkdir(exist_ok=True)
        (folder / f"h{number}.yml").write_text(json.dumps(variables), encoding="utf-8")

    def play(self, playbook: str, *arguments: str, **variables: t.Any) -> tuple[int, str]:
        """Run a playbook of the collection; its exit status, and what it said."""
        return play(self.directory, playbook, *arguments, **variables)

    def declared(self) -> list[int]:
        """The hosts that have rules of ours."""
        return [n for n, client in enumerate(self.clients) if rules(client)]


def rules(client: Client) -> list[dict[str, t.Any]]:
    """Those of ours on a client."""
    found = client.host.ip_json("-N", "rule")
    return [rule for rule in found if str(rule.get("protocol")) == "151"]


def nobody(client: Client) -> str:
    """An address beside the gateway's that nobody has, in the largest fleet either."""
    (default,) = client.host.ip_json("-4", "route", "show", "default")
    return str(default["gateway"]).rpartition(".")[0] + ".250"
