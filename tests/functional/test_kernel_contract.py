# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same tests on the real kernel and on the one in memory, so that the fake cannot lie.

The host of each test has two devices: fvt0 with 192.0.2.10/24 and 2001:db8::10/64, fvt1 with 198.51.100.10/24 and
2001:db8:51::10/64. OURS and FOREIGN are protocol numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import pathlib
import select
import subprocess
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput, KernelError, NotSupported
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel, open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.guard import (
    ACCEPT,
    COUNTER,
    DROP,
    Chain,
    Guard,
    NamedSet,
    Piece,
    assemble,
    device,
    jump,
    matching,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.guard import (
    rule as guard_rule,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import (
    LinkGroup,
    Operation,
    OwnLink,
    Sysctl,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Nexthop, Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Flow, Path
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_events import EventsLost
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_filter import Interest

from tests.fakes.kernel import MemoryKernel
from tests.functional.conftest import ip

pytestmark = pytest.mark.kernel

OURS, FOREIGN = 151, 201
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
OWN = {4: "192.0.2.10", 6: "2001:db8::10"}
GATEWAY = {4: "192.0.2.1", 6: "2001:db8::1"}
OTHER_GATEWAY = {4: "192.0.2.2", 6: "2001:db8::2"}
OTHER_OWN = {4: "198.51.100.10", 6: "2001:db8:51::10"}
FAR = {4: "203.0.113.5", 6: "2001:db8:ffff::5"}
HOST = {4: 32, 6: 128}
BOTH = pytest.mark.parametrize("family", [4, 6])


class Host(t.Protocol):
    """A kernel under test, and the hands of somebody else on the same host."""

    kernel: Kernel

    def nexthop_object(self, number: int, gateway: str) -> None: ...

    def address(self, dev: str, interface: str) -> None: ...

    def append(self, route: Route) -> None: ...

    def router(self, dev: str, address: str) -> None: ...

    def forward(self) -> None: ...


class RealHost:
    def __init__(self, netns: str, kernel: Kernel) -> None:
        self._netns = netns
        self.kernel = kernel

    def nexthop_object(self, number: int, gateway: str) -> None:
        ip("-n", self._netns, "nexthop", "add", "id", str(number), "via", gateway, "dev", "fvt0")

    def address(self, dev: str, interface: str) -> None:
        ip("-n", self._netns, "addr", "add", interface, "dev", dev)

    def append(self, route: Route) -> None:
        more = ["proto", str(route.protocol), *([] if route.scope else ["scope", "global"])]
        ip("-n", self._netns, "route", "append", *route.text().split(), *more)

    def router(self, dev: str, address: str) -> None:
        ip("-n", self._netns, "neigh", "add", address, "lladdr", "02:00:00:00:00:01", "router", "dev", dev)
        ip("-n", self._netns, "neigh", "add", f"{address}1", "lladdr", "02:00:00:00:00:02", "dev", dev)

    def forward(self) -> None:
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            pathlib.Path("/proc/sys/net", path).write_text("1", encoding="ascii")


class MemoryHost:
    def __init__(self, kernel: MemoryKernel) -> None:
        self._memory = kernel
        self.kernel: Kernel = kernel

    def nexthop_object(self, number: int, gateway: str) -> None:
        self._memory.nexthops.add(number)

    def address(self, dev: str, interface: str) -> None:
        self._memory.address(dev, interface)

    def append(self, route: Route) -> None:
        self._memory.append(route)

    def router(self, dev: str, address: str) -> None:
        self._memory.routers.append((dev, address))

    def forward(self) -> None:
        pass  # it always does


ADDRESSES = [
    ("fvt0", "192.0.2.10/24"),
    ("fvt0", "2001:db8::10/64"),
    ("fvt1", "198.51.100.10/24"),
    ("fvt1", "2001:db8:51::10/64"),
]


@contextlib.contextmanager
def real_host(netns: str) -> t.Iterator[RealHost]:
    # No link-local addresses: they appear some time after, when nobody else has claimed them.
    names = ("fvt0", "fvt1")
    links = ["link add fvt0 type veth peer name fvt1", *(f"link set {name} addrgenmode none up" for name in names)]
    addresses = [f"addr add {address} dev {dev} {'nodad' if ':' in address else ''}" for dev, address in ADDRESSES]
    ip("-n", netns, lines=links + addresses)
    with open_kernel(netns) as kernel:
        wait_until(lambda: settled(kernel))
        yield RealHost(netns, kernel)


def settled(kernel: Kernel) -> bool:
    """The kernel makes an address's own route, and a device's multicast route, some time after the address."""
    routes = {(one.type, one.dev) for one in kernel.routes(6, table=255)}
    return {(kind, dev) for kind in ("local", "multicast") for dev in ("fvt0", "fvt1")} <= routes


def wait_until(ready: t.Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextlib.contextmanager
def memory_host() -> t.Iterator[MemoryHost]:
    kernel = MemoryKernel()
    for name in ("fvt0", "fvt1"):
        kernel.link(name, kind="veth")
    for dev, address in ADDRESSES:
        kernel.address(dev, address)
    yield MemoryHost(kernel)


@pytest.fixture(params=["real", "memory"])
def host(request: pytest.FixtureRequest) -> t.Iterator[Host]:
    real = request.param == "real"
    with real_host(request.getfixturevalue("netns")) if real else memory_host() as host:
        yield host


def add(kernel: Kernel, *targets: Rule | Route) -> None:
    kernel.apply([Operation("add", target) for target in targets])


def remove(kernel: Kernel, *targets: Rule | Route) -> None:
    kernel.apply([Operation("remove", target) for target in targets])


def owned(values: t.Iterable[t.Any], protocol: int = OURS) -> list[t.Any]:
    return [value for value in values if value.protocol == protocol]


def rule(family: int = 4, priority: int = 2500, **fields: t.Any) -> Rule:
    defaults = {"table": 2000} if fields.get("action", "lookup") == "lookup" else {}
    return Rule(family, priority, **{"protocol": OURS, **defaults, **fields})


def route(family: int = 4, **fields: t.Any) -> Route:
    return Route(**{"family": family, "dst": DEFAULT[family], "table": 2000, "protocol": OURS, **fields})


def state(kernel: Kernel) -> t.Any:
    """All that can be changed, with owners; rules in order. Of routes the order says nothing: the first rule that is
    added parts the tables local and main, which were one tree.
    """
    rules = [(one, one.protocol) for family in (4, 6) for one in kernel.rules(family)]
    routes = sorted((one.text(), one.protocol) for family in (4, 6) for one in kernel.routes(family))
    return rules, routes, kernel.links()


RULES: dict[str, dict[str, t.Any]] = {
    "plain": {},
    "table above 255": {"table": 2000},
    "table 252": {"table": 252},
    "largest table": {"table": 4294967295},
    "largest priority": {"priority": 4294967295},
    "iif lo": {"iif": "lo"},
    "detached iif": {"iif": "fvtnone"},
    "detached oif": {"oif": "fvtnone"},
    "iif and oif": {"iif": "lo", "oif": "fvt0"},
    "mark": {"fwmark": 1},
    "mark with mask": {"fwmark": 0x10, "fwmask": 0xFF},
    "mark 0 with mask": {"fwmark": 0, "fwmask": 0xFF},
    "mark 0": {"fwmark": 0},
    "largest mark": {"fwmark": 0xFFFFFFFF},
    "uidrange": {"uidrange": (1000, 1999)},
    "root": {"uidrange": (0, 0)},
    "ipproto": {"ipproto": 17},
    "ports": {"ipproto": 6, "sport": (1, 65534), "dport": (53, 53)},
    "tun_id": {"tun_id": 1 << 40},
    "tos": {"tos": 0x10},
    "suppress_prefixlength 0": {"suppress_prefixlength": 0},
    "suppress_prefixlength 1": {"suppress_prefixlength": 1},
    "suppress_ifgroup 0": {"suppress_ifgroup": 0},
    "suppress_ifgroup": {"suppress_ifgroup": 151, "suppress_prefixlength": 1},
    "not": {"invert": True, "iif": "lo", "fwmark": 7},
    "goto": {"action": "goto", "goto": 2999},
    "nop": {"action": "nop"},
    "blackhole": {"action": "blackhole"},
    "unreachable": {"action": "unreachable", "iif": "lo"},
    "prohibit": {"action": "prohibit"},
}
PREFIXES = {4: ("0.0.0.0/32", "198.51.100.10/32", "10.0.0.0/8"), 6: ("::/1", "8000::/1", "2001:db8::10/128", "::/128")}
PREFIX_CASES = [(family, prefix) for family, prefixes in PREFIXES.items() for prefix in prefixes]


class TestReading:
    def test_devices(self, host: Host) -> None:
        links = {link.name: link for link in host.kernel.links()}
        assert set(links) == {"lo", "fvt0", "fvt1"}
        assert (links["fvt0"].kind, links["fvt0"].arptype, links["fvt0"].up, links["fvt0"].group) == (
            "veth",
            1,
            True,
            0,
        )
        assert (links["lo"].kind, links["lo"].arptype, links["lo"].master) == (None, 772, None)

    def test_addresses(self, host: Host) -> None:
        found = {(one.dev, f"{one.address}/{one.prefixlen}"): one for one in host.kernel.addresses()}
        assert {*ADDRESSES, ("lo", "127.0.0.1/8"), ("lo", "::1/128")} <= set(found)
        assert found[ADDRESSES[0]].scope == 0
        assert found["lo", "::1/128"].scope == 254
        assert {
            (one.peer, one.secondary, one.tentative, one.deprecated) for one in found.values() if one.scope != 253
        } == {(None, False, False, False)}

    @BOTH
    def test_rules_that_are_always_there(self, host: Host, family: int) -> None:
        found = host.kernel.rules(family)
        assert [(one.priority, one.table) for one in found][:2] == [(0, 255), (32766, 254)]
        assert found[0] == Rule(family, 0, table=255)
        assert {one.suppress_prefixlength for one in found} == {None}

    @BOTH
    def test_connected_routes(self, host: Host, family: int) -> None:
        prefix, scope = {4: ("192.0.2.0/24", 253), 6: ("2001:db8::/64", 0)}[family]
        found = [one for one in host.kernel.routes(family, table=254) if one.dst == prefix]
        assert [(one.dev, one.gateway, one.scope, one.protocol) for one in found] == [("fvt0", None, scope, 2)]

    def test_sysctl(self, host: Host) -> None:
        assert host.kernel.sysctl("ipv4/conf/all/rp_filter") == "0"
        assert host.kernel.sysctl("ipv4/conf/fvtnone/rp_filter") is None

    def test_sysctls_are_set_and_put_back(self, host: Host) -> None:
        name = "ipv4/conf/all/rp_filter"
        there, gone = Operation("set", Sysctl(name, "2"), Sysctl(name, "0")), Sysctl("ipv4/conf/fvtnone/rp_filter", "1")
        host.kernel.apply([there])
        assert host.kernel.sysctl(name) == "2"
        host.kernel.apply([there.inverse()])
        assert host.kernel.sysctl(name) == "0"
        with pytest.raises(KernelError, match="No such file"):
            host.kernel.apply([there, Operation("set", gone, gone)])
        assert host.kernel.sysctl(name) == "0"

    def test_router_neighbours(self, host: Host) -> None:
        host.router("fvt0", "2001:db8::f")
        assert host.kernel.router_neighbours() == [("fvt0", "2001:db8::f")]


class TestRules:
    @BOTH
    @pytest.mark.parametrize("fields", RULES.values(), ids=RULES)
    def test_reads_back_as_written_and_goes_without_a_trace(
        self, host: Host, family: int, fields: dict[str, t.Any]
    ) -> None:
        before = host.kernel.rules(family)
        wanted = rule(family, **fields)
        add(host.kernel, rule(family, 2999, action="nop"), wanted)
        assert [one for one in owned(host.kernel.rules(family)) if one.priority != 2999] == [wanted]
        remove(host.kernel, wanted, rule(family, 2999, action="nop"))
        assert host.kernel.rules(family) == before

    @pytest.mark.parametrize(("family", "prefix"), PREFIX_CASES)
    @pytest.mark.parametrize("name", ["src", "dst"])
    def test_prefix(self, host: Host, family: int, prefix: str, name: str) -> None:
        wanted = rule(family, **{name: prefix})
        add(host.kernel, wanted)
        assert owned(host.kernel.rules(family)) == [wanted]
        remove(host.kernel, wanted)
        assert owned(host.kernel.rules(family)) == []

    def test_dscp(self, host: Host) -> None:
        wanted = rule(dscp=10)
        try:
            add(host.kernel, wanted)
        except NotSupported as exc:
            pytest.skip(f"dscp: {exc.msg}")
        assert owned(host.kernel.rules(4)) == [wanted]

    def test_l3mdev(self, host: Host) -> None:
        wanted = rule(l3mdev=True, table=None)
        try:
            add(host.kernel, wanted)
        except NotSupported as exc:
            pytest.skip(f"l3mdev: {exc.msg}")
        assert owned(host.kernel.rules(4)) == [wanted]

    @BOTH
    def test_adding_twice_leaves_one(self, host: Host, family: int) -> None:
        add(host.kernel, rule(family))
        add(host.kernel, rule(family))
        assert owned(host.kernel.rules(family)) == [rule(family)]

    @BOTH
    def test_removing_what_is_gone(self, host: Host, family: int) -> None:
        before = host.kernel.rules(family)
        remove(host.kernel, rule(family), rule(family, src=f"{FAR[family]}/{HOST[family]}"))
        assert host.kernel.rules(family) == before

    @BOTH
    def test_a_twin_of_another_protocol_is_another_rule(self, host: Host, family: int) -> None:
        add(host.kernel, rule(family, protocol=FOREIGN), rule(family))
        found = [one for one in host.kernel.rules(family) if one.priority == 2500]
        assert found == [rule(family)] * 2
        assert [one.protocol for one in found] == [FOREIGN, OURS]
        remove(host.kernel, rule(family), rule(family))
        assert [one.protocol for one in host.kernel.rules(family) if one.priority == 2500] == [FOREIGN]

    @BOTH
    @pytest.mark.parametrize(
        "narrow",
        [
            {"fwmark": 7},
            {"iif": "lo"},
            {"suppress_prefixlength": 0},
            {"uidrange": (5, 6)},
            {"invert": True},
            {"ipproto": 6, "dport": (80, 80)},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("owner", [OURS, FOREIGN])
    def test_a_delete_takes_no_narrower_rule_of_the_priority(
        self, host: Host, family: int, narrow: dict[str, t.Any], owner: int
    ) -> None:
        other = rule(family, **narrow, protocol=owner)
        add(host.kernel, other, rule(family))
        remove(host.kernel, rule(family))
        assert [(one, one.protocol) for one in host.kernel.rules(family) if one.priority == 2500] == [(other, owner)]
        remove(host.kernel, rule(family))
        assert [(one, one.protocol) for one in host.kernel.rules(family) if one.priority == 2500] == [(other, owner)]

    @BOTH
    def test_suppressors_0_and_1_are_not_confused(self, host: Host, family: int) -> None:
        rules = [rule(family, suppress_prefixlength=length) for length in (1, 0, 2)]
        add(host.kernel, *rules)
        remove(host.kernel, rules[1])
        assert owned(host.kernel.rules(family)) == [rules[0], rules[2]]

    @BOTH
    def test_two_gotos_at_one_priority(self, host: Host, family: int) -> None:
        rules = [rule(family, action="goto", goto=target) for target in (2998, 2999)]
        add(host.kernel, *rules)
        remove(host.kernel, rules[1])
        assert owned(host.kernel.rules(family)) == [rules[0]]

    def test_equal_priorities_keep_their_order(self, host: Host) -> None:
        rules = [rule(src=f"10.0.0.{number}/32") for number in (3, 1, 2)]
        add(host.kernel, *rules)
        assert owned(host.kernel.rules(4)) == rules

    def test_port_ranges_that_the_kernel_refuses(self, host: Host) -> None:
        for ports in ((1, 65535), (0, 5)):
            with pytest.raises(KernelError) as caught:
                add(host.kernel, rule(ipproto=6, dport=ports))
            assert caught.value.errno == errno.EINVAL

    def test_a_table_in_the_header_is_not_taken_for_the_real_one(self, host: Host) -> None:
        add(host.kernel, rule(table=252), rule(table=2000))
        remove(host.kernel, rule(table=2000))
        assert owned(host.kernel.rules(4)) == [rule(table=252)]


def routes_of(family: int) -> dict[str, dict[str, t.Any]]:
    gateway, other = GATEWAY[family], OTHER_GATEWAY[family]
    onlink = {4: "203.0.113.1", 6: "2001:db8:ffff::1"}[family]
    both = {
        "device": {"dev": "fvt0"},
        "gateway": {"dev": "fvt0", "gateway": gateway},
        "prefix": {"dst": {4: "10.0.0.0/8", 6: "2001:db8:77::/48"}[family], "dev": "fvt0", "gateway": gateway},
        "onlink": {"dev": "fvt0", "gateway": onlink, "onlink": True},
        "source": {"dev": "fvt0", "gateway": gateway, "src": OTHER_OWN[family]},
        "metric": {"dev": "fvt0", "metric": 4294967295},
        "mtu": {"dev": "fvt0", "mtu": 1380, "advmss": 1340},
        "largest table": {"dev": "fvt0", "table": 4294967295},
        "table 252": {"dev": "fvt0", "table": 252},
        "main": {"dev": "fvt0", "gateway": gateway, "table": 254},
        "multipath": {
            "nexthops": (Nexthop(gateway, "fvt0", 3), Nexthop(other, "fvt0", 1)),
        },
        "multipath onlink": {
            "nexthops": (Nexthop(onlink, "fvt0", 256, onlink=True), Nexthop(other, "fvt0", 1)),
        },
        "unreachable": {"type": "unreachable", "metric": 4294967295},
        "blackhole": {"type": "blackhole"},
        "prohibit": {"type": "prohibit"},
        "throw": {"type": "throw"},
    }
    four = {
        "scope link": {"dev": "fvt0", "scope": 253},
        "tos": {"dev": "fvt0", "tos": 0x10},
        "local": {"type": "local", "dev": "lo", "dst": "203.0.113.7/32", "scope": 254},
        "via inet6": {"dev": "fvt0", "gateway": GATEWAY[6]},
        "multipath via inet6": {"nexthops": (Nexthop(GATEWAY[6], "fvt0", 1), Nexthop("198.51.100.1", "fvt1", 2))},
        "multipath of devices": {"nexthops": (Nexthop(None, "fvt0", 1), Nexthop(None, "fvt1", 1)), "scope": 253},
    }
    six = {
        "pref low": {"dev": "fvt0", "gateway": gateway, "pref": "low"},
        "pref high": {"dev": "fvt0", "gateway": gateway, "pref": "high"},
        "local": {"type": "local", "dev": "lo", "dst": "2001:db8:77::1/128"},
        "link-local gateway": {"dev": "fvt0", "gateway": "fe80::1", "onlink": True},
    }
    return both | (four if family == 4 else six)


ROUTES = [
    pytest.param(family, fields, id=f"{family}-{name}")
    for family in (4, 6)
    for name, fields in routes_of(family).items()
]


# Second routes of a key, of which IPv4 asks the first alone.
SHADOWS: dict[str, dict[str, t.Any]] = {
    "by another device": {"dev": "fvt1"},
    "of another scope": {"dev": "fvt0", "scope": 253},
    "by a gateway": {"dev": "fvt0", "gateway": GATEWAY[4]},
    "that says less": {"dev": "fvt0"},
    "that says more": {"dev": "fvt0", "src": OWN[4], "mtu": 1300},
    "that leads nowhere": {"type": "unreachable"},
}


class TestRoutes:
    @pytest.mark.parametrize(("family", "fields"), ROUTES)
    def test_reads_back_as_written_and_goes_without_a_trace(
        self, host: Host, family: int, fields: dict[str, t.Any]
    ) -> None:
        before = host.kernel.routes(family)
        wanted = route(family, **fields)
        add(host.kernel, wanted)
        assert owned(host.kernel.routes(family)) == [wanted]
        assert owned(host.kernel.routes(family, table=wanted.table)) == [wanted]
        remove(host.kernel, wanted)
        assert host.kernel.routes(family) == before

    @BOTH
    def test_by_a_nexthop_object(self, host: Host, family: int) -> None:
        host.nexthop_object(7, GATEWAY[family])
        add(host.kernel, route(family, nexthop_id=7))
        assert host.kernel.routes(family, table=2000) == [route(family, nexthop_id=7)]
        remove(host.kernel, route(family, nexthop_id=7))
        assert host.kernel.routes(family, table=2000) == []

    def test_an_ipv6_route_without_metric_has_1024(self, host: Host) -> None:
        add(host.kernel, route(6, dev="fvt0"))
        assert [one.metric for one in host.kernel.routes(6, table=2000)] == [1024]

    @BOTH
    def test_error_route_has_no_device(self, host: Host, family: int) -> None:
        add(host.kernel, route(family, type="unreachable"))
        assert [one.dev for one in host.kernel.routes(family, table=2000)] == [None]

    @BOTH
    def test_a_table_that_does_not_exist_is_empty(self, host: Host, family: int) -> None:
        assert host.kernel.routes(family, table=31337) == []

    @BOTH
    def test_filters(self, host: Host, family: int) -> None:
        ours = route(family, dev="fvt0")
        theirs = route(family, dev="fvt1", metric=5, protocol=FOREIGN)
        elsewhere = route(family, dev="fvt1", table=2001)
        add(host.kernel, ours, theirs, elsewhere)
        assert host.kernel.routes(family, protocol=FOREIGN) == [theirs]
        assert sorted(one.table for one in host.kernel.routes(family, protocol=OURS)) == [2000, 2001]
        assert host.kernel.routes(family, table=2000, dev="fvt0") == [ours]
        assert host.kernel.routes(family, table=2000, protocol=OURS) == [ours]
        assert elsewhere in host.kernel.routes(family, dev="fvt1")
        assert ours not in host.kernel.routes(family, dev="fvt1")
        assert host.kernel.routes(family, dev="fvtnone") == []

    @BOTH
    def test_replace_exchanges_what_has_the_same_key(self, host: Host, family: int) -> None:
        ways = [
            {"dev": "fvt0"},
            {"dev": "fvt0", "gateway": GATEWAY[family]},
            {"dev": "fvt1"},
            {"nexthops": (Nexthop(GATEWAY[family], "fvt0"), Nexthop(OTHER_GATEWAY[family], "fvt0", 2))},
            {"dev": "fvt0", "gateway": OTHER_GATEWAY[family], "mtu": 1300},
            {"type": "unreachable"},
            {"dev": "fvt0", "gateway": GATEWAY[family], "src": OTHER_OWN[family]},
        ]
        for way in ways:
            host.kernel.apply([Operation("replace", route(family, **way))])
            assert host.kernel.routes(family, table=2000) == [route(family, **way)]

    @BOTH
    def test_another_metric_is_another_route(self, host: Host, family: int) -> None:
        add(host.kernel, route(family, dev="fvt0", metric=100))
        host.kernel.apply([Operation("replace", route(family, dev="fvt1", metric=200))])
        assert [(one.metric, one.dev) for one in host.kernel.routes(family, table=2000)] == [
            (100, "fvt0"),
            (200, "fvt1"),
        ]

    @BOTH
    def test_add_leaves_what_has_the_key_already(self, host: Host, family: int) -> None:
        add(host.kernel, route(family, dev="fvt0"))
        add(host.kernel, route(family, dev="fvt1"))
        assert host.kernel.routes(family, table=2000) == [route(family, dev="fvt0")]

    @BOTH
    def test_a_delete_takes_no_route_of_another_metric_or_owner(self, host: Host, family: int) -> None:
        kept = [route(family, dev="fvt0", metric=100), route(family, dev="fvt0", metric=200, protocol=FOREIGN)]
        add(host.kernel, *kept)
        remove(host.kernel, route(family, dev="fvt0"), route(family, dev="fvt0", metric=200))
        assert host.kernel.routes(family, table=2000) == kept

    @pytest.mark.parametrize("shadow", SHADOWS)
    @pytest.mark.parametrize("kept", [0, 1])
    def test_a_shadow_goes_and_leaves_the_other(self, host: Host, shadow: str, kept: int) -> None:
        both = [route(dev="fvt0", src=OWN[4]), route(**SHADOWS[shadow])]
        add(host.kernel, both[0])
        host.append(both[1])
        assert host.kernel.routes(4, table=2000) == both
        remove(host.kernel, both[1 - kept])
        assert host.kernel.routes(4, table=2000) == [both[kept]]

    def test_all_shadows_go_at_once(self, host: Host) -> None:
        first = route(dev="fvt0", src=OWN[4])
        add(host.kernel, first)
        shadows = [route(**fields) for fields in SHADOWS.values()]
        for shadow in shadows:
            host.append(shadow)
        remove(host.kernel, first, *shadows)
        assert host.kernel.routes(4, table=2000) == []

    @BOTH
    def test_removing_by_a_device_that_has_gone(self, host: Host, family: int) -> None:
        remove(host.kernel, route(family, dev="fvtnone"))

    @pytest.mark.parametrize(
        ("family", "fields", "number", "says"),
        [
            (4, {"gateway": "203.0.113.1", "dev": "fvt0"}, errno.ENETUNREACH, "gateway"),
            (6, {"gateway": "2001:db8:ffff::1", "dev": "fvt0"}, errno.EHOSTUNREACH, "gateway|route to host"),
            (4, {"dev": "fvt0", "src": "203.0.113.9"}, errno.EINVAL, "prefsrc"),
            (6, {"dev": "fvt0", "src": "2001:db8:ffff::9"}, errno.EINVAL, "source address"),
            (4, {"dev": "fvtnone"}, errno.ENODEV, "device"),
        ],
    )
    def test_refusals_say_why(self, host: Host, family: int, fields: dict[str, t.Any], number: int, says: str) -> None:
        with pytest.raises(KernelError, match=says) as caught:
            add(host.kernel, route(family, **fields))
        assert caught.value.errno == number
        assert caught.value.operation.startswith("add route default ")


class TestTransactions:
    def test_order(self, host: Host) -> None:
        host.kernel.apply(
            [
                Operation("add", route(dev="fvt0")),
                Operation("add", rule()),
                Operation("replace", route(dev="fvt1"), route(dev="fvt0")),
                Operation("remove", rule()),
                Operation("add", rule(iif="lo")),
                Operation("set", LinkGroup("fvt0", 151), LinkGroup("fvt0", 0)),
            ]
        )
        assert owned(host.kernel.routes(4)) == [route(dev="fvt1")]
        assert owned(host.kernel.rules(4)) == [rule(iif="lo")]
        assert {one.name: one.group for one in host.kernel.links()}["fvt0"] == 151

    def test_a_device_of_our_own_is_there_for_what_names_it(self, host: Host) -> None:
        link, by_it = OwnLink("fleetvpn0"), route(6, dev="fleetvpn0", dst="2001:db8:77::/64")
        before = state(host.kernel)
        made = [Operation("add", link), Operation("add", by_it), Operation("set", OwnLink(link.name, up=False), link)]
        host.kernel.apply(made[:2])
        found = {one.name: one.up for one in host.kernel.links()}
        assert (found["fleetvpn0"], owned(host.kernel.routes(6))) == (True, [by_it])
        assert [one for one in host.kernel.addresses() if one.dev == "fleetvpn0"] == []
        host.kernel.apply([made[1].inverse(), made[2]])
        assert not {one.name: one.up for one in host.kernel.links()}["fleetvpn0"]
        host.kernel.apply([made[0].inverse()])
        assert state(host.kernel) == before
        with pytest.raises(KernelError):
            host.kernel.apply([made[0], Operation("add", route(6, dev="fvtnone"))])
        assert state(host.kernel) == before

    def test_a_failure_undoes_everything(self, host: Host) -> None:
        add(host.kernel, route(dev="fvt0"), rule(priority=2100), rule(6, priority=2100))
        before = state(host.kernel)
        bad = route(dev="fvt0", table=2002, src="203.0.113.9")
        with pytest.raises(KernelError) as caught:
            host.kernel.apply(
                [
                    Operation("set", LinkGroup("fvt0", 151), LinkGroup("fvt0", 0)),
                    Operation("add", route(type="unreachable", metric=4294967295)),
                    Operation("replace", route(dev="fvt1"), route(dev="fvt0")),
                    Operation("add", rule(priority=2200)),
                    Operation("remove", rule(6, priority=2100)),
                    Operation("add", route(6, dev="fvt1")),
                    Operation("add", bad),
                    Operation("add", route(6, dev="fvt1", table=2003)),
                    Operation("remove", rule(priority=2100)),
                ]
            )
        assert caught.value.operation == f"add route {bad.text()}"
        assert state(host.kernel) == before

    def test_what_was_there_before_is_not_undone(self, host: Host) -> None:
        add(host.kernel, rule(), route(dev="fvt0"))
        with pytest.raises(KernelError):
            add(host.kernel, rule(), route(dev="fvt0"), route(dev="fvt0", table=2002, src="203.0.113.9"))
        assert owned(host.kernel.rules(4)) == [rule()]
        assert owned(host.kernel.routes(4)) == [route(dev="fvt0")]

    def test_a_replace_that_created_is_removed_again(self, host: Host) -> None:
        before = state(host.kernel)
        with pytest.raises(KernelError):
            host.kernel.apply(
                [Operation("replace", route(dev="fvt0")), Operation("add", rule(ipproto=6, dport=(0, 1)))]
            )
        assert state(host.kernel) == before

    @pytest.mark.parametrize("place", [0, 149, 150, 321, 499])
    def test_among_many_the_right_one_is_blamed(self, host: Host, place: int) -> None:
        before = state(host.kernel)
        rules = [rule(src=f"10.0.{number // 250}.{number % 250}/32") for number in range(500)]
        rules[place] = dataclasses.replace(rules[place], ipproto=6, dport=(0, 1))
        with pytest.raises(KernelError) as caught:
            add(host.kernel, *rules)
        assert caught.value.operation == f"add rule {rules[place].text()}"
        assert state(host.kernel) == before

    def test_a_missing_device_changes_nothing(self, host: Host) -> None:
        before = state(host.kernel)
        with pytest.raises(KernelError, match="device"):
            add(host.kernel, rule(), route(dev="fvt0"), route(6, dev="fvtnone"))
        with pytest.raises(KernelError, match="device"):
            host.kernel.apply([Operation("set", LinkGroup("fvtnone", 1), LinkGroup("fvtnone", 0))])
        assert state(host.kernel) == before


def guard(
    table: str = "fvtguard",
    *,
    elements: t.Sequence[str] = ("192.0.2.10",),
    devices: t.Sequence[str] = ("lo", "fvt0", "star*", 'odd"name'),
    hook: str = "postrouting",
) -> Guard:
    """Everything that a guard may consist of."""
    sets = (
        NamedSet.addresses("inside4", 4, elements),
        NamedSet.addresses("inside6", 6, ["2001:db8::10", "fd00:8::/48"]),
        NamedSet.devices("near", devices),
    )
    local = "saddr . oif" if hook == "postrouting" else "daddr . iif"
    first = (
        guard_rule(matching("ip saddr", "@inside4"), jump("inside")),
        guard_rule(matching("ip6 saddr", "@inside6", equal=False), jump("inside", back=True)),
        guard_rule(matching(f"fib {local} type", "local", equal=False), COUNTER, DROP),
    )
    inside = (
        guard_rule(matching("iifname", device("star*")), ACCEPT),
        guard_rule(matching("oifname", "@near"), ACCEPT),
    )
    made = assemble(table, [Piece(sets, (Chain("first", first, hook, 300), Chain("inside", inside)))])
    assert made is not None
    return made


class TestGuardText:
    """What diffs show is what nft would take."""

    def test_loads_as_the_same(self, netns: str) -> None:
        command = ["ip", "netns", "exec", netns, "nft", "-f", "-"]
        wanted = guard(devices=("lo", "star*"))  # a quotation mark in a name has no text that nft takes
        subprocess.run(command, input="\n".join(wanted.lines()), text=True, check=True)
        with open_kernel(netns) as kernel:
            assert kernel.guard("fvtguard") == wanted


class TestGuard:
    @pytest.mark.parametrize("hook", ["postrouting", "prerouting"])
    @pytest.mark.parametrize(
        "elements",
        [
            ("192.0.2.10",),
            ("192.0.2.10", "192.0.2.11", "192.0.2.12"),
            ("10.0.0.0/9", "10.128.0.0/9", "10.8.0.0/16"),
            ("192.0.2.3", "192.0.2.4/30", "192.0.2.8", "128.0.0.0/1", "255.255.255.255"),
            tuple(f"10.{n >> 8}.{n & 255}.1" for n in range(1000)),
        ],
        ids=["one", "neighbours", "overlapping", "edges", "many"],
    )
    def test_reads_back_as_written_and_goes_without_a_trace(
        self, host: Host, elements: tuple[str, ...], hook: str
    ) -> None:
        wanted = guard(elements=elements, hook=hook)
        assert host.kernel.guard("fvtguard") is None
        host.kernel.apply([Operation("add", wanted)])
        assert host.kernel.guard("fvtguard") == wanted
        host.kernel.apply([Operation("remove", wanted)])
        assert host.kernel.guard("fvtguard") is None

    def test_is_replaced_as_a_whole(self, host: Host) -> None:
        first, second = guard(), guard(elements=["198.51.100.0/24"], hook="prerouting")
        host.kernel.apply([Operation("add", first)])
        host.kernel.apply([Operation("replace", second, first)])
        assert host.kernel.guard("fvtguard") == second

    def test_tables_of_two_sets_do_not_meet(self, host: Host) -> None:
        first, second = guard("fvtguard"), guard("fvtguard_b", elements=["10.0.0.0/8"])
        host.kernel.apply([Operation("add", first), Operation("add", second)])
        host.kernel.apply([Operation("remove", first)])
        assert host.kernel.guard("fvtguard") is None
        assert host.kernel.guard("fvtguard_b") == second

    def test_adding_what_is_there_and_removing_what_is_gone(self, host: Host) -> None:
        for op in ("add", "add", "remove", "remove"):
            host.kernel.apply([Operation(op, guard())])
        assert host.kernel.guard("fvtguard") is None

    @pytest.mark.parametrize("before", [None, guard(elements=["10.0.0.0/8"])], ids=["add", "replace"])
    def test_a_failure_behind_it_takes_it_back(self, host: Host, before: Guard | None) -> None:
        host.kernel.apply([Operation("add", before)] if before else [])
        first = Operation("replace", guard(), before) if before else Operation("add", guard())
        with pytest.raises(KernelError):
            host.kernel.apply([first, Operation("add", rule(ipproto=6, dport=(0, 1)))])
        assert host.kernel.guard("fvtguard") == before

    def test_a_failure_ahead_of_it_leaves_it_alone(self, host: Host) -> None:
        host.kernel.apply([Operation("add", guard())])
        with pytest.raises(KernelError):
            host.kernel.apply([Operation("add", rule(ipproto=6, dport=(0, 1))), Operation("remove", guard())])
        assert host.kernel.guard("fvtguard") == guard()


class TestLookups:
    @BOTH
    def test_local(self, host: Host, family: int) -> None:
        path = host.kernel.lookup(Flow(family, OTHER_OWN[family]))
        assert (path.type, path.dev, path.table) == ("local", "lo", 255)
        add(host.kernel, rule(family))
        assert host.kernel.lookup(Flow(family, OTHER_OWN[family])) == path

    @BOTH
    def test_connected(self, host: Host, family: int) -> None:
        path = host.kernel.lookup(Flow(family, GATEWAY[family]))
        assert path == Path("unicast", "fvt0", None, OWN[family], 254)

    @BOTH
    def test_nothing(self, host: Host, family: int) -> None:
        assert host.kernel.lookup(Flow(family, FAR[family])) == Path("unreachable", errno=errno.ENETUNREACH)

    @BOTH
    def test_names_the_table_gateway_and_source(self, host: Host, family: int) -> None:
        default = route(family, dev="fvt0", gateway=GATEWAY[family], src=OTHER_OWN[family])
        add(host.kernel, default, rule(family))
        path = host.kernel.lookup(Flow(family, FAR[family]))
        assert path == Path("unicast", "fvt0", GATEWAY[family], OTHER_OWN[family], 2000)

    @BOTH
    @pytest.mark.parametrize(
        ("kind", "number"),
        [("unreachable", errno.EHOSTUNREACH), ("prohibit", errno.EACCES), ("blackhole", errno.EINVAL)],
    )
    def test_error_routes(self, host: Host, family: int, kind: str, number: int) -> None:
        add(host.kernel, route(family, type=kind), rule(family))
        assert host.kernel.lookup(Flow(family, FAR[family])) == Path(kind, errno=number)

    @BOTH
    @pytest.mark.parametrize(
        ("kind", "number"),
        [("unreachable", errno.ENETUNREACH), ("prohibit", errno.EACCES), ("blackhole", errno.EINVAL)],
    )
    def test_error_actions(self, host: Host, family: int, kind: str, number: int) -> None:
        add(host.kernel, rule(family, action=kind))
        assert host.kernel.lookup(Flow(family, FAR[family])) == Path(kind, errno=number)

    @BOTH
    def test_throw_goes_on_with_the_next_rule(self, host: Host, family: int) -> None:
        add(host.kernel, route(family, type="throw"), route(family, dev="fvt1", table=254), rule(family))
        assert host.kernel.lookup(Flow(family, FAR[family])).table == 254

    @BOTH
    @pytest.mark.parametrize(
        ("selector", "asked"),
        [
            ({"fwmark": 7, "fwmask": 0xF}, {"fwmark": 0x17}),
            ({"uidrange": (1000, 1999)}, {"uid": 1500}),
            ({"ipproto": 6}, {"ipproto": 6}),
            ({"ipproto": 6, "sport": (22, 22)}, {"ipproto": 6, "sport": 22}),
            ({"ipproto": 6, "dport": (80, 90)}, {"ipproto": 6, "dport": 88}),
            ({"oif": "fvt1"}, {"oif": "fvt1"}),
        ],
        ids=str,
    )
    def test_every_selector_is_asked(
        self, host: Host, family: int, selector: dict[str, t.Any], asked: dict[str, t.Any]
    ) -> None:
        add(host.kernel, route(family, dev="fvt1"), route(family, dev="fvt0", table=254), rule(family, **selector))
        assert host.kernel.lookup(Flow(family, FAR[family], **asked)).table == 2000
        assert host.kernel.lookup(Flow(family, FAR[family])).table == 254

    def test_ipv4_takes_a_flow_without_protocol_for_udp(self, host: Host) -> None:
        add(host.kernel, route(dev="fvt1"), route(6, dev="fvt1"), rule(ipproto=17), rule(6, ipproto=17))
        assert host.kernel.lookup(Flow(4, FAR[4])).table == 2000
        assert host.kernel.lookup(Flow(6, FAR[6])).table is None

    @BOTH
    def test_a_protocol_that_the_kernel_looks_up_for_nobody(self, host: Host, family: int) -> None:
        with pytest.raises(NotSupported, match="proto"):
            host.kernel.lookup(Flow(family, FAR[family], ipproto=47))

    @BOTH
    def test_by_source(self, host: Host, family: int) -> None:
        own = f"{OTHER_OWN[family]}/{HOST[family]}"
        add(
            host.kernel,
            route(family, dev="fvt1"),
            route(family, dev="fvt0", table=254),
            rule(family, src=own, iif="lo"),
        )
        assert host.kernel.lookup(Flow(family, FAR[family], source=OTHER_OWN[family])).dev == "fvt1"
        assert host.kernel.lookup(Flow(family, FAR[family], source=OWN[family])).dev == "fvt0"
        assert host.kernel.lookup(Flow(family, FAR[family])).dev == "fvt0"

    @BOTH
    def test_forwarded(self, host: Host, family: int) -> None:
        host.forward()
        add(host.kernel, route(family, dev="fvt1", gateway={4: "198.51.100.1", 6: "2001:db8:51::1"}[family]))
        add(host.kernel, route(family, dev="fvt0", table=254), rule(family, iif="fvt0"))
        flow = Flow(family, FAR[family], source=GATEWAY[family], iif="fvt0")
        path = host.kernel.lookup(flow)
        assert (path.type, path.dev, path.table, path.src) == ("unicast", "fvt1", 2000, None)
        assert host.kernel.lookup(Flow(family, FAR[family])).dev == "fvt0"

    def test_source_zero_is_matched_in_ipv4(self, host: Host) -> None:
        add(host.kernel, route(dev="fvt1"), route(dev="fvt0", table=254), rule(src="0.0.0.0/32", iif="lo"))
        assert host.kernel.lookup(Flow(4, FAR[4])).dev == "fvt1"
        assert host.kernel.lookup(Flow(4, FAR[4], source=OWN[4])).dev == "fvt0"

    def test_source_zero_is_matched_by_no_prefix_in_ipv6(self, host: Host) -> None:
        add(host.kernel, route(6, dev="fvt1"), route(6, dev="fvt0", table=254))
        add(host.kernel, *(rule(6, src=half, action="goto", goto=2600) for half in ("::/1", "8000::/1")))
        add(host.kernel, rule(6, 2550), rule(6, 2600, action="nop"))
        assert host.kernel.lookup(Flow(6, FAR[6])).dev == "fvt1"
        assert host.kernel.lookup(Flow(6, FAR[6], source=OWN[6])).dev == "fvt0"

    @BOTH
    def test_goto_passes_over(self, host: Host, family: int) -> None:
        add(host.kernel, rule(family, 2999, action="nop"), rule(family, 2600, action="unreachable"))
        add(host.kernel, route(family, dev="fvt0", table=254), rule(family, 2500, action="goto", goto=2999))
        assert host.kernel.lookup(Flow(family, FAR[family])).dev == "fvt0"

    @BOTH
    def test_not_inverts_all_selectors_at_once(self, host: Host, family: int) -> None:
        add(host.kernel, route(family, dev="fvt1"), route(family, dev="fvt0", table=254))
        add(host.kernel, rule(family, invert=True, fwmark=7, iif="lo"))
        assert host.kernel.lookup(Flow(family, FAR[family], fwmark=7)).dev == "fvt0"
        assert host.kernel.lookup(Flow(family, FAR[family])).dev == "fvt1"

    @BOTH
    def test_suppressors(self, host: Host, family: int) -> None:
        add(host.kernel, route(family, dev="fvt0", table=254), route(family, dev="fvt1"))
        add(host.kernel, rule(family, 2400, table=254, suppress_prefixlength=1), rule(family))
        assert host.kernel.lookup(Flow(family, FAR[family])).dev == "fvt1"
        assert host.kernel.lookup(Flow(family, GATEWAY[family])).table == 254

    @BOTH
    def test_suppress_by_device_group(self, host: Host, family: int) -> None:
        add(host.kernel, route(family, dev="fvt0", table=2001), route(family, dev="fvt1"))
        add(host.kernel, rule(family, 2400, table=2001, suppress_ifgroup=151), rule(family))
        assert host.kernel.lookup(Flow(family, FAR[family])).dev == "fvt0"
        host.kernel.apply([Operation("set", LinkGroup("fvt0", 151), LinkGroup("fvt0", 0))])
        assert host.kernel.lookup(Flow(family, FAR[family])).dev == "fvt1"

    def test_a_source_that_is_not_ours(self, host: Host) -> None:
        add(host.kernel, route(dev="fvt0", table=254))
        assert host.kernel.lookup(Flow(4, FAR[4], source="203.0.113.77")).type == "unreachable"

    def test_a_bound_socket_without_route_takes_all_for_neighbours(self, host: Host) -> None:
        path = host.kernel.lookup(Flow(4, FAR[4], oif="fvt1"))
        assert path == Path("unicast", "fvt1", None, OTHER_OWN[4], None)

    def test_via_inet6(self, host: Host) -> None:
        add(host.kernel, route(dev="fvt0", gateway=GATEWAY[6], table=254))
        assert host.kernel.lookup(Flow(4, FAR[4])).gateway == GATEWAY[6]

    @pytest.mark.parametrize("field", ["iif", "oif"])
    @BOTH
    def test_a_device_that_does_not_exist(self, host: Host, family: int, field: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            host.kernel.lookup(Flow(family, FAR[family], **{field: "fvtnone"}))
        assert (caught.value.field, caught.value.value) == (field, "fvtnone")


def wait(events: t.Any) -> list[str]:
    assert select.select([events], [], [], 5)[0]
    found: list[str] = events.read()
    return found


def drain(events: t.Any) -> None:
    while events.read():
        pass


class TestEvents:
    def test_devices_and_addresses(self, host: Host) -> None:
        with contextlib.closing(host.kernel.events()) as events:
            assert events.read() == []
            host.address("fvt0", "192.0.2.99/24")
            assert set(wait(events)) == {"address"}
            add(host.kernel, rule())
            host.kernel.apply([Operation("set", LinkGroup("fvt0", 5), LinkGroup("fvt0", 0))])
            assert set(wait(events)) == {"link"}

    def test_rules_and_routes_on_request(self, host: Host) -> None:
        with contextlib.closing(host.kernel.events(rules=True, routes=True)) as events:
            add(host.kernel, route(dev="fvt0"), rule(), rule(6))
            assert wait(events) == ["route", "rule", "rule"]

    def test_what_it_does_itself_is_left_out_on_request(self, host: Host) -> None:
        with contextlib.closing(host.kernel.events(rules=True, routes=True, own=False)) as events:
            add(host.kernel, route(dev="fvt0"), rule(), rule(6))
            host.address("fvt0", "192.0.2.98/24")
            assert "address" in wait(events)
            assert events.read() == []

    @pytest.mark.parametrize(
        ("fields", "matters"),
        [
            ({"table": 2000}, True),
            ({"table": 2001}, False),
            ({"table": 0x01000000 + 2000}, False),
            ({"table": 253}, True),
            ({"table": 100}, False),
            ({"table": 254, "dst": "10.0.0.0/8"}, False),
            ({"table": 254, "dst": "0.0.0.0/0"}, True),
            ({"table": 254, "dst": "128.0.0.0/1"}, True),
            ({"table": 254, "dst": "10.0.0.0/8", "protocol": OURS}, True),
            ({"table": 254, "dst": "10.0.0.0/8", "protocol": 2}, True),
            ({"table": 254, "dst": "10.0.0.0/8", "dev": "fvt1"}, True),
            ({"table": 254, "dst": "10.0.0.0/8", "dev": None, "type": "unreachable", "protocol": 186}, True),
            ({"table": 254, "dst": "10.0.0.0/8", "dev": None, "type": "throw", "protocol": 186}, False),
            ({"table": 254, "dst": "10.0.0.1/32"}, True),
            ({"table": 254, "dst": "10.0.0.1/32", "protocol": 186}, False),
            ({"table": 254, "dst": "172.20.3.0/24"}, True),
            ({"table": 254, "dst": "172.20.3.1/32", "protocol": 186}, True),
            ({"table": 254, "dst": "172.21.3.0/24"}, False),
            ({"family": 6, "table": 254, "dst": "::/0"}, True),
            ({"family": 6, "table": 254, "dst": "2001:db8:2f::/48"}, True),
            ({"family": 6, "table": 254, "dst": "2001:db8:30::/48"}, False),
            ({"family": 6, "table": 254, "dst": "2001:db8:1:2:3::1/128"}, True),
            ({"family": 6, "table": 2000, "dst": "2001:db8:30::/48"}, True),
            ({"family": 6, "table": 2001, "dst": "2001:db8:30::/48"}, False),
        ],
        ids=str,
    )
    def test_routes_that_matter(self, host: Host, fields: dict[str, t.Any], matters: bool) -> None:
        index = {link.name: link.index for link in host.kernel.links()}
        interest = Interest(
            tables=frozenset({253, 2000}),
            protocols=frozenset({OURS}),
            devices=frozenset({index["fvt1"]}),
            uplinks=frozenset({index["fvt0"]}),
            prefixes=frozenset({"172.20.0.0/16", "2001:db8:20::/44", "2001:db8:99::/48"}),
        )
        with contextlib.closing(host.kernel.events(routes=True)) as events:
            events.narrow(interest)
            add(host.kernel, route(**{"dev": "fvt0", "protocol": 4, **fields}))
            assert events.read() == (["route"] if matters else [])

    def test_more_that_matters_than_a_filter_holds(self, host: Host) -> None:
        with contextlib.closing(host.kernel.events(routes=True)) as events:
            events.narrow(Interest(tables=frozenset(range(2000, 6000))))
            add(host.kernel, route(dev="fvt0"))
            assert events.read() == ["route"]

    def test_too_many(self, host: Host) -> None:
        with contextlib.closing(host.kernel.events()) as events:
            flips = [Operation("set", LinkGroup("fvt0", number % 2)) for number in range(4000)]
            host.kernel.apply(flips)
            with pytest.raises(EventsLost):
                drain(events)
            drain(events)
            host.kernel.apply([Operation("set", LinkGroup("fvt0", 9))])
            assert wait(events) == ["link"]
