# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook in check mode, as talkative as it can be: it announces, it does nothing, and it shows no key."""

from __future__ import annotations

import os
import re
import typing as t

from extensions.molecule.shared.network import Client, Network, state


def is_plain(client: Client) -> bool:
    """Of a tunnel that must be started in another way, check mode cannot tell more than that; nor without pyroute2."""
    if os.environ.get("FLEETVPN_PYROUTE2_WHEEL"):
        return False
    return client.kind != "ipsec" and (client.kind, client.name) != ("wireguard", "fvt-full")


def test_check_mode(network: Network, playbook: t.Callable[..., str], secrets: list[str]) -> None:
    before = {client.name: state(network.host(client)) for client in network.clients}
    output = playbook("--check", "--diff", "-vvv")
    assert {client.name: state(network.host(client)) for client in network.clients} == before
    announced = [rf"^{client.name} .* changed=[1-9]" for client in network.clients]
    plain = [client for client in network.clients if is_plain(client)]
    announced += [rf"^\+2301:\tfrom {address} iif lo lookup" for client in plain for address in client.inside]
    assert [line for line in announced if not re.search(line, output, re.MULTILINE)] == []
    assert [secret for secret in secrets if secret in output] == []
