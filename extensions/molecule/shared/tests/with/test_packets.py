# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with the collection: what is answered, and by which device it left."""

from __future__ import annotations

import ipaddress
import typing as t

from extensions.molecule.shared.network import FAMILIES, Client, Network, not_shown


def test_inside_addresses_are_of_the_families_that_the_scenario_states(network: Network, client: Client) -> None:
    """Of a family that it does not state nothing would be asked, so it says that in words too."""
    addresses = [entry for link in network.host(client).ip_json("address") for entry in link["addr_info"]]
    pools = [ipaddress.ip_network(pool) for pool in client.pool]
    found = [ipaddress.ip_address(entry["local"]) for entry in addresses]
    assert {str(address) for address in found if any(address in pool for pool in pools)} == set(client.inside)
    assert client.families == FAMILIES or not_shown()


def test_replies_leave_by_the_device_of_the_address_that_was_asked(network: Network) -> None:
    found = network.ask(network.asked())
    assert [str(one) for one in found if not one.right] == []


def test_bound_sockets_leave_by_the_device_of_their_address(network: Network) -> None:
    found = network.ask(network.chosen())
    assert [str(one) for one in found if not one.right] == []


def test_unbound_traffic_goes_where_it_went_before(network: Network, notes: dict[str, t.Any]) -> None:
    found = network.ask(network.unbound())
    now = {one.flow.label(): [one.answer.ok, one.answer.name, one.answer.seen, sorted(one.left_by)] for one in found}
    assert now == notes["unbound"]
