# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pppd's scripts, as the distribution has them: which ran, with what, and that they ran our hooks."""

from __future__ import annotations

import pytest

from extensions.molecule.shared.network import Client, Network, wait
from tests.lab import addresses as plan
from tests.lab.host import Host
from tests.lab.pppd import LINK_LOCAL

EVENTS = "/run/events"
BEYOND = f"/dev/pts/9 115200 {' '.join(LINK_LOCAL)} corp"


def test_scripts_and_hooks(network: Network, client: Client) -> None:
    """Those of a start at boot, then those of an end and of another start."""
    if client.kind != "ppp":
        pytest.skip("scripts of pppd are in scenario ppp")
    host = network.host(client)
    ends = f"{client.inside[0]} {plan.first(plan.PPP_POOL)[0]}"
    start = [f"ip-pre-up ppp0 /dev/pts/9 115200 {ends} corp", f"ip-up ppp0 /dev/pts/9 115200 {ends} corp"]
    end = [f"ip-down ppp0 /dev/pts/9 115200 {ends} corp", f"ipv6-down ppp0 {BEYOND}"]
    assert events(host) == {*start, f"ipv6-up ppp0 {BEYOND}"}
    hooks = [f"ppp: {event} ppp0 {ends}" for event in ("ip-pre-up", "ip-up")]
    wait(lambda: said(host) == hooks, "hooks of the start at boot")
    host.run(["rm", EVENTS])
    host.run(["systemctl", "stop", client.unit])
    assert events(host) == set(end)
    host.run(["systemctl", "start", client.unit])
    wait(lambda: said(host) == 2 * hooks, "hooks of the second start")
    assert events(host) == {*start, f"ipv6-up ppp0 {BEYOND}", *end}
    network.right_soon()


def events(host: Host) -> set[str]:
    return set(host.read(EVENTS).splitlines())


def said(host: Host) -> list[str]:
    """What the hooks wrote into the journal since the host booted; journalctl takes the machine's boot for its own."""
    booted = host.run(["systemctl", "show", "--value", "--property", "UserspaceTimestamp"]).stdout.strip()
    lines = host.run(["journalctl", "--no-pager", "--since", booted, "--output", "cat"]).stdout.splitlines()
    return [line for line in lines if line.startswith("ppp: ")]
