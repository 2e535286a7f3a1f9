# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of the collection over a fleet in which some hosts are bad, as an operator runs them.

The tests are the steps of one story and run in their order.
"""

from __future__ import annotations

import json
import os
import typing as t
import xml.etree.ElementTree as ET

import markupsafe
import pytest

from tests.functional.onhost import SETS, eventually, provide_pyroute2, seen
from tests.functional.playbooks import Fleet, nobody, rules
from tests.functional.watching import Watch
from tests.lab import Lab

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

COUNT = 8
CANARY, FOREIGN, AWAY, BROKEN, STRAY, LAPTOP = 0, 2, 3, 4, 5, 6
NOT_PROVEN = {
    **{f"h{number}": "wrong" for number in (FOREIGN, BROKEN, STRAY)},
    f"h{AWAY}": "pending",
    f"h{LAPTOP}": "waiting",
}
# Of a bad host: a rule that sends everything of ours elsewhere, ahead of our block.
IN_THE_WAY = "pref 1000 from all lookup 77 proto 99"
# A device's name as somebody may have it who wants to put something into the report.
HOSTILE = '"><i>{{9*9}}'


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    with Lab() as lab:
        made = Fleet(lab, tmp_path_factory.mktemp("controller"), COUNT)
        made.clients[FOREIGN].host.shell(f"ip rule add {IN_THE_WAY}; ip route add default dev vpn0 table 77")
        made.clients[FOREIGN].host.run(["ip", "rule", "add", "pref", "1001", "iif", HOSTILE, "lookup", "77"])
        made.clients[AWAY].host.shell("ip link set vpn0 down")
        made.host_vars(BROKEN, endpoint_host_identities=[{"name": "outside", "table": 99999999999}])
        made.host_vars(STRAY, endpoint_host_identities=[{"name": "outside", "gateway": [nobody(made.clients[STRAY])]}])
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
    status, text = fleet.play("rollout", rollout_serial=[1, "100%"], rollout_failure_budget="40%")
    assert status == 0, text
    assert "8 of 8 hosts done: 2 changed, 1 pending, 3 failed, 1 waiting" in text
    assert f"outside: gateway {nobody(fleet.clients[STRAY])} does not answer" in text
    assert fleet.declared() == [n for n in range(COUNT) if n not in (FOREIGN, BROKEN, STRAY, LAPTOP)]


def test_verify_names_exactly_those(fleet: Fleet) -> None:
    files = {f"verify_{kind}": str(fleet.directory / f"verify.{kind}") for kind in ("json", "junit")}
    status, _text = fleet.play("verify", **files)
    assert status != 0
    found = json.loads((fleet.directory / "verify.json").read_text())
    states = {host["name"]: host["state"] for host in found["hosts"]}
    assert states == {**{f"h{n}": "proven" for n in range(COUNT)}, **NOT_PROVEN}
    suite = ET.parse(fleet.directory / "verify.junit").getroot()  # noqa: S314 -- our own
    assert [case.get("name") for case in suite if case.find("failure") is not None] == [
        f"h{FOREIGN}",
        f"h{BROKEN}",
        f"h{STRAY}",
    ]


def test_a_host_that_cannot_be_asked_is_wrong_with_its_own_words(fleet: Fleet) -> None:
    record = seen(fleet.clients[7].host, f"{SETS}/main.json")
    whole = record.read_bytes()
    record.write_bytes(whole[:100])
    fleet.host_vars(1, ansible_become=True, ansible_become_method="nonexistent")
    _status, _text = fleet.play("verify", verify_json=str(fleet.directory / "verify.json"))
    (fleet.directory / "host_vars" / "h1.yml").unlink()
    record.write_bytes(whole)
    hosts = json.loads((fleet.directory / "verify.json").read_text())["hosts"]
    reasons = {host["name"]: host["reasons"] for host in hosts if host["state"] == "wrong"}
    assert "main.json" in reasons["h7"][0]
    assert "nonexistent" in reasons["h1"][0]


def test_the_report_shows_exactly_those(fleet: Fleet) -> None:
    host = fleet.clients[CANARY].host
    provide_pyroute2(host)
    watch = Watch(host)
    before = rules(fleet.clients[CANARY])
    host.run(["ip", "rule", "del", "pref", str(before[0]["priority"])])
    eventually(lambda: rules(fleet.clients[CANARY]) == before)
    watch.end()
    status, text = fleet.play("report")
    assert status == 0, text
    told = json.loads((fleet.directory / "fleet-report.json").read_text())
    hosts = {host["name"]: host for host in told["hosts"]}
    bad = {name: host["state"] for name, host in hosts.items() if host["state"] != "proven"}
    assert bad == NOT_PROVEN
    assert [repair["times"] for repair in hosts["h0"]["repairs"]] == [1]
    assert hosts["h0"]["changes"][0]["play"] == "Roll the routing out"
    assert {path["verdict"] for path in hosts["h0"]["paths"]} == {"proven"}
    assert any(HOSTILE in finding["object"] for finding in hosts[f"h{FOREIGN}"]["findings"])
    page = (fleet.directory / "fleet-report.html").read_text()
    assert page.count('<details class="host proven">') == COUNT - len(bad)
    assert str(markupsafe.escape(HOSTILE)) in page
    assert "<i>" not in page


def test_a_second_run_after_the_repair_finishes_what_is_missing(fleet: Fleet) -> None:
    fleet.clients[FOREIGN].host.shell("ip rule del pref 1000; ip rule del pref 1001")
    fleet.clients[AWAY].host.shell("ip link set vpn0 up")
    for repaired in (BROKEN, STRAY):
        (fleet.directory / "host_vars" / f"h{repaired}.yml").unlink()
    fleet.host_vars(LAPTOP, ansible_lab_pid=fleet.clients[LAPTOP].host.pid)
    before = {n: rules(fleet.clients[n]) for n in (0, 1, 7)}
    status, text = fleet.play("rollout", rollout_serial=[1, "100%"])
    assert status == 0, text
    assert "8 of 8 hosts done: 5 changed, 0 pending, 0 failed, 0 waiting" in text
    assert {n: rules(fleet.clients[n]) for n in before} == before
    assert fleet.play("verify", verify_require_all=True)[0] == 0
