# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hooks say of themselves, and what of it is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._host.hook import CLIENTS, describe

ROLES = Path(__file__).resolve().parents[4] / "roles"
GOOD = {"script_type": "up", "dev": "tun0", "ifconfig_local": "10.8.0.10", "ifconfig_ipv6_local": "fd00:8::10"}
HOSTILE = (
    "a b",
    "'",
    '"',
    "$(reboot)",
    "`reboot`",
    "tun0\nfleetvpn-endpoint: all is well",
    "../../etc/shadow",
    "x" * 5000,
    "\x1b[2J",
    "tun0;reboot",
)


def test_what_happened_in_one_line() -> None:
    assert describe("openvpn", GOOD) == ["openvpn: up tun0 10.8.0.10 fd00:8::10"]


def test_nothing_said() -> None:
    assert describe("openvpn", {}) == ["openvpn: called"]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_are_named_and_not_used(client: str, value: str) -> None:
    variables = CLIENTS[client]
    for name in (variables.event, *variables.addresses):
        said, refused = describe(client, {name: value})
        assert said == f"{client}: called"
        assert refused.startswith(f"{client}: refused value of {name}: ")
        assert refused.isprintable()
        assert len(refused) < 500


@pytest.mark.parametrize("client", CLIENTS)
def test_a_device_name_is_what_the_kernel_takes(client: str) -> None:
    for name in CLIENTS[client].devices:
        for value in ("a b", "x" * 16, "a/b", "tun0\nx", "."):
            said, refused = describe(client, {name: value})
            assert said == f"{client}: called"
            assert refused.isprintable()


@pytest.mark.parametrize("path", sorted(ROLES.glob("*/files/hook.sh")), ids=lambda path: path.parents[1].name)
def test_the_hook_of_a_role_hands_over_what_its_client_is_asked_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    called = re.search(r"fleetvpn-endpoint hook (\w+)", text)
    assert called
    assert called[1] in CLIENTS
    wanted = CLIENTS[called[1]]
    handed_over = re.findall(r'^ +(\w+)="', text, re.MULTILINE)
    assert sorted(handed_over) == sorted([wanted.event, *wanted.devices, *wanted.addresses])
