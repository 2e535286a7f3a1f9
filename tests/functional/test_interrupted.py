# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real playbook over real ssh that ends before it has confirmed; and which namespace it confirms in."""

from __future__ import annotations

import json
import os
import signal
import time
import typing as t

import pytest

from tests.functional.fleet import Fleet, outside, state
from tests.functional.onhost import eventually, seen
from tests.lab import Client, Lab

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

TIMEOUT = 4
ARMED = "/run/fleetvpn/armed.json"
IDENTITIES: list[dict[str, t.Any]] = [
    {"name": "outside", "interface": ["up0"]},
    {"name": "inside", "interface": ["vpn0"], "gateway": ["none"]},
]
HARMLESS = {"identities": [IDENTITIES[0], {**IDENTITIES[1], "pools": ["10.9.0.0/16"]}], "confirm": {"timeout": TIMEOUT}}
CUTTING = {
    "identities": IDENTITIES,
    "rules": [{"priority": 100, "family": "ipv4", "ipproto": "tcp", "sport": "22", "action": "unreachable"}],
    "what_if": "skip",
    "confirm": {"timeout": TIMEOUT},
}
ELSEWHERE = {"rules": [{"priority": 900, "from": "10.3.0.0/16", "table": "77"}]}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    with Lab() as lab:
        client = lab.client("c", "standin")
        lab.start()
        made = Fleet(lab, tmp_path_factory.mktemp("f"))
        made.manage(client.host)
        assert made.play({client.name: outside(client, plan={"identities": IDENTITIES})}).of(client.name)["changed"]
        yield made


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return fleet.lab.clients[0]


def armed(client: Client) -> bool:
    """Whether a change waits, and something runs that undoes it."""
    try:
        return bool(json.loads(seen(client.host, ARMED).read_bytes())["switch"])
    except (OSError, ValueError):
        return False


def undone(client: Client, before: list[str], since: float, timeout: int = TIMEOUT) -> None:
    """In time, to the letter. How much longer a busy machine takes is not ours to know."""
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    eventually(lambda: not seen(client.host, ARMED).exists(), timeout + 2 * busy - (time.monotonic() - since))
    assert state(client) == before


@pytest.mark.parametrize(
    ("plan", "number"), [(CUTTING, signal.SIGINT), (CUTTING, signal.SIGKILL), (HARMLESS, signal.SIGKILL)]
)
def test_a_controller_that_ends_in_the_window(
    fleet: Fleet, client: Client, plan: dict[str, t.Any], number: signal.Signals
) -> None:
    before = state(client)
    controller = fleet.begin({client.name: outside(client, plan=plan)})
    eventually(lambda: armed(client), 60)
    since = time.monotonic()
    fleet.lab.outside.signal("ansible-playboo", number)  # as the kernel cuts it
    controller.communicate(timeout=30)
    assert armed(client)
    undone(client, before, since)
    assert fleet.works([client]) == {client.name}


def test_a_module_that_is_killed_is_armed_and_the_task_says_so(fleet: Fleet, client: Client) -> None:
    before = state(client)
    controller = fleet.begin({client.name: outside(client, plan=HARMLESS)})
    eventually(lambda: armed(client), 60)
    since = time.monotonic()
    for pid in client.host.run(["pgrep", "-x", "-f", "/usr/bin/python3"]).stdout.split():  # it came by stdin
        client.host.run(["kill", "-9", pid])
    output, _none = controller.communicate(timeout=60)
    told = json.loads(output[output.index("{") :])["plays"][0]["tasks"][-1]["hosts"][client.name]["msg"]
    assert f"on {client.outside[0]} is armed: it will be undone in at most {TIMEOUT} s" in told
    assert told.endswith("by hand on that host in time: python3 -I /run/fleetvpn/fleetvpn-endpoint confirm")
    undone(client, before, since)


def test_what_cannot_be_confirmed_says_so_and_how_to_keep_it(fleet: Fleet, client: Client) -> None:
    """The new connection is there, but what waits cannot be written down as current."""
    before, timeout = state(client), 3 * TIMEOUT  # enough to be told so in time
    plan = {**HARMLESS, "confirm": {"timeout": timeout}}
    controller = fleet.begin({client.name: outside(client, plan=plan)})
    eventually(lambda: armed(client), 60)
    since = time.monotonic()
    client.host.shell("mount --bind /etc/fleetvpn /etc/fleetvpn && mount -o remount,bind,ro /etc/fleetvpn")
    output, _none = controller.communicate(timeout=60)
    client.host.run(["umount", "/etc/fleetvpn"])
    told = json.loads(output[output.index("{") :])["plays"][0]["tasks"][-1]["hosts"][client.name]
    assert told["confirm"]["state"] == "unconfirmed"
    assert told["msg"].startswith(f"the change on {client.outside[0]} is armed, and a new connection ")
    assert "could not confirm it (fleetvpn-endpoint: " in told["msg"]
    assert "Read-only file system" in told["msg"]
    assert "by hand on that host in time: /usr/bin/python3 -I /run/fleetvpn/fleetvpn-endpoint confirm" in told["msg"]
    undone(client, before, since, timeout)


def test_a_namespace_is_confirmed_in_if_it_is_that_of_the_connection(fleet: Fleet, client: Client) -> None:
    client.host.run(["ip", "netns", "attach", "here", "1"])
    client.host.run(["ip", "netns", "add", "other"])
    try:
        for name, confirmed in (("here", "confirmed"), ("other", None)):
            made = fleet.play({client.name: outside(client, plan={**ELSEWHERE, "netns": name})}).of(client.name)
            assert (made["changed"], made["confirm"]["state"]) == (True, confirmed), made
    finally:
        fleet.play({client.name: outside(client, plan={"state": "absent", "netns": "here"})})
        client.host.run(["ip", "netns", "delete", "here"])
        client.host.run(["ip", "netns", "delete", "other"])
