# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe as values: which rules and routes come of which declaration on which host."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict, InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.declaration import Numbers
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.fields import table_id
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import LinkGroup, OwnLink, Sysctl
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Address, Link
from ansible_collections.fleetvpn.routing.plugins.module_utils._parse import parse_declaration
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe import Outcome, build
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe.closed import backstops_alone
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe.facts import Facts, Remembered

from tests.unit.plugins.module_utils.hosts import (
    BR0,
    INSIDE,
    LO,
    OUTSIDE,
    UP0,
    UP1,
    H,
    connected,
    default,
    host,
    recipe,
    texts,
)


def test_the_two_identities_of_a_host() -> None:
    assert texts(recipe(), family=4) == [
        "2100: from all iif lo oif vpn0 lookup 2002",
        "2200: from 192.0.2.10 iif lo lookup 254 suppress_prefixlength 1 suppress_ifgroup 151",
        "2201: from 192.0.2.10 iif lo lookup 2001",
        "2202: from 192.0.2.10 iif lo unreachable",
        "2300: from 198.51.100.10 iif lo lookup 2000",
        "2301: from 198.51.100.10 iif lo lookup 2002",
        "2302: from 198.51.100.10 iif lo unreachable",
        "2999: from all nop",
    ]
    assert set(texts(recipe(), "routes", 4)) == {
        "192.0.2.0/24 dev up0 table 2001 scope 253",
        "default via 192.0.2.1 dev up0 table 2001",
        "172.20.0.0/24 dev br0 table 2000 scope 253 src 172.20.0.1",
        "default dev vpn0 table 2002 src 198.51.100.10",
    }


def test_ipv6_gets_the_same() -> None:
    strip = [text.split(":", 1)[0] for text in texts(recipe(), family=6)]
    assert strip == [text.split(":", 1)[0] for text in texts(recipe(), family=4)]
    routes = texts(recipe(), "routes", 6)
    assert "default via 2001:db8:2::1 dev up0 table 2001 metric 1024 pref medium" in routes
    assert "fe80::/64 dev vpn0 table 2002 metric 1024 pref medium" in routes


@pytest.mark.parametrize("family", [4, 6])
def test_a_tunnels_default_names_its_source_and_has_scope_global(family: int) -> None:
    (found,) = [r for r in recipe().desired.routes if r.family == family and r.dev == "vpn0" and r.dst.endswith("/0")]
    assert (found.src, found.scope) == ("198.51.100.10" if family == 4 else "2001:db8:51::10", 0)


def test_a_tunnels_default_carries_mtu_and_advmss() -> None:
    routes = texts(recipe(identities=[{**INSIDE, "mtu": 1280, "advmss": 1200}]), "routes", 4)
    assert "default dev vpn0 table 2001 src 198.51.100.10 mtu 1280 advmss 1200" in routes


def test_no_rule_of_ours_can_be_taken_for_one_of_wg_quick() -> None:
    rules = recipe(unbound="inside", unbound_local="main").desired.rules
    assert {rule.suppress_prefixlength for rule in rules} == {None, 1}


def test_no_rule_inverts() -> None:
    inside = {**INSIDE, "outer": {"fwmark": "0x1/0xff", "uidrange": "100-100"}}
    assert not any(rule.invert for rule in recipe(identities=[OUTSIDE, inside], unbound="inside").desired.rules)


def test_pools_stand_behind_all_addresses_the_longer_first() -> None:
    inside = {**INSIDE, "pools": ["198.51.0.0/16", "198.51.100.0/24", "2001:db8:51::/48"]}
    starts = [text.split(" ")[2] for text in texts(recipe(identities=[OUTSIDE, inside]), family=4) if " iif lo" in text]
    assert list(dict.fromkeys(starts)) == ["all", "192.0.2.10", "198.51.100.10", "198.51.100.0/24", "198.51.0.0/16"]


def test_an_uplinks_address_wins_over_a_pool_that_covers_it() -> None:
    inside = {**INSIDE, "pools": ["192.0.0.0/8"]}
    assert "2201: from 192.0.2.10 iif lo lookup 2001" in texts(recipe(identities=[OUTSIDE, inside]))


def test_an_uplinks_address_inside_a_pool_is_exempt_without_an_identity_of_its_own() -> None:
    outcome = recipe(identities=[{**INSIDE, "pools": ["192.0.0.0/8"]}])
    assert "2299: from 192.0.2.10 iif lo goto 2999" in texts(outcome)


def test_an_address_of_a_roaming_pool_on_the_uplink_is_the_tunnels() -> None:
    facts = host(addresses=[Address(4, "10.30.0.5", 32, "up0")])
    inside = {**INSIDE, "pools": ["10.30.0.0/16"], "address_interface": ["any"]}
    ways = {way.key: way.addresses for way in recipe(facts, [OUTSIDE, inside]).ways}
    assert ways == {"outside": ("192.0.2.10", "2001:db8:2::10"), "inside": ("10.30.0.5",)}


IPSEC: dict[str, t.Any] = {
    "name": "inside",
    "tunnel": {"type": "ipsec", "connection": "hq"},
    "pools": ["10.30.0.0/16", "fd00:30::/64"],
}
ESP0 = Link(9, "xfrm7", "xfrm", 65534, up=True, carrier=True)


class TestIpsec:
    """Where the addresses sit says whether there is a tunnel device; nothing of it has to be declared."""

    @staticmethod
    def on(device: str, length: int = 32, **more: t.Any) -> Facts:
        addresses = [Address(4, "10.30.0.5", length, device), Address(6, "fd00:30::5", 128, device)]
        return host(addresses=addresses, tunnels={}, **more)

    def test_on_a_device_of_a_tunnel_it_is_the_egress(self) -> None:
        outcome = recipe(self.on("xfrm7", links=[ESP0]), [OUTSIDE, IPSEC])
        (inside,) = [way for way in outcome.ways if way.key == "inside"]
        assert (inside.device, inside.by_uplink, inside.addresses) == ("xfrm7", False, ("10.30.0.5", "fd00:30::5"))
        assert [entry.name for entry in outcome.desired.groups] == ["xfrm7"]
        assert "2100: from all iif lo oif xfrm7 lookup 2002" in texts(outcome)

    @pytest.mark.parametrize("holder", ["up0", "lo"])
    @pytest.mark.parametrize(
        "said", [{}, {"interface": ["auto"], "address_interface": ["any"]}, {"interface": ["up0"]}]
    )
    def test_elsewhere_the_uplink_is(self, holder: str, said: dict[str, t.Any]) -> None:
        if said == {"interface": ["up0"]}:
            said = {**said, "address_interface": ["any"]}
        outcome = recipe(self.on(holder), [OUTSIDE, {**IPSEC, **said}])
        ways = {way.key: (way.device, way.addresses, way.gateways) for way in outcome.ways}
        gateways = ("192.0.2.1", "2001:db8:2::1")
        assert ways == {
            "outside": ("up0", ("192.0.2.10", "2001:db8:2::10"), gateways),
            "inside": ("up0", ("10.30.0.5", "fd00:30::5"), gateways),
        }
        assert "default via 192.0.2.1 dev up0 table 2002 src 10.30.0.5" in " ".join(texts(outcome, "routes"))
        # The uplink's own routes count for its address, and sockets bound to it are none of the tunnel's.
        assert outcome.desired.groups == ()
        assert not any("oif up0" in text for text in texts(outcome))

    def test_what_a_hotel_gives_out_is_not_the_tunnels(self) -> None:
        last = {"inside": Remembered(2002, "xfrm7", ("10.30.0.9",))}
        facts = dataclasses.replace(self.on("up0", length=24), addresses=(Address(4, "10.30.0.5", 24, "up0"),))
        outcome = recipe(dataclasses.replace(facts, remembered=last), [OUTSIDE, IPSEC])
        assert {way.key: way.addresses for way in outcome.ways} == {
            "outside": ("10.30.0.5",),
            "inside": ("10.30.0.9",),
        }

    @pytest.mark.parametrize("device", ["xfrm7", "up0"])
    def test_without_an_address_it_is_as_it_was(self, device: str) -> None:
        last = {"inside": Remembered(2002, device, ("10.30.0.5",))}
        outcome = recipe(host(remembered=last, tunnels={}), [OUTSIDE, IPSEC])
        ways = {way.key: way.device for way in outcome.ways}
        assert ways == {"outside": "up0", "inside": device}
        assert "2302: from 10.30.0.5 iif lo unreachable" in texts(outcome)

    def test_something_must_say_which_addresses(self) -> None:
        with pytest.raises(InvalidInput, match="found by its addresses, and none are given"):
            recipe(identities=[{"name": "inside", "tunnel": {"type": "ipsec", "connection": "hq"}}])


class TestBackstop:
    def test_comes_first_while_the_table_is_empty(self) -> None:
        rules = recipe(host(links=(LO, UP0, BR0)), [{**INSIDE, "addresses": ["198.51.100.10"]}]).desired.rules
        order = [rule.priority for rule in rules if rule.src == "198.51.100.10/32"]
        assert order == [2302, 2300, 2301]

    def test_comes_right_after_where_there_is_a_way(self) -> None:
        order = [rule.priority for rule in recipe().desired.rules if rule.src == "198.51.100.10/32"]
        assert order == [2300, 2301, 2302]

    def test_stays_while_the_vpn_is_away(self) -> None:
        facts = host(links=(LO, UP0, BR0), addresses=H.addresses[:3])
        last = {"inside": Remembered(2002, "vpn0", ("198.51.100.10",))}
        outcome = recipe(dataclasses.replace(facts, remembered=last))
        assert "2302: from 198.51.100.10 iif lo unreachable" in texts(outcome)
        assert ("inside", 4) not in outcome.ready

    @pytest.mark.parametrize("moved", [False, True])
    def test_stays_until_the_other_family_is_back_too(self, moved: bool) -> None:
        there = [*H.addresses[:3], *(a for a in H.addresses if a.address == "198.51.100.10")]
        addresses = (*there, Address(6, "2001:db8:51::10", 128, "br0")) if moved else tuple(there)
        last = {"inside": Remembered(2002, "vpn0", ("198.51.100.10", "2001:db8:51::10"))}
        outcome = recipe(dataclasses.replace(host(addresses=addresses), remembered=last))
        assert ("2302: from 2001:db8:51::10 iif lo unreachable" in texts(outcome)) == (not moved)
        assert "2302: from 198.51.100.10 iif lo unreachable" in texts(outcome)

    def test_of_stated_addresses_is_for_these_alone(self) -> None:
        last = {"inside": Remembered(2002, "vpn0", ("198.51.100.10", "2001:db8:51::99"))}
        stated = {**INSIDE, "addresses": ["198.51.100.10"]}
        outcome = recipe(dataclasses.replace(H, remembered=last), [OUTSIDE, stated])
        assert not [text for text in texts(outcome) if "::99" in text]

    def test_can_be_left_out(self) -> None:
        outcome = recipe(identities=[{**INSIDE, "backstop": False}])
        assert not [rule for rule in outcome.desired.rules if rule.action == "unreachable"]


class TestRetired:
    """A tunnel came back with other addresses: open sockets must not send from the old ones by the uplink."""

    def outcome(self, last: Remembered, *identities: dict[str, t.Any]) -> Outcome:
        facts = dataclasses.replace(H, remembered={"inside": last})
        return recipe(facts, identities or [OUTSIDE, INSIDE])

    def test_the_old_address_keeps_its_rules(self) -> None:
        rules = texts(self.outcome(Remembered(2002, "vpn0", ("198.51.100.9",))), family=4)
        assert [rule for rule in rules if "198.51.100.9 " in rule] == [
            "2300: from 198.51.100.9 iif lo lookup 2000",
            "2301: from 198.51.100.9 iif lo lookup 2002",
            "2302: from 198.51.100.9 iif lo unreachable",
        ]

    def test_only_the_last_few_of_each_family(self) -> None:
        earlier = tuple(f"198.51.100.{number}" for number in range(20, 30))
        way = self.outcome(Remembered(2002, "vpn0", ("2001:db8:51::9",), (), earlier)).ways[1]
        assert way.retired == ("198.51.100.20", "198.51.100.21", "198.51.100.22", "198.51.100.23", "2001:db8:51::9")

    def test_an_address_that_somebody_holds_is_his(self) -> None:
        assert self.outcome(Remembered(2002, "vpn0", ("172.20.0.1",))).ways[1].retired == ()

    def test_stated_addresses_are_all_there_are(self) -> None:
        inside = {**INSIDE, "addresses": ["198.51.100.10"]}
        assert self.outcome(Remembered(2002, "vpn0", ("198.51.100.9",)), inside).ways[0].retired == ()


class TestLocalNetworks:
    def test_a_route_of_main_inside_a_bridges_prefix_is_thrown(self) -> None:
        facts = host(main=[Route(4, "172.20.0.192/28", dev="vpn0", scope=253, protocol=BR0.index)])
        assert "throw 172.20.0.192/28 table 2000" in texts(recipe(facts), "routes")

    def test_a_bridge_with_a_port_of_hardware_is_an_uplink(self) -> None:
        facts = host(links=(*H.links, Link(9, "eth0", None, 1, up=True, carrier=True, master=BR0.index)))
        assert not [r for r in recipe(facts).desired.routes if r.table == 2000]

    def test_pods_on_devices_without_address_are_named(self) -> None:
        pod = Route(4, "10.244.1.5/32", dev="cali0", scope=253, protocol=3)
        facts = host(links=(*H.links, Link(9, "cali0", "veth", 1, up=True, carrier=True)), main=[pod])
        routes = texts(recipe(facts, local_networks=["auto", "cali*"]), "routes")
        assert "10.244.1.5 dev cali0 table 2000 scope 253" in routes

    def test_an_equal_prefix_by_an_outer_device_wins_by_its_metric(self) -> None:
        facts = host(main=[dataclasses.replace(connected("up0", "172.20.0.0/24", "192.0.2.10"), metric=0)])
        slower = dataclasses.replace(connected("br0", "172.20.0.0/24", "172.20.0.1"), metric=100)
        main = (*(r for r in facts.main if r.dev != "br0"), slower)
        assert "throw 172.20.0.0/24 table 2000" in texts(recipe(dataclasses.replace(facts, main=main)), "routes")


class TestGateway:
    def test_outside_the_links_prefix_is_onlink(self) -> None:
        facts = dataclasses.replace(
            H,
            addresses=(Address(4, "192.0.2.10", 32, "up0"),),
            main=(default("up0", "172.31.1.1"), Route(4, "172.31.1.1/32", dev="up0", scope=253, protocol=16)),
        )
        assert "default via 172.31.1.1 dev up0 table 2001 onlink" in texts(recipe(facts, [OUTSIDE]), "routes")

    def test_is_not_fooled_by_a_vpn_that_replaced_the_default(self) -> None:
        main = tuple(r for r in H.main if r.dst != "0.0.0.0/0")
        taken = (default("vpn0", None), Route(4, "203.0.113.9/32", gateway="192.0.2.1", dev="up0", protocol=3))
        outcome = recipe(dataclasses.replace(H, main=(*main, *taken)))
        assert "default via 192.0.2.1 dev up0 table 2001" in texts(outcome, "routes")

    def test_is_found_in_a_family_for_which_none_is_stated(self) -> None:
        outcome = recipe(identities=[{**OUTSIDE, "gateway": ["192.0.2.1"]}])
        assert outcome.ways[0].gateways == ("192.0.2.1", "2001:db8:2::1")

    def test_is_not_asked_for_in_such_a_family(self) -> None:
        back = {"name": "back", "interface": ["up1"], "gateway": ["2001:db8:9::1"]}
        facts = _two_uplinks()
        facts = dataclasses.replace(facts, addresses=(*facts.addresses, Address(6, "2001:db8:9::10", 64, "up1")))
        outcome = recipe(facts, [{"name": "front", "interface": ["up0"]}, back])
        assert outcome.ways[1].gateways == ("2001:db8:9::1",)

    def test_is_not_fooled_by_halves(self) -> None:
        halves = [Route(4, dst, dev="vpn0", scope=253, protocol=3) for dst in ("0.0.0.0/1", "128.0.0.0/1")]
        assert texts(recipe(host(main=halves)), "routes", 4)[:2] == texts(recipe(), "routes", 4)[:2]

    def test_of_a_second_uplink_comes_from_its_lease(self) -> None:
        facts = dataclasses.replace(_two_uplinks(), leases={"up1": ("10.9.0.1",)})
        outcome = recipe(facts, [{"name": "front", "interface": ["up0"]}, {"name": "back", "interface": ["up1"]}])
        assert "default via 10.9.0.1 dev up1 table 2002" in texts(outcome, "routes")

    def test_of_a_second_uplink_is_asked_for_where_nothing_tells_it(self) -> None:
        with pytest.raises(InvalidInput, match="identity back: gateway: 'auto' finds no gateway on up1"):
            recipe(_two_uplinks(), [{"name": "front", "interface": ["up0"]}, {"name": "back", "interface": ["up1"]}])


def _two_uplinks() -> Facts:
    return host(
        links=(*H.links, UP1),
        addresses=[Address(4, "10.9.0.10", 24, "up1")],
        main=[connected("up1", "10.9.0.0/24", "10.9.0.10")],
    )


def test_two_uplinks_are_both_in_the_group_and_carry_their_own_routes() -> None:
    static = Route(4, "10.50.0.0/16", gateway="10.9.0.254", dev="up1", protocol=3)
    facts = dataclasses.replace(_two_uplinks(), main=(*_two_uplinks().main, static))
    identities = [
        {"name": "front", "interface": ["up0"]},
        {"name": "back", "interface": ["up1"], "gateway": ["10.9.0.1"]},
    ]
    outcome = recipe(facts, [*identities, INSIDE])
    assert {entry.name for entry in outcome.desired.groups} == {"up0", "up1", "vpn0"}
    assert "10.50.0.0/16 via 10.9.0.254 dev up1 table 2002 onlink" in texts(outcome, "routes")


def test_a_pattern_gives_each_uplink_a_table() -> None:
    facts = dataclasses.replace(_two_uplinks(), leases={"up1": ("10.9.0.1",)})
    outcome = recipe(facts, [{"name": "outside", "interface": ["up*"]}])
    assert [(way.key, way.device, way.table) for way in outcome.ways] == [
        ("outside", "up0", 2001),
        ("outside.up1", "up1", 2002),
    ]


def test_the_group_is_set_on_tunnels_alone() -> None:
    assert recipe().desired.groups == (LinkGroup("vpn0", 151),)


class TestUnbound:
    def test_is_source_zero_and_nothing_else(self) -> None:
        rules = texts(recipe(unbound="inside", unbound_local="main"), family=4)
        assert [rule for rule in rules if rule.startswith(("298", "299"))] == [
            "2984: from all iif lo oif up0 goto 2999",
            "2992: from 0.0.0.0 iif lo lookup 2000",
            "2993: from 0.0.0.0 iif lo lookup 254 suppress_prefixlength 1",
            "2994: from 0.0.0.0 iif lo lookup 2002",
            "2999: from all nop",
        ]

    def test_is_behind_the_pair_of_halves_in_ipv6(self) -> None:
        rules = texts(recipe(unbound="inside"), family=6)
        assert [rule for rule in rules if rule.startswith(("298", "299"))] == [
            "2984: from all iif lo oif up0 goto 2999",
            "2985: from ::/1 iif lo goto 2999",
            "2985: from 8000::/1 iif lo goto 2999",
            "2992: from all iif lo lookup 2000",
            "2994: from all iif lo lookup 2002",
            "2999: from all nop",
        ]

    def test_takes_forwarded_traffic_along_on_request(self) -> None:
        rules = texts(recipe(unbound="inside", unbound_forwarded=["br*"]), family=4)
        assert "2994: from all iif br0 lookup 2002" in rules

    def test_names_an_identity_of_the_set(self) -> None:
        with pytest.raises(InvalidInput, match="unbound: 'other' is no identity"):
            recipe(unbound="other")


class TestSysctls:
    WORDS: t.ClassVar = ["rp_filter", "arp", "use_oif_addrs_only"]

    def found(self, facts: Facts, *words: str) -> dict[str, str]:
        return {entry.name: entry.value for entry in recipe(facts, sysctls=list(words)).desired.sysctls}

    def test_are_none_unless_asked_for(self) -> None:
        assert self.found(host(sysctl=lambda _path: "0")) == {}

    def test_concern_the_uplinks(self) -> None:
        assert self.found(host(sysctl=lambda _path: "0"), *self.WORDS) == {
            "ipv4/conf/up0/rp_filter": "1",
            "ipv4/conf/up0/arp_ignore": "1",
            "ipv4/conf/up0/arp_announce": "2",
            "ipv6/conf/up0/use_oif_addrs_only": "1",
        }

    def test_that_the_kernel_lacks_are_left_out(self) -> None:
        assert self.found(host(sysctl=lambda path: "0" if "ipv4" in path else None), "use_oif_addrs_only") == {}


class TestKillSwitch:
    def test_of_unbound_traffic_ends_in_a_table_that_leads_nowhere(self) -> None:
        outcome = recipe(unbound="inside", unbound_backstop=True)
        assert [r for r in texts(outcome, family=4) if r.startswith("2995")] == [
            "2995: from 0.0.0.0 iif lo lookup 2003"
        ]
        assert [r for r in texts(outcome, family=6) if r.startswith("2995")] == ["2995: from all iif lo lookup 2003"]
        assert [route for route in texts(outcome, "routes") if "table 2003" in route] == [
            "unreachable default table 2003 metric 4294967295",
            "default dev fleetvpn0 table 2003 metric 1024 pref medium",
        ]
        assert outcome.desired.links == (OwnLink("fleetvpn0"),)
        assert ("fleetvpn_none", 2003) in outcome.names

    def test_closes_a_family_that_the_identity_lacks(self) -> None:
        outcome = recipe(
            identities=[OUTSIDE, {**INSIDE, "families": ["ipv4"]}], unbound="inside", unbound_backstop=True
        )
        assert [r.split(": ")[0] for r in texts(outcome, family=6) if r.startswith("299")] == ["2992", "2995", "2999"]

    def test_leaves_a_family_alone_that_the_host_lacks(self) -> None:
        facts = dataclasses.replace(H, addresses=tuple(a for a in H.addresses if a.family == 4))
        outcome = recipe(facts, unbound="inside", unbound_backstop=True)
        assert not [r for r in texts(outcome, family=6) if r.startswith("2995")]
        assert outcome.desired.links == ()

    def test_comes_before_the_lookup_while_the_table_is_empty(self) -> None:
        facts = host(links=(LO, UP0, BR0), addresses=H.addresses[:3])
        inside = {**INSIDE, "addresses": ["198.51.100.10"]}
        rules = recipe(facts, [OUTSIDE, inside], unbound="inside", unbound_backstop=True).desired.rules
        assert [r.priority for r in rules if r.family == 4 and r.priority in (2994, 2995)] == [2995, 2994]


class TestWhatMainHasNoWayFor:
    """IPv6 would try again with the tunnel's address."""

    WITHOUT = dataclasses.replace(H, main=tuple(r for r in H.main if r.dst != "::/0"))

    def test_stays_without_behind_main(self) -> None:
        outcome = recipe(self.WITHOUT)
        assert [r for r in texts(outcome, family=6) if r.startswith("34768")] == ["34768: from all iif lo lookup 2003"]
        assert [r for r in texts(outcome, "routes") if "table 2003" in r] == [
            "default dev fleetvpn0 table 2003 metric 1024 pref medium"
        ]
        assert outcome.desired.links == (OwnLink("fleetvpn0"),)

    @pytest.mark.parametrize(
        "facts",
        [
            H,
            dataclasses.replace(WITHOUT, addresses=tuple(a for a in H.addresses if (a.family, a.dev) != (6, "vpn0"))),
        ],
        ids=["a default", "no address on the tunnel"],
    )
    def test_needs_nothing_where_nothing_would_take_it(self, facts: Facts) -> None:
        assert recipe(facts).desired.links == ()


class TestFollow:
    MARK: t.ClassVar = {"mark": "0x1000000/0xf000000"}
    FOLLOWED: t.ClassVar = {**INSIDE, "follow_connections": True}

    def test_routes_both_directions(self) -> None:
        rules = texts(recipe(identities=[OUTSIDE, self.FOLLOWED], **self.MARK), family=4)
        assert [rule for rule in rules if rule.startswith("205")] == [
            "2050: from all fwmark 0x1000000/0xf000000 iif vpn0 goto 2999",
            "2051: from all fwmark 0x1000000/0xf000000 lookup 2000",
            "2052: from all fwmark 0x1000000/0xf000000 lookup 2002",
            "2053: from all fwmark 0x1000000/0xf000000 unreachable",
        ]

    def test_marks_connections_and_restores_in_both_directions(self) -> None:
        guard = recipe(identities=[OUTSIDE, self.FOLLOWED], **self.MARK, strict_egress="false").desired.guard
        assert guard is not None
        mark = "meta mark set meta mark & 0xf1ffffff | 0x1000000"
        assert [line.strip() for line in guard.lines() if "mark" in line] == [
            'iifname "vpn0" ct state new ct mark set ct mark & 0xf1ffffff | 0x1000000',
            f"ct mark & 0xf000000 == 0x1000000 {mark}",
            f"ct state related ct mark & 0xf000000 == 0x1000000 {mark}",
        ]

    def test_gives_flows_of_an_uplink_a_mark_under_a_full_tunnel(self) -> None:
        outcome = recipe(unbound="inside", **self.MARK)
        assert "2049: from all fwmark 0x1000000/0xf000000 goto 2999" in texts(outcome, family=4)
        assert not [r for r in texts(recipe(**self.MARK)) if "fwmark" in r]

    def test_says_what_strict_filtering_needs(self) -> None:
        facts = host(sysctl=lambda path: "1" if path.endswith("all/rp_filter") else "0")
        (remark,) = recipe(facts, [OUTSIDE, self.FOLLOWED], **self.MARK).warnings
        assert "sysctls: [src_valid_mark]" in remark
        allowed = recipe(facts, [OUTSIDE, self.FOLLOWED], **self.MARK, sysctls=["src_valid_mark"])
        assert (allowed.warnings, allowed.desired.sysctls) == ((), (Sysctl("ipv4/conf/vpn0/src_valid_mark", "1"),))


class TestPins:
    PIN: t.ClassVar = {"pin": [{"ipproto": "udp", "sport": "53"}]}

    def test_of_a_tunnel_are_source_zero(self) -> None:
        rules = texts(recipe(identities=[OUTSIDE, {**INSIDE, **self.PIN}]), family=4)
        assert [rule for rule in rules if rule.startswith("298")] == [
            "2984: from all iif lo oif up0 goto 2999",
            "2986: from 0.0.0.0 iif lo ipproto udp sport 53 lookup 2000",
            "2987: from 0.0.0.0 iif lo ipproto udp sport 53 lookup 2002",
            "2988: from 0.0.0.0 iif lo ipproto udp sport 53 lookup 2003",
        ]

    def test_of_an_uplink_spare_what_main_knows_better(self) -> None:
        rules = texts(recipe(identities=[{**OUTSIDE, **self.PIN}, INSIDE], unbound="inside"), family=6)
        assert [rule for rule in rules if rule.startswith(("298", "299"))] == [
            "2984: from all iif lo oif up0 goto 2999",
            "2985: from ::/1 iif lo goto 2999",
            "2985: from 8000::/1 iif lo goto 2999",
            "2986: from all iif lo ipproto udp sport 53 lookup 254 suppress_prefixlength 1 suppress_ifgroup 151",
            "2987: from all iif lo ipproto udp sport 53 lookup 2001",
            "2992: from all iif lo lookup 2000",
            "2994: from all iif lo lookup 2002",
            "2999: from all nop",
        ]

    def test_stay_out_of_a_family_that_the_identity_has_not(self) -> None:
        inside = {**INSIDE, **self.PIN, "families": ["ipv4"]}
        assert not [r for r in texts(recipe(identities=[OUTSIDE, inside]), family=6) if "sport" in r]


class TestOuter:
    def test_packets_leave_the_block_first(self) -> None:
        inside = {**INSIDE, "outer": {"fwmark": "0xca6c", "uidrange": "100-200"}}
        rules = texts(recipe(identities=[inside]), family=4)
        assert rules[:2] == [
            "2000: from all fwmark 0xca6c iif lo goto 2999",
            "2000: from all iif lo uidrange 100-200 goto 2999",
        ]


class TestDestinations:
    def test_are_routes_of_main_with_a_metric_of_our_own(self) -> None:
        outcome = recipe(identities=[{**INSIDE, "destinations": ["10.0.0.0/8"], "destinations_backstop": True}])
        main = [text for text in texts(outcome, "routes") if "table 254" in text]
        assert main == [
            "10.0.0.0/8 dev vpn0 table 254 scope 253 src 198.51.100.10 metric 151",
            "unreachable 10.0.0.0/8 table 254 metric 4294967295",
        ]

    def test_wait_for_the_address(self) -> None:
        facts = dataclasses.replace(H, addresses=H.addresses[:3])
        outcome = recipe(facts, [{**INSIDE, "destinations": ["10.0.0.0/8"], "addresses": ["198.51.100.10"]}])
        assert not [route for route in outcome.desired.routes if route.table == 254]


def test_tables_keep_their_numbers_and_others_are_passed_over() -> None:
    known = {"local": Remembered(2007), "inside": Remembered(2003)}
    facts = dataclasses.replace(H, remembered=known, is_free=lambda number: number != 2000)
    assert {way.key: way.table for way in recipe(facts).ways} == {"outside": 2001, "inside": 2003}


def test_no_two_sets_name_a_table_alike() -> None:
    pairs = [("main", "x_y"), ("x", "y"), ("x", "y_z"), ("x_y", "z")]
    named = [name for set_name, identity in pairs for name in names_of(set_name, identity)]
    assert named[:2] == ["fleetvpn_local", "fleetvpn_x_y"]
    assert named[2:4] == ["fleetvpn.x.local", "fleetvpn.x.y"]
    assert len(set(named)) == len(named) - 1  # the second table local of set x


def names_of(set_name: str, identity: str) -> list[str]:
    declaration = parse_declaration(set_name, {"identities": [{**INSIDE, "name": identity}]}, Numbers(), table_id)
    return [name for name, _number in build(declaration, H).names]


@pytest.mark.parametrize("key", ["local", "outside", "none"])
def test_a_table_that_the_host_has_for_something_else_is_refused(key: str) -> None:
    facts = dataclasses.replace(H, remembered={key: Remembered(2000)})
    options = {"unbound": "inside", "unbound_backstop": True}
    with pytest.raises(InvalidInput, match=f"this host has for {key} already") as caught:
        recipe(facts, [OUTSIDE, {**INSIDE, "table": "2000"}], **options)
    assert (caught.value.field, caught.value.value) == ("identities[1].table", 2000)


def test_a_table_goes_from_one_identity_to_another() -> None:
    known = {"outside": Remembered(2001), "inside": Remembered(2002), "gone": Remembered(2003)}
    facts = dataclasses.replace(H, remembered=known)
    exchanged = recipe(facts, [{**OUTSIDE, "table": "2002"}, {**INSIDE, "table": "2003"}])
    assert {way.key: way.table for way in exchanged.ways} == {"outside": 2002, "inside": 2003}


INTO = {"destinations": ["10.0.0.0/8"]}
DEFAULT = {"dst": "default", "gateway": "192.0.2.7", "dev": "up0", "table": "2002"}
COLLISIONS: dict[str, tuple[dict[str, t.Any], str]] = {
    "destinations": ({"identities": [{**OUTSIDE, **INTO}, {**INSIDE, **INTO}]}, "identities[1].destinations"),
    "default": ({"routes": [DEFAULT]}, "routes[0]"),
}


@pytest.mark.parametrize("name", COLLISIONS)
def test_two_routes_that_the_kernel_takes_for_one_are_refused(name: str) -> None:
    params, field = COLLISIONS[name]
    with pytest.raises(InvalidInput, match=r"stands in the way of '(default|10\.0\.0\.0/8) .*dev ") as caught:
        recipe(**params)
    assert caught.value.field == field
    assert "dev " in str(caught.value.value)


@pytest.mark.parametrize("name", COLLISIONS)
def test_at_boot_the_first_of_them_stays(name: str) -> None:
    params = {"identities": [OUTSIDE, INSIDE], **COLLISIONS[name][0]}
    outcome = build(parse_declaration("main", params, Numbers(), table_id), H, patient=True)
    assert len({route.key for route in outcome.desired.routes}) == len(outcome.desired.routes)
    assert [line.partition(" is left out: ")[1] for line in outcome.warnings] == [" is left out: "]


def test_a_stated_priority_stays_in_the_part_of_its_kind() -> None:
    assert "2351: from 198.51.100.10 iif lo lookup 2002" in texts(
        recipe(identities=[OUTSIDE, {**INSIDE, "priority": 2350}])
    )
    with pytest.raises(InvalidInput, match="accepted: 2300 to 2597"):
        recipe(identities=[OUTSIDE, {**INSIDE, "priority": 2200}])


def test_one_address_on_two_tunnels_is_refused() -> None:
    facts = host(
        links=(*H.links, Link(9, "vpn1", "tun", 65534, up=True)), addresses=[Address(4, "198.51.100.10", 32, "vpn1")]
    )
    facts = dataclasses.replace(facts, tunnels={"inside": "vpn0", "second": "vpn1"})
    second = {"name": "second", "tunnel": {"type": "openvpn", "connection": "vpn1"}}
    with pytest.raises(Conflict, match=r"198\.51\.100\.10"):
        recipe(facts, [INSIDE, second])


def test_an_elastic_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'203\.0\.113\.77' is not on this host"):
        recipe(identities=[{**OUTSIDE, "addresses": ["203.0.113.77"]}])


def test_ipv6_alone() -> None:
    facts = dataclasses.replace(
        H, addresses=tuple(a for a in H.addresses if a.family == 6), main=tuple(r for r in H.main if r.family == 6)
    )
    outcome = recipe(facts)
    assert outcome.ready == {("inside", 6), ("outside", 6)}
    assert not [r for r in outcome.desired.routes if r.family == 4]


class TestClosed:
    """A set that cannot be applied at boot leaves no address of a tunnel open, and cuts no uplink off."""

    inside = {**INSIDE, "pools": ["192.0.0.0/8"]}  # noqa: RUF012 -- the hotel's network lies inside the pool
    rules = recipe(identities=[OUTSIDE, inside], unbound="inside", unbound_local="main").desired.rules
    alone = backstops_alone(rules, 2000)

    def test_only_backstops_of_tunnels_and_what_spares_the_uplink(self) -> None:
        found = [rule.text().replace("\t", " ") for rule in self.alone if rule.family == 4]
        assert found == [
            "2999: from all nop",
            "2299: from 192.0.2.10 iif lo goto 2999",
            "2302: from 198.51.100.10 iif lo unreachable",
            "2674: from 192.0.0.0/8 iif lo unreachable",
        ]

    def test_the_uplink_is_spared_before_a_pool_is_closed(self) -> None:
        kinds = [rule.action for rule in self.alone]
        assert kinds == sorted(kinds, key=["nop", "goto", "unreachable"].index)
