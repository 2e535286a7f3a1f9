# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host pays for what the collection put into its kernel: the watch, each lookup, each packet."""

from __future__ import annotations

import json
import pathlib
import statistics
import typing as t

from tests.functional.onhost import PRIVATE, TUNNEL
from tests.functional.watching import Watch
from tests.lab.host import Host

from .figures import Figure, Size, in_turn
from .hosts import IDENTITIES, INSIDE, batch, fleet
from .plays import PYTHON
from .processes import endpoint, spent

_FAR = "203.0.113.9"
# An address comes to the tunnel; how long until the kernel tells of the rule that looks its table up? Each is a new
# address, as somebody who takes the same rule away again and again is fought with patience.
_LATENCIES = f"""
import json, socket, sys, time
sys.path.insert(0, {PRIVATE!r})
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import RTMGRP_IPV4_RULE
device, table, found = socket.if_nametoindex({TUNNEL!r}), int(sys.argv[2]), []
with IPRoute() as ip, IPRoute() as told:
    told.bind(groups=RTMGRP_IPV4_RULE)
    for number in range(int(sys.argv[1])):
        address = f"10.77.{{number >> 8}}.{{number & 255}}"
        begun = time.monotonic()
        ip.addr("add", index=device, address=address, prefixlen=32)
        while not any(m.get_attr("FRA_SRC") == address and m.get_attr("FRA_TABLE") == table for m in told.get()):
            pass
        found.append(time.monotonic() - begun)
        ip.addr("del", index=device, address=address, prefixlen=32)
        time.sleep(0.5)
print(json.dumps(found))
"""
_LOOKUPS = f"""
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
begun = time.perf_counter()
for _ in range(int(sys.argv[1])):
    s.connect(({_FAR!r}, 9))
print(time.perf_counter() - begun)
"""
_PACKETS = f"""
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(({INSIDE!r}, 0))
s.connect(({_FAR!r}, 9))
packet, device = bytes(1200), {TUNNEL!r}
sent = lambda: int(open(f"/sys/class/net/{{device}}/statistics/tx_packets").read())
before = sent()
begun = time.perf_counter()
for _ in range(int(sys.argv[1])):
    s.send(packet)
print(time.perf_counter() - begun)
if sent() - before < int(sys.argv[1]):
    sys.exit("they did not leave")
"""


def watch(_directory: pathlib.Path, size: Size) -> list[Figure]:
    """From an event to the rule that it asks for."""
    with fleet(1) as (host,):
        said = json.loads(endpoint(host, changed=True).output)
        table = next(identity["table"] for identity in said["identities"] if identity["name"] == "inside")
        running = Watch(host)
        try:
            text = spent(host, [PYTHON, "-c", _LATENCIES, str(size.events + 1), str(table)]).output
        finally:
            running.end()
    found = [1000 * seconds for seconds in json.loads(text)[1:]]  # the first one loads what a change needs
    late = statistics.quantiles(found, n=100, method="inclusive")[98] if len(found) > 1 else found[0]
    what = "watch, from a new address to its rule"
    return [
        Figure("watch_median", f"{what}: median", "-", tuple(found), 50.0, "ms"),
        Figure("watch_late", f"{what}: 99 of 100", "-", (late,), 200.0, "ms"),
    ]


def lookups(_directory: pathlib.Path, size: Size) -> list[Figure]:
    """Connecting a socket that has no source, against a host without rules of ours."""
    return [_lookups(count, size) for count in size.identities]


def _lookups(count: int, size: Size) -> Figure:
    with fleet(2) as (host, bare):
        addresses = [f"10.{100 + (number >> 8)}.{number & 255}.1" for number in range(count - 1)]
        batch(host, "\n".join(f"addr add {address}/32 dev {TUNNEL}" for address in addresses))
        endpoint(host, changed=True, identities=[IDENTITIES[0], *map(_identity, addresses)])
        values = in_turn(
            lambda: _timed(host, _LOOKUPS, size.packets), lambda: _timed(bare, _LOOKUPS, size.packets), size.rounds
        )
    return Figure(f"lookup_{count}", f"connect() beside {count} identities", "with none", values)


def _identity(address: str) -> dict[str, t.Any]:
    given = {"interface": TUNNEL, "gateway": "none", "addresses": [address], "families": ["ipv4"]}
    return {"name": f"i{address.replace('.', '_')}", **given}


def packets(_directory: pathlib.Path, size: Size) -> list[Figure]:
    """Sending by the tunnel, with and without the egress guard."""
    with fleet(2) as (guarded, open_):
        endpoint(guarded, changed=True)
        endpoint(open_, changed=True, strict_egress="false")
        values = in_turn(
            lambda: _timed(guarded, _PACKETS, size.packets), lambda: _timed(open_, _PACKETS, size.packets), size.rounds
        )
    return [Figure("packets", "send() of 1200 bytes with the egress guard", "without", values)]


def _timed(host: Host, script: str, times: int) -> float:
    return float(spent(host, [PYTHON, "-c", script, str(times)]).output)
