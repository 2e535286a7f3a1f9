# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for any declaration on any host: hypothesis makes up both, the real kernel answers.

FLEETVPN_EXAMPLES is the number of hosts to try for each property, 25 unless set.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import RoutingError
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.functional.conftest import ip
from tests.functional.endpoints import (
    FAR,
    FAR6,
    FIREWALL,
    GATEWAY,
    GATEWAY6,
    INSIDE,
    INSIDE6,
    OUTSIDE,
    OUTSIDE6,
    UPLINK,
    Sockets,
    device,
    ensure,
    files,
    namespace,
    nft,
    state,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

EXAMPLES = int(os.environ.get("FLEETVPN_EXAMPLES", "25"))
OURS = "151"
SECOND, SECOND6 = "198.18.7.10", "2001:db8:7::10"
UNCLAIMED = {"10.8.0.0/16", "198.51.100.0/24", "2001:db8:51::/48", "192.0.2.0/28", "10.0.0.0/8"}


@dataclasses.dataclass(frozen=True)
class World:
    """A host as lines of ip(8), and a destination in each of its networks."""

    lines: tuple[str, ...]


def some(values: t.Sequence[t.Any], most: int = 3) -> st.SearchStrategy[list[t.Any]]:
    """A few of these, each once, in any order."""
    return st.lists(st.sampled_from(values), max_size=most, unique_by=repr)


def perhaps(values: st.SearchStrategy[t.Any]) -> st.SearchStrategy[t.Any]:
    return st.none() | values


# -- what others have put into the host

PROTOCOLS = st.sampled_from(["boot", "static", "77", "152", "16"])
PRIORITIES = st.sampled_from([100, 1500, 1999, 2000, 2201, 2300, 2301, 2302, 2500, 2999, 3000, 5210, 32000])
SELECTORS = st.sampled_from([
    "from 10.77.0.0/16", "to 10.78.0.0/16", "fwmark 0x40/0xff", "iif br0", "oif up1", "from 172.20.0.0/24 iif br0",
    "to 10.9.9.0/24 ipproto tcp dport 443", "uidrange 4000-4999", "from 2001:db8:77::/48", "to 2001:db8:78::/48",
])  # fmt: skip
ACTIONS = st.sampled_from(["lookup main", "lookup 500", "lookup 2001", "unreachable", "blackhole", "prohibit", "nop"])
# Equal to what the first run of a set adds.
TWINS = (
    f"pref 2300 from {INSIDE} iif lo lookup 2000",
    f"pref 2301 from {INSIDE} iif lo lookup 2002",
    f"pref 2302 from {INSIDE} iif lo unreachable",
    f"pref 2201 from {OUTSIDE} iif lo lookup 2001",
    f"pref 2302 from {INSIDE6} iif lo unreachable",
    "pref 2999 nop",
)
# Each under a key of its own, so that any few of them go together.
ROUTES = (
    "10.50.0.0/16 via 192.0.2.254 dev up0 proto static",
    "10.50.0.5 via 192.0.2.253 dev up0 proto 77",
    f"203.0.113.77 via {GATEWAY} dev up0 proto dhcp",
    "unreachable 10.66.0.0/16 proto static",
    "blackhole 10.67.0.0/16 proto 152",
    "prohibit 10.68.0.0/16 metric 50",
    "172.20.0.128/25 via 192.0.2.252 dev up0 proto static",
    "198.18.0.0/15 dev vpn0 proto 77",
    "0.0.0.0/1 dev vpn0 proto 77",
    "128.0.0.0/1 dev vpn0 proto 77",
    "10.8.0.0/16 dev vpn0 proto 152",
    "10.60.0.0/16 via 198.18.7.1 dev up1 proto 152",
    "default via 198.18.7.1 dev up1 metric 600 proto dhcp",
    "10.61.0.0/16 dev br0 table 500 proto static",
    f"default via {GATEWAY} dev up0 table 500 proto 77",
    "unreachable default table 2000 metric 4000 proto 152",
    "10.62.0.0/16 dev up0 table 2001 proto 152",
    "2001:db8:50::/48 via 2001:db8:2::254 dev up0 proto static",
    "unreachable 2001:db8:66::/48 proto static",
    "2001:db8:9::77 via 2001:db8:2::1 dev up0 proto 77",
    "2001:db8:60::/48 via 2001:db8:7::1 dev up1 proto 152",
    "::/1 dev vpn0 proto 77",
    "8000::/1 dev vpn0 proto 77",
    "::/0 via 2001:db8:7::1 dev up1 metric 4000 proto ra",
    "2001:db8:62::/48 dev up0 table 2001 proto 152",
)
# One in each network that a route may lead to, and what lies nearby.
SAMPLE = (
    FAR, "9.9.9.9", "10.50.1.1", "10.50.0.5", "203.0.113.77", "10.66.1.1", "172.20.0.9", "172.20.0.200", "198.18.0.1",
    "10.8.9.9", "10.60.1.1", "192.0.2.77", FAR6, "2001:db8:50::1", "2001:db8:66::1", "2001:db8:9::77",
    "2001:db8:60::1", "2001:db8:2::77",
)  # fmt: skip
BRIDGE = (
    "link add br0 type bridge",
    "link set br0 addrgenmode none",
    "link set br0 up",
    *device("fvtpod"),
    "link set fvtpod master br0",
    "address add 172.20.0.1/24 dev br0",
    "address add fd00:20::1/64 dev br0 nodad",
)
SECOND_UPLINK = tuple(device("up1", f"{SECOND}/24", f"{SECOND6}/64"))
TUNNELS = (
    tuple(device("vpn0", f"{INSIDE}/32", f"{INSIDE6}/128")),
    tuple(device("vpn0", f"{INSIDE}/24", "198.51.100.11/24")),
    tuple(device("vpn0", f"{INSIDE6}/64")),
    tuple(device("vpn0")),
    (*device("vpn0", f"{INSIDE}/32"), "link set vpn0 down"),
    (),
)


@st.composite
def hosts(draw: st.DrawFn) -> World:
    """An uplink, perhaps a tunnel, a bridge and a second uplink, and what others put into rules and tables."""
    tunnel = draw(st.sampled_from(TUNNELS))
    bridge, second = draw(st.booleans()), draw(st.booleans())
    lines = [*UPLINK, *tunnel, *(BRIDGE if bridge else ()), *(SECOND_UPLINK if second else ())]
    there = {"up0", *(["br0"] if bridge else []), *(["up1"] if second else [])}
    usable = {"vpn0 4"} if INSIDE in str(tunnel) and "down" not in str(tunnel) else set()
    usable |= {"vpn0 6"} if INSIDE6 in str(tunnel) else set()
    routes = [route for route in draw(some(ROUTES, 8)) if _fits(route, there, usable)]
    rules = draw(st.lists(st.builds(_rule, PRIORITIES, SELECTORS, ACTIONS, PROTOCOLS), max_size=5, unique=True))
    twins = [_line(twin, draw(PROTOCOLS)) for twin in draw(some(TWINS, 2))]
    return World((*lines, *(f"route add {route}" for route in routes), *rules, *twins))


def _fits(route: str, there: t.Collection[str], usable: t.Collection[str]) -> bool:
    """Whether its device can have it. A tunnel without an address takes over no default: no client does that."""
    words = route.split()
    name = words[words.index("dev") + 1] if "dev" in words else "up0"
    return name in there or f"{name} {6 if ':' in route else 4}" in usable


def _rule(priority: int, selector: str, action: str, protocol: str) -> str:
    return _line(f"pref {priority} {selector} {action}", protocol)


def _line(rule: str, protocol: str) -> str:
    return f"{'-6 ' * (':' in rule)}rule add {rule} proto {protocol}"


# -- what is asked for

INSIDE_WAYS: t.Any = st.fixed_dictionaries(
    {
        "name": st.just("inside"),
        "interface": st.just(["vpn0"]) | st.just(["vpn*"]),
        "gateway": st.just(["none"]),
    },
    optional={
        "addresses": st.sampled_from([[INSIDE], [f"{INSIDE}/24", INSIDE6], ["198.51.100.99"]]),
        "pools": some(sorted(UNCLAIMED), 2).filter(lambda pools: not {"10.8.0.0/16", "10.0.0.0/8"} <= set(pools)),
        "table": st.sampled_from(["700", "2001", "2500"]),
        "priority": st.sampled_from([2300, 2310, 2597]),
        "backstop": st.booleans(),
        "mtu": st.just(1400),
        "advmss": st.just(1300),
        "families": st.sampled_from([["ipv4", "ipv6"], ["ipv4"], ["ipv6"]]),
        "destinations": st.sampled_from([["10.88.0.0/16"], ["10.88.0.0/16", "2001:db8:88::/48"]]),
        "destinations_backstop": st.booleans(),
        "outer": st.sampled_from([{"fwmark": "0xca6c"}, {"uidrange": "5000-5000"}]),
    },
)
OUTSIDE_WAYS: t.Any = st.fixed_dictionaries(
    {"name": st.just("outside"), "interface": st.sampled_from([["up0"], ["auto"], ["up*"], ["up[01]"]])},
    optional={
        "addresses": st.sampled_from([[OUTSIDE], [OUTSIDE, OUTSIDE6]]),
        "gateway": st.sampled_from([["auto"], [GATEWAY], [GATEWAY, GATEWAY6]]),
        "table": st.sampled_from(["701", "2000"]),
        "backstop": st.booleans(),
        "families": st.sampled_from([["ipv4", "ipv6"], ["ipv4"]]),
    },
)
TABLES = ({"name": "fvt-extra", "id": 900}, {"name": "fvt_more", "id": 2100})
RULES = (
    {"priority": 1800, "from": "10.99.0.0/24", "table": "900"},
    {"priority": 2600, "family": "ipv4", "fwmark": "0x80/0x80", "action": "unreachable"},
    {"priority": 3500, "to": "2001:db8:99::/48", "action": "prohibit"},
    {"priority": 1801, "family": "ipv4", "uidrange": "6000-6000", "table": "main", "suppress_prefixlength": 0},
)
MORE_ROUTES = (
    {"dst": "10.99.0.0/16", "dev": "up0", "table": "900"},
    {"dst": "10.98.0.0/16", "gateway": GATEWAY, "metric": 77},
    {"dst": "2001:db8:98::/48", "type": "unreachable", "table": "900"},
    {"dst": "10.97.0.0/16", "type": "throw", "table": "2100", "metric": 5},
    {"dst": "default", "family": "ipv4", "gateway": "192.0.2.9", "dev": "up0", "onlink": True, "table": "900"},
)
DECLARATIONS: t.Any = st.fixed_dictionaries(
    {
        "identities": st.tuples(OUTSIDE_WAYS, INSIDE_WAYS).map(list)
        | INSIDE_WAYS.map(lambda inside: [inside])
        | OUTSIDE_WAYS.map(lambda outside: [outside]),
    },
    optional={
        "strict_egress": st.sampled_from(["true", "true", "any", "false"]),
        "strict_ingress": st.booleans(),
        "local_networks": st.sampled_from([["auto"], [], ["br0"], ["172.20.0.0/16"], ["auto", "fvt*"]]),
        "unbound": st.sampled_from(["keep", "keep", "inside"]),
        "unbound_local": st.sampled_from(["none", "main"]),
        "tables": some(TABLES),
        "rules": some(RULES),
        "routes": some(MORE_ROUTES),
    },
)
PROPERTY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FLEETVPN_EXAMPLES" not in os.environ,  # the same hosts in each usual run
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def applied(netns: str, **declaration: t.Any) -> t.Any:
    """The result; None when the declaration is refused, which must leave all as it was."""
    before = state(netns), files(netns)
    try:
        return ensure(netns, **declaration)
    except RoutingError as error:
        refused = error
    event(f"refused: {type(refused).__name__}")
    assert refused.msg
    assert "\n" not in refused.line()
    assert (state(netns), files(netns)) == before
    return None


def draws_unbound(declaration: t.Mapping[str, t.Any]) -> bool:
    """Whether it asks for a change of what sockets without a source do."""
    return declaration.get("unbound", "keep") != "keep"


class Seen:
    """How many declarations were accepted: a property that holds for refused ones alone says little."""

    def __init__(self) -> None:
        self.accepted = self.all = 0

    def count(self, result: object) -> bool:
        self.all += 1
        self.accepted += result is not None
        return result is not None


def test_a_second_run_changes_nothing_and_check_mode_says_what_the_first_does() -> None:
    seen = Seen()

    @PROPERTY
    @given(hosts(), DECLARATIONS)
    def holds(world: World, declaration: dict[str, t.Any]) -> None:
        with namespace(*world.lines) as netns:
            announced = applied(netns, check=True, **declaration)
            done = applied(netns, **declaration)
            if not seen.count(done):
                return
            assert announced is not None
            assert (announced.plan, announced.changed) == (done.plan, done.changed)
            assert (announced.before, announced.after) == (done.before, done.after)
            after = state(netns)
            for check in (True, False):
                again = ensure(netns, check=check, **declaration)
                assert (again.changed, again.plan) == (False, [])
            assert state(netns) == after

    holds()
    assert seen.accepted > seen.all / 2


def test_what_is_foreign_stays_to_the_letter_and_removal_leaves_what_was_there() -> None:
    seen = Seen()

    @PROPERTY
    @given(hosts(), DECLARATIONS, DECLARATIONS)
    def holds(world: World, declaration: dict[str, t.Any], other: dict[str, t.Any]) -> None:
        with namespace(*world.lines) as netns:
            nft(netns, "-f", "-", text=FIREWALL)
            before, foreign = state(netns), state(netns, without=OURS)
            for wanted in (declaration, other):
                seen.count(applied(netns, **wanted))
                assert state(netns, without=OURS) == foreign
            announced = ensure(netns, check=True, state="absent")
            gone = ensure(netns, state="absent")
            assert announced.plan == gone.plan
            assert state(netns) == before
            assert files(netns) == []
            assert not ensure(netns, state="absent").changed

    holds()
    assert seen.accepted > seen.all / 2


def test_unbound_traffic_goes_where_it_went() -> None:
    seen = Seen()

    @PROPERTY
    @given(hosts(), DECLARATIONS.filter(lambda declaration: not draws_unbound(declaration)))
    def holds(world: World, declaration: dict[str, t.Any]) -> None:
        with namespace(*world.lines) as netns:
            sockets, lookups = Sockets(netns), both_lookups(netns)
            # Where main has nothing at all, IPv6 asks again with an identity's address as the source.
            reached = [to for to, answers in lookups.items() if all(answer.startswith(WAY) for answer in answers)]
            before = sockets.ways(reached)
            if not seen.count(applied(netns, **declaration)):
                return
            after = both_lookups(netns)
            assert {to: after[to] for to in reached} == {to: lookups[to] for to in reached}
            assert sockets.ways(reached) == before
            lost = [to for to, (first, _second) in lookups.items() if ":" not in to and not first.startswith(WAY)]
            assert [after[to][0] for to in lost] == [lookups[to][0] for to in lost]
            refused = [to for to, (first, _second) in lookups.items() if ":" in to and first.endswith(REFUSALS)]
            assert [to for to in refused if after[to][0].startswith(WAY) and NOWHERE not in after[to][0]] == []

    holds()
    assert seen.accepted > seen.all / 2


WAY = ("via ", "dev ")
REFUSALS = ("No route to host", "Invalid argument", "Permission denied", "Network is unreachable")
NOWHERE = "dev fleetvpn0"


def both_lookups(netns: str) -> dict[str, list[str]]:
    """What the kernel answers without a source, and then with the source that it chose."""
    found = {}
    for to in SAMPLE:
        first = _get(netns, to)
        source = first.partition(" src ")[2].split(" ")[0]
        found[to] = [first, _get(netns, to, "from", source) if source else ""]
    return found


def _get(netns: str, to: str, *source: str) -> str:
    """Gateway, device and source, or the error; the table may be another one."""
    try:
        words = ip("-n", netns, "-o", "route", "get", to, *source).split()
    except RuntimeError as error:
        return str(error).partition(": ")[2]
    kept = [f"{key} {words[words.index(key) + 1]}" for key in ("via", "dev", "src") if key in words]
    return " ".join(kept)
