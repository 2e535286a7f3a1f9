# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that three hosts of a fleet cannot have: a wrong gateway, a dead device, somebody else's rule.

The tests are the steps of one story and run in their order.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import typing as t

import pytest

from tests.functional import browser
from tests.functional.browser import Browser
from tests.functional.onhost import REPOSITORY
from tests.functional.playbooks import IDENTITIES, Fleet, nobody
from tests.lab import Client, Lab

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

STRAY, DEAD, FOREIGN = 2, 3, 4
BAD = (STRAY, DEAD, FOREIGN)
IN_THE_WAY = "pref 1000 from all lookup 77 proto 99"
OUTSIDE, INSIDE = IDENTITIES
CHANGE = [OUTSIDE, {**INSIDE, "required": True, "pools": ["10.250.0.0/16"]}]
FEW, MANY = 8, 100
SHOWN = "Array.from(document.querySelectorAll('.host b')).filter((b) => b.checkVisibility()).map((b) => b.textContent)"
PICTURES = REPOSITORY / "build"  # `make pictures` takes those of the large fleet from there
# The kernel adds routes for link-local addresses when it has seen that nobody else has them.
_STATE = """
for family in -4 -6; do ip -N $family rule; ip -N $family route show table all | grep -v fe80: ; done | sort
ip -N -o link | sed 's/^[0-9-]*: //; s/state [^ ]*//; s/link.*//'
nft -s list ruleset
cd /proc/sys/net
grep . ipv4/conf/*/arp_* ipv4/conf/*/rp_filter ipv4/conf/*/src_valid_mark ipv6/conf/*/use_oif_addrs_only
grep -r . /etc/iproute2/rt_tables.d
cd /etc/fleetvpn/sets.d && cat *.json *.pending 2>/dev/null || true
"""


def state(client: Client) -> str:
    """All that a change of ours touches on a host, and what is written down of it."""
    return client.host.shell(_STATE)


def told(text: str) -> list[str]:
    """How far a roll-out said it was, after each batch and where it stopped."""
    return re.findall(r"\d+ of \d+ hosts done: [^;]*", text)


class Story(t.NamedTuple):
    """The fleet, and how each host was before the change."""

    fleet: Fleet
    before: list[str]

    @property
    def count(self) -> int:
        """How many hosts."""
        return len(self.before)

    @property
    def batches(self) -> dict[str, t.Any]:
        """Those of the playbook, unless the fleet is too small for them."""
        return {} if self.count == MANY else {"rollout_serial": [1, "50%", "100%"]}

    @property
    def reached(self) -> int:
        """The hosts of the batches until it stops."""
        return 1 + (5 * MANY // 100 if self.count == MANY else FEW // 2)

    @property
    def reasons(self) -> dict[int, str]:
        """Why the change is refused where it is."""
        return {
            STRAY: f"outside: gateway {nobody(self.fleet.clients[STRAY])} does not answer",
            DEAD: "inside is required and pending",
            FOREIGN: "table: 2002 expected, 77 found",
        }

    @property
    def now(self) -> list[str]:
        """How each host is."""
        return [state(client) for client in self.fleet.clients]

    @property
    def others(self) -> list[int]:
        """Those that are not as they were."""
        return [n for n, now in enumerate(self.now) if now != self.before[n]]


@pytest.fixture(scope="module", params=[FEW, pytest.param(MANY, marks=pytest.mark.long)])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Story]:
    """Declared and proven; then three break, and the change is written."""
    with Lab() as lab:
        fleet = Fleet(lab, tmp_path_factory.mktemp("controller"), request.param)
        status, text = fleet.play("rollout", rollout_serial=["100%"])
        assert status == 0, text
        fleet.clients[FOREIGN].host.shell(f"ip rule add {IN_THE_WAY}; ip route add default dev vpn0 table 77")
        fleet.clients[DEAD].host.shell("ip link set vpn0 down")
        gateway = [nobody(fleet.clients[STRAY])]
        fleet.host_vars(STRAY, endpoint_host_identities=[{"name": "outside", "gateway": gateway}])
        fleet.declare(CHANGE)
        yield Story(fleet, [state(client) for client in fleet.clients])


def test_check_mode_announces_it_and_changes_nothing(story: Story) -> None:
    status, text = story.fleet.play(
        "rollout", "--check", rollout_hosts="h0:h1:h2:h3:h4", rollout_serial=[1, "100%"], rollout_failure_budget=3
    )
    assert status == 0, text
    assert told(text)[-1] == "5 of 5 hosts done: 2 changed, 0 pending, 3 failed, 0 waiting", text
    assert story.others == []
    assert not any("notes.json" in client.host.shell("ls /etc/fleetvpn") for client in story.fleet.clients)


def test_a_batch_of_which_nobody_is_reached_waits_and_holds_up_nobody(story: Story) -> None:
    for number in (0, 1):
        story.fleet.host_vars(number, ansible_lab_pid=4194303)
    status, text = story.fleet.play("rollout", "--check", rollout_hosts="h0:h1:h5", rollout_serial=[1, 1, 1])
    for number in (0, 1):
        (story.fleet.directory / "host_vars" / f"h{number}.yml").unlink()
    assert status == 0, text
    assert "1 of 3 hosts done: 0 changed, 0 pending, 0 failed, 1 waiting" in text
    assert "3 of 3 hosts done: 1 changed, 0 pending, 0 failed, 2 waiting" in text


def test_a_host_that_answers_and_can_do_nothing_has_failed(story: Story) -> None:
    """One fails a task; of the other no task can even begin."""
    story.fleet.host_vars(0, ansible_python_interpreter="/nonexistent")
    story.fleet.host_vars(1, ansible_become=True, ansible_become_method="nonexistent")
    status, text = story.fleet.play("rollout", "--check", rollout_hosts="h0:h1:h5", rollout_serial="100%")
    for number in (0, 1):
        (story.fleet.directory / "host_vars" / f"h{number}.yml").unlink()
    assert status != 0
    assert told(text)[-1] == "3 of 3 hosts done: 1 changed, 0 pending, 2 failed, 0 waiting", text
    stop = text[text.rindex("Stop where more hosts failed than may") :]
    assert re.search("h0: .*/nonexistent", stop)
    assert "h1: could not be asked for anything" in stop


def test_the_roll_out_stops_where_its_budget_says_and_names_the_three(story: Story) -> None:
    status, text = story.fleet.play("rollout", **story.batches, rollout_failure_budget=2)
    assert status != 0
    reached = story.reached
    assert f"1 of {story.count} hosts done: 1 changed, 0 pending, 0 failed, 0 waiting" in text
    assert f"{reached} of {story.count} hosts done: {reached - 3} changed, 0 pending, 3 failed, 0 waiting" in text
    told = text[text.rindex("Stop where more hosts failed than may") :]
    for number, reason in story.reasons.items():
        (line,) = [line for line in told.splitlines() if f"h{number}: " in line]
        assert reason in line


def test_no_host_is_left_between_states(story: Story) -> None:
    """Some have the whole change, and every other is to the letter as it was."""
    assert story.others == [n for n in range(story.reached) if n not in BAD]


def test_verify_names_exactly_the_three_and_why_the_change_was_refused(story: Story) -> None:
    before = story.now
    status, text = story.fleet.play("verify", verify_json=str(story.fleet.directory / "verify.json"))
    assert story.now == before
    found = json.loads((story.fleet.directory / "verify.json").read_text())
    bad = {host["name"]: host["reasons"][0] for host in found["hosts"] if host["state"] != "proven"}
    assert status != 0, text
    assert found["counts"] == {"proven": story.count - 3, "pending": 0, "wrong": 3, "drifted": 0, "waiting": 0}
    assert list(bad) == [f"h{number}" for number in BAD]
    for number, reason in story.reasons.items():
        assert bad[f"h{number}"].startswith("main: refused at ")
        assert reason in bad[f"h{number}"]


def test_the_report_shows_exactly_the_three(story: Story, tmp_path: pathlib.Path) -> None:
    before = story.now
    status, text = story.fleet.play("report")
    assert (status, story.now) == (0, before), text
    with Browser(browser.find(), tmp_path) as page:
        page.call("Emulation.setDeviceMetricsOverride", width=900, height=800, deviceScaleFactor=1, mobile=False)
        page.open(story.fleet.directory / "fleet-report.html")
        page.ask("document.getElementById('show-wrong').click()")
        assert page.ask(SHOWN) == [f"h{number}" for number in BAD]
        page.ask("document.querySelectorAll('.host.wrong')[2].open = true")
        for scheme in ("light", "dark"):
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            page.picture(PICTURES / f"report-{scheme}-{story.count}.png")
        assert page.complaints == []


def test_a_second_run_after_the_repair_finishes_only_what_is_missing(story: Story) -> None:
    fleet = story.fleet
    fleet.clients[FOREIGN].host.shell("ip rule del pref 1000; ip route flush table 77")
    fleet.clients[DEAD].tunnel.begin()
    (fleet.directory / "host_vars" / f"h{STRAY}.yml").unlink()
    done = {n: state(fleet.clients[n]) for n in story.others if n not in BAD}
    status, text = fleet.play("rollout", **story.batches)
    assert status == 0, text
    missing = story.count - len(done)
    assert f"{story.count} of {story.count} hosts done: {missing} changed, 0 pending, 0 failed, 0 waiting" in text
    assert {n: state(fleet.clients[n]) for n in done} == done
    assert fleet.play("verify", verify_require_all=True)[0] == 0
