# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thousands of rules and routes in one set, against what pyroute2 itself takes to send and to read them."""

from __future__ import annotations

import json
import pathlib
import sys
import time
import typing as t

from tests.functional.onhost import GATEWAY, PRIVATE, UPLINK
from tests.lab.host import Host

from .figures import Figure, Size, in_turn
from .hosts import batch, fleet
from .processes import endpoint, spent, stated

_UNDONE = "ip rule flush protocol {protocol}; ip route flush table 900"
_FOREIGN = 99  # the protocol of what others put there
_BEGIN = f"""
import json, socket, sys
sys.path.insert(0, {PRIVATE!r})
given = json.load(sys.stdin)
"""
# Messages are built by pyroute2 and sent a hundred at a time, as many as whose answers a socket's buffer holds.
_SEND = f"""{_BEGIN}
from pyroute2 import IPBatch
ACKNOWLEDGEMENT = 36
connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
connection.bind((0, 0))
builder, waiting, device = IPBatch(), 0, socket.if_nametoindex({UPLINK!r})
def send(at_least):
    global waiting
    if waiting >= at_least:
        connection.send(builder.batch)
        builder.reset()
        while waiting:
            waiting -= len(connection.recv(1 << 16)) // ACKNOWLEDGEMENT
for rule in given["rules"]:
    source, length = rule["from"].split("/")
    builder.rule("add", priority=rule["priority"], src=source, src_len=int(length), table=900, protocol={_FOREIGN})
    waiting += 1
    send(100)
for route in given["routes"]:
    builder.route("add", dst=route["dst"], gateway=route["gateway"], oif=device, table=900, proto={_FOREIGN})
    waiting += 1
    send(100)
send(1)
"""
_READ = f"""{_BEGIN}
from pyroute2 import IPRoute
with IPRoute() as ip:
    assert len(list(ip.get_rules(family=socket.AF_INET))) >= len(given["rules"])
    assert len(list(ip.get_routes(family=socket.AF_INET, table=900))) >= len(given["routes"])
"""


def many(_directory: pathlib.Path, size: Size) -> list[Figure]:
    """The first run, and one that changes nothing."""
    params = stated(size.many // 2)
    text = json.dumps(params)
    with fleet(1) as (host,):
        floor = in_turn(lambda: _applied(host, params), lambda: _sent(host, text), size.rounds)
        by_ip = in_turn(lambda: _applied(host, params), lambda: _by_ip(host, params), size.rounds)
        endpoint(host, changed=True, **params)
        again = in_turn(
            lambda: endpoint(host, changed=False, **params).seconds,
            lambda: spent(host, [sys.executable, "-c", _READ], text).seconds,
            size.rounds,
        )
    what = f"endpoint with {size.many} rules and routes of our own"
    return [
        Figure("many_first", f"{what}, first run", "pyroute2 that only builds and sends them", floor, 1.5),
        Figure("many_first_ip", f"{what}, first run", "ip -batch", by_ip),
        Figure("many_again", f"{what}, nothing to change", "pyroute2 that only reads them", again, 1.8),
    ]


def _applied(host: Host, params: dict[str, t.Any]) -> float:
    took = endpoint(host, changed=True, **params).seconds
    endpoint(host, changed=True, state="absent")
    return took


def _sent(host: Host, text: str) -> float:
    took = spent(host, [sys.executable, "-c", _SEND], text).seconds
    host.shell(_UNDONE.format(protocol=_FOREIGN))
    return took


def _by_ip(host: Host, params: dict[str, t.Any]) -> float:
    rules = (
        f"rule add pref {rule['priority']} from {rule['from']} lookup 900 proto {_FOREIGN}" for rule in params["rules"]
    )
    routes = (f"route add {route['dst']} via {GATEWAY} table 900 proto {_FOREIGN}" for route in params["routes"])
    text = "\n".join([*rules, *routes])
    begun = time.perf_counter()
    batch(host, text)
    took = time.perf_counter() - begun
    host.shell(_UNDONE.format(protocol=_FOREIGN))
    return took
