# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a restart of the hosts: the sets stood before anything could use them."""

from __future__ import annotations

import typing as t

import pytest
import testinfra

from extensions.molecule.shared.network import Client, Network, guard, tables

BOOT = "fleetvpn-endpoint.service"
FLUSHES = "nftables.service"


@pytest.fixture
def host(client: Client) -> t.Any:
    return testinfra.get_host(f"podman://{client.name}")


def test_the_sets_were_applied_before_the_tunnel_started(client: Client, host: t.Any) -> None:
    journal = host.check_output("journalctl --no-pager --unit %s", BOOT)
    assert host.service(BOOT).is_running, journal
    assert 0 < when(host, "ActiveEnter", BOOT) < when(host, "InactiveExit", client.unit), journal


def test_the_guard_came_after_what_flushes_all_tables(network: Network, client: Client, host: t.Any) -> None:
    """In scenario wireguard the hosts have a ruleset of their own. That no watch mended it the order shows."""
    if client.kind == "wireguard":
        assert "inet filter" in tables(network.host(client))
        assert 0 < when(host, "ActiveEnter", FLUSHES) <= when(host, "InactiveExit", BOOT)
    assert "hook postrouting" in guard(network.host(client))


def when(host: t.Any, event: str, unit: str) -> int:
    """On the monotonic clock, in microseconds; 0 is never."""
    return int(host.check_output("systemctl show --value --property %sTimestampMonotonic %s", event, unit))
