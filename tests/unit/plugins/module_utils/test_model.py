# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user writes as rule, route or table name: one value for every spelling, one line for every mistake."""

from __future__ import annotations

import contextlib
import ipaddress
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput, NotSupported
from ansible_collections.fleetvpn.routing.plugins.module_utils._model import fields
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Nexthop, Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule, refuse_unsupported
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.table import Table
from hypothesis import example, given
from hypothesis import strategies as st

Params = dict[str, t.Any]

RULE: Params = {"priority": 1500, "from": "198.51.100.10", "table": 1500}
FLOW: Params = {"priority": 1500, "family": "ipv4", "table": 1500}
ROUTE: Params = {"dst": "10.0.0.0/8", "dev": "wg0"}
ROUTE6: Params = {"dst": "2001:db8::/32", "dev": "wg0"}


def without(params: Params, *names: str) -> Params:
    return {name: value for name, value in params.items() if name not in names}


SAME_RULES: dict[str, tuple[Params, Params]] = {
    "length of an address": ({"from": "198.51.100.10/32"}, {}),
    "spelling of an address": (
        {"from": "2001:DB8:0:0::10", "to": "::ffff:192.0.2.1"},
        {"from": "2001:db8::10/128", "to": "::ffff:c000:201"},
    ),
    "everybody": ({"from": None, "family": "ipv4"}, {"from": "0.0.0.0/0"}),
    "name of main": ({"table": "main"}, {"table": 254}),
    "mask of all bits": ({"fwmark": "0x10"}, {"fwmark": "16/0xffffffff"}),
    "one port": ({"ipproto": "tcp", "dport": 53}, {"ipproto": 6, "dport": "53-53"}),
    "one user": ({"uidrange": "1000"}, {"uidrange": "1000-1000"}),
    "name of a protocol": ({"ipproto": "ICMPv6"}, {"ipproto": "58"}),
    "no type of service": ({"tos": "0"}, {}),
    "family": ({"family": "ipv4"}, {}),
    "switches that are off": ({"not": False, "l3mdev": False}, {}),
}


@pytest.mark.parametrize("name", SAME_RULES)
def test_spellings_of_one_rule_are_equal(name: str) -> None:
    one, other = ({**RULE, **written} for written in SAME_RULES[name])
    assert Rule.from_params(one) == Rule.from_params(other)


OTHER_RULES: list[Params] = [
    {"priority": 1501},
    {"not": True},
    {"from": "198.51.100.11"},
    {"from": "198.51.100.10/31"},
    {"to": "192.0.2.0/24"},
    {"iif": "lo"},
    {"oif": "lo"},
    {"fwmark": "0"},
    {"fwmark": "0/1"},
    {"fwmark": "1/1"},
    {"fwmark": "1/3"},
    {"tos": "0x10"},
    {"dscp": 0},
    {"dscp": 4},
    {"uidrange": "0"},
    {"ipproto": "tcp"},
    {"ipproto": "tcp", "sport": 53},
    {"ipproto": "tcp", "dport": 53},
    {"tun_id": 1},
    {"table": None, "l3mdev": True},
    {"table": 1501},
    {"suppress_prefixlength": 0},
    {"suppress_prefixlength": 1},
    {"suppress_ifgroup": 0},
    {"table": None, "action": "unreachable"},
    {"table": None, "action": "goto", "goto": 1600},
]


def test_rules_that_match_or_do_otherwise_differ_as_values_and_as_text() -> None:
    rules = [Rule.from_params({**RULE, **written}) for written in [{}, *OTHER_RULES]]
    assert len(set(rules)) == len(rules)
    assert len({rule.text() for rule in rules}) == len(rules)


def test_twin_of_another_protocol_is_equal() -> None:
    assert Rule.from_params({**RULE, "protocol": 152}) == Rule.from_params({**RULE, "protocol": 3})


def test_rule_as_the_kernel_reports_it() -> None:
    reported = Rule(
        4,
        1500,
        table=1500,
        src="198.51.100.10/32",
        dst="0.0.0.0/0",
        fwmask=0,
        tos=0,
        tun_id=0,
        suppress_prefixlength=4294967295,
        suppress_ifgroup=4294967295,
    )
    assert reported == Rule.from_params(RULE)
    assert Rule(4, 1, table=1, fwmask=0xFF) == Rule(4, 1, table=1, fwmark=0, fwmask=0xFF)


BAD_RULES: dict[str, tuple[Params, str, str]] = {
    "host bits": ({"from": "198.51.100.10/24"}, "from", "198.51.100.0/24"),
    "host bits, IPv6": ({"from": "2001:db8::1/64"}, "from", "2001:db8::/64"),
    "no prefix": ({"to": "nonsense"}, "to", "192.0.2.0/24"),
    "no length": ({"from": "198.51.100.0/"}, "from", "/32"),
    "long length": ({"from": "198.51.100.0/33"}, "from", "/32"),
    "leading zero": ({"from": "198.051.100.1"}, "from", "prefix"),
    "families mixed": ({"to": "2001:db8::/32"}, "to", "ipv4"),
    "family stated otherwise": ({"family": "ipv6"}, "from", "ipv6"),
    "no family": ({"from": None}, "family", "ipv4, ipv6"),
    "unknown table": ({"table": "inside"}, "table", "main"),
    "table 0": ({"table": 0}, "table", "1 to 4294967295"),
    "table too high": ({"table": 4294967296}, "table", "1 to 4294967295"),
    "no table": ({"table": None}, "table", "table"),
    "no priority": ({"priority": None}, "priority", "1 to 4294967295"),
    "priority of local": ({"priority": 0}, "priority", "1 to 4294967295"),
    "priority of main": ({"priority": 32766}, "priority", "except 32766"),
    "priority of default": ({"priority": 32767}, "priority", "except 32766 and 32767"),
    "priority too high": ({"priority": 4294967296}, "priority", "4294967295"),
    "mark outside its mask": ({"fwmark": "0x101/0xff"}, "fwmark", "0x1/0xff"),
    "mark of 33 bits": ({"fwmark": "0x100000000"}, "fwmark", "32 bits"),
    "mask of nothing": ({"fwmark": "0/0"}, "fwmark", "mask not 0"),
    "reversed ports": ({"ipproto": "tcp", "dport": "2000-1000"}, "dport", "1000-2000"),
    "port 0": ({"ipproto": "tcp", "sport": "0-53"}, "sport", "1 to 65534"),
    "port 65535": ({"ipproto": "tcp", "dport": "1024-65535"}, "dport", "1 to 65534"),
    "port without protocol": ({"dport": 53}, "dport", "tcp"),
    "port of icmp": ({"ipproto": "icmp", "dport": 53}, "dport", "tcp"),
    "reversed users": ({"uidrange": "2-1"}, "uidrange", "1-2"),
    "user by name": ({"uidrange": "root"}, "uidrange", "0 to"),
    "protocol": ({"ipproto": "nonsense"}, "ipproto", "udp"),
    "protocol 0": ({"ipproto": 0}, "ipproto", "1 to 255"),
    "device": ({"iif": "much-too-long-name"}, "iif", "15"),
    "device with a slash": ({"oif": "a/b"}, "oif", "slash"),
    "ecn": ({"tos": 1}, "tos", "multiples of 4"),
    "tos that IPv4 lacks": ({"tos": "0x20"}, "tos", "dscp"),
    "dscp": ({"dscp": 64}, "dscp", "0 to 63"),
    "dscp and tos": ({"dscp": 4, "tos": "0x10"}, "dscp", "one of the two"),
    "tunnel": ({"tun_id": 0}, "tun_id", "1 to"),
    "action": ({"action": "nat"}, "action", "blackhole"),
    "table with an action": ({"action": "unreachable"}, "table", "lookup"),
    "table with l3mdev": ({"l3mdev": True}, "table", "one of the two"),
    "suppressor with an action": (
        {"table": None, "action": "nop", "suppress_prefixlength": 0},
        "suppress_prefixlength",
        "lookup",
    ),
    "suppressor": ({"suppress_prefixlength": 33}, "suppress_prefixlength", "0 to 32"),
    "goto backwards": ({"table": None, "action": "goto", "goto": 1499}, "goto", "above 1500"),
    "goto itself": ({"table": None, "action": "goto", "goto": 1500}, "goto", "above 1500"),
    "goto nowhere": ({"table": None, "action": "goto"}, "goto", "above 1500"),
    "goto with lookup": ({"goto": 1600}, "goto", "action goto"),
    "protocol of the kernel": ({"protocol": 2}, "protocol", "except 2"),
    "protocol of anybody": ({"protocol": 0}, "protocol", "1 to 255"),
}


@pytest.mark.parametrize("name", BAD_RULES)
def test_bad_rule_is_refused_in_one_line(name: str) -> None:
    written, field, accepted = BAD_RULES[name]
    refused(lambda: Rule.from_params({**RULE, **written}, field="rules[0]"), f"rules[0].{field}", accepted)


def refused(read: t.Callable[[], object], field: str, accepted: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read()
    assert caught.value.field == field
    assert accepted in str(caught.value.accepted)
    assert "\n" not in caught.value.line()


SAME_ROUTES: dict[str, tuple[Params, Params]] = {
    "default": ({"dst": "default", "family": "ipv4"}, {"dst": "0.0.0.0/0"}),
    "default, IPv6": ({"dst": "default", "family": "ipv6"}, {"dst": "::/0", "metric": 1024}),
    "family by gateway": (
        {"dst": "default", "gateway": "2001:db8::1"},
        {"dst": "::/0", "gateway": "2001:db8::1", "pref": "medium", "scope": "global"},
    ),
    "table": ({"table": "main"}, {}),
    "scope of a device route": ({"scope": "link"}, {}),
    "scope of a gateway route": ({"gateway": "10.1.1.1", "scope": 0}, {"gateway": "10.1.1.1"}),
    "scope of local": ({"type": "local", "scope": "host"}, {"type": "local"}),
    "scope of multicast": ({"type": "multicast", "scope": "link"}, {"type": "multicast"}),
    "one next hop": (
        {"dev": None, "nexthops": [{"gateway": "10.1.1.1", "dev": "eth0", "weight": 5, "onlink": True}]},
        {"gateway": "10.1.1.1", "dev": "eth0", "onlink": True},
    ),
}


@pytest.mark.parametrize("name", SAME_ROUTES)
def test_spellings_of_one_route_are_equal(name: str) -> None:
    one, other = ({**ROUTE, **written} for written in SAME_ROUTES[name])
    assert Route.from_params(one) == Route.from_params(other)


def test_routes_as_the_kernel_reports_them() -> None:
    backstop = {"dst": "::/0", "type": "unreachable", "metric": 4294967295}
    assert Route(6, "::/0", type="unreachable", dev="lo", metric=4294967295, pref="medium") == Route.from_params(
        backstop
    )
    nexthop = {"dst": "10.0.0.0/8", "nexthop_id": 5}
    assert Route(4, "10.0.0.0/8", gateway="192.0.2.2", dev="eth0", nexthop_id=5) == Route.from_params(nexthop)


def test_metric_is_part_of_the_key_and_the_way_is_not() -> None:
    route = Route.from_params(ROUTE)
    assert Route.from_params({**ROUTE, "metric": 5}).key != route.key
    assert Route.from_params({"dst": "10.0.0.0/8", "gateway": "192.0.2.2", "mtu": 1400}).key == route.key


def test_devices_are_filled_in_in_order() -> None:
    wanted = Route.from_params({"dst": "10.0.0.0/8", "nexthops": [{"gateway": "192.0.2.2"}, {"dev": "wg0"}]})
    hops = (Nexthop("192.0.2.2", "eth0"), Nexthop(None, "wg0"))
    assert wanted.by(["eth0", "wg0"]) == Route(4, "10.0.0.0/8", nexthops=hops)
    assert wanted.satisfied_by(Route(4, "10.0.0.0/8", nexthops=hops))
    assert not wanted.satisfied_by(Route(4, "10.0.0.0/8", nexthops=(hops[0], Nexthop(None, "wg1"))))
    assert not wanted.satisfied_by(Route(4, "10.0.0.0/8", gateway="192.0.2.2", dev="eth0"))
    assert Route(4, "10.0.0.0/8", gateway="192.0.2.2").by(["eth0"]) == Route(
        4, "10.0.0.0/8", gateway="192.0.2.2", dev="eth0"
    )
    assert Route(4, "10.0.0.0/8", type="throw").by([]) == Route(4, "10.0.0.0/8", type="throw")


BAD_ROUTES: dict[str, tuple[Params, str, str]] = {
    "no destination": ({"dst": None}, "dst", "default"),
    "host bits": ({"dst": "10.0.0.1/8"}, "dst", "10.0.0.0/8"),
    "no family": ({"dst": "default"}, "family", "ipv4, ipv6"),
    "source of the other family": ({"src": "2001:db8::1"}, "src", "ipv4"),
    "gateway of the other family": ({**ROUTE6, "gateway": "192.0.2.1"}, "gateway", "IPv6"),
    "gateway with length": ({"gateway": "192.0.2.1/24"}, "gateway", "192.0.2.1"),
    "link-local gateway": ({"dev": None, "gateway": "fe80::1"}, "dev", "device"),
    "nowhere": ({"dev": None}, "gateway", "nexthops"),
    "gateway and next hops": ({"gateway": "192.0.2.1", "nexthops": [{"dev": "wg0"}]}, "gateway", "one of the two"),
    "device and next hops": ({"nexthops": [{"dev": "wg1"}]}, "dev", "one of the two"),
    "next hop twice": ({"dev": None, "nexthops": [{"dev": "wg0"}, {"dev": "wg0"}]}, "nexthops[1]", "once"),
    "empty next hop": ({"dev": None, "nexthops": [{"weight": 2}]}, "nexthops[0].gateway", "dev"),
    "weight": ({"dev": None, "nexthops": [{"dev": "wg0", "weight": 257}]}, "nexthops[0].weight", "1 to 256"),
    "next hop by device, IPv6": (
        {**ROUTE6, "dev": None, "nexthops": [{"gateway": "2001:db8::1"}, {"dev": "wg0"}]},
        "nexthops[1].gateway",
        "IPv6",
    ),
    "next hop object and device": ({"nexthop_id": 5}, "dev", "one of the two"),
    "onlink without gateway": ({"onlink": True}, "onlink", "gateway"),
    "onlink without device": ({"dev": None, "gateway": "192.0.2.1", "onlink": True}, "onlink", "dev"),
    "onlink beside next hops": ({"dev": None, "nexthops": [{"dev": "wg0"}], "onlink": True}, "onlink", "nexthops"),
    "error with a device": ({"type": "unreachable"}, "dev", "nowhere"),
    "broadcast with a gateway": ({"type": "broadcast", "gateway": "192.0.2.1"}, "dev", "dev"),
    "type": ({"type": "nat"}, "type", "unicast"),
    "table": ({"table": "inside"}, "table", "main"),
    "metric": ({"metric": 4294967296}, "metric", "4294967295"),
    "scope": ({"scope": "nowhere"}, "scope", "link"),
    "scope beside a gateway": ({"gateway": "192.0.2.1", "scope": "link"}, "scope", "global"),
    "scope, IPv6": ({**ROUTE6, "scope": "link"}, "scope", "global"),
    "preference, IPv4": ({"pref": "high"}, "pref", "IPv6"),
    "preference": ({**ROUTE6, "pref": "best"}, "pref", "high"),
    "type of service, IPv6": ({**ROUTE6, "tos": "0x10"}, "tos", "no tos"),
    "ecn": ({"tos": "0x11"}, "tos", "0x10"),
    "mtu": ({"mtu": 67}, "mtu", "68 to"),
    "mtu, IPv6": ({**ROUTE6, "mtu": 1279}, "mtu", "1280 to"),
    "mss": ({"advmss": 65496}, "advmss", "65495"),
}


@pytest.mark.parametrize("name", BAD_ROUTES)
def test_bad_route_is_refused_in_one_line(name: str) -> None:
    written, field, accepted = BAD_ROUTES[name]
    refused(lambda: Route.from_params({**ROUTE, **written}, field="routes[3]"), f"routes[3].{field}", accepted)


def test_route_that_shall_go_needs_no_way() -> None:
    gone = Route.from_params({"dst": "10.0.0.0/8", "state": "absent"})
    assert gone.key == Route.from_params(ROUTE).key


BAD_TABLES: dict[str, tuple[Params, str, str]] = {
    "main elsewhere": ({"name": "main", "id": 100}, "id", "254"),
    "local by another name": ({"name": "inside", "id": 255}, "name", "local"),
    "default by another name": ({"name": "inside", "id": 253}, "name", "default"),
    "table 0": ({"name": "inside", "id": 0}, "id", "1 to 4294967295"),
    "no number": ({"name": "inside"}, "id", "1 to 4294967295"),
    "number too high": ({"name": "inside", "id": 4294967296}, "id", "4294967295"),
    "number as name": ({"name": "2000", "id": 2000}, "name", "letter"),
    "blank": ({"name": "in side", "id": 2000}, "name", "letter"),
    "line break": ({"name": "inside\n254 x", "id": 2000}, "name", "letter"),
    "remark": ({"name": "#inside", "id": 2000}, "name", "letter"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_table_is_refused_in_one_line(name: str) -> None:
    written, field, accepted = BAD_TABLES[name]
    refused(lambda: Table.from_params(written), field, accepted)


@pytest.mark.parametrize(("release", "known"), [("6.12.74+deb13-amd64", False), ("6.13.0", True), ("10.0", True)])
def test_dscp_is_refused_where_the_kernel_would_ignore_it(release: str, known: bool) -> None:
    rule = Rule.from_params({**FLOW, "dscp": 46})
    if known:
        refuse_unsupported(rule, release)
        return
    with pytest.raises(NotSupported, match="newer kernel") as caught:
        refuse_unsupported(rule, release, field="rules[0]")
    assert caught.value.field == "rules[0].dscp"


def test_length_of_an_interface_address_is_dropped() -> None:
    assert fields.interface_address("198.51.100.10/24", "addresses") == "198.51.100.10"
    refused(lambda: fields.interface_address("198.51.100.10/33", "addresses"), "addresses", "198.51.100.10")


NETWORKS = st.one_of(st.ip_addresses(), st.ip_addresses()).flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda length: ipaddress.ip_network((address, length), strict=False)
    )
)


@given(NETWORKS)
def test_a_prefix_is_the_same_in_every_spelling(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    canonical = fields.prefix(str(network), "dst")
    assert ipaddress.ip_network(canonical) == network
    assert fields.prefix(canonical, "dst") == canonical
    assert fields.prefix(network.exploded.upper(), "dst") == canonical
    assert fields.prefix(fields.shown(canonical), "dst") == canonical


@given(NETWORKS, st.integers(1, 255))
def test_host_bits_are_refused_with_the_network_that_was_meant(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, offset: int
) -> None:
    inside = network.network_address + offset if offset < network.num_addresses else None
    if inside is not None:
        written = f"{inside}/{network.prefixlen}"
        refused(lambda: fields.prefix(written, "dst"), "dst", fields.prefix(str(network), "dst"))


@given(st.integers(0, 4294967295), st.integers(1, 4294967295))
def test_a_mark_is_accepted_if_and_only_if_it_can_match(mark: int, mask: int) -> None:
    written = f"{mark:#x}/{mask}"
    if mark & mask == mark:
        assert fields.mark(written, "fwmark") == (mark, mask)
    else:
        refused(lambda: fields.mark(written, "fwmark"), "fwmark", f"{mark & mask:#x}/{mask:#x}")


@given(st.text(st.characters(), max_size=20))
@example("\0")
@example("\udcff")
def test_whatever_is_written_ends_as_a_value_or_a_clean_refusal(text: str) -> None:
    for reader in (
        fields.prefix,
        fields.address,
        fields.mark,
        fields.ports,
        fields.uids,
        fields.ip_protocol,
        fields.device,
        fields.table_id,
        fields.priority,
        fields.dsfield,
        fields.scope,
        fields.interface_address,
    ):
        with contextlib.suppress(InvalidInput):
            reader(text, "field")


@given(st.ip_addresses(), st.ip_addresses(), st.data())
def test_prefixes_of_an_address_are_those_that_hold_it(address: t.Any, other: t.Any, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, other.max_prefixlen))
    network = ipaddress.ip_network((other, length), strict=False)
    canonical = fields.prefix(f"{network.network_address}/{length}", "dst")
    held = address.version == network.version and address in network
    assert (canonical in fields.prefixes_of(str(address))) is held


@given(st.ip_addresses())
def test_an_address_is_in_a_prefix_of_every_length(address: t.Any) -> None:
    assert len(fields.prefixes_of(str(address))) == address.max_prefixlen + 1
    assert f"{fields.address(str(address), 'a')}/{address.max_prefixlen}" in fields.prefixes_of(str(address))
