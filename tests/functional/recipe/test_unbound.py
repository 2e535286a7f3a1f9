# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unbound traffic, pods, containers and other routers of the LAN: nothing changes unless it is asked for.

A TCP socket looks up twice, the second time with the source that main chose; so rules for a source are rules for
unbound traffic too. Only real connections show it.
"""

from __future__ import annotations

import typing as t

import pytest

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import (
    BARRED,
    BEHIND_MAIN,
    CORP,
    INET,
    T_LOC,
    TUNNEL,
    TUNNEL_LOCAL,
    UPLINK,
    UPLINK_MAIN,
    Endpoint,
    Question,
    ask,
)
from tests.lab import addresses as plan

PODS: dict[str, t.Any] = {"local_networks": ["auto", "cali0"]}
WIDE = ("0.0.0.0/1", "128.0.0.0/1", "2000::/3")


def nearby(endpoint: Endpoint, family: int) -> list[Question]:
    """What an endpoint reaches without the recipe, and what reaches it, by all the ways that main knows."""
    at = int(family == 6)
    outside, bridge = endpoint.outside[family], plan.BRIDGE[at]
    neighbour, second = (endpoint.lab.hosts[name] for name in ("nbr0", "r2-0"))
    pod, side = plan.POD[at], plan.SIDE_HOST[at]
    return [
        *ask(endpoint.host, side, second.name, outside),
        *ask(endpoint.host, side, second.name, outside, source=outside),
        *ask(endpoint.host, plan.in_lan(0, 200)[at], neighbour.name, outside),
        *ask(endpoint.host, plan.in_lan(0, 200)[at], neighbour.name, outside, source=outside),
        *ask(endpoint.host, pod, endpoint.pod.name),
        *ask(endpoint.host, pod, endpoint.pod.name, outside, source=outside),
        *ask(endpoint.pod, outside, endpoint.name, pod),
        *ask(endpoint.pod, bridge, endpoint.name, pod),
        *ask(endpoint.host, plan.CONTAINER[at], endpoint.container.name, bridge),
        *ask(endpoint.host, plan.CONTAINER[at], endpoint.container.name, outside, source=outside),
        *ask(endpoint.container, outside, endpoint.name, plan.CONTAINER[at]),
        *ask(endpoint.container, pod, endpoint.pod.name, plan.CONTAINER[at]),
    ]


def everything(endpoint: Endpoint) -> list[Question]:
    return [question for family in endpoint.families for question in nearby(endpoint, family)]


class TestUplink:
    def test_what_worked_before_works_after(self, endpoint: Endpoint) -> None:
        questions = everything(endpoint) + endpoint.both(endpoint.unbound)
        assert endpoint.wrong(questions) == []
        endpoint.apply(CORP, INET, **PODS)
        assert endpoint.wrong(questions, endpoint.both(endpoint.identities)) == []

    def test_without_mains_specific_routes_it_does_not(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET, **PODS)
        endpoint.drop_rules(UPLINK_MAIN)
        astray = endpoint.wrong(everything(endpoint))
        for victim in (f"-> {plan.SIDE_HOST[0]} tcp", f"-> {plan.SIDE_HOST[1]} tcp", f"-> {plan.POD[0]} tcp"):
            assert [text for text in astray if victim in text]
        assert [text for text in astray if text.startswith(f"{endpoint.pod.name}  -> {endpoint.outside[6]}")]

    @pytest.mark.parametrize("rp_filter", [0, 1])
    def test_full_routes_of_a_client_do_not_draw_the_uplink(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.ip(*(f"{'-6' if ':' in wide else '-4'} route add {wide} dev vpn0" for wide in WIDE))
        endpoint.apply(CORP, INET, **PODS)
        unbound = endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))
        assert endpoint.wrong(everything(endpoint), endpoint.both(endpoint.identities), unbound) == []
        assert endpoint.wrong(endpoint.both(endpoint.neighbourhood)) == []

    def test_without_the_group_routes_of_a_client_draw_the_uplink(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        corporate = [
            question
            for family in (4, 6)
            for question in ask(
                endpoint.host,
                plan.CORPORATE_HOST[family == 6],
                "corp",
                endpoint.outside[family],
                source=endpoint.outside[family],
            )
        ]
        assert endpoint.wrong(corporate) == []
        endpoint.ip("link set vpn0 group 0")
        assert len(endpoint.wrong(corporate)) == len(corporate)

    def test_mains_default_by_another_uplink_does_not_draw_it(self, endpoint: Endpoint) -> None:
        second = endpoint.lab.second_uplink(endpoint.client, 1)
        for family, gateway in zip(("-4", "-6"), plan.in_lan(1, 1), strict=True):
            own = plan.in_lan(0, 1)[family == "-6"]
            endpoint.ip(f"{family} route del default", f"{family} route add default via {own} dev up0 metric 2000")
            endpoint.ip(f"{family} route add default via {gateway} dev up1 metric 5")
        endpoint.apply(CORP, INET)
        with endpoint.capture() as seen:
            assert endpoint.wrong(endpoint.both(endpoint.identities)) == []
            unbound = [
                question for at in (0, 1) for question in ask(endpoint.host, plan.ANYCAST[at], UPLINK, second[at])
            ]
            assert endpoint.wrong(unbound) == []
        for address in endpoint.outside.values():
            assert seen.left_by(source=address) == {"up0"}

    def test_an_established_connection_survives(self, endpoint: Endpoint) -> None:
        askers = [
            (endpoint.container, endpoint.outside[4]),
            (endpoint.container, endpoint.outside[6]),
            (endpoint.host, plan.SIDE_HOST[0]),
            (endpoint.lab.hosts["nbr0"], endpoint.outside[4]),
            (endpoint.host, plan.ANYCAST[1]),
        ]
        talks = [endpoint.lab.conversation(host, to, timeout=0.5) for host, to in askers]
        assert all(talk.ask() for talk in talks)
        endpoint.apply(CORP, INET, **PODS)
        assert all(talk.ask() for talk in talks)
        endpoint.drop_rules(UPLINK_MAIN)
        assert not talks[0].ask()
        for talk in talks:
            talk.close()


class TestErrorRoutes:
    """Error routes are usual in main: aggregates of routing daemons, delegated prefixes, kill switches."""

    def test_they_do_not_reach_the_inside_address(self, endpoint: Endpoint) -> None:
        endpoint.ip(
            f"route add blackhole {plan.ANYCAST[0]}/32",
            f"-6 route add unreachable {plan.ANYCAST[1]}/128",
            "route add unreachable default metric 4294967295",
            "-6 route add unreachable default metric 4294967295",
        )
        found = endpoint.apply(CORP, INET)
        named = [text for text in found.warnings if "error routes in main" in text]
        assert len(named) == 2
        assert f"blackhole {plan.ANYCAST[0]}" in named[0]
        inside = [q for family in (4, 6) for q in endpoint.identities(family) if q.name == TUNNEL]
        outside = [q for family in (4, 6) for q in endpoint.identities(family) if q.name == UPLINK]
        assert endpoint.wrong(inside, endpoint.both(endpoint.neighbourhood)) == []
        # The price of asking main first: an error there is the uplink's too.
        assert len(endpoint.wrong(outside)) == len(outside)
        endpoint.ip(f"route del blackhole {plan.ANYCAST[0]}/32", f"-6 route del unreachable {plan.ANYCAST[1]}/128")
        assert endpoint.wrong(outside) == []

    # Nearer to the inside address than to the outside one: that is what the kernel takes when it tries again.
    NETWORK, REFUSED, SPARED = "2001:db8:51:1ff::/64", "2001:db8:51:1ff::5", "2001:db8:51:1ff::7"

    def met(self, endpoint: Endpoint, to: str) -> set[str]:
        """What unbound IPv6 sockets meet; the devices by which they leave are added."""
        with endpoint.capture() as seen:
            found = {
                endpoint.lab.probe(endpoint.host, to, proto, timeout=0.3).error for proto in ("tcp", "udp", "icmp")
            }
        return found | seen.left_by(destination=to) - {"fleetvpn0"}

    @pytest.mark.parametrize("options", [{}, {"unbound": "corp", "unbound_local": "main"}], ids=["keep", "full"])
    @pytest.mark.parametrize("kind", ["unreachable", "blackhole", "prohibit"])
    def test_what_main_refuses_in_ipv6_stays_refused(self, make: Make, kind: str, options: dict[str, t.Any]) -> None:
        endpoint = make(mode="identity")
        endpoint.lab.hosts["nbr0"].run(
            ["ip", "-6", "addr", "replace", f"{self.SPARED}/128", "dev", "lo", "preferred_lft", "0"]
        )
        endpoint.ip(f"-6 route add {kind} {self.NETWORK}")
        endpoint.ip(f"-6 route add {self.SPARED} via {plan.in_lan(0, 200)[1]} dev up0")
        refused = self.met(endpoint, self.REFUSED)
        assert len(refused) == 1
        endpoint.apply(CORP, INET, **options)
        assert self.met(endpoint, self.REFUSED) <= {"ECONNREFUSED", "EPERM", "ENETUNREACH"}
        # What main reaches inside that prefix is reached as before, and the identities see nothing of it.
        assert endpoint.wrong(ask(endpoint.host, self.SPARED, "nbr0", endpoint.outside[6])) == []
        assert endpoint.wrong(endpoint.both(endpoint.identities)) == []
        endpoint.drop_rules(BARRED)
        assert "vpn0" in self.met(endpoint, self.REFUSED)
        endpoint.apply()
        endpoint.ip(f"-6 route del {kind} {self.NETWORK}")
        endpoint.apply()
        assert not [link for link in endpoint.host.ip_json("link") if link["ifname"] == "fleetvpn0"]

    def test_an_error_default_of_main_does(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.ip("-6 route del default", "-6 route add unreachable default metric 4294967295")
        assert self.met(endpoint, plan.ANYCAST[1]) == {"EHOSTUNREACH"}
        endpoint.apply(CORP, INET)
        assert self.met(endpoint, plan.ANYCAST[1]) <= {"ECONNREFUSED", "EPERM", "ENETUNREACH"}
        assert endpoint.wrong(ask(endpoint.host, plan.in_lan(0, 200)[1], "nbr0", endpoint.outside[6])) == []

    def test_where_main_has_no_ipv6_default_nothing_takes_the_tunnel(self, make: Make) -> None:
        """As at home without IPv6, with a VPN that has it: programs would prefer it, and send all of it there."""
        endpoint = make(mode="identity")
        endpoint.ip("-6 route del default")
        assert self.met(endpoint, self.REFUSED) == {"ENETUNREACH"}
        endpoint.apply(CORP, INET)
        assert self.met(endpoint, self.REFUSED) <= {"ECONNREFUSED", "EPERM", "ENETUNREACH"}
        inside = [q for q in endpoint.identities(6) if q.name == TUNNEL]
        assert endpoint.wrong(inside, endpoint.identities(4)) == []
        assert endpoint.wrong(ask(endpoint.host, plan.in_lan(0, 200)[1], "nbr0", endpoint.outside[6])) == []
        endpoint.drop_rules(BEHIND_MAIN)
        assert "vpn0" in self.met(endpoint, self.REFUSED)
        endpoint.apply()
        # A default that comes counts at once, and then the device is no longer needed.
        endpoint.ip(f"-6 route add default via {plan.in_lan(0, 1)[1]} dev up0")
        assert endpoint.host.ip_json("-6", "route", "get", plan.ANYCAST[1])[0]["dev"] == "up0"
        endpoint.apply()
        assert endpoint.wrong(endpoint.both(endpoint.identities)) == []
        assert not [link for link in endpoint.host.ip_json("link") if link["ifname"] == "fleetvpn0"]

    def test_asking_main_for_local_networks_instead_would(self, endpoint: Endpoint) -> None:
        endpoint.ip(f"route add blackhole {plan.ANYCAST[0]}/32")
        endpoint.apply(CORP, INET)
        endpoint.drop_rules(TUNNEL_LOCAL)
        endpoint.ip(f"rule add pref 2300 from {endpoint.inside[4]} iif lo lookup main suppress_ifgroup 0")
        answer = endpoint.lab.probe(endpoint.host, plan.ANYCAST[0], "tcp", source=endpoint.inside[4])
        assert answer.error == "EINVAL"


class TestInsideABridgesPrefix:
    """Main may have routes inside the prefix of a bridge: a host elsewhere, or what the VPN pushes."""

    ELSEWHERE, PUSHED = ("172.20.0.150", "fd00:20::150"), ("172.20.0.193", "fd00:20::c001")
    PUSHED_NET = ("172.20.0.192/28", "fd00:20::c000/124")

    @pytest.fixture
    def crossed(self, endpoint: Endpoint) -> Endpoint:
        second, gateway = endpoint.lab.hosts["r2-0"], endpoint.lab.gateway
        for family, length, at in (("-4", 32, 0), ("-6", 128, 1)):
            second.run(["ip", family, "addr", "replace", f"{self.ELSEWHERE[at]}/{length}", "dev", "lo"])
            gateway.run(["ip", family, "addr", "replace", f"{self.PUSHED[at]}/{length}", "dev", "lo"])
            via = plan.in_lan(0, 254)[at]
            endpoint.ip(f"{family} route add {self.ELSEWHERE[at]} via {via} dev up0")
            endpoint.ip(f"{family} route add {self.PUSHED_NET[at]} dev vpn0")
        return endpoint

    def questions(self, endpoint: Endpoint, family: int) -> list[Question]:
        at = int(family == 6)
        return [
            *ask(endpoint.host, self.ELSEWHERE[at], "r2-0", endpoint.outside[family]),
            *ask(endpoint.host, self.PUSHED[at], TUNNEL, endpoint.inside[family]),
            *ask(endpoint.host, self.PUSHED[at], TUNNEL, endpoint.inside[family], source=endpoint.inside[family]),
            *ask(endpoint.host, plan.CONTAINER[at], endpoint.container.name, plan.BRIDGE[at]),
        ]

    def test_what_worked_before_works_after(self, crossed: Endpoint) -> None:
        questions = crossed.both(lambda family: self.questions(crossed, family))
        assert crossed.wrong(questions) == []
        crossed.apply(CORP, INET)
        assert crossed.wrong(questions, crossed.both(crossed.neighbourhood)) == []
        # From I, what lies elsewhere is the tunnel's, not the bridge's.
        with crossed.capture() as seen:
            for at, address in enumerate(crossed.inside.values()):
                crossed.lab.probe(crossed.host, self.ELSEWHERE[at], "tcp", source=address, timeout=0.1)
        for address in crossed.inside.values():
            assert seen.left_by(source=address) == {"vpn0"}

    def test_without_the_throws_it_does_not(self, crossed: Endpoint) -> None:
        crossed.apply(CORP, INET)
        for family in ("-4", "-6"):
            crossed.ip(f"{family} route flush type throw table {T_LOC}")
        astray = crossed.wrong(crossed.both(lambda family: self.questions(crossed, family)))
        # IPv4 TCP looks up again with the source I that the pushed route gave it; IPv6 keeps its first answer.
        assert [text for text in astray if f"  -> {self.PUSHED[0]} tcp" in text]
        assert [text for text in astray if f"{crossed.inside[6]} -> {self.PUSHED[1]} tcp" in text]

    @pytest.mark.parametrize("unbound_local", ["main", "none"])
    def test_with_a_full_tunnel(self, crossed: Endpoint, unbound_local: str) -> None:
        crossed.apply(CORP, INET, unbound="corp", unbound_local=unbound_local)
        near = [q for q in crossed.both(lambda family: self.questions(crossed, family)) if q.name != "r2-0"]
        assert crossed.wrong(near) == []
        if unbound_local == "main":
            assert crossed.wrong([q for family in (4, 6) for q in self.questions(crossed, family)]) == []


class TestPods:
    """Pods hang on devices without an address, by a static host route."""

    def questions(self, endpoint: Endpoint, family: int) -> list[Question]:
        pod, inside = plan.POD[family == 6], endpoint.inside[family]
        return [
            *ask(endpoint.pod, inside, endpoint.name, pod),
            *ask(endpoint.host, pod, endpoint.pod.name, inside, source=inside),
        ]

    @pytest.mark.parametrize("pattern", ["cali0", "cali*"])
    def test_they_and_the_inside_address_reach_each_other(self, endpoint: Endpoint, pattern: str) -> None:
        endpoint.apply(CORP, INET, local_networks=["auto", pattern])
        pods = endpoint.both(lambda family: self.questions(endpoint, family))
        assert endpoint.wrong(pods, endpoint.both(endpoint.neighbourhood)) == []

    def test_unnamed_they_do_not(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        questions = endpoint.both(lambda family: self.questions(endpoint, family))
        assert len(endpoint.wrong(questions)) == len(questions)

    def test_by_prefix(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET, local_networks=["auto", "10.244.0.0/16", "fd00:244::/64"])
        assert endpoint.wrong(endpoint.both(lambda family: self.questions(endpoint, family))) == []


class TestNewNetworks:
    def test_a_foreign_bridge_needs_no_touch_for_the_uplink(self, make: Make) -> None:
        endpoint = make(container=False)
        endpoint.apply(CORP, INET)
        inner = endpoint.lab.host(f"{endpoint.name}-n")
        endpoint.ip("link add br7 type bridge", "addr add 172.27.0.1/24 dev br7", "link set br7 up")
        endpoint.lab.link(endpoint.host, "p7", inner, "eth0", bridge="br7")
        inner.address("eth0", "172.27.0.2/24")
        inner.route("default", via="172.27.0.1", dev="eth0")
        endpoint.lab.serve(inner)
        new = ask(inner, endpoint.outside[4], endpoint.name, "172.27.0.2")
        near = ask(endpoint.host, "172.27.0.2", inner.name)
        assert endpoint.wrong(new, near) == []
        inside = ask(inner, endpoint.inside[4], endpoint.name, "172.27.0.2")
        assert len(endpoint.wrong(inside)) == 3
        endpoint.apply()
        assert endpoint.wrong(new, near, inside) == []


class TestPushedRoutes:
    """What a LAN's DHCP server pushes into main (option 121) draws unbound traffic, as ever, and nothing from I."""

    def test_they_do_not_draw_the_inside_address(self, endpoint: Endpoint) -> None:
        second = endpoint.lab.hosts["r2-0"]
        for version, at, length in (("-4", 0, 32), ("-6", 1, 128)):
            second.run(["ip", version, "addr", "replace", f"{plan.shifted(plan.ANYCAST[at], 1)}/{length}", "dev", "lo"])
            target, via = plan.shifted(plan.ANYCAST[at], 1), plan.in_lan(0, 254)[at]
            endpoint.ip(f"{version} route add {target}/{length} via {via} dev up0")
        endpoint.apply(CORP, INET)
        with endpoint.capture() as seen:
            for family, at in ((4, 0), (6, 1)):
                target = plan.shifted(plan.ANYCAST[at], 1)
                assert endpoint.wrong(ask(endpoint.host, target, "r2-0", endpoint.outside[family])) == []
                endpoint.lab.probe(endpoint.host, target, "udp", source=endpoint.inside[family], timeout=0.1)
        for address in endpoint.inside.values():
            assert seen.left_by(source=address) == {"vpn0"}
