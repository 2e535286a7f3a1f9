# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the controller will still be answered: the rule on its own, and where the connection is found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _controller
from ansible_collections.fleetvpn.routing.plugins.module_utils._management import Egress, judge
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Flow, Path

BY_UPLINK = Path("unicast", dev="up0", gateway="192.0.2.1", table=254)
BY_TABLE = Path("unicast", dev="up0", gateway="192.0.2.1", table=2001)
BY_TUNNEL = Path("unicast", dev="vpn0", table=2000)
BY_OTHER = Path("unicast", dev="up0", gateway="192.0.2.2", table=2001)
NOWHERE = Path("unreachable", errno=101)


def egress(path: Path, *, at_home: bool = True, alive: bool = True) -> Egress:
    return Egress("outside", path.dev, path.gateway, at_home, lambda: alive)


@pytest.mark.parametrize(
    ("today", "planned", "egresses", "why"),
    [
        (BY_UPLINK, BY_TABLE, [], None),
        (BY_UPLINK, NOWHERE, [egress(BY_UPLINK)], "no way out (unreachable)"),
        (NOWHERE, NOWHERE, [egress(BY_UPLINK)], "no way out (unreachable)"),
        (BY_TUNNEL, BY_TABLE, [egress(BY_UPLINK)], None),
        (BY_TUNNEL, BY_TUNNEL, [egress(BY_UPLINK)], None),
        (BY_UPLINK, BY_TUNNEL, [egress(BY_UPLINK)], "dev vpn0, which is neither today's way"),
        (BY_UPLINK, BY_TUNNEL, [], "via 192.0.2.1 dev up0) nor the egress"),
        (BY_UPLINK, BY_OTHER, [egress(BY_OTHER)], None),
        (BY_UPLINK, BY_OTHER, [egress(BY_OTHER, alive=False)], "via 192.0.2.2 dev up0, where nobody answers"),
        (BY_UPLINK, BY_TUNNEL, [egress(BY_TUNNEL, at_home=False)], "not where identity outside says"),
        # What goes as today is not asked whether it lives: it did until now.
        (BY_UPLINK, BY_TABLE, [egress(BY_TABLE, alive=False)], None),
    ],
)
def test_the_replies_must_go_as_today_or_by_a_declared_egress_that_is_alive(
    today: Path, planned: Path, egresses: list[Egress], why: str | None
) -> None:
    found = judge(today, planned, egresses)
    assert (found is None) if why is None else (found is not None and why in found)


@pytest.mark.parametrize(
    ("stated", "flow"),
    [
        (
            "203.0.113.10 50022 192.0.2.10 22",
            Flow(4, "203.0.113.10", source="192.0.2.10", ipproto=6, sport=22, dport=50022),
        ),
        (
            "fe80::1%up0 50022 fe80::2%up0 2222",
            Flow(6, "fe80::1", source="fe80::2", oif="up0", ipproto=6, sport=2222, dport=50022),
        ),
        ("nonsense", None),
    ],
)
def test_the_connection_is_what_an_ancestor_was_started_with(stated: str, flow: Flow | None) -> None:
    """As sudo does, the process itself forgets it."""
    script = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'from ansible_collections.fleetvpn.routing.plugins.module_utils import"
        " _controller; print(_controller.management_flow())'], env={'PYTHONPATH': sys.argv[1]}, check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, os.pathsep.join(sys.path)],
        env={"SSH_CONNECTION": stated},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(flow)


def test_a_command_with_a_parenthesis_has_a_parent() -> None:
    assert _controller._parent_of(os.getpid()) == os.getppid()
    assert _controller._parent_of(1 << 30) == 0
