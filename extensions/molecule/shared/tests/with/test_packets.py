# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with the collection: what is answered, and by which device it left."""

from __future__ import annotations

import typing as t

from extensions.molecule.shared.network import Network


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
