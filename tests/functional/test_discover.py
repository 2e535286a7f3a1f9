# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proposed for hosts that nobody has declared: playbook discover on hosts of the lab, and then the roll-out.

The tests of the playbook are the steps of one story and run in their order.
"""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest
import yaml

from tests.functional.playbooks import ansible_playbook
from tests.lab import Client, Lab
from tests.lab import addresses as plan

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

REPOSITORY = pathlib.Path(__file__).parents[2]
HAND_MADE, TWO_UPLINKS, WIREGUARD, OPENVPN, KNOWN = "hand", "two", "wg", "ovpn", "known"
TOLD = "# what somebody wrote\n"


class Fleet:
    """Hosts that were set up by hand, and a controller."""

    def __init__(self, lab: Lab, directory: pathlib.Path) -> None:
        self.directory = directory
        kinds = {HAND_MADE: "standin", TWO_UPLINKS: "wireguard", WIREGUARD: "wireguard", OPENVPN: "openvpn"}
        self.clients = {name: lab.client(name, kind) for name, kind in {**kinds, KNOWN: "standin"}.items()}
        lab.start()
        self._by_hand(self.clients[HAND_MADE])
        self.second = lab.second_uplink(self.clients[TWO_UPLINKS])[0]
        self._second_uplink(self.clients[TWO_UPLINKS])
        lab.inventory(directory / "inventory.yml")
        (directory / "host_vars").mkdir()
        (directory / "host_vars" / f"{KNOWN}.yaml").write_text(TOLD, encoding="utf-8")

    def _by_hand(self, client: Client) -> None:
        address = client.inside[0]
        client.host.shell(
            f"ip rule add pref 1500 from {address} lookup 100; ip route add default dev vpn0 table 100;"
            " ip rule add pref 1600 fwmark 0x5 lookup 100"
        )

    def _second_uplink(self, client: Client) -> None:
        gateway = plan.in_lan(1, 1)[0]
        client.host.shell(
            f"ip rule add from {self.second} lookup 101; ip route add default via {gateway} dev up1 table 101"
        )

    def play(self, playbook: str, *arguments: str, **variables: t.Any) -> tuple[int, str]:
        """Run a playbook of the collection; its exit status, and what it said."""
        return ansible_playbook(self.directory, f"fleetvpn.routing.{playbook}", *arguments, **variables)

    def files(self) -> dict[str, str]:
        """What is below host_vars."""
        return {path.name: path.read_text() for path in sorted((self.directory / "host_vars").iterdir())}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    with Lab() as lab:
        yield Fleet(lab, tmp_path_factory.mktemp("controller"))


def test_without_a_directory_it_does_not_begin(fleet: Fleet) -> None:
    status, text = fleet.play("discover")
    assert status != 0
    assert "discover_directory: is not given" in text


def test_check_mode_writes_nothing(fleet: Fleet) -> None:
    status, text = fleet.play("discover", "--check", "--diff", discover_directory=str(fleet.directory))
    assert status == 0, text
    assert list(fleet.files()) == [f"{KNOWN}.yaml"]
    assert "+endpoint_host_identities:" in text


def test_a_file_for_each_host_and_none_over_another(fleet: Fleet) -> None:
    status, text = fleet.play("discover", discover_directory=str(fleet.directory))
    assert status == 0, text
    found = fleet.files()
    assert set(found) == {f"{name}.yml" for name in fleet.clients if name != KNOWN} | {f"{KNOWN}.yaml"}
    assert found[f"{KNOWN}.yaml"] == TOLD
    declared = {name.partition(".")[0]: yaml.safe_load(content) for name, content in found.items()}
    outside = {"name": "outside", "interface": "auto"}
    wireguard = {"name": "inside", "tunnel": {"type": "wireguard", "connection": "wg0"}}
    assert declared[WIREGUARD] == {"endpoint_host_identities": [outside, wireguard]}
    (up0, inside) = declared[OPENVPN]["endpoint_host_identities"]
    assert up0 == outside
    assert inside["tunnel"] == {"type": "openvpn", "connection": fleet.clients[OPENVPN].tunnel.connection}
    assert declared[TWO_UPLINKS]["endpoint_host_identities"] == [
        {"name": "up0", "interface": "up0"},
        {"name": "up1", "interface": "up1", "gateway": [plan.in_lan(1, 1)[0]], "families": ["ipv4"]},
        wireguard,
    ]
    assert declared[HAND_MADE] == {
        "endpoint_host_identities": [outside, {"name": "inside", "interface": "vpn0", "gateway": "none"}],
        "endpoint_numbers": {"priority_base": 500},
    }


def test_what_it_could_not_decide_is_said_in_the_file(fleet: Fleet) -> None:
    found = fleet.files()
    assert "# - rule 1500: from " in found[f"{HAND_MADE}.yml"]
    assert "ip -4 rule del pref 1500 from " in found[f"{HAND_MADE}.yml"]
    assert "# - rule 1600: from all fwmark 0x5 lookup 100 (IPv4) says what no identity can" in found[f"{HAND_MADE}.yml"]
    assert "# - up1: up1 has addresses of IPv6 and no gateway is known" in found[f"{TWO_UPLINKS}.yml"]
    assert "state as pools" in found[f"{OPENVPN}.yml"]
    assert "# - " not in found[f"{WIREGUARD}.yml"]


def test_the_files_as_they_are_converge(fleet: Fleet) -> None:
    status, text = fleet.play("rollout", rollout_hosts=f"all:!{KNOWN}", rollout_serial="100%")
    assert status == 0, text
    assert "4 of 4 hosts done: 4 changed, 0 pending, 0 failed, 0 waiting" in text, text
    status, text = fleet.play("verify", verify_hosts=f"all:!{KNOWN}")
    assert status == 0, text
    assert "4 proven" in text


def test_afterwards_the_hand_made_rule_can_go(fleet: Fleet) -> None:
    host = fleet.clients[HAND_MADE].host
    (line,) = [line for line in fleet.files()[f"{HAND_MADE}.yml"].splitlines() if "rule 1500" in line]
    host.shell(line.split("`")[1])
    status, text = fleet.play("verify", verify_hosts=HAND_MADE)
    assert status == 0, text


def test_a_second_run_has_nothing_to_propose(fleet: Fleet) -> None:
    elsewhere = fleet.directory / "elsewhere"
    (fleet.directory / "host_vars").rename(fleet.directory / "aside")
    status, text = fleet.play("discover", discover_directory=str(elsewhere), discover_hosts=f"all:!{KNOWN}")
    assert status == 0, text
    assert not elsewhere.exists()
    assert text.count("has a set already") == 4
