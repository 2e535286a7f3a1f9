# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts to measure on: an uplink and a tunnel, both families, and room for what is foreign."""

from __future__ import annotations

import contextlib
import typing as t

from tests.functional.onhost import GATEWAY, TUNNEL, UPLINK, hosts
from tests.lab.host import Host

INSIDE, INSIDE6 = "10.9.0.5", "2001:db8:9::5"
OUTSIDE6, GATEWAY6 = "2001:db8:2::10", "2001:db8:2::1"
IDENTITIES: list[dict[str, t.Any]] = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "interface": TUNNEL, "gateway": "none"},
]
ENDPOINT: dict[str, t.Any] = {
    "name": "endpoint",
    "fleetvpn.routing.endpoint": {"identities": IDENTITIES, "confirm": {"by": "none"}},
}
_CONNECTED = f"""
link add {TUNNEL} type veth peer name fvtpeer1
link set fvtpeer1 up
link set {TUNNEL} arp off up
addr add {INSIDE}/32 dev {TUNNEL}
addr add {INSIDE6}/128 dev {TUNNEL} nodad
addr add {OUTSIDE6}/64 dev {UPLINK} nodad
route add ::/0 via {GATEWAY6} dev {UPLINK}
"""


@contextlib.contextmanager
def fleet(count: int) -> t.Iterator[list[Host]]:
    """Hosts whose VPN is up and that nobody has configured yet."""
    with hosts() as make:
        made = [make(f"h{number}") for number in range(count)]
        for host in made:
            batch(host, _CONNECTED)
        yield made


def batch(host: Host, text: str) -> None:
    """Lines of ip(8)."""
    host.run(["ip", "-batch", "-"], stdin=text, timeout=600)


def foreign(host: Host, routes: int, rules: int) -> None:
    """What others have put there: routes in main, and rules that match nothing of ours."""
    numbers = (f"{100 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/24" for n in range(routes))
    ahead = (f"rule add pref {10_000 + n} from 203.0.113.{n % 256} lookup 77 proto 99\n" for n in range(rules))
    batch(host, "".join([*(f"route add {to} via {GATEWAY} proto bird\n" for to in numbers), *ahead]))
