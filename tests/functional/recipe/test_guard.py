# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The egress guard with real packets: each way round the rules leaks without it, and nothing legitimate is dropped."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct
import typing as t

import pytest

from tests.functional.onhost import eventually
from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import CORP, INET, TUNNEL, UPLINK, Endpoint, ask
from tests.lab import Host
from tests.lab import addresses as plan

LEAKS = pytest.mark.parametrize("strict", ["true", "false"])
BOTH = pytest.mark.parametrize("family", [4, 6])
POOLED = {**CORP, "pools": list(plan.OTHER_POOL)}
PODS: dict[str, t.Any] = {"local_networks": ["auto", "cali0"]}
IP_PKTINFO = 8  # Python 3.11 has no name for it
LAN_BROADCAST = str(ipaddress.IPv4Network(plan.lan(0)[0]).broadcast_address)
PUBLISHED, CLOSED, ASKED = 8080, 7999, 7998
LENGTH = {4: 32, 6: 128}
PUBLISH = """
table inet fvt {{
    chain in {{
        type nat hook prerouting priority dstnat;
        ip daddr {inside4} tcp dport 8080 dnat ip to 172.20.0.2:7000
        ip6 daddr {inside6} tcp dport 8080 dnat ip6 to [fd00:20::2]:7000
        ip daddr {outside4} tcp dport 8080 dnat ip to 172.20.0.2:7000
        ip6 daddr {outside6} tcp dport 8080 dnat ip6 to [fd00:20::2]:7000
    }}
}}
"""


def publish(endpoint: Endpoint) -> None:
    """A port of the inside and of the outside address leads to the container, as Docker's do."""
    names = {f"inside{family}": address for family, address in endpoint.inside.items()}
    names |= {f"outside{family}": address for family, address in endpoint.outside.items()}
    endpoint.host.run(["nft", "-f", "-"], stdin=PUBLISH.format(**names))


def dropped(endpoint: Endpoint) -> int:
    """How many packets the guard has dropped."""
    listed = json.loads(endpoint.host.run(["nft", "-j", "list", "table", "inet", "fleetvpn"]).stdout)["nftables"]
    rules = [statement for entry in listed for statement in entry.get("rule", {}).get("expr", ())]
    return sum(statement["counter"]["packets"] for statement in rules if "counter" in statement)


def leaked(endpoint: Endpoint, do: t.Callable[[], object], *sources: str) -> set[str]:
    """The inside addresses with which packets left by the uplink meanwhile."""
    with endpoint.capture() as seen:
        do()
    return {p.source for p in seen.seen(dev="up0", outgoing=True) if p.proto != "arp" and p.source in sources}


def ask_all(endpoint: Endpoint, to: str, **how: t.Any) -> None:
    """A probe by each kind of socket, whose answer is not waited for."""
    for kind in ({"proto": "tcp"}, {"proto": "udp"}, {"proto": "udp", "connected": False}):
        endpoint.lab.probe(endpoint.host, to, **{"timeout": 0.1, **kind, **how})


def reach_by_uplink(endpoint: Endpoint) -> Host:
    """A neighbour of the LAN that believes the inside addresses to be behind the uplink's address."""
    neighbour = endpoint.lab.hosts["nbr0"]
    for family, address in endpoint.inside.items():
        via = endpoint.outside[family]
        neighbour.run(["ip", "route", "replace", f"{address}/{LENGTH[family]}", "via", via])
    return neighbour


class TestLeaks:
    """Without the guard each of them sends the inside address out by the uplink, whatever the rules say."""

    @LEAKS
    @pytest.mark.parametrize("to", [plan.in_lan(0, 200)[0], plan.ANYCAST[0]], ids=["lan", "far"])
    def test_a_socket_bound_to_the_uplinks_device(self, endpoint: Endpoint, strict: str, to: str) -> None:
        """IPv4 takes what it has no route for as a neighbour on that device."""
        endpoint.apply(CORP, INET, strict_egress=strict)
        inside = endpoint.inside[4]
        endpoint.ip(f"neigh replace {to} lladdr 02:00:00:00:00:99 dev up0")
        found = leaked(endpoint, lambda: ask_all(endpoint, to, source=inside, dev="up0"), inside)
        assert found == (set() if strict == "true" else {inside})

    @LEAKS
    def test_a_server_that_answers_by_the_device_it_was_asked_by(self, endpoint: Endpoint, strict: str) -> None:
        endpoint.apply(CORP, INET, strict_egress=strict)
        inside = endpoint.inside[4]
        neighbour = reach_by_uplink(endpoint)
        with answering_by_device(endpoint.host, inside) as answer:

            def asked() -> None:
                with neighbour.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                    asker.sendto(b"?", (inside, ASKED))
                    answer()

            assert leaked(endpoint, asked, inside) == (set() if strict == "true" else {inside})

    @LEAKS
    @pytest.mark.parametrize("how", ["deprecated", "tentative", "gone"])
    def test_ipv6_takes_the_source_of_another_device(self, endpoint: Endpoint, strict: str, how: str) -> None:
        endpoint.apply(CORP, INET, strict_egress=strict)
        outside, inside = endpoint.outside[6], endpoint.inside[6]
        neighbour = plan.in_lan(0, 200)[1]
        endpoint.ip(f"-6 neigh replace {neighbour} lladdr 02:00:00:00:00:99 dev up0")
        if how == "deprecated":
            endpoint.ip(f"addr change {outside}/64 dev up0 preferred_lft 0")
        else:
            endpoint.ip(f"addr del {outside}/64 dev up0", "-6 route add 2001:db8:2::/64 dev up0")
        if how == "tentative":
            endpoint.host.sysctl(ipv6__conf__up0__accept_dad=1, ipv6__conf__up0__dad_transmits=200)
            endpoint.ip(f"addr add {outside}/64 dev up0")
        found = leaked(endpoint, lambda: ask_all(endpoint, neighbour), inside)
        assert found == (set() if strict == "true" else {inside})

    @LEAKS
    @BOTH
    def test_the_reply_of_a_published_port(self, endpoint: Endpoint, strict: str, family: int) -> None:
        """Conntrack puts the inside address back after routing."""
        endpoint.apply(CORP, INET, strict_egress=strict)
        publish(endpoint)
        inside, asker = endpoint.inside[family], endpoint.lab.outside
        found = leaked(endpoint, lambda: endpoint.lab.probe(asker, inside, "tcp", port=PUBLISHED, timeout=0.3), inside)
        assert found == (set() if strict == "true" else {inside})
        answer = endpoint.lab.probe(asker, endpoint.outside[family], "tcp", port=PUBLISHED)
        assert answer.name == endpoint.container.name

    @LEAKS
    @BOTH
    def test_what_is_forwarded_from_a_pool(self, endpoint: Endpoint, strict: str, family: int) -> None:
        endpoint.apply(POOLED, INET, strict_egress=strict)
        source = plan.shifted(endpoint.inside[family], 3000)
        endpoint.container.address("eth0", f"{source}/{LENGTH[family]}")
        endpoint.host.route(f"{source}/{LENGTH[family]}", dev="br0")

        def forwarded() -> None:
            endpoint.lab.probe(endpoint.container, plan.ANYCAST[family == 6], "udp", source=source, timeout=0.1)

        assert leaked(endpoint, forwarded, source) == (set() if strict == "true" else {source})

    @LEAKS
    @BOTH
    def test_a_socket_that_still_has_the_address_of_before(self, make: Make, strict: str, family: int) -> None:
        """Its rule stays for a while; the guard holds also when that is gone."""
        endpoint = make(mode="identity")
        endpoint.apply(CORP, INET, strict_egress=strict)
        old, length = endpoint.inside[family], LENGTH[family]
        talk = endpoint.lab.conversation(endpoint.host, plan.ANYCAST[family == 6], source=old)
        assert talk.ask().name == TUNNEL
        endpoint.host.address("vpn0", f"{plan.shifted(old, 3000)}/{length}")
        endpoint.ip(f"addr del {old}/{length} dev vpn0")
        endpoint.apply()
        flush(endpoint)
        found = leaked(endpoint, talk.ask, old)
        talk.close()
        # IPv4 ends the connections of an address that goes.
        assert found == (set() if strict == "true" or family == 4 else {old})

    @pytest.mark.parametrize("strict", ["any", "true"])
    @BOTH
    def test_an_address_that_nobody_declared_yet(self, endpoint: Endpoint, strict: str, family: int) -> None:
        """Without a pool only the generic form knows it, until the watch does."""
        endpoint.apply(CORP, INET, strict_egress=strict)
        fresh = plan.shifted(endpoint.inside[family], 3000)
        endpoint.host.address("vpn0", f"{fresh}/{LENGTH[family]}")
        # With nodad a socket may have an IPv6 address a moment before the kernel's worker makes it one of this host.
        eventually(lambda: fresh in endpoint.ip(f"-{family} route show table local type local"))
        found = leaked(endpoint, lambda: ask_all(endpoint, plan.ANYCAST[family == 6], source=fresh), fresh)
        assert found == (set() if strict == "any" else {fresh})

    @LEAKS
    @BOTH
    def test_everything_when_somebody_flushed_the_rules(self, endpoint: Endpoint, strict: str, family: int) -> None:
        endpoint.apply(CORP, INET, strict_egress=strict)
        flush(endpoint)
        inside = endpoint.inside[family]
        found = leaked(endpoint, lambda: ask_all(endpoint, plan.ANYCAST[family == 6], source=inside), inside)
        assert found == (set() if strict == "true" else {inside})

    @LEAKS
    @BOTH
    def test_a_source_of_another_device_in_the_tunnel(self, endpoint: Endpoint, strict: str, family: int) -> None:
        """What the kernel gives to unbound sockets once the tunnel has lost its own address."""
        endpoint.apply(CORP, INET, strict_egress=strict)
        foreign = plan.BRIDGE[family == 6]
        with endpoint.capture() as seen:
            ask_all(endpoint, plan.CORPORATE_HOST[family == 6], source=foreign)
        assert seen.left_by(source=foreign) == (set() if strict == "true" else {"vpn0"})

    @LEAKS
    @BOTH
    def test_the_uplinks_address_in_the_tunnel(self, endpoint: Endpoint, strict: str, family: int) -> None:
        endpoint.apply(CORP, INET, strict_egress=strict)
        flush(endpoint)
        outside = endpoint.outside[family]
        with endpoint.capture() as seen:
            ask_all(endpoint, plan.CORPORATE_HOST[family == 6], source=outside)
        assert seen.left_by(source=outside) == (set() if strict == "true" else {"vpn0"})


def flush(endpoint: Endpoint) -> None:
    """Take all our rules away, as somebody else might."""
    endpoint.ip("rule flush protocol 151", "-6 rule flush protocol 151")


@contextlib.contextmanager
def answering_by_device(host: Host, address: str) -> t.Iterator[t.Callable[[], None]]:
    """A server that answers once by the very device that the question came in by, as dnsmasq does."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        server.bind((address, ASKED))
        server.settimeout(2)

        def answer() -> None:
            data, ((level, kind, info),), _flags, peer = server.recvmsg(64, 64)
            index, _local, asked = struct.unpack("i4s4s", info)
            with contextlib.suppress(PermissionError):  # what a drop on the way out gives to who sends
                server.sendmsg([data], [(level, kind, struct.pack("i4s4s", index, asked, b"\0" * 4))], 0, peer)

        yield answer


class TestNothingLegitimate:
    """With all options on, everything that works goes on working, and the guard counts no drop."""

    @pytest.mark.parametrize("strict", ["true", "any"])
    @pytest.mark.parametrize("rp_filter", [0, 1, 2])
    def test_everything_that_the_recipe_promises(self, endpoint: Endpoint, strict: str, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.apply(CORP, INET, strict_egress=strict, strict_ingress=True, **PODS)
        astray = endpoint.wrong(
            endpoint.both(endpoint.identities),
            endpoint.both(endpoint.neighbourhood),
            endpoint.both(endpoint.unbound),
            endpoint.both(lambda family: pods(endpoint, family)),
        )
        assert (astray, dropped(endpoint)) == ([], 0)

    def test_a_second_uplink(self, make: Make) -> None:
        endpoint = make()
        own = endpoint.lab.second_uplink(endpoint.client)
        second = {"name": "second", "interface": ["up1"], "gateway": list(plan.in_lan(1, 1))}
        endpoint.apply(CORP, INET, second, strict_egress="any", strict_ingress=True)
        questions = [q for at in (0, 1) for q in ask(endpoint.host, plan.ANYCAST[at], UPLINK, own[at], source=own[at])]
        astray = endpoint.wrong(questions, endpoint.both(endpoint.identities))
        assert (astray, dropped(endpoint)) == ([], 0)

    @BOTH
    def test_peers_of_the_vpn_that_it_forwards(self, endpoint: Endpoint, family: int) -> None:
        """They share the pool, and came in by the tunnel."""
        endpoint.apply(POOLED, INET, strict_egress="any", strict_ingress=True)
        peer, neighbour = plan.shifted(endpoint.inside[family], 3000), plan.in_lan(0, 200)[family == 6]
        with endpoint.capture() as seen:
            come_by_tunnel(endpoint, peer, neighbour)
        assert seen.left_by(source=peer) == {"up0"}
        with endpoint.capture() as seen:
            asker = endpoint.lab.hosts["nbr0"]
            asker.run(["ip", "route", "replace", f"{peer}/{LENGTH[family]}", "via", endpoint.outside[family]])
            endpoint.lab.probe(asker, peer, "udp", timeout=0.1)
        assert seen.left_by(destination=peer) == {"vpn0"}
        assert dropped(endpoint) == 0

    @pytest.mark.parametrize("identities", [(POOLED, INET), (POOLED,)], ids=["declared", "alone"])
    def test_a_hotel_network_inside_the_pool(self, make: Make, identities: tuple[dict[str, t.Any], ...]) -> None:
        endpoint = make(mode="identity")
        wide = {**POOLED, "pools": ["198.16.0.0/12", "2001:db8::/32"]}
        endpoint.apply(wide, *identities[1:], strict_egress="any", strict_ingress=True)
        astray = endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood))
        assert (astray, dropped(endpoint)) == ([], 0)

    @pytest.mark.parametrize("unbound", ["keep", "corp"])
    def test_multicast_broadcast_and_what_has_no_address_yet(self, endpoint: Endpoint, unbound: str) -> None:
        endpoint.apply(CORP, INET, strict_egress="any", strict_ingress=True, unbound=unbound)
        devices = ("up0", "vpn0", "br0")
        groups = (("224.0.0.251", "udp"), ("ff02::fb", "udp"), ("224.0.0.22", "2"), ("ff02::16", "icmp6"))
        wanted = {(device, *group) for device in devices for group in groups}
        wanted |= {(device, "255.255.255.255", "udp") for device in ("up0", "br0")}
        wanted |= {("up0", to, "udp") for to in (LAN_BROADCAST, plan.in_lan(0, 1)[0])}
        with endpoint.capture() as seen:
            for device in devices:
                announce(endpoint.host, device)
            discover(endpoint.host)
            renew(endpoint.host, endpoint.outside[4])
            offer(endpoint.host)
            # The kernel tells of groups a moment later.
            eventually(lambda: wanted <= {(p.dev, p.destination, p.proto) for p in seen.packets(outgoing=True)})
        assert dropped(endpoint) == 0

    @BOTH
    def test_errors_and_echoes(self, endpoint: Endpoint, family: int) -> None:
        endpoint.apply(CORP, INET, strict_egress="any", strict_ingress=True)
        inside, container = endpoint.inside[family], endpoint.container
        for asker in (endpoint.lab.outside, endpoint.lab.gateway, container):
            assert endpoint.lab.probe(asker, inside, "tcp", port=CLOSED).error == "ECONNREFUSED"
            assert endpoint.lab.probe(asker, inside, "udp", port=CLOSED).error == "ECONNREFUSED"
            assert endpoint.lab.probe(asker, inside)
        assert dropped(endpoint) == 0

    @pytest.mark.parametrize("rp_filter", [0, 1])
    def test_masqueraded_containers(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.apply(CORP, INET, strict_egress="any", strict_ingress=True)
        endpoint.masquerade()
        questions = endpoint.both(
            lambda family: [
                *ask(endpoint.container, plan.CORPORATE_HOST[family == 6], "corp", endpoint.inside[family]),
                *ask(endpoint.container, plan.ANYCAST[family == 6], UPLINK, endpoint.outside[family]),
            ]
        )
        astray = endpoint.wrong(questions)
        assert (astray, dropped(endpoint)) == ([], 0)


def pods(endpoint: Endpoint, family: int) -> list[t.Any]:
    """A pod on a device without addresses, to and from each identity."""
    pod, inside, outside = plan.POD[family == 6], endpoint.inside[family], endpoint.outside[family]
    return [
        *ask(endpoint.host, pod, endpoint.pod.name, inside, source=inside),
        *ask(endpoint.host, pod, endpoint.pod.name, outside, source=outside),
        *ask(endpoint.pod, inside, endpoint.name, pod),
        *ask(endpoint.pod, outside, endpoint.name, pod),
    ]


def come_by_tunnel(endpoint: Endpoint, source: str, to: str) -> None:
    """A packet of another peer of the VPN comes out of the tunnel."""
    gateway, family = endpoint.lab.gateway, "-6" if ":" in source else "-4"
    gateway.address("lo", f"{source}/{LENGTH[6 if ':' in source else 4]}")
    gateway.run(["ip", family, "route", "add", "default", "dev", f"s-{endpoint.name}", "table", "77"])
    gateway.run(["ip", family, "rule", "add", "from", source, "iif", "lo", "lookup", "77"])
    try:
        endpoint.lab.probe(gateway, to, "udp", source=source, timeout=0.1)
    finally:
        gateway.run(["ip", family, "rule", "del", "from", source, "iif", "lo", "lookup", "77"])
        gateway.run(["ip", family, "route", "flush", "table", "77"])
        gateway.run(["ip", "addr", "del", f"{source}/{LENGTH[6 if ':' in source else 4]}", "dev", "lo"])


def announce(host: Host, device: str) -> None:
    """Join the group of mDNS on a device, which the kernel tells by IGMP and MLD, and send to it."""
    index = host.index(device)
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        member = struct.pack("4s4si", socket.inet_aton("224.0.0.251"), b"\0" * 4, index)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, member)
        sender.sendto(b"?", ("224.0.0.251", 5353))
    with host.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        group = socket.inet_pton(socket.AF_INET6, "ff02::fb")
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("16si", group, index))
        sender.sendto(b"?", ("ff02::fb", 5353, 0, index))


def discover(host: Host) -> None:
    """As a DHCP client that has no address: bound to the device, from 0.0.0.0."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"up0\0")
        sender.bind(("", 68))
        sender.sendto(b"?", ("255.255.255.255", 67))


def renew(host: Host, own: str) -> None:
    """As a DHCP client whose lease ends: from its address to the server, and when that is silent, to all."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.bind((own, 68))
        for to in (plan.in_lan(0, 1)[0], LAN_BROADCAST):
            sender.sendto(b"?", (to, 67))


def offer(host: Host) -> None:
    """As a DHCP server on a bridge."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"br0\0")
        sender.bind((plan.BRIDGE[0], 67))
        sender.sendto(b"?", ("255.255.255.255", 68))


class TestIngress:
    """CVE-2019-14899: who is on the LAN sends to the inside address, and learns from what comes back."""

    @pytest.mark.parametrize("rp_filter", [0, 1, 2])
    @pytest.mark.parametrize("strict", [True, False])
    @BOTH
    def test_what_comes_in_by_the_uplink(self, endpoint: Endpoint, family: int, strict: bool, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.apply(CORP, INET, strict_ingress=strict)
        neighbour, inside = reach_by_uplink(endpoint), endpoint.inside[family]
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        with (
            endpoint.host.socket(kind, socket.SOCK_DGRAM) as server,
            neighbour.socket(kind, socket.SOCK_DGRAM) as asker,
        ):
            server.bind((inside, ASKED))
            server.settimeout(0.3)
            asker.sendto(b"?", (inside, ASKED))
            # With strict reverse paths IPv4 refuses it by itself, for our rules lead back into the tunnel.
            closed = strict or (family == 4 and rp_filter == 1)
            with pytest.raises(TimeoutError) if closed else contextlib.nullcontext():
                server.recv(64)

    @BOTH
    def test_what_comes_in_by_the_uplink_for_a_pool(self, endpoint: Endpoint, family: int) -> None:
        """An address out of the pool, before anybody knows that the host has it."""
        endpoint.apply(POOLED, INET, strict_ingress=True)
        fresh = plan.shifted(endpoint.inside[family], 3000)
        endpoint.host.address("vpn0", f"{fresh}/{LENGTH[family]}")
        neighbour = endpoint.lab.hosts["nbr0"]
        neighbour.run(["ip", "route", "replace", f"{fresh}/{LENGTH[family]}", "via", endpoint.outside[family]])
        before = dropped(endpoint)
        assert not endpoint.lab.probe(neighbour, fresh, timeout=0.3)
        assert dropped(endpoint) == before + 1

    @pytest.mark.parametrize("rp_filter", [0, 1, 2])
    def test_published_ports_still_work(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.apply(CORP, INET, strict_ingress=True)
        publish(endpoint)
        for family in (4, 6):
            for asker in (endpoint.lab.outside, endpoint.lab.hosts["nbr0"]):
                answer = endpoint.lab.probe(asker, endpoint.outside[family], "tcp", port=PUBLISHED)
                assert answer.name == endpoint.container.name
        assert dropped(endpoint) == 0
