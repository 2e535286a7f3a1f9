# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a fleet stands, out of what its hosts answered."""

from __future__ import annotations

import typing as t
import xml.etree.ElementTree as ET

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fleetvpn.routing.plugins.filter.fleet import (
    fleet_junit,
    fleet_state,
    fleet_table,
    rollout_progress,
)


def answer(*states: str, **more: t.Any) -> dict[str, t.Any]:
    sets = [
        {"name": f"set{number}", "state": state, "error": None, "plan": [], **more}
        for number, state in enumerate(states)
    ]
    return {"sets": sets, "identities": []}


STEP = {"op": "add", "kind": "rule", "text": "2301:\tfrom 198.51.100.10 iif lo lookup 2001"}
HOSTS = {
    "good": answer("proven"),
    "away": answer("pending", identities=[{"key": "inside", "verdict": "pending"}]),
    "both": answer("proven", "drifted", plan=[STEP]),
    "bad": answer("wrong", error="table 2000: is foreign"),
    "broken": {"failed": True, "msg": "pyroute2: 'none'\nis missing"},
    "bare": answer(),
    "laptop": {"unreachable": True, "msg": "timed out"},
    "never": {},
}
STATES = {
    "good": "proven",
    "away": "pending",
    "both": "drifted",
    "bad": "wrong",
    "broken": "wrong",
    "bare": "wrong",
    "laptop": "waiting",
    "never": "waiting",
}


def test_each_host_has_one_state() -> None:
    fleet = fleet_state(HOSTS)
    assert {host["name"]: host["state"] for host in fleet["hosts"]} == STATES
    assert fleet["counts"] == {"proven": 1, "pending": 1, "wrong": 3, "drifted": 1, "waiting": 2}
    assert not fleet["ok"]


def test_a_suspended_host_is_drifted_and_says_why() -> None:
    paused = {"suspended": {"text": "suspended by alice since then until it is resumed"}}
    (host,) = fleet_state({"h": {**answer("drifted", plan=[STEP] * 20), **paused}})["hosts"]
    assert (host["state"], host["reasons"]) == ("drifted", ["suspended by alice since then until it is resumed"])


def test_a_host_whose_last_change_was_refused_is_wrong_however_it_stands() -> None:
    refused = {"refused": [{"set": "set0", "reason": "gateway does not\nanswer", "last": "now", "times": 1}]}
    for states in (["proven"], []):
        (host,) = fleet_state({"h": {**answer(*states), **refused}})["hosts"]
        assert (host["state"], host["reasons"]) == ("wrong", ["set0: refused at now: gateway does not answer"])


def test_waiting_is_neither_failed_nor_fine() -> None:
    fleet = fleet_state({name: HOSTS[name] for name in ("good", "away", "laptop")})
    assert fleet["ok"]
    assert fleet["counts"]["waiting"] == 1


def test_the_reason_is_one_line() -> None:
    lines = fleet_table(fleet_state(HOSTS))
    assert lines[0] == "1 proven, 1 pending, 3 wrong, 1 drifted, 2 waiting"
    assert lines[1:] == [
        "away: pending, set0: inside is pending",
        "both: drifted, set0: would add rule 2301: from 198.51.100.10 iif lo lookup 2001; "
        "set1: would add rule 2301: from 198.51.100.10 iif lo lookup 2001",
        "bad: wrong, set0: table 2000: is foreign",
        "broken: wrong, pyroute2: 'none' is missing",
        "bare: wrong, has no declaration",
        "laptop: waiting, timed out",
        "never: waiting, was not reached",
    ]


def test_junit_holds_whatever_a_host_says() -> None:
    hostile = {"failed": True, "msg": '<script>alert("1")</script> \x1b[2J & \ud800'}
    suite = ET.fromstring(fleet_junit(fleet_state({**HOSTS, "h<1>": hostile})))  # noqa: S314 -- our own
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped")} == {
        "tests": "9",
        "failures": "5",
        "skipped": "3",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases["good"] == []
    assert cases["h<1>"] == ["failure"]
    assert cases["laptop"] == ["skipped"]


@pytest.mark.parametrize("said", [{"sets": "proven"}, {"sets": [7]}, {"sets": [{"state": []}]}, {"sets": [{}]}])
def test_a_host_that_says_anything_does_not_spoil_the_others(said: dict[str, t.Any]) -> None:
    bad, good = fleet_state({"bad": said, "good": HOSTS["good"]})["hosts"]
    assert (bad["state"], good["state"]) == ("wrong", "proven")


@pytest.mark.parametrize("wrong", [[], "host", None])
def test_what_is_no_dictionary_of_hosts_is_refused(wrong: object) -> None:
    with pytest.raises(AnsibleFilterError, match="takes a dictionary"):
        fleet_state(wrong)


DONE = {"began": True, "reached": True, "state": "proven", "changed": True}
ROLLOUT = {
    "a": DONE,
    "b": {**DONE, "state": "pending", "changed": False},
    "c": {"began": True, "reached": False},
    "d": {**DONE, "state": "wrong", "reason": "gateway\nis dead"},
    "e": {"began": True, "reached": True},
    "f": {},
    "g": None,
    "h": {"began": True},
}


def test_progress_counts_what_is_done() -> None:
    found = rollout_progress(ROLLOUT, 2, 10.0)
    assert found["line"] == "6 of 8 hosts done: 2 changed, 1 pending, 3 failed, 1 waiting; 0.6 hosts/s, 3 s left"
    assert found["failed"] == [
        {"host": "d", "reason": "gateway is dead"},
        {"host": "e", "reason": "could not be reached any more once the change had begun"},
        {"host": "h", "reason": "could not be asked for anything"},
    ]


@pytest.mark.parametrize(("budget", "exceeded"), [(3, False), ("2", True), ("38%", False), ("37%", True), (0, True)])
def test_the_budget_is_a_number_or_a_share_of_all(budget: object, exceeded: bool) -> None:
    assert rollout_progress(ROLLOUT, budget, 1.0)["exceeded"] is exceeded


@pytest.mark.parametrize("budget", ["", "some", "-1", "1.5", "%"])
def test_no_budget(budget: str) -> None:
    with pytest.raises(AnsibleFilterError, match="accepted: a number, or a percentage"):
        rollout_progress({}, budget, 1.0)
