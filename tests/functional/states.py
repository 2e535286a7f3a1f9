# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random routing states and flows, for properties that take many of both: seeded, so that a failure comes back.

A state is lines of ip(8), of which the kernel may refuse some; that is part of the game.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import random
import subprocess
import typing as t

from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model import fields
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Flow
from ansible_collections.fleetvpn.routing.plugins.module_utils._netns import inside
from ansible_collections.fleetvpn.routing.plugins.module_utils._plan import Plan

from tests.functional.conftest import ip

DEVICES = ("fvta", "fvtb", "fvtc", "fvtd", "fvtbr")
OWN = {
    4: {"fvta": "192.0.2.10/24", "fvtb": "198.51.100.10/24", "fvtc": "203.0.113.10/32", "fvtbr": "172.20.0.1/24"},
    6: {"fvta": "2001:db8:a::10/64", "fvtb": "2001:db8:b::10/64", "fvtc": "2001:db8:c::10/128",
        "fvtbr": "fd20::1/64"},
}  # fmt: skip
GATEWAYS = {4: ("192.0.2.1", "192.0.2.254", "198.51.100.1"), 6: ("2001:db8:a::1", "2001:db8:a::2", "2001:db8:b::1")}
PREFIXES = {
    4: ("default", "0.0.0.0/1", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1", "172.20.0.128/25"),
    6: ("default", "2000::/3", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1:1::/64", "2001:db8:1:1::1",
        "fd20::80/121"),
}  # fmt: skip
TARGETS = {
    4: ("10.1.1.1", "10.1.1.9", "10.1.9.9", "10.9.9.9", "9.9.9.9", "192.0.2.77", "172.20.0.200", "172.20.0.9",
        "192.0.2.10"),
    6: ("2001:db8:1:1::1", "2001:db8:1:1::9", "2001:db8:1::9", "2001:db8:9::9", "2a00::9", "2001:db8:a::77", "fd20::99",
        "fd20::9", "2001:db8:a::10"),
}  # fmt: skip
FOREIGN = {4: ("10.77.0.9", "172.20.0.9"), 6: ("2001:db8:77::9", "fd20::9")}
TABLES = ("main", "2000", "2001", "2002", "70000")
PROTOCOLS = {"tcp": 6, "udp": 17}
LOCAL, KERNEL = 255, 2  # table and protocol of what the kernel makes itself
FORWARDING = ("ipv4/ip_forward", "1")
SYSCTLS = {
    "ipv4/conf/{}/accept_local": "01",
    "ipv4/conf/{}/forwarding": "01",
    "ipv4/conf/{}/ignore_routes_with_linkdown": "01",
    "ipv4/conf/{}/route_localnet": "01",
    "ipv4/conf/{}/rp_filter": "012",
    "ipv4/conf/{}/src_valid_mark": "01",
    "ipv4/fib_multipath_hash_policy": "01",
    "ipv4/fwmark_reflect": "01",
    "ipv6/conf/{}/forwarding": "01",
    "ipv6/conf/{}/ignore_routes_with_linkdown": "01",
    "ipv6/conf/{}/use_oif_addrs_only": "01",
    "ipv6/fib_multipath_hash_policy": "01",
    "ipv6/fwmark_reflect": "01",
}
_NUMBERS = itertools.count()


@contextlib.contextmanager
def state(rng: random.Random, *, tuned: bool = False) -> t.Iterator[str]:
    """A namespace in a random state; C(tuned) sets sysctls as well."""
    name = f"fvt-{os.getpid()}-{next(_NUMBERS)}s"
    ip("netns", "add", name)
    try:
        batch(name, [*devices(rng), *addresses(rng)])
        with inside(name):
            for path, value in sysctls(rng) if tuned else [FORWARDING]:
                pathlib.Path("/proc/sys/net", path).write_text(value, encoding="ascii")
        for family in (4, 6):
            batch(name, [*routes(rng, family, 14), *rules(rng, family, 12)], f"-{family}")
        yield name
    finally:
        ip("netns", "del", name)


def batch(netns: str, lines: t.Sequence[str], *family: str) -> None:
    """Lines of ip(8), of which some may be refused."""
    command = ["ip", "-n", netns, *family, "-force", "-batch", "-"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=False, capture_output=True, timeout=30)


def devices(rng: random.Random) -> t.Iterator[str]:
    """Four cables and a bridge; some without carrier, down, or in a group."""
    yield "link set lo up"
    yield "link add fvtbr type bridge"
    for name in DEVICES[:4]:
        yield f"link add {name} arp off type veth peer name x{name}"
        yield f"link set x{name} addrgenmode none"
        yield f"link set x{name} {'down' if rng.random() < 0.15 else 'up'}"
    yield "link set fvtd master fvtbr"
    for name in DEVICES:
        yield f"link set {name} addrgenmode none"
        yield f"link set {name} {'down' if rng.random() < 0.1 else 'up'}"
        yield f"link set {name} group {rng.choice((0, 0, 0, 151))}"


def addresses(rng: random.Random) -> t.Iterator[str]:
    """Most of the usual ones."""
    for name in DEVICES:
        yield f"address add fe80::10/64 dev {name} nodad"
    for family in (4, 6):
        for name, address in OWN[family].items():
            if rng.random() < 0.9:
                yield f"address add {address} dev {name} {'nodad' if family == 6 else ''}"


def sysctls(rng: random.Random) -> t.Iterator[tuple[str, str]]:
    """Values of those that lookups heed, of the host and of its devices; it forwards, as routers are asked more."""
    yield FORWARDING
    for path, values in SYSCTLS.items():
        places = ("all", *DEVICES) if "{}" in path else ("",)
        for place in places:
            if rng.random() < 0.3:
                yield path.format(place), rng.choice(values)


def routes(rng: random.Random, family: int, most: int) -> t.Iterator[str]:
    """Routes of every type in several tables."""
    for _each in range(rng.randint(4, most)):
        yield f"route add {route(rng, family)}"


def route(rng: random.Random, family: int) -> str:
    """One route."""
    kind = rng.choice(("", "", "", "", "unreachable", "prohibit", "blackhole", "throw"))
    words = [kind, rng.choice(PREFIXES[family]), "table", rng.choice(TABLES)]
    if rng.random() < 0.4:
        words += ["metric", str(rng.choice((0, 10, 20, 4096)))]
    if family == 4 and rng.random() < 0.1:
        words += ["tos", rng.choice(("0x10", "0x08"))]
    if kind:
        return " ".join(words)
    if rng.random() < 0.15:
        hops = rng.sample([(gateway, rng.choice(("fvta", "fvtb"))) for gateway in GATEWAYS[family]], 2)
        return " ".join([*words, *(f"nexthop via {gateway} dev {dev} onlink" for gateway, dev in hops)])
    if family == 6 and rng.random() < 0.2:
        words += ["pref", rng.choice(("high", "low"))]
    words += ["dev", rng.choice(DEVICES)]
    return " ".join([*words, *(["via", rng.choice(GATEWAYS[family]), "onlink"] if rng.random() < 0.4 else [])])


def rules(rng: random.Random, family: int, most: int) -> t.Iterator[str]:
    """Rules with all selectors and actions, the jumps forwards, and two where they lead."""
    for priority in (500, 900):
        yield f"rule add priority {priority} nop"
    for _each in range(rng.randint(3, most)):
        yield f"rule add {rule(rng, family)}"


def rule(rng: random.Random, family: int) -> str:
    """One rule."""
    priority = rng.randint(1, 1000)
    words = [f"priority {priority}", "not" if rng.random() < 0.15 else ""]
    selectors = _selectors(rng, family)
    words += rng.sample(selectors, rng.choice((0, 1, 1, 1, 2, 2, 3)))
    jumps = [f"goto {target}" for target in (500, 900, 950) if target > priority]
    lookups = [_lookup(rng) for _each in range(8)]
    return " ".join([*words, rng.choice([*lookups, *jumps[:2], "unreachable", "prohibit", "blackhole", "nop"])])


def _selectors(rng: random.Random, family: int) -> list[str]:
    sources = [own.partition("/")[0] for own in OWN[family].values()]
    zero = {4: "0.0.0.0/32", 6: "::/1"}[family]
    near = [prefix for prefix in PREFIXES[family] if prefix != "default"]
    port, protocol = rng.choice((53, 443)), rng.choice(tuple(PROTOCOLS))
    return [
        f"from {rng.choice((*sources, *sources, *FOREIGN[family], zero))}",
        f"to {rng.choice(near)}",
        f"iif {rng.choice(('lo', 'lo', 'fvta', 'fvtbr', 'fvtnone'))}",
        f"oif {rng.choice(('fvta', 'fvtb', 'fvtnone'))}",
        f"fwmark {rng.choice(('0x1', '0x1/0xff', '0x0/0x100', '0x101/0x1ff'))}",
        f"uidrange {rng.choice(('0-0', '1000-1999', '0-4294967294'))}",
        f"ipproto {protocol}",
        f"ipproto {protocol} sport {port}",
        f"ipproto {protocol} dport {port}-{port + 10}",
        f"tos {rng.choice(('0x10', '0x08'))}",
    ]


def _lookup(rng: random.Random) -> str:
    words = ["lookup", rng.choice((*TABLES, "main", "31999"))]
    if rng.random() < 0.3:
        words += ["suppress_prefixlength", str(rng.choice((0, 1, 8)))]
    if rng.random() < 0.2:
        words += ["suppress_ifgroup", rng.choice(("0", "151"))]
    return " ".join(words)


def flows(rng: random.Random, kernel: Kernel, family: int, count: int) -> list[Flow]:
    """Some of every kind."""
    up = {link.name for link in kernel.links() if link.up}
    local = [a.address for a in kernel.addresses() if a.family == family and a.dev in up and a.scope == 0]
    return [flow(rng, family, local) for _each in range(count)]


def flow(rng: random.Random, family: int, local: t.Sequence[str]) -> Flow:
    """One flow, from one of C(local), forwarded, or without a source."""
    asked: dict[str, t.Any] = {"to": rng.choice(TARGETS[family])}
    kind = rng.random()
    if kind < 0.4 and local:
        asked["source"] = rng.choice(local)
    elif kind < 0.55:
        asked.update(source=rng.choice(FOREIGN[family]), iif=rng.choice(("fvta", "fvtbr")))
    if "iif" not in asked and rng.random() < 0.25:
        asked["oif"] = rng.choice(("fvta", "fvtb", "fvtbr"))
    if rng.random() < 0.3:
        asked["fwmark"] = rng.choice((0x1, 0x101, 0x100))
    if rng.random() < 0.3:
        asked["uid"] = rng.choice((0, 1500, 70000))
    if rng.random() < 0.4:
        asked.update(ipproto=rng.choice((6, 17)), sport=rng.choice((53, 9)), dport=rng.choice((443, 50)))
    if rng.random() < 0.2:
        asked["tos"] = rng.choice((0x10, 0x08, 0x30))
    return Flow(family, **asked)


def plan(rng: random.Random, kernel: Kernel) -> Plan:
    """A change of what is there, in any order; the kernel may refuse it."""
    up = [link.name for link in kernel.links() if link.up and link.name in DEVICES]
    steps = [step for family in (4, 6) for step in (*_removals(rng, kernel, family), *_additions(rng, family, up))]
    return Plan(tuple(rng.sample(steps, len(steps))))


def _removals(rng: random.Random, kernel: Kernel, family: int) -> list[Operation]:
    rules_ = [rule for rule in kernel.rules(family) if rule.protocol != KERNEL]
    routes_ = [r for r in kernel.routes(family) if r.protocol != KERNEL and r.table != LOCAL]
    chosen = [*rng.sample(rules_, min(len(rules_), 2)), *rng.sample(routes_, min(len(routes_), 2))]
    return [Operation("remove", target) for target in chosen]


def _additions(rng: random.Random, family: int, up: t.Sequence[str]) -> t.Iterator[Operation]:
    width = fields.HOST_LENGTH[family]
    own = [f"{address.partition('/')[0]}/{width}" for address in OWN[family].values()]
    for _each in range(3):
        yield Operation("add", Rule(
            family,
            rng.randint(1, 1000),
            table=rng.choice((254, 2000, 2001, 2003)),
            src=rng.choice((None, *own)),
            iif=rng.choice((None, "lo")),
            invert=rng.random() < 0.1,
            suppress_prefixlength=rng.choice((None, None, 1)),
            suppress_ifgroup=rng.choice((None, None, 151)),
            protocol=77,
        ))  # fmt: skip
        yield Operation("add", _route(rng, family, up))


def _route(rng: random.Random, family: int, up: t.Sequence[str]) -> Route:
    prefix = rng.choice(PREFIXES[family])
    dst = fields.DEFAULT[family] if prefix == "default" else fields.prefix(prefix, "")
    key = {"table": rng.choice((2000, 2001, 2003)), "metric": rng.choice((5, 77)), "protocol": 77}
    if rng.random() < 0.3 or not up:
        return Route(family, dst, type=rng.choice(("unreachable", "throw", "prohibit")), **key)
    if "fvta" in up and rng.random() < 0.5:
        return Route(family, dst, gateway=GATEWAYS[family][0], dev="fvta", onlink=True, **key)
    return Route(family, dst, dev=rng.choice(up), scope=253 if family == 4 else 0, **key)
