# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of the collection over a fleet in which some hosts are bad, as an operator runs them.

The tests are the steps of one story and run in their order.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t
import xml.etree.ElementTree as ET

import pytest

from tests.lab import Client, Lab

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

REPOSITORY = pathlib.Path(__file__).parents[2]
COUNT = 8
CANARY, FOREIGN, AWAY, BROKEN, LAPTOP = 0, 2, 3, 4, 6
# Of a bad host: a rule that sends everything of ours elsewhere, ahead of our block.
IN_THE_WAY = "pref 1000 from all lookup 77 proto 99"
IDENTITIES = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "tunnel": {"type": "wireguard", "connection": "{{ lab_connection }}"}, "interface": "vpn0"},
]


class Fleet:
    """Hosts with a stand-in for a tunnel, and a controller."""

    def __init__(self, lab: Lab, directory: pathlib.Path) -> None:
        self.lab = lab
        self.directory = directory
        self.clients = [lab.client(f"h{number}", "standin") for number in range(COUNT)]
        lab.start()
        lab.inventory(directory / "inventory.yml")
        variables = {"endpoint_identities": IDENTITIES}
        (directory / "group_vars").mkdir()
        (directory / "group_vars" / "vpn_endpoints.yml").write_text(json.dumps(variables), encoding="utf-8")

    def host_vars(self, number: int, **variables: t.Any) -> None:
        """Variables of one host."""
        folder = self.directory / "host_vars"
        folder.mkdir(exist_ok=True)
        (folder / f"h{number}.yml").write_text(json.dumps(variables), encoding="utf-8")

    def play(self, playbook: str, **variables: t.Any) -> tuple[int, str]:
        """Run a playbook of the collection; its exit status, and what it said."""
        done = subprocess.run(
            [
                str(pathlib.Path(sys.executable).with_name("ansible-playbook")),
                *("-i", "inventory.yml", f"fleetvpn.routing.{playbook}", "--extra-vars", json.dumps(variables)),
            ],
            cwd=self.directory,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build" / "collections"),
                "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_PIPELINING": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def declared(self) -> list[int]:
        """The hosts that have rules of ours."""
        return [n for n, client in enumerate(self.clients) if _rules(client)]


def _rules(client: Client) -> list[dict[str, t.Any]]:
    found = client.host.ip_json("-N", "rule")
    return [rule for rule in found if str(rule.get("protocol")) == "151"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    with Lab() as lab:
        made = Fleet(lab, tmp_path_factory.mktemp("controller"))
        made.clients[FOREIGN].host.shell(f"ip rule add {IN_THE_WAY}; ip route add default dev vpn0 table 77")
        made.clients[AWAY].host.shell("ip link set vpn0 down")
        made.host_vars(BROKEN, endpoint_host_identities=[{"name": "outside", "table": 99999999999}])
        made.host_vars(LAPTOP, ansible_lab_pid=4194303)
        yield made


def test_a_fleet_without_declarations_is_wrong_and_said_so(fleet: Fleet) -> None:
    status, text = fleet.play("verify", verify_json=str(fleet.directory / "verify.json"))
    found = json.loads((fleet.directory / "verify.json").read_text())
    assert status != 0
    assert found["counts"] == {"proven": 0, "pending": 0, "wrong": COUNT - 1, "drifted": 0, "waiting": 1}
    assert "h0: wrong, has no declaration" in text


def test_it_stops_behind_the_batch_that_exceeds_the_budget(fleet: Fleet) -> None:
    status, text = fleet.play("rollout", rollout_serial=[1, 2, "100%"])
    assert status != 0
    assert "1 of 8 hosts done: 1 changed, 0 pending, 0 failed, 0 waiting" in text
    assert "3 of 8 hosts done: 2 changed, 0 pending, 1 failed, 0 waiting" in text
    assert f"h{FOREIGN}: " in text
    assert fleet.declared() == [0, 1]


def test_a_budget_lets_it_go_on_and_names_who_failed(fleet: Fleet) -> None:
    status, text = fleet.play("rollout", rollout_serial=[1, "100%"], rollout_failure_budget="25%")
    assert status == 0, text
    assert "8 of 8 hosts done: 3 changed, 1 pending, 2 failed, 1 waiting" in text
    assert fleet.declared() == [n for n in range(COUNT) if n not in (FOREIGN, BROKEN, LAPTOP)]


def test_verify_names_exactly_those(fleet: Fleet) -> None:
    files = {f"verify_{kind}": str(fleet.directory / f"verify.{kind}") for kind in ("json", "junit")}
    status, _text = fleet.play("verify", **files)
    assert status != 0
    found = json.loads((fleet.directory / "verify.json").read_text())
    states = {host["name"]: host["state"] for host in found["hosts"]}
    others = {f"h{FOREIGN}": "wrong", f"h{AWAY}": "pending", f"h{BROKEN}": "wrong", f"h{LAPTOP}": "waiting"}
    assert states == {**{f"h{n}": "proven" for n in range(COUNT)}, **others}
    suite = ET.parse(fleet.directory / "verify.junit").getroot()  # noqa: S314 -- our own
    assert [case.get("name") for case in suite if case.find("failure") is not None] == [f"h{FOREIGN}", f"h{BROKEN}"]


def test_a_second_run_after_the_repair_finishes_what_is_missing(fleet: Fleet) -> None:
    fleet.clients[FOREIGN].host.shell("ip rule del pref 1000")
    fleet.clients[AWAY].host.shell("ip link set vpn0 up")
    (fleet.directory / "host_vars" / f"h{BROKEN}.yml").unlink()
    fleet.host_vars(LAPTOP, ansible_lab_pid=fleet.clients[LAPTOP].host.pid)
    before = {n: _rules(fleet.clients[n]) for n in (0, 1, 5, 7)}
    status, text = fleet.play("rollout", rollout_serial=[1, "100%"])
    assert status == 0, text
    assert "8 of 8 hosts done: 4 changed, 0 pending, 0 failed, 0 waiting" in text
    assert {n: _rules(fleet.clients[n]) for n in before} == before
    assert fleet.play("verify", verify_require_all=True)[0] == 0
