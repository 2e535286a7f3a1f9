# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of rule and route on a real kernel: made, shown by ip as text() says, kept by a second run, removed."""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import socket
import struct
import subprocess
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _single
from ansible_collections.fleetvpn.routing.plugins.module_utils._argspec import ROUTE, RULE
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict, InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._worker import Context, Result
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

NETNS = f"fvt-single{os.getpid()}"
LINKS = """
link set lo up
link add fvtd0 type veth peer name fvtp0
link add fvtd1 type veth peer name fvtp1
link set fvtp0 up
link set fvtp1 up
link set fvtd0 up
link set fvtd1 up
address add 192.0.2.1/25 dev fvtd0
address add 192.0.2.129/25 dev fvtd1
address add 2001:db8::1/64 dev fvtd0 nodad
nexthop add id 5 via 192.0.2.2 dev fvtd0
rule add pref 400 nop
-6 rule add pref 400 nop
"""


def ip(*words: str, netns: str = NETNS) -> str:
    done = subprocess.run(["ip", "-n", netns, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def netns() -> t.Iterator[None]:
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    try:
        for line in LINKS.strip().splitlines():
            ip(*line.split())
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", NETNS], check=True)


def ensure(worker: t.Callable[[Context], Result], params: dict[str, t.Any], *, check: bool = False) -> Result:
    spec = RULE if worker is _single.ensure_rule else ROUTE
    whole = {key: option.get("default") for key, option in spec.items()}
    whole.update({"protocol": 152, "state": "present", **params})
    return worker(Context(whole, functools.partial(open_kernel, NETNS), check_mode=check, diff=True))


RULES = {
    "from": {"from": "198.51.100.10", "iif": "lo", "table": "2000"},
    "unbound": {"from": "0.0.0.0/32", "iif": "lo", "table": 2000},
    "halves": {"from": "8000::/1", "action": "goto", "goto": 400},
    "everything": {
        "not": True,
        "from": "198.51.100.0/24",
        "to": "203.0.113.5",
        "tos": "0x10",
        "fwmark": "0x1/0xff",
        "iif": "lo",
        "oif": "fvtnot",
        "uidrange": "1000-1999",
        "ipproto": "tcp",
        "sport": "53",
        "dport": "1000-2000",
        "tun_id": 7,
        "table": 4294967295,
        "suppress_prefixlength": 1,
        "suppress_ifgroup": 151,
    },
    "everything, IPv6": {
        "from": "2001:db8:1::/48",
        "to": "2001:db8:2::1",
        "tos": "0xfc",
        "fwmark": "0xffffffff",
        "iif": "fvtd0",
        "uidrange": "0",
        "ipproto": "udp",
        "dport": "1-65534",
        "table": "main",
        "suppress_prefixlength": 128,
        "suppress_ifgroup": 0,
    },
    "no mark": {"family": "ipv4", "fwmark": "0/0xff", "action": "blackhole"},
    "all bits of no mark": {"family": "ipv4", "fwmark": "0", "action": "prohibit"},
    "icmp": {"family": "ipv6", "ipproto": "icmpv6", "action": "unreachable"},
    "other protocol": {"family": "ipv4", "ipproto": 250, "table": "default"},
    "vrf": {"family": "ipv6", "l3mdev": True},
    "nop": {"family": "ipv6", "action": "nop"},
    "everybody": {"from": "0.0.0.0/0", "table": 252},
}

ROUTES: dict[str, dict[str, t.Any]] = {
    "gateway": {"dst": "default", "gateway": "192.0.2.2"},
    "device": {"dst": "default", "dev": "fvtd0", "src": "192.0.2.1", "metric": 50, "mtu": 1400, "advmss": 1360},
    "onlink": {"dst": "10.0.0.0/8", "gateway": "203.0.113.1", "dev": "fvtd0", "onlink": True},
    "via inet6": {"dst": "10.0.0.1", "gateway": "fe80::1", "dev": "fvtd0"},
    "default via inet6": {"family": "ipv4", "dst": "default", "gateway": "2001:db8::2"},
    "multipath": {
        "dst": "10.1.0.0/16",
        "tos": "0x10",
        "nexthops": [
            {"gateway": "192.0.2.2", "dev": "fvtd0", "weight": 256},
            {"gateway": "203.0.113.1", "dev": "fvtd1", "onlink": True},
            {"gateway": "2001:db8::2"},
        ],
    },
    "devices": {"dst": "10.1.0.0/16", "nexthops": [{"dev": "fvtd1"}, {"dev": "fvtd0"}]},
    "one of many": {"dst": "10.1.0.0/16", "nexthops": [{"dev": "fvtd1", "weight": 3}]},
    "unreachable": {"family": "ipv4", "dst": "default", "type": "unreachable", "metric": 4294967295},
    "blackhole": {"dst": "10.2.0.0/16", "type": "blackhole"},
    "prohibit": {"dst": "10.2.0.0/16", "type": "prohibit"},
    "throw": {"dst": "10.2.0.0/16", "type": "throw"},
    "local": {"dst": "10.3.0.0/16", "type": "local", "dev": "lo"},
    "broadcast": {"dst": "10.3.0.0/16", "type": "broadcast", "dev": "fvtd0"},
    "anycast": {"dst": "10.3.0.0/16", "type": "anycast", "dev": "fvtd0"},
    "multicast": {"dst": "224.0.0.0/4", "type": "multicast", "dev": "fvtd0"},
    "scope": {"dst": "10.4.0.0/16", "dev": "fvtd0", "scope": "50"},
    "scope global": {"dst": "10.4.0.0/16", "dev": "fvtd0", "scope": "global"},
    "nexthop object": {"dst": "10.5.0.0/16", "nexthop_id": 5},
    "main": {"dst": "10.6.0.0/16", "dev": "fvtd0", "table": "main"},
    "low table": {"dst": "10.6.0.0/16", "dev": "fvtd0", "table": 252},
    "top table": {"dst": "10.6.0.0/16", "dev": "fvtd0", "table": 4294967295},
    "gateway, IPv6": {"dst": "2001:db8:1::/48", "gateway": "2001:db8::2"},
    "link-local": {
        "family": "ipv6",
        "dst": "default",
        "gateway": "fe80::1",
        "dev": "fvtd0",
        "src": "2001:db8::1",
        "metric": 5,
        "pref": "high",
        "mtu": 1400,
        "advmss": 1300,
    },
    "medium": {"dst": "2001:db8:1::/48", "dev": "fvtd0", "pref": "medium"},
    "onlink, IPv6": {"dst": "2001:db8:1::1", "gateway": "2001:db9::1", "dev": "fvtd0", "onlink": True},
    "multipath, IPv6": {
        "dst": "2001:db8:1::/48",
        "nexthops": [
            {"gateway": "fe80::2", "dev": "fvtd0", "weight": 3},
            {"gateway": "fe80::1", "dev": "fvtd1"},
            {"gateway": "2001:db8::3"},
        ],
    },
    "unreachable, IPv6": {"family": "ipv6", "dst": "default", "type": "unreachable", "metric": 4294967295},
    "throw, IPv6": {"dst": "2001:db8:1::/48", "type": "throw"},
    "local, IPv6": {"dst": "2001:db8:1::/48", "type": "local", "dev": "lo"},
    "mapped": {"dst": "::ffff:192.0.2.1", "dev": "fvtd0"},
}

# What -N writes as numbers though no file names it.
NUMBERED = {
    "local": "2",
    "broadcast": "3",
    "anycast": "4",
    "multicast": "5",
    "blackhole": "6",
    "unreachable": "7",
    "prohibit": "8",
    "throw": "9",
}


def in_numbers(text: str) -> str:
    text = re.sub(r"\bipproto (\S+)", lambda m: f"ipproto ipproto-{PORTED.get(m[1], m[1])}", text)
    text = text.replace("ipproto-ipv6-icmp", "ipproto-58")
    return re.sub(r"^\w+(?= )|(?<= )\w+$", lambda m: NUMBERED.get(m[0], m[0]), text)


def shown(text: str) -> str:
    """A line of ip without owner and state, and on one line."""
    return " ".join(re.sub(r" proto \S+| \[\w+\](?<!\[l3mdev-table\])|\\", "", text).split())


@pytest.mark.parametrize("name", RULES)
def test_rule_is_kept_and_written_as_by_ip(name: str) -> None:
    params = {"priority": 300, **RULES[name]}
    announced = ensure(_single.ensure_rule, params, check=True)
    made = ensure(_single.ensure_rule, params)
    assert made.changed
    assert made == announced
    text = made.plan[0]["text"]
    family = made.plan[0]["family"][-1]
    lines = [line for line in ip(f"-{family}", "-N", "rule", "show").splitlines() if line.startswith("300:")]
    assert [shown(line) for line in lines] == [shown(in_numbers(text))]
    assert lines[0].endswith("proto 152")
    assert not ensure(_single.ensure_rule, params).changed
    assert ensure(_single.ensure_rule, {**params, "state": "absent"}).before == made.after
    assert not ensure(_single.ensure_rule, {**params, "state": "absent"}).changed
    assert "300:" not in ip(f"-{family}", "rule", "show")


@pytest.mark.parametrize("name", ROUTES)
def test_route_is_kept_and_written_as_by_ip(name: str) -> None:
    params = {"table": 3000, **ROUTES[name]}
    announced = ensure(_single.ensure_route, params, check=True)
    made = ensure(_single.ensure_route, params)
    assert made.changed
    assert made == announced
    text = made.plan[0]["text"]
    family = made.plan[0]["family"][-1]
    lines = [
        line
        for line in ip(f"-{family}", "-N", "-o", "route", "show", "table", "all").splitlines()
        if "proto 152" in line
    ]
    expected = text.replace(" table 254", "")
    assert [without_nexthop_object(line, expected) for line in lines] == [shown(in_numbers(expected))]
    assert not ensure(_single.ensure_route, params).changed
    assert ensure(_single.ensure_route, {**params, "state": "absent"}).changed
    assert not ensure(_single.ensure_route, {**params, "state": "absent"}).changed
    assert "proto 152" not in ip(f"-{family}", "-N", "route", "show", "table", "all")


def without_nexthop_object(line: str, expected: str) -> str:
    """ip shows what a nexthop object holds beside its number."""
    return re.sub(r"(nhid \d+) via \S+ dev \S+", r"\1", shown(line)) if "nhid" in expected else shown(line)


PREFIXES = st.sampled_from([(4, 32), (6, 128)]).flatmap(
    lambda kind: st.tuples(st.ip_addresses(v=kind[0]), st.integers(0, kind[1])).map(
        lambda pair: str(ipaddress.ip_network(pair, strict=False))
    )
)
SPANS = st.tuples(st.integers(1, 65534), st.integers(1, 65534)).map(lambda pair: f"{min(pair)}-{max(pair)}")
OPTIONS = {
    "not": st.booleans(),
    "iif": st.sampled_from(["lo", "fvtd0", "fvtnot"]),
    "oif": st.sampled_from(["fvtd1", "fvtnot"]),
    "fwmark": st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1)).map(lambda m: f"{m[0] & m[1]}/{m[1]}"),
    "tos": st.sampled_from(["0x04", "0x10", "0x1c"]),
    "uidrange": SPANS,
    "ipproto": st.sampled_from(["tcp", "udp"]),
    "sport": SPANS,
    "dport": SPANS,
    "tun_id": st.integers(1, 2**64 - 1),
    "suppress_prefixlength": st.integers(0, 32),
    "suppress_ifgroup": st.integers(0, 2**32 - 2),
}
PORTED = {"tcp": "6", "udp": "17"}


@settings(max_examples=60, deadline=None)
@given(PREFIXES, st.fixed_dictionaries({}, optional=OPTIONS), st.integers(1, 2**32 - 1))
def test_any_rule_is_made_once_and_goes_whole(source: str, options: dict[str, t.Any], table: int) -> None:
    if "ipproto" not in options:
        options = {name: value for name, value in options.items() if name not in ("sport", "dport")}
    params = {"priority": 300, "from": source, "table": table, **options}
    made = ensure(_single.ensure_rule, params)
    again = ensure(_single.ensure_rule, params)
    removed = ensure(_single.ensure_rule, {**params, "state": "absent"})
    assert (made.changed, again.changed, removed.changed) == (True, False, True)
    assert (made.after, removed.after) == (again.before, made.before)
    assert "300:" not in ip("rule", "show") + ip("-6", "rule", "show")


def test_dscp_where_the_kernel_has_it() -> None:
    params = {"priority": 300, "family": "ipv4", "dscp": 46, "table": 2000}
    assert ensure(_single.ensure_rule, params).changed
    assert not ensure(_single.ensure_rule, params).changed
    assert ensure(_single.ensure_rule, {**params, "state": "absent"}).changed


def test_foreign_twin_is_reported_and_stays() -> None:
    params = {"priority": 300, "from": "198.51.100.10", "table": 2000}
    ip("rule", "add", "pref", "300", "from", "198.51.100.10", "table", "2000", "protocol", "77")
    made = ensure(_single.ensure_rule, params)
    assert made.changed
    assert "protocol 77" in made.warnings[0]
    ip("rule", "add", "pref", "300", "from", "198.51.100.10", "table", "2001", "protocol", "152")
    assert ensure(_single.ensure_rule, {**params, "state": "absent"}).changed
    left = [line for line in ip("-N", "rule", "show").splitlines() if line.startswith("300:")]
    assert [line.split(" proto ")[1] for line in left] == ["77", "152"]
    ip("rule", "del", "pref", "300")
    ip("rule", "del", "pref", "300")


def add_copy_without_asking() -> None:
    """As a program does that leaves out NLM_F_EXCL, which ip and pyroute2 always set."""
    attributes = b"".join(
        struct.pack("=HHI", 8, kind, value)
        for kind, value in ((2, int.from_bytes(socket.inet_aton("198.51.100.10"), "little")), (6, 300), (15, 2000))
    )
    body = struct.pack("=8BI", 2, 0, 32, 0, 0, 0, 0, 1, 0) + attributes + struct.pack("=HHB3x", 5, 21, 152)
    request = struct.pack("=IHHII", 16 + len(body), 32, 0x405, 1, 0) + body
    with open_kernel(NETNS), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(request)
        assert struct.unpack_from("=i", netlink.recv(4096), 16) == (0,)


def test_all_copies_go() -> None:
    params = {"priority": 300, "from": "198.51.100.10", "table": 2000}
    ensure(_single.ensure_rule, params)
    add_copy_without_asking()
    add_copy_without_asking()
    assert ip("rule", "show").count("300:") == 3
    assert len(ensure(_single.ensure_rule, params).plan) == 2
    assert ip("rule", "show").count("300:") == 1
    assert ensure(_single.ensure_rule, {**params, "state": "absent"}).changed
    assert "300:" not in ip("rule", "show")


@pytest.mark.parametrize("dst", ["10.9.0.0/16", "2001:db8:9::/48"])
def test_foreign_route_is_never_overwritten(dst: str) -> None:
    ip("route", "add", dst, "dev", "fvtd1", "table", "3000", "proto", "77")
    family = "-6" if ":" in dst else "-4"
    before = ip(family, "route", "show", "table", "3000")
    with pytest.raises(Conflict, match="protocol 77"):
        ensure(_single.ensure_route, {"dst": dst, "dev": "fvtd0", "table": 3000})
    assert not ensure(_single.ensure_route, {"dst": dst, "table": 3000, "state": "absent"}).changed
    assert ip(family, "route", "show", "table", "3000") == before
    ip("route", "del", dst, "table", "3000")


@pytest.mark.parametrize(("dst", "gateway"), [("10.9.0.0/16", "192.0.2.2"), ("2001:db8:9::/48", "2001:db8::2")])
def test_own_route_is_changed_in_place(dst: str, gateway: str) -> None:
    params = {"dst": dst, "table": 3000}
    ensure(_single.ensure_route, {**params, "dev": "fvtd1"})
    for change in ({"gateway": gateway}, {"dev": "fvtd0", "mtu": 1400}, {"type": "unreachable"}, {"dev": "fvtd1"}):
        made = ensure(_single.ensure_route, {**params, **change})
        assert [step["op"] for step in made.plan] == ["replace"]
        assert not ensure(_single.ensure_route, {**params, **change}).changed
    assert ensure(_single.ensure_route, {**params, "state": "absent"}).changed


@pytest.mark.parametrize("twin", ["dev fvtd1", "dev fvtd0", "dev fvtd0 scope global", "via 192.0.2.2"])
def test_a_shadow_of_a_route_goes(twin: str) -> None:
    params = {"dst": "0.0.0.0/0", "dev": "fvtd0", "src": "192.0.2.1", "scope": "global", "table": 3000}
    ensure(_single.ensure_route, params)
    before = ip("route", "show", "table", "3000")
    ip("route", "append", "default", *twin.split(), "table", "3000", "proto", "152")
    assert [step["op"] for step in ensure(_single.ensure_route, params).plan] == ["remove"]
    assert ip("route", "show", "table", "3000") == before
    assert ensure(_single.ensure_route, {**params, "state": "absent"}).changed


@pytest.mark.parametrize(("dst", "gateway"), [("0.0.0.0/0", "192.0.2.2"), ("::/0", "2001:db8::2")])
def test_a_gateway_is_not_looked_for_behind_the_default_that_it_replaces(dst: str, gateway: str) -> None:
    params = {"dst": dst, "table": 3000}
    ensure(_single.ensure_route, {**params, "dev": "fvtd1"})
    made = ensure(_single.ensure_route, {**params, "gateway": gateway})
    assert f"via {gateway} dev fvtd0" in made.plan[0]["text"]
    assert not ensure(_single.ensure_route, {**params, "gateway": gateway}).changed
    assert ensure(_single.ensure_route, {**params, "state": "absent"}).changed


REFUSED: dict[str, tuple[dict[str, t.Any], str]] = {
    "device": ({"dst": "0.0.0.0/0", "dev": "fvtnot"}, "dev"),
    "device of a next hop": (
        {"dst": "10.0.0.0/8", "nexthops": [{"dev": "fvtd0"}, {"dev": "fvtnot"}]},
        "nexthops[1].dev",
    ),
    "gateway": ({"dst": "default", "gateway": "203.0.113.1"}, "gateway"),
    "gateway by another device": ({"dst": "default", "gateway": "192.0.2.2", "dev": "fvtd1"}, "gateway"),
    "gateway that is this host": ({"dst": "default", "gateway": "192.0.2.1"}, "gateway"),
    "gateway, IPv6": ({"dst": "::/0", "gateway": "2001:db9::1"}, "gateway"),
    "source": ({"dst": "default", "dev": "fvtd0", "src": "198.51.100.1"}, "src"),
    "source, IPv6": ({"dst": "::/0", "dev": "fvtd0", "src": "2001:db8::99"}, "src"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_kernel_cannot_do_is_refused_by_option(name: str) -> None:
    params, field = REFUSED[name]
    with pytest.raises(InvalidInput) as caught:
        ensure(_single.ensure_route, {"table": 3000, **params})
    assert caught.value.field == field
    assert caught.value.accepted


def test_goto_needs_a_rule() -> None:
    with pytest.raises(InvalidInput, match="leads to no rule"):
        ensure(_single.ensure_rule, {"priority": 300, "family": "ipv4", "action": "goto", "goto": 401})
