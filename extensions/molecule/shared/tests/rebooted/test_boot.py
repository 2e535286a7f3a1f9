# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a restart of the hosts: the sets stood before anything could use them."""

from __future__ import annotations

import testinfra

from extensions.molecule.shared.network import Client

BOOT = "fleetvpn-endpoint.service"


def test_the_sets_were_applied_before_the_tunnel_started(client: Client) -> None:
    host = testinfra.get_host(f"podman://{client.name}")
    journal = host.check_output("journalctl --no-pager --unit %s", BOOT)
    assert host.service(BOOT).is_running, journal
    show = "systemctl show --value --property {}TimestampMonotonic {}"
    done = int(host.check_output(show.format("ActiveEnter", BOOT)))
    assert 0 < done < int(host.check_output(show.format("InactiveExit", client.unit))), journal
