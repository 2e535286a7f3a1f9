# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uplinks: gateways outside the link's prefix, gateways that change, and two uplinks on one host."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import RoutingError
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import CORP, INET, T_INET, UPLINK, UPLINK_MAIN, Endpoint, Question, Stepping, ask
from tests.lab import addresses as plan


class TestOffLinkGateway:
    """A /32 on the uplink, and a gateway that only a host route in main makes known."""

    def test_it_carries(self, make: Make) -> None:
        endpoint = make(cloud=True)
        endpoint.apply(CORP, INET)
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_without_the_host_route_in_main(self, make: Make, when: str) -> None:
        endpoint = make(cloud=True)
        if when == "after":
            endpoint.apply(CORP, INET)
        endpoint.ip(f"route del {plan.CLOUD_GATEWAY[0]} dev up0")
        endpoint.apply(CORP, INET)
        assert not endpoint.apply().changed
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []

    def test_without_onlink_the_kernel_refuses_the_gateway(self, make: Make) -> None:
        endpoint = make(cloud=True)
        endpoint.apply(CORP, INET)
        endpoint.ip(f"route del {plan.CLOUD_GATEWAY[0]} dev up0")
        route = f"route replace default via {plan.CLOUD_GATEWAY[0]} dev up0 table {T_INET}"
        assert "invalid gateway" in endpoint.refused(route)
        endpoint.ip(f"{route} onlink")

    def test_a_stated_gateway_outside_the_prefix(self, make: Make) -> None:
        endpoint = make(cloud=True)
        endpoint.ip("route del default", "-6 route del default", f"route del {plan.CLOUD_GATEWAY[0]} dev up0")
        endpoint.apply(CORP, {**INET, "gateway": list(plan.CLOUD_GATEWAY)})
        assert endpoint.wrong(endpoint.both(endpoint.identities)) == []

    @pytest.mark.parametrize("pushed", ["2000::/3", "2001:db8:2::/48"])
    def test_a_vpn_that_covers_the_ipv6_gateway(self, make: Make, pushed: str) -> None:
        """IPv6 refuses `onlink` for a gateway that main reaches by another device."""
        endpoint = make(cloud=True)
        gateway = "2001:db8:2:fd::1"
        number = int(endpoint.outside[4].rsplit(".", 1)[1]) - 10
        endpoint.lab.router.address(f"cloud{number}", f"{gateway}/128")
        endpoint.ip("-6 route del default", f"-6 route add {pushed} dev vpn0")
        endpoint.apply(CORP, {**INET, "gateway": [plan.CLOUD_GATEWAY[0], gateway]})
        assert endpoint.wrong(endpoint.both(endpoint.identities)) == []
        assert not endpoint.apply().changed
        refused = endpoint.refused(f"-6 route add default via {gateway} dev up0 onlink table 77")
        assert "invalid gateway or device mismatch" in refused


class TestGatewayChanges:
    def test_it_is_followed(self, endpoint: Endpoint) -> None:
        """The second router forwards as well; who got the packets is seen there."""
        endpoint.apply(CORP, INET)
        second = endpoint.lab.hosts["r2-0"]
        for family, at in (("-4", 0), ("-6", 1)):
            endpoint.ip(f"{family} route replace default via {plan.in_lan(0, 254)[at]} dev up0")
        endpoint.apply()
        with endpoint.lab.capture(second, settle=0.05) as seen:
            assert endpoint.wrong(endpoint.both(endpoint.identities)) == []
        for address in endpoint.outside.values():
            assert seen.seen(source=address, outgoing=False)

    def test_a_vpn_that_replaced_the_default_does_not_fool_it(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        before = endpoint.state()
        for family, at in (("-4", 0), ("-6", 1)):
            endpoint.ip(
                f"{family} route add {plan.GATEWAY[at]} via {plan.in_lan(0, 1)[at]} dev up0",
                f"{family} route replace default dev vpn0",
            )
        endpoint.apply()
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
        tables = [line for line in before.splitlines() if f"table {T_INET} " in line]
        assert tables
        assert [line for line in endpoint.state().splitlines() if f"table {T_INET} " in line] == tables


class TestDefaults:
    """The forms in which main may hold the uplink's default."""

    def check(self, endpoint: Endpoint) -> None:
        found = endpoint.apply(CORP, INET)
        assert [entry["verdict"] for entry in found.proof.identities] == ["proven", "proven"]
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
        assert not endpoint.apply().changed

    def test_several_nexthops(self, endpoint: Endpoint) -> None:
        for family, at in (("-4", 0), ("-6", 1)):
            hops = " ".join(f"nexthop via {plan.in_lan(0, last)[at]} dev up0" for last in (1, 254))
            endpoint.ip(f"{family} route del default", f"{family} route add default {hops}")
        self.check(endpoint)

    def test_several_metrics(self, endpoint: Endpoint) -> None:
        for family, at in (("-4", 0), ("-6", 1)):
            endpoint.ip(f"{family} route add default via {plan.in_lan(0, 254)[at]} dev up0 metric 3000")
        self.check(endpoint)

    def test_a_nexthop_object(self, endpoint: Endpoint) -> None:
        for number, family, at in ((70, "-4", 0), (71, "-6", 1)):
            endpoint.ip(
                f"nexthop add id {number} via {plan.in_lan(0, 1)[at]} dev up0",
                f"{family} route del default",
                f"{family} route add default nhid {number}",
            )
        self.check(endpoint)

    def test_a_group_of_nexthop_objects(self, endpoint: Endpoint) -> None:
        for number, family, at in ((70, "-4", 0), (80, "-6", 1)):
            endpoint.ip(
                f"nexthop add id {number} via {plan.in_lan(0, 1)[at]} dev up0",
                f"nexthop add id {number + 1} via {plan.in_lan(0, 254)[at]} dev up0",
                f"nexthop add id {number + 2} group {number}/{number + 1}",
                f"{family} route del default",
                f"{family} route add default nhid {number + 2}",
            )
        self.check(endpoint)

    def test_a_link_local_router(self, endpoint: Endpoint) -> None:
        router = endpoint.link_local(endpoint.lab.router, "lan0")
        endpoint.ip("-6 route del default", f"-6 route add default via {router} dev up0 proto ra metric 1024")
        self.check(endpoint)

    def test_an_ipv6_gateway_for_ipv4_is_refused(self, endpoint: Endpoint) -> None:
        """Rather than cut off, as an address whose table has no default."""
        router = endpoint.link_local(endpoint.lab.router, "lan0")
        endpoint.ip("-4 route del default", f"-4 route add default via inet6 {router} dev up0")
        before = endpoint.state()
        with pytest.raises(RoutingError, match="gateway of the other family"):
            endpoint.apply(CORP, INET)
        assert endpoint.state() == before
        endpoint.apply(CORP, {**INET, "gateway": [plan.in_lan(0, 1)[0]]})
        assert endpoint.wrong(endpoint.identities(4)) == []

    def test_a_nexthop_object_that_the_kernel_does_not_explain_is_refused(self, endpoint: Endpoint) -> None:
        endpoint.host.sysctl(ipv4__nexthop_compat_mode=0)
        endpoint.ip(
            f"nexthop add id 70 via {plan.in_lan(0, 1)[0]} dev up0",
            "-4 route del default",
            "-4 route add default nhid 70",
        )
        with pytest.raises(RoutingError, match="finds no gateway"):
            endpoint.apply(CORP, INET)

    def test_no_gateway(self, endpoint: Endpoint) -> None:
        """A point-to-point uplink; here everybody far away is found by ARP."""
        endpoint.ip("route del default", "route add default dev up0")
        found = endpoint.apply(CORP, INET)
        assert [entry["verdict"] for entry in found.proof.identities] == ["proven", "proven"]
        assert endpoint.wrong(endpoint.identities(4)) == []


class TestTwoUplinks:
    """A dock beside Wi-Fi, or two interfaces in a cloud: in two subnets (lan 1) or in one (lan 0)."""

    @pytest.fixture(params=[0, 1], ids=["one-subnet", "two-subnets"])
    def docked(self, request: pytest.FixtureRequest, make: Make) -> tuple[Endpoint, int, tuple[str, str]]:
        endpoint = make()
        # Each device answers ARP for its own address alone; otherwise the LAN decides by which one packets come in.
        endpoint.host.sysctl(ipv4__conf__all__arp_ignore=1, ipv4__conf__all__arp_announce=2)
        return endpoint, request.param, endpoint.lab.second_uplink(endpoint.client, request.param)

    def identities(self, lan: int) -> tuple[dict[str, t.Any], ...]:
        return CORP, INET, {"name": "dock", "interface": ["up1"], "gateway": list(plan.in_lan(lan, 1))}

    def questions(self, endpoint: Endpoint, lan: int, second: tuple[str, str], at: int) -> list[Question]:
        neighbour, other = endpoint.lab.hosts["nbr0"], endpoint.lab.hosts[f"nbr{lan}"]
        return [
            *ask(neighbour, second[at], endpoint.name, plan.in_lan(0, 200)[at]),
            *ask(other, second[at], endpoint.name, plan.in_lan(lan, 200)[at]),
            *ask(other, endpoint.outside[6 if at else 4], endpoint.name, plan.in_lan(lan, 200)[at]),
            *ask(endpoint.lab.corporate, second[at], endpoint.name, plan.CORPORATE_HOST[at]),
            *ask(endpoint.host, plan.ANYCAST[at], UPLINK, second[at], source=second[at]),
            *ask(endpoint.host, plan.in_lan(0, 200)[at], "nbr0", second[at], source=second[at]),
            *ask(endpoint.host, plan.CONTAINER[at], endpoint.container.name, second[at], source=second[at]),
            *ask(endpoint.container, second[at], endpoint.name, plan.CONTAINER[at]),
        ]

    @pytest.mark.parametrize("rp_filter", [0, 1])
    def test_each_answers_by_its_own(self, docked: tuple[Endpoint, int, tuple[str, str]], rp_filter: int) -> None:
        endpoint, lan, second = docked
        endpoint.strict(rp_filter)
        endpoint.apply(*self.identities(lan))
        with endpoint.capture() as seen:
            assert endpoint.wrong(*(self.questions(endpoint, lan, second, at) for at in (0, 1))) == []
            assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
        for address in second:
            assert seen.left_by(source=address) == {"up1", "br0", "c0"}
        for address in endpoint.outside.values():
            assert seen.left_by(source=address) == {"up0", "br0", "c0"}

    def test_without_the_group_the_second_answers_by_the_first(
        self, docked: tuple[Endpoint, int, tuple[str, str]]
    ) -> None:
        endpoint, lan, second = docked
        endpoint.apply(*self.identities(lan))
        endpoint.ip("link set up0 group 0", "link set up1 group 0")
        with endpoint.capture() as seen:
            endpoint.wrong(*(self.questions(endpoint, lan, second, at) for at in (0, 1)))
        for address in second:
            assert "up0" in seen.left_by(source=address)

    def test_a_static_route_by_its_own_device_is_kept(self, docked: tuple[Endpoint, int, tuple[str, str]]) -> None:
        """Main cannot be asked for it any more, so the table of the uplink has it."""
        endpoint, lan, _second = docked
        endpoint.apply(*self.identities(lan))
        sides = [
            q
            for f, address in endpoint.outside.items()
            for q in (
                *ask(endpoint.host, plan.SIDE_HOST[f == 6], "r2-0", address, source=address),
                *ask(endpoint.host, plan.SIDE_HOST[f == 6], "r2-0"),
            )
        ]
        assert endpoint.wrong(sides) == []
        for family, net in zip(("-4", "-6"), plan.SIDE_NET, strict=True):
            endpoint.ip(f"{family} route del {net} table {T_INET}")
        assert len(endpoint.wrong(sides)) >= 6

    def test_a_pattern_gives_each_device_a_table(self, docked: tuple[Endpoint, int, tuple[str, str]]) -> None:
        endpoint, lan, second = docked
        for family, gateway in zip(("-4", "-6"), plan.in_lan(lan, 1), strict=True):
            endpoint.ip(f"{family} route add default via {gateway} dev up1 metric 2048")
        found = endpoint.apply(CORP, {**INET, "interface": ["up*"]})
        assert len({entry["table"] for entry in found.proof.identities}) == 3
        assert endpoint.wrong(*(self.questions(endpoint, lan, second, at) for at in (0, 1))) == []
        assert not endpoint.apply().changed

    def test_the_second_goes_again(self, docked: tuple[Endpoint, int, tuple[str, str]]) -> None:
        endpoint, lan, _second = docked
        endpoint.apply(*self.identities(lan))
        endpoint.ip("link del up1")
        endpoint.apply(CORP, INET)
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
        assert [r for r in endpoint.host.ip_json("rule") if r["priority"] == UPLINK_MAIN]

    def test_nothing_is_cut_on_the_way_to_two_and_back(self, docked: tuple[Endpoint, int, tuple[str, str]]) -> None:
        """After each operation the first uplink's address still reaches the other router of its LAN by that router."""
        endpoint, lan, _second = docked
        endpoint.apply(CORP, INET)
        sides = [(plan.SIDE_HOST[f == 6], a) for f, a in endpoint.outside.items()]
        lost: list[str] = []

        def look(operation: Operation) -> None:
            for side, address in sides:
                if not endpoint.lab.probe(endpoint.host, side, "udp", source=address, timeout=0.1):
                    lost.append(f"{operation.op} {operation.target.text()}: {address} -> {side}")

        endpoint.apply(*self.identities(lan), kernel=lambda real: Stepping(real, look))
        endpoint.apply(CORP, INET, kernel=lambda real: Stepping(real, look))
        assert lost == []


class TestUplinkDown:
    HALVES = ("-4 route add 0.0.0.0/1 dev vpn0", "-4 route add 128.0.0.0/1 dev vpn0", "-6 route add 2000::/3 dev vpn0")

    def test_its_address_does_not_enter_the_tunnel(self, endpoint: Endpoint) -> None:
        endpoint.ip(*self.HALVES)
        endpoint.apply(CORP, INET)
        endpoint.ip("link set up0 down")
        with endpoint.capture() as seen:
            for address in endpoint.outside.values():
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[":" in address], "udp", source=address, timeout=0.1)
        for address in endpoint.outside.values():
            assert seen.left_by(source=address) == set()

    def test_without_its_backstop_it_does(self, endpoint: Endpoint) -> None:
        endpoint.ip(*self.HALVES)
        endpoint.apply(CORP, {**INET, "backstop": False})
        endpoint.ip("link set up0 down")
        with endpoint.capture() as seen:
            endpoint.lab.probe(endpoint.host, plan.ANYCAST[0], "udp", source=endpoint.outside[4], timeout=0.1)
        assert seen.left_by(source=endpoint.outside[4]) == {"vpn0"}

    def test_it_comes_back(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        before = [line for line in endpoint.state().splitlines() if "proto 151" in line]
        endpoint.ip("link set up0 down")
        endpoint.apply()
        endpoint.ip("link set up0 up")
        endpoint.host.address("up0", f"{endpoint.outside[6]}/64")
        for family, at in (("-4", 0), ("-6", 1)):
            endpoint.ip(f"{family} route add default via {plan.in_lan(0, 1)[at]} dev up0")
        endpoint.apply()
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
        assert [line for line in endpoint.state().splitlines() if "proto 151" in line] == before
