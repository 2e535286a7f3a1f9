# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a restart of the hosts: what happened before there was a network."""

from __future__ import annotations

import testinfra

from extensions.molecule.shared.network import Client

BOOT = "fleetvpn-endpoint.service"


def test_the_sets_were_applied_before_the_network(client: Client) -> None:
    host = testinfra.get_host(f"podman://{client.name}")
    journal = host.check_output("journalctl --no-pager --unit %s", BOOT)
    assert host.service(BOOT).is_running, journal
    times = [
        int(host.check_output("systemctl show --value --property ActiveEnterTimestampMonotonic %s", unit))
        for unit in (BOOT, "network.target")
    ]
    assert 0 < times[0] <= times[1], journal
