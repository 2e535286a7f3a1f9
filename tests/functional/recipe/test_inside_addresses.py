# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the inside address may sit, pools that cover more than it, the tunnel's own link, and a VPN that is down."""

from __future__ import annotations

import typing as t

import pytest

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import (
    BOUND,
    CORP,
    EXEMPT,
    INET,
    OUTER,
    T_CORP,
    TUNNEL,
    TUNNEL_LOCAL,
    TUNNEL_STOP,
    UPLINK,
    Endpoint,
    Question,
    ask,
)
from tests.lab import addresses as plan

HOLDERS = ("vpn0", "lo", "up0", "br0")
LENGTH = {4: 32, 6: 128}


def move(endpoint: Endpoint, holder: str) -> dict[str, t.Any]:
    """Put the inside addresses on another device; the identity that says so."""
    for family, address in endpoint.inside.items():
        endpoint.ip(f"addr del {address}/{LENGTH[family]} dev vpn0")
        endpoint.host.address(holder, f"{address}/{LENGTH[family]}")
    return {**CORP, "addresses": list(endpoint.inside.values()), "address_interface": [holder]}


class TestHolder:
    """Some VPNs put the inside address on the uplink or on lo, and people put it on a bridge."""

    @pytest.mark.parametrize("holder", HOLDERS)
    @pytest.mark.parametrize("families", [(4, 6), (4,), (6,)])
    def test_full_tunnel(self, make: Make, holder: str, families: tuple[int, ...]) -> None:
        endpoint = make(mode="identity", families=families)
        corp = move(endpoint, holder)
        endpoint.apply(corp, INET, unbound="corp", unbound_local="main")
        unbound = endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))
        assert endpoint.wrong(unbound, endpoint.both(endpoint.identities)) == []
        assert endpoint.wrong(endpoint.both(endpoint.neighbourhood)) == []

    @pytest.mark.parametrize("holder", ["up0", "br0"])
    def test_without_its_source_the_default_sends_unbound_traffic_by_the_uplink(self, make: Make, holder: str) -> None:
        endpoint = make(mode="identity")
        endpoint.apply(move(endpoint, holder), INET, unbound="corp")
        endpoint.ip(f"route replace default dev vpn0 table {T_CORP} scope global")
        answer = endpoint.lab.probe(endpoint.host, plan.ANYCAST[0], "tcp")
        assert (answer.name, answer.seen) == (UPLINK, endpoint.outside[4])

    def test_a_found_pool_address_on_any_device(self, make: Make) -> None:
        endpoint = make(mode="identity")
        corp = move(endpoint, "lo")
        del corp["addresses"]
        corp.update(address_interface=["any"], pools=list(plan.OTHER_POOL))
        endpoint.apply(corp, INET, unbound="corp")
        unbound = endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))
        assert endpoint.wrong(unbound, endpoint.both(endpoint.identities)) == []

    @pytest.mark.parametrize("holder", HOLDERS)
    def test_the_first_of_several_is_the_source(self, make: Make, holder: str) -> None:
        endpoint = make(mode="identity")
        corp = move(endpoint, holder)
        more = {4: plan.shifted(endpoint.inside[4], 2000), 6: plan.shifted(endpoint.inside[6], 0x20000)}
        for family, address in more.items():
            endpoint.host.address(holder, f"{address}/{LENGTH[family]}")
            endpoint.lab.gateway.route(f"{address}/{LENGTH[family]}", dev=f"s-{endpoint.name}")
        endpoint.apply({**corp, "addresses": [*endpoint.inside.values(), *more.values()]}, INET, unbound="corp")
        unbound = endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))
        second = [q for f, a in more.items() for q in ask(endpoint.host, plan.ANYCAST[f == 6], TUNNEL, a, source=a)]
        assert endpoint.wrong(unbound, second, endpoint.both(endpoint.identities)) == []


class TestPools:
    # They cover the inside and the outside addresses of the lab.
    WIDE: t.ClassVar = {**CORP, "pools": ["198.16.0.0/12", "2001:db8::/32"]}

    @pytest.mark.parametrize("identities", [(WIDE, INET), (WIDE,), (INET, WIDE)], ids=["listed", "alone", "reversed"])
    def test_a_pool_does_not_take_the_uplinks_address(
        self, make: Make, identities: tuple[dict[str, t.Any], ...]
    ) -> None:
        endpoint = make(mode="identity")
        endpoint.apply(*identities)
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []

    def test_without_the_exemption_it_does(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply(self.WIDE)
        endpoint.drop_rules(EXEMPT)
        astray = endpoint.wrong(endpoint.both(endpoint.neighbourhood))
        for at, address in enumerate(endpoint.outside.values()):
            assert [text for text in astray if text.startswith(f"nbr0  -> {address}")], at

    def test_the_tunnels_own_packets_stay_outside_even_then(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply({**self.WIDE, "outer": {"fwmark": "0x99/0xff"}})
        endpoint.drop_rules(EXEMPT)
        outer = [
            q
            for f, a in endpoint.outside.items()
            for q in ask(endpoint.host, plan.ANYCAST[f == 6], UPLINK, a, source=a, mark=0x99)
        ]
        assert endpoint.wrong(outer) == []
        endpoint.drop_rules(OUTER)
        assert len(endpoint.wrong(outer)) == len(outer)

    @pytest.mark.parametrize("identities", [1, 2])
    def test_the_uplinks_address_moves_into_a_pool(self, make: Make, identities: int) -> None:
        endpoint = make(mode="identity")
        corp = {**CORP, "pools": [*plan.OTHER_POOL, "198.19.0.248/29", "2001:db8:2::f00/120"]}
        number = 248 + identities
        fresh = {4: f"198.19.0.{number}", 6: f"2001:db8:2::f{number - 240:02x}"}
        declared = (corp, INET)[:identities]
        endpoint.apply(*declared)
        for family, length in ((4, 24), (6, 64)):
            endpoint.ip(f"addr del {endpoint.outside[family]}/{length} dev up0")
            endpoint.host.address("up0", f"{fresh[family]}/{length}")
        endpoint.ip(f"route replace default via {plan.in_lan(0, 1)[0]} dev up0")
        endpoint.outside = fresh
        # Until somebody looks again, the pool takes it.
        astray = endpoint.wrong(endpoint.both(endpoint.identities))
        assert [text for text in astray if fresh[4] in text]
        endpoint.apply()
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []

    def test_an_address_of_the_pool_that_nobody_knows_yet(self, endpoint: Endpoint) -> None:
        """It comes up between two runs: the pool's rules are there already."""
        endpoint.apply({**CORP, "pools": list(plan.OTHER_POOL)}, INET)
        fresh = {4: plan.shifted(endpoint.inside[4], 4000), 6: plan.shifted(endpoint.inside[6], 0x40000)}
        with endpoint.capture() as seen:
            for family, address in fresh.items():
                endpoint.host.address("vpn0", f"{address}/{LENGTH[family]}")
                endpoint.lab.gateway.route(f"{address}/{LENGTH[family]}", dev=f"s-{endpoint.name}")
            questions = [
                q
                for f, a in fresh.items()
                for q in (
                    *ask(endpoint.host, plan.ANYCAST[f == 6], TUNNEL, a, source=a),
                    *ask(endpoint.container, a, endpoint.name, plan.CONTAINER[f == 6]),
                )
            ]
            assert endpoint.wrong(questions) == []
        for address in fresh.values():
            assert "up0" not in seen.left_by(source=address)

    def test_without_a_pool_it_leaves_by_the_uplink(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        fresh = plan.shifted(endpoint.inside[4], 5000)
        endpoint.host.address("vpn0", f"{fresh}/32")
        with endpoint.capture() as seen:
            endpoint.lab.probe(endpoint.host, plan.ANYCAST[0], "udp", source=fresh, timeout=0.1)
        assert seen.left_by(source=fresh) == {"up0"}

    def test_the_longer_pool_wins(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply({**CORP, "pools": ["10.0.0.0/8", "10.1.0.0/16"]}, INET)
        order = [rule["src"] for rule in endpoint.host.ip_json("-4", "rule") if rule.get("src", "").startswith("10.")]
        assert order == ["10.1.0.0"] * 3 + ["10.0.0.0"] * 3


class TestTunnelsLink:
    """Sockets bound to the tunnel's device, and link-local neighbours on it."""

    def bound(self, endpoint: Endpoint, family: int) -> list[Question]:
        return ask(endpoint.host, plan.ANYCAST[family == 6], TUNNEL, endpoint.inside[family], dev="vpn0")

    def test_sockets_bound_to_the_device(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply(CORP, INET)
        assert endpoint.wrong(endpoint.both(lambda family: self.bound(endpoint, family))) == []

    def test_without_its_rule_ipv6_finds_no_way(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply(CORP, INET)
        endpoint.drop_rules(BOUND)
        assert endpoint.wrong(self.bound(endpoint, 4)) == []
        assert [text.partition(": ")[2][:11] for text in endpoint.wrong(self.bound(endpoint, 6))] == ["ENETUNREACH"] * 3

    @pytest.fixture
    def linked(self, make: Make) -> tuple[Endpoint, list[Question]]:
        endpoint = make(mode="identity")
        endpoint.ip("-6 addr del " + endpoint.link_local(endpoint.host, "vpn0") + "/64 dev vpn0")
        endpoint.host.address("vpn0", "fe80::2/64")
        endpoint.lab.gateway.address(f"s-{endpoint.name}", "fe80::1/64")
        questions = ask(endpoint.host, f"fe80::1%{endpoint.host.index('vpn0')}", "gw")
        return endpoint, questions

    def source(self, endpoint: Endpoint, questions: list[Question]) -> set[str]:
        with endpoint.capture() as seen:
            endpoint.wrong(questions)
        return {packet.source for packet in seen.seen(outgoing=True, destination="fe80::1", dev="vpn0")}

    def test_link_local_neighbours_see_a_link_local_source(self, linked: tuple[Endpoint, list[Question]]) -> None:
        endpoint, questions = linked
        assert self.source(endpoint, questions) == {"fe80::2"}
        endpoint.apply(CORP, INET)
        assert self.source(endpoint, questions) == {"fe80::2"}
        assert endpoint.wrong(questions) == []

    def test_without_the_links_routes_they_see_the_inside_address(
        self, linked: tuple[Endpoint, list[Question]]
    ) -> None:
        endpoint, questions = linked
        endpoint.apply(CORP, INET)
        endpoint.ip(f"-6 route del fe80::/64 dev vpn0 table {T_CORP}")
        assert self.source(endpoint, questions) == {endpoint.inside[6]}


class TestDown:
    @pytest.mark.parametrize("rp_filter", [0, 1, 2])
    @pytest.mark.parametrize("applied", ["before", "after"])
    def test_containers_still_reach_the_inside_address(self, make: Make, rp_filter: int, applied: str) -> None:
        """It sits on lo: a device that is down has no local route in IPv6."""
        endpoint = make(mode="identity")
        corp = move(endpoint, "lo")
        endpoint.strict(rp_filter)
        if applied == "before":
            endpoint.apply(corp, INET)
        endpoint.ip("link set vpn0 down")
        if applied == "after":
            endpoint.apply(corp, INET)
        near = endpoint.both(
            lambda family: [
                *ask(endpoint.container, endpoint.inside[family], endpoint.name, plan.CONTAINER[family == 6]),
                *ask(endpoint.host, plan.CONTAINER[family == 6], f"{endpoint.name}-c", source=endpoint.inside[family]),
            ]
        )
        assert endpoint.wrong(near) == []
        with endpoint.capture() as seen:
            errors = {
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[f == 6], kind, source=a).error
                for f, a in endpoint.inside.items()
                for kind in ("tcp", "udp", "icmp")
            }
        assert errors == {"ENETUNREACH"}
        assert not [packet for packet in seen.seen(outgoing=True) if packet.destination in plan.ANYCAST]

    def test_with_local_networks_behind_the_backstop_they_do_not(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply(move(endpoint, "lo"), INET)
        endpoint.ip("link set vpn0 down")
        endpoint.drop_rules(TUNNEL_LOCAL)
        for family, address in endpoint.inside.items():
            endpoint.ip(f"-{family} rule add pref {TUNNEL_STOP + 1} from {address} iif lo lookup 2000")
        near = ask(endpoint.container, endpoint.inside[4], endpoint.name)
        assert len(endpoint.wrong(near)) == 3

    def test_without_the_backstop_the_inside_address_leaks(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply({**move(endpoint, "lo"), "backstop": False}, INET)
        endpoint.ip("link set vpn0 down")
        with endpoint.capture() as seen:
            for family, address in endpoint.inside.items():
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[family == 6], "udp", source=address, timeout=0.1)
        for address in endpoint.inside.values():
            assert seen.left_by(source=address) == {"up0"}

    def test_it_comes_back(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        before = endpoint.state()
        endpoint.client.down()
        endpoint.apply()
        assert not endpoint.apply().changed
        endpoint.client.up()
        endpoint.apply()
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
        ours = [line for line in before.splitlines() if " proto 151" in line]
        assert [line for line in endpoint.state().splitlines() if " proto 151" in line] == ours

    @pytest.mark.parametrize("applied_first", [True, False])
    def test_it_is_applied_before_the_vpn_has_ever_been_up(self, make: Make, applied_first: bool) -> None:
        endpoint = make(start=False)
        corp = {**CORP, "addresses": list(endpoint.inside.values())} if applied_first else CORP
        endpoint.apply({**corp, "pools": list(plan.OTHER_POOL)}, INET)
        with endpoint.capture() as seen:
            endpoint.client.up()
            for family, address in endpoint.inside.items():
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[family == 6], "udp", source=address, timeout=0.1)
        for address in endpoint.inside.values():
            assert "up0" not in seen.left_by(source=address)
        endpoint.apply()
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []


class TestDestinations:
    """Prefixes that unbound traffic reaches by the tunnel as long as its address is there."""

    DESTINATIONS: t.ClassVar = ["203.0.113.0/24", "2001:db8:ffff::/64"]

    def test_unbound_traffic_goes_by_the_tunnel(self, make: Make) -> None:
        endpoint = make(mode="identity")
        assert endpoint.wrong(endpoint.both(endpoint.unbound)) == []
        endpoint.apply({**CORP, "destinations": self.DESTINATIONS}, INET)
        unbound = endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))
        assert endpoint.wrong(unbound, endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []

    def test_when_the_address_goes_nothing_enters_the_tunnel_with_another(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply({**CORP, "destinations": self.DESTINATIONS}, INET)
        for family, address in endpoint.inside.items():
            endpoint.ip(f"addr del {address}/{LENGTH[family]} dev vpn0")
        # IPv4 loses the route with the address; IPv6 keeps it, and chooses some other source.
        astray = endpoint.wrong(endpoint.both(endpoint.unbound))
        assert [text for text in astray if plan.ANYCAST[1] in text]
        endpoint.apply()
        with endpoint.capture() as seen:
            assert endpoint.wrong(endpoint.both(endpoint.unbound)) == []
        assert not [p for p in seen.seen(outgoing=True, dev="vpn0") if p.destination in plan.ANYCAST]

    def test_with_a_backstop_they_are_unreachable_instead(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply({**CORP, "destinations": self.DESTINATIONS, "destinations_backstop": True}, INET)
        endpoint.ip("link set vpn0 down")
        endpoint.apply()
        errors = [endpoint.lab.probe(endpoint.host, far, "tcp").error for far in plan.ANYCAST]
        assert errors == ["EHOSTUNREACH", "EHOSTUNREACH"]

    def test_a_clients_route_for_the_same_prefix_stays(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.ip(*(f"{'-6' if ':' in d else '-4'} route add {d} dev vpn0" for d in self.DESTINATIONS))
        before = endpoint.state()
        endpoint.apply({**CORP, "destinations": self.DESTINATIONS}, INET)
        assert len(endpoint.host.ip_json("route", "show", self.DESTINATIONS[0])) == 2
        assert len(endpoint.host.ip_json("-6", "route", "show", self.DESTINATIONS[1])) == 2
        endpoint.remove()
        assert endpoint.state() == before
