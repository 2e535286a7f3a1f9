# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`unbound: NAME`: traffic that has chosen no source goes by the tunnel, and nothing else is drawn into it."""

from __future__ import annotations

import pathlib
import socket
import typing as t

import pytest
import yaml

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import (
    CORP,
    FAR,
    INET,
    LEAVE,
    MIDDLE,
    NEAR,
    OUTER,
    PAIR,
    T_CORP,
    TUNNEL,
    UPLINK,
    Endpoint,
    Question,
    ask,
)
from tests.lab import Host, Probe
from tests.lab import addresses as plan

MARK = 0x99
MARKED = {**CORP, "outer": {"fwmark": "0x99/0xff"}}
SECOND_NIC = ("10.9.0.1", "fd00:9::1")
BEYOND = ("10.9.0.2", "fd00:9::2")
MARK_FORWARDED = """
table inet fvt_mark {
    chain in {
        type filter hook prerouting priority mangle;
        iifname br0 meta mark set 0x99
    }
}
"""


@pytest.fixture
def bare(make: Make) -> Endpoint:
    """An endpoint whose client writes no routes, with masqueraded containers and a second network behind it."""
    endpoint = make(mode="identity")
    endpoint.masquerade()
    beyond = endpoint.lab.host(f"{endpoint.name}-b")
    endpoint.lab.link(endpoint.host, "nic1", beyond, "eth0")
    endpoint.host.address("nic1", *(f"{a}/{n}" for a, n in zip(SECOND_NIC, (24, 64), strict=True)))
    beyond.address("eth0", *(f"{a}/{n}" for a, n in zip(BEYOND, (24, 64), strict=True)))
    endpoint.lab.serve(beyond)
    return endpoint


def beyond(endpoint: Endpoint) -> Host:
    return endpoint.lab.hosts[f"{endpoint.name}-b"]


def drawn(endpoint: Endpoint, family: int) -> list[Question]:
    """What goes by the tunnel, and what of the tunnel itself does not."""
    far, outside = plan.ANYCAST[family == 6], endpoint.outside[family]
    return [
        *endpoint.unbound(family, TUNNEL),
        *ask(endpoint.host, far, UPLINK, outside, mark=MARK),
        *ask(endpoint.host, far, UPLINK, outside, mark=MARK, source=outside),
        *ask(endpoint.host, far, UPLINK, outside, dev="up0"),
    ]


def spared(endpoint: Endpoint, family: int) -> list[Question]:
    """What only looks like unbound traffic: inbound to any address, forwarded, from a bridge's address."""
    at = int(family == 6)
    bridge, outside = plan.BRIDGE[at], endpoint.outside[family]
    return [
        *endpoint.neighbourhood(family),
        *ask(endpoint.container, plan.ANYCAST[at], UPLINK, outside),
        *ask(endpoint.host, plan.CONTAINER[at], endpoint.container.name, bridge, source=bridge),
        *ask(beyond(endpoint), SECOND_NIC[at], endpoint.name, BEYOND[at]),
        *ask(endpoint.host, BEYOND[at], beyond(endpoint).name, SECOND_NIC[at], source=SECOND_NIC[at]),
    ]


def near(endpoint: Endpoint, family: int, *, by_main: bool) -> list[Question]:
    """Unbound traffic to networks that the host is connected to."""
    at = int(family == 6)
    here = plan.in_lan(0, 200)[at]
    if not by_main:
        return ask(endpoint.host, here, "nbr0", endpoint.inside[family])
    return [
        *ask(endpoint.host, here, "nbr0", endpoint.outside[family]),
        *ask(endpoint.host, BEYOND[at], beyond(endpoint).name, SECOND_NIC[at]),
        *ask(endpoint.host, plan.SIDE_HOST[at], "r2-0", endpoint.outside[family]),
    ]


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
@pytest.mark.parametrize("unbound_local", ["main", "none"])
@pytest.mark.parametrize("identities", [(MARKED, INET), (MARKED,)], ids=["both", "tunnel"])
def test_nothing_but_unbound_traffic_is_drawn(
    bare: Endpoint, identities: tuple[dict[str, t.Any], ...], unbound_local: str, rp_filter: int
) -> None:
    bare.strict(rp_filter)
    bare.apply(*identities, unbound="corp", unbound_local=unbound_local)
    assert bare.wrong(
        bare.both(lambda family: drawn(bare, family)),
        bare.both(lambda family: spared(bare, family)),
        bare.both(lambda family: near(bare, family, by_main=unbound_local == "main")),
        bare.both(bare.identities),
    ) == []  # fmt: skip


class TestWithout:
    def test_a_rule_for_all_that_the_host_sends_draws_too_much(self, bare: Endpoint) -> None:
        """Not source zero, but everything behind the rules of the identities; no uplink identity."""
        bare.strict(1)
        bare.apply(MARKED, unbound="corp")
        bare.drop_rules(LEAVE, PAIR, NEAR, FAR)
        for family in ("-4", "-6"):
            bare.ip(f"{family} rule add pref {FAR} iif lo lookup {T_CORP}")
        astray = bare.wrong(bare.both(lambda family: spared(bare, family)))
        for victim in (
            f"{bare.container.name}  -> {plan.BRIDGE[0]}",
            f"{bare.container.name}  -> {plan.BRIDGE[1]}",
            f"{bare.name}-b  -> {SECOND_NIC[0]}",
            f"nbr0  -> {bare.outside[4]}",
            f"nbr0  -> {bare.outside[6]}",
        ):
            assert [text for text in astray if text.startswith(victim)], victim
        # The tunnel's own packets go out, but strict rp_filter drops their answers: the VPN is dead.
        outer = ask(bare.host, plan.ANYCAST[0], UPLINK, mark=MARK, source=bare.outside[4])
        assert len(bare.wrong(outer)) == 3

    def test_not_with_two_selectors_draws_forwarded_packets(self, bare: Endpoint) -> None:
        bare.apply(MARKED, INET, unbound="corp")
        forwarded = ask(bare.container, plan.ANYCAST[0], UPLINK, bare.outside[4])
        assert bare.wrong(forwarded) == []
        bare.ip(f"rule add pref {FAR} not fwmark {MARK} iif lo lookup {T_CORP}")
        assert len(bare.wrong(forwarded)) == 3

    def test_without_the_mark_the_tunnels_packets_enter_it(self, bare: Endpoint) -> None:
        bare.apply(MARKED, INET, unbound="corp")
        bare.drop_rules(OUTER)
        outer = bare.both(lambda family: ask(bare.host, plan.ANYCAST[family == 6], UPLINK, mark=MARK))
        assert len(bare.wrong(outer)) == len(outer)

    def test_without_the_exemption_sockets_bound_to_the_uplink_fail(self, bare: Endpoint) -> None:
        """As soon as something ends the lookup of unbound traffic: IPv4 then takes a far address for a neighbour."""
        bare.apply(MARKED, INET, unbound="corp")
        bare.ip(f"rule add pref {FAR + 1} from 0.0.0.0/32 iif lo unreachable")
        bound = ask(bare.host, plan.ANYCAST[0], UPLINK, proto="udp", connected=False, dev="up0")
        with bare.capture() as seen:
            assert bare.wrong(bound) == []
        assert not seen.seen(proto="arp", destination=plan.ANYCAST[0])
        bare.drop_rules(LEAVE)
        with bare.capture() as seen:
            bare.wrong(bound)
        assert seen.seen(proto="arp", destination=plan.ANYCAST[0], outgoing=True, dev="up0")

    def test_without_the_halves_ipv6_with_a_source_is_drawn(self, bare: Endpoint) -> None:
        bare.apply(MARKED, unbound="corp")
        bare.drop_rules(PAIR)
        astray = bare.wrong(spared(bare, 6))
        assert [text for text in astray if text.startswith(f"nbr0  -> {bare.outside[6]}")]

    def test_without_mains_specific_routes_the_lan_is_reached_by_the_tunnel(self, bare: Endpoint) -> None:
        bare.apply(MARKED, INET, unbound="corp", unbound_local="main")
        bare.drop_rules(MIDDLE)
        assert bare.wrong(bare.both(lambda family: near(bare, family, by_main=False))) == []


class TestForwarded:
    def test_it_goes_by_the_tunnel_on_request(self, bare: Endpoint) -> None:
        bare.apply(MARKED, INET, unbound="corp", unbound_local="main", unbound_forwarded=["br0"])
        for family in (4, 6):
            at = int(family == 6)
            forwarded = ask(bare.container, plan.ANYCAST[at], TUNNEL, bare.inside[family])
            between = ask(bare.container, BEYOND[at], f"{bare.name}-b")
            assert bare.wrong(forwarded, between, bare.neighbourhood(family)) == []

    def test_marked_packets_of_containers_stay_where_they_were(self, bare: Endpoint) -> None:
        bare.apply(MARKED, INET, unbound="corp")
        bare.host.run(["nft", "-f", "-"], stdin=MARK_FORWARDED)
        forwarded = bare.both(
            lambda family: ask(bare.container, plan.ANYCAST[family == 6], UPLINK, bare.outside[family])
        )
        assert bare.wrong(forwarded) == []


class TestRuleNot:
    def test_no_rule_of_ours_inverts(self, bare: Endpoint) -> None:
        found = bare.apply(MARKED, INET, unbound="corp", unbound_local="main", unbound_forwarded=["br0"])
        rules = [o.target for o in found.plan.operations if o.kind == "rule"]
        assert len(rules) > 20
        assert not [rule for rule in rules if getattr(rule, "invert", False)]

    def test_module_rule_says_what_it_inverts(self) -> None:
        text = (pathlib.Path(__file__).parents[3] / "plugins/doc_fragments/_rule.py").read_text()
        said = " ".join(yaml.safe_load(text.split('"""')[3])["not"]["description"])
        assert "all of the selectors together" in said


class TestGatewayChecks:
    """When anybody adds `via GW`, IPv4 looks GW up without a source: our rules must not answer for the uplink."""

    GATEWAYS = plan.in_lan(0, 254)

    @pytest.mark.parametrize("unbound_local", ["main", "none"])
    @pytest.mark.parametrize("dev", ["", " dev up0"])
    def test_others_can_add_gateways(self, bare: Endpoint, unbound_local: str, dev: str) -> None:
        bare.apply(MARKED, INET, unbound="corp", unbound_local=unbound_local)
        bare.ip(f"route add 10.60.0.0/16 via {self.GATEWAYS[0]}{dev}")
        bare.ip(f"-6 route add fd00:60::/64 via {self.GATEWAYS[1]} dev up0")
        bare.ip(f"route replace default via {self.GATEWAYS[0]}{dev}")
        for destination in ("10.60.0.0/16", "default"):
            assert [r["dev"] for r in bare.host.ip_json("route", "show", destination)] == ["up0"]
        bare.ip("route del default", f"route add default via {plan.in_lan(0, 1)[0]}{dev}")
        assert [r["dev"] for r in bare.host.ip_json("route", "show", "default")] == ["up0"]

    def test_they_do_while_the_tunnel_is_down(self, bare: Endpoint) -> None:
        bare.apply(MARKED, INET, unbound="corp")
        bare.ip("link set vpn0 down", "route del default")
        bare.ip(f"route add default via {plan.in_lan(0, 1)[0]}")
        assert [r["dev"] for r in bare.host.ip_json("route", "show", "default")] == ["up0"]

    def test_with_scope_link_they_land_on_the_tunnel(self, bare: Endpoint) -> None:
        bare.apply(MARKED, INET, unbound="corp")
        bare.ip(f"route replace default dev vpn0 scope link src {bare.inside[4]} table {T_CORP}")
        bare.ip(f"route add 10.60.0.0/16 via {self.GATEWAYS[0]}")
        assert [r["dev"] for r in bare.host.ip_json("route", "show", "10.60.0.0/16")] == ["vpn0"]

    def test_link_local_neighbours_are_reached_both_ways(self, bare: Endpoint) -> None:
        bare.apply(MARKED, INET, unbound="corp")
        neighbour = bare.lab.hosts["nbr0"]
        ours, theirs = bare.link_local(bare.host, "up0"), bare.link_local(neighbour, "up0")
        out = ask(bare.host, f"{theirs}%{bare.host.index('up0')}", "", proto="icmp")
        back = ask(neighbour, f"{ours}%{neighbour.index('up0')}", "", proto="icmp")
        assert bare.wrong(out, back) == []


class TestOnTheLink:
    """Broadcast and multicast of sockets that name their device, as DHCP and mDNS send them."""

    @pytest.mark.parametrize("unbound", ["keep", "corp"])
    def test_it_stays_there(self, bare: Endpoint, unbound: str) -> None:
        bare.apply(MARKED, INET, unbound=unbound)
        index = bare.host.index("up0")
        with bare.capture() as seen:
            with _datagrams(bare.host, socket.AF_INET) as opened:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"up0\0")
                opened.sendto(b"discover", ("255.255.255.255", 67))
            with _datagrams(bare.host, socket.AF_INET) as opened:
                opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(bare.outside[4]))
                opened.sendto(b"mdns", ("224.0.0.251", 5353))
            with _datagrams(bare.host, socket.AF_INET) as opened:
                opened.bind((bare.outside[4], 0))
                opened.sendto(b"subnet", (plan.in_lan(0, 255)[0], 137))
            with _datagrams(bare.host, socket.AF_INET6) as opened:
                opened.sendto(b"mdns", ("ff02::fb", 5353, 0, index))
        for destination in ("255.255.255.255", "224.0.0.251", plan.in_lan(0, 255)[0], "ff02::fb"):
            assert seen.left_by(destination=destination, proto="udp") == {"up0"}, destination


def _datagrams(host: Host, family: socket.AddressFamily) -> socket.socket:
    opened = host.socket(family, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return opened


def test_unbound_follows_the_tunnel_back(bare: Endpoint) -> None:
    """From full tunnel to `keep`, and everything is where it was."""
    bare.apply(MARKED, INET)
    kept = bare.state()
    bare.apply(MARKED, INET, unbound="corp", unbound_local="main")
    assert bare.lab.probe(bare.host, plan.ANYCAST[1], "tcp").name == TUNNEL
    bare.apply(MARKED, INET)
    assert bare.state() == kept
    assert Probe(bare.host, plan.ANYCAST[1], "tcp").ask().name == UPLINK


@pytest.mark.parametrize("family", [4, 6])
def test_a_family_without_an_inside_address_stays_where_it_was(make: Make, family: int) -> None:
    endpoint = make(mode="identity", families=(family,))
    endpoint.apply(MARKED, INET, unbound="corp", unbound_local="main")
    other = 10 - family
    elsewhere = ask(endpoint.host, plan.ANYCAST[other == 6], UPLINK, endpoint.outside[other])
    assert endpoint.wrong(endpoint.unbound(family, TUNNEL), elsewhere, endpoint.identities(family)) == []
