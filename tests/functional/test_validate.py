# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbook validate over an inventory whose hosts cannot be reached at all."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from tests.functional.playbooks import play

pytestmark = pytest.mark.controller

IDENTITIES = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "tunnel": {"type": "wireguard", "connection": "{{ tunnel }}"}, "pools": ["10.9.0.0/16"]},
]
BAD: dict[str, dict[str, t.Any]] = {
    "table": {"endpoint_host_identities": [{"name": "outside", "table": 99999999999}]},
    "slip": {"endpoint_host_identites": [{"name": "outside", "table": 99}]},
    "kind": {"endpoint_watch": "sometimes"},
}


@pytest.fixture
def inventory(tmp_path: pathlib.Path) -> pathlib.Path:
    """Whatever connects to its hosts fails."""
    (tmp_path / "inventory.yml").write_text(
        json.dumps(
            {
                "vpn_endpoints": {
                    "vars": {"ansible_ssh_executable": "false", "tunnel": "wg0", "endpoint_identities": IDENTITIES},
                    "hosts": {"good": {}, **BAD},
                }
            }
        )
    )
    return tmp_path


def test_what_is_right_is_planned(inventory: pathlib.Path) -> None:
    status, text = play(inventory, "validate", validate_hosts="good")
    assert status == 0, text
    assert "add rule ipv4 2650: from 10.9.0.0/16 iif lo unreachable" in text
    assert "add table 2002 fleetvpn_inside" in text


def test_each_host_that_is_wrong_is_named_with_field_value_and_what_is_accepted(inventory: pathlib.Path) -> None:
    status, text = play(inventory, "validate")
    assert status == 2
    assert "table: identities[0].table: '99999999999' is no routing table; accepted: 1 to 4294967295" in text
    assert "slip: endpoint_host_identites: is no variable of role endpoint; accepted: endpoint_host_identities" in text
    assert "fatal: [kind]" in text
    assert "argument 'endpoint_watch'" in text
    assert "fatal: [good]" not in text


@pytest.mark.parametrize(
    ("playbook", "hosts", "limit", "within"),
    [
        ("report", "nobody", [], ""),
        ("rollout", "nobody", [], ""),
        ("validate", "good", ["--limit", "kind"], " within --limit kind"),
        ("verify", "good", ["--limit", "kind"], " within --limit kind"),
    ],
)
def test_a_pattern_that_names_no_host_is_no_success(
    inventory: pathlib.Path, playbook: str, hosts: str, limit: list[str], within: str
) -> None:
    status, text = play(inventory, playbook, *limit, **{f"{playbook}_hosts": hosts})
    assert status == 2
    assert f"{playbook}_hosts: {hosts} is the name of no host{within}; accepted: a pattern of the inventory" in text
    assert [path.name for path in inventory.iterdir() if path.is_file()] == ["inventory.yml"]


def test_a_limit_leaves_the_hosts_within_it_and_their_verdict(inventory: pathlib.Path) -> None:
    status, text = play(inventory, "verify", "--limit", "good:kind")
    assert status == 2
    assert "2 wrong" in text, text
    status, text = play(inventory, "report", "--limit", "good:kind")
    assert status == 0, text
    told = json.loads((inventory / "fleet-report.json").read_text())
    assert sorted(host["name"] for host in told["hosts"]) == ["good", "kind"]
