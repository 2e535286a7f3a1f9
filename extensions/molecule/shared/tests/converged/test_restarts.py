# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role came with all its changes, and no VPN was restarted unasked."""

from __future__ import annotations

import typing as t

from extensions.molecule.shared.network import Client, Network, invocation

# Told to by the identity: apply: restart.
ASKED = {("ipsec", "fvt-split"), ("ipsec", "fvt-full"), ("wireguard", "fvt-full")}


def test_the_vpn_is_restarted_only_where_that_was_asked(
    network: Network, client: Client, notes: dict[str, t.Any]
) -> None:
    is_the_same = invocation(network.host(client), client.unit) == notes["units"][client.name]
    assert is_the_same is ((client.kind, client.name) not in ASKED)
