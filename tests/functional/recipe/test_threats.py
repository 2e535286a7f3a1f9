# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an attacker or an accident does, captures on every device, and that each works without our measure.

The guide docs/docsite/rst/guide_threats.rst names these tests.
"""

from __future__ import annotations

import contextlib
import ipaddress
import pathlib
import socket
import subprocess
import time
import typing as t

import dpkt  # type: ignore[import-untyped]
import pytest

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import (
    CORP,
    INET,
    T_CORP,
    TUNNEL,
    TUNNEL_LOCAL,
    TUNNEL_OWN,
    TUNNEL_STOP,
    UPLINK,
    Endpoint,
    Question,
    ask,
)
from tests.lab import Capture, Host
from tests.lab import addresses as plan

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
LENGTH = {4: 32, 6: 128}
IPV6_HDRINCL = 36
DNSMASQ = """
port=0
interface=up0
bind-interfaces
dhcp-range={pool},1h
dhcp-host={mac},{address}
dhcp-option=option:router,{router}
dhcp-option=option:classless-static-route,{target}/32,{attacker},0.0.0.0/0,{router}
dhcp-leasefile={directory}/leases
"""


@pytest.fixture
def endpoint(make: Make) -> Endpoint:
    return make(mode="identity")


def expose(endpoint: Endpoint) -> None:
    """Take away what holds an inside address to its tunnel."""
    endpoint.drop_rules(TUNNEL_LOCAL, TUNNEL_OWN, TUNNEL_STOP)
    endpoint.host.run(["nft", "delete", "table", "inet", "fleetvpn"])


class Senders:
    """Programs that go on sending from the inside addresses by sockets that they opened before: datagrams and TCP."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._stack = contextlib.ExitStack()
        self._datagrams: list[tuple[socket.socket, str]] = []
        self._streams: list[socket.socket] = []

    def __enter__(self) -> Senders:
        for family, address in self._endpoint.inside.items():
            far = plan.ANYCAST[family == 6]
            opened = self._open(FAMILIES[family], socket.SOCK_DGRAM, address)
            self._datagrams.append((opened, far))
            stream = self._open(FAMILIES[family], socket.SOCK_STREAM, address)
            stream.settimeout(2)
            with contextlib.suppress(OSError):  # refused by a backstop
                stream.connect((far, 7000))
            self._streams.append(stream)
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _open(self, family: int, kind: int, address: str) -> socket.socket:
        opened = self._stack.enter_context(self._endpoint.host.socket(family, kind))
        opened.bind((address, 0))
        return opened

    def send(self) -> None:
        """Once each; TCP sends again by itself."""
        for opened, far in self._datagrams:
            with contextlib.suppress(OSError):
                opened.sendto(b"?\n", (far, 7000))
        for opened in self._streams:
            with contextlib.suppress(OSError):
                opened.send(b"?\n")

    def devices(self) -> dict[int, set[str]]:
        """By which devices each family's packets leave now."""
        with Capture(self._endpoint.host, settle=0.3) as seen:
            self.send()
        return {family: seen.left_by(source=address) for family, address in self._endpoint.inside.items()}


def vanish(endpoint: Endpoint, how: str) -> None:
    """What happens to the tunnel while programs are sending."""
    if how == "down":
        endpoint.ip("link set vpn0 down")
    elif how == "deleted":
        endpoint.client.down()
    elif how == "flushed":
        endpoint.ip(f"route flush table {T_CORP}", f"-6 route flush table {T_CORP}")
    else:
        for family, address in endpoint.inside.items():
            endpoint.ip(f"addr del {address}/{LENGTH[family]} dev vpn0")


# An IPv4 address that is gone can be no source any more: what is sent from it ends in the kernel, with us or without.
LEAKS = {"down": {4, 6}, "deleted": {6}, "flushed": {4, 6}, "address": {6}}


class TestTunnelGoes:
    @pytest.mark.parametrize("again", [False, True], ids=["at once", "after the next run"])
    @pytest.mark.parametrize("how", LEAKS)
    def test_nothing_leaves_by_the_uplink(self, endpoint: Endpoint, how: str, again: bool) -> None:
        endpoint.apply(CORP, INET)
        with Senders(endpoint) as senders:
            assert senders.devices() == {4: {"vpn0"}, 6: {"vpn0"}}
            vanish(endpoint, how)
            if again:
                endpoint.apply()
            if how == "flushed" and again:
                assert senders.devices() == {4: {"vpn0"}, 6: {"vpn0"}}
            else:
                # An IPv6 address that has only just gone may still be sent from, into the tunnel.
                assert set().union(*senders.devices().values()) <= ({"vpn0"} if how == "address" else set())

    @pytest.mark.parametrize("how", LEAKS)
    def test_without_the_rules_it_does(self, endpoint: Endpoint, how: str) -> None:
        endpoint.apply(CORP, INET)
        with Senders(endpoint) as senders:
            vanish(endpoint, how)
            expose(endpoint)
            assert senders.devices() == {f: {"up0"} if f in LEAKS[how] else set() for f in (4, 6)}

    def test_without_the_rules_a_device_that_is_made_anew_is_not_taken(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        with Senders(endpoint) as senders:
            endpoint.client.down()
            endpoint.client.up()
            expose(endpoint)
            assert senders.devices() == {4: {"up0"}, 6: {"up0"}}

    @pytest.mark.parametrize("kept", [True, False], ids=["same address", "another address"])
    def test_a_device_that_is_made_anew(self, endpoint: Endpoint, kept: bool) -> None:
        """Between its return and the next run the table is empty; what the new address is, is the pool's to know."""
        endpoint.apply({**CORP, "pools": list(plan.OTHER_POOL)}, INET)
        with Senders(endpoint) as senders:
            endpoint.client.down()
            assert senders.devices() == {4: set(), 6: set()}
            if kept:
                endpoint.client.up()
            else:
                fresh = [plan.shifted(endpoint.inside[4], 3000), plan.shifted(endpoint.inside[6], 0x30000)]
                endpoint.client.tunnel.configure(fresh, "identity")
                endpoint.client.up()
                with Senders(_renamed(endpoint, fresh)) as newer:
                    assert "up0" not in set().union(*newer.devices().values())
            assert "up0" not in set().union(*senders.devices().values())
            endpoint.apply()
            assert "up0" not in set().union(*senders.devices().values())
        assert endpoint.wrong(endpoint.both(endpoint.identities)) == []


def _renamed(endpoint: Endpoint, fresh: t.Sequence[str]) -> Endpoint:
    endpoint.inside = {4: fresh[0], 6: fresh[1]}
    return endpoint


# -- the local network ------------------------------------------------------------------------------------------------


def own(host: Host, *addresses: str) -> None:
    """A host answers to these addresses too."""
    for address in addresses:
        version, length = ("-6", 128) if ":" in address else ("-4", 32)
        host.run(["ip", version, "addr", "replace", f"{address}/{length}", "dev", "lo", "preferred_lft", "0"])


class Attack(t.NamedTuple):
    """Where the victims' packets shall go: by what the local network says, to the attacker."""

    targets: tuple[str, str]

    def inside(self, endpoint: Endpoint) -> list[Question]:
        """What the inside addresses must reach: the real host, by the tunnel."""
        return [
            q
            for family, address in endpoint.inside.items()
            for q in ask(endpoint.host, self.targets[family == 6], TUNNEL, address, source=address)
        ]

    def unbound(self, endpoint: Endpoint, name: str) -> list[Question]:
        return [q for target in self.targets for q in ask(endpoint.host, target, name)]


@pytest.fixture
def lan(endpoint: Endpoint, tmp_path: pathlib.Path) -> t.Iterator[t.Callable[[str], Attack]]:
    """The local network's attacks, by name. Each has a target of its own."""
    attacker, gateway = endpoint.lab.hosts["nbr0"], endpoint.lab.gateway
    running: list[subprocess.Popen[t.Any]] = []

    def begin(name: str) -> Attack:
        place = 20 + list(ATTACKS).index(name)
        targets = (plan.shifted(plan.ANYCAST[0], place), plan.shifted(plan.ANYCAST[1], place))
        own(attacker, *targets)
        own(gateway, *targets)
        running.extend(ATTACKS[name](endpoint, attacker, targets, tmp_path))
        return Attack(targets)

    yield begin
    for process in running:
        process.kill()
        process.wait()


def tunnel_vision(
    endpoint: Endpoint, attacker: Host, targets: tuple[str, str], directory: pathlib.Path
) -> list[subprocess.Popen[t.Any]]:
    """A DHCP server pushes routes (option 121), to a real client; in IPv6 a router advertisement's route stands in."""
    mac = endpoint.host.ip_json("link", "show", "up0")[0]["address"]
    text = DNSMASQ.format(
        pool=f"{plan.in_lan(0, 201)[0]},{plan.in_lan(0, 210)[0]}",
        mac=mac,
        address=endpoint.outside[4],
        router=plan.in_lan(0, 1)[0],
        target=targets[0],
        attacker=plan.in_lan(0, 200)[0],
        directory=directory,
    )
    (directory / "dnsmasq.conf").write_text(text)
    server = attacker.popen(["dnsmasq", "--no-daemon", "--user=root", f"--conf-file={directory}/dnsmasq.conf"])
    endpoint.ip(f"addr del {endpoint.outside[4]}/24 dev up0")
    files = ["-lf", "/run/fvt-dhclient.leases", "-pf", "/run/fvt-dhclient.pid"]
    client = endpoint.host.popen(["dhclient", "-d", "-4", *files, "up0"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not endpoint.host.ip_json("route", "show", targets[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    endpoint.ip(f"-6 route add {targets[1]}/128 via {plan.in_lan(0, 200)[1]} dev up0 proto ra")
    return [client, server]


def local_net(
    endpoint: Endpoint, attacker: Host, targets: tuple[str, str], _directory: pathlib.Path
) -> list[subprocess.Popen[t.Any]]:
    """The local network says that the public prefix of the target is its own."""
    attacker.run(["ip", "addr", "replace", f"{targets[1]}/128", "dev", "up0", "nodad", "preferred_lft", "0"])
    network = ipaddress.ip_network(f"{targets[0]}/30", strict=False)
    endpoint.ip(f"route add {network} dev up0 proto dhcp scope link src {endpoint.outside[4]}")
    endpoint.ip(f"-6 route add {targets[1]}/128 dev up0 proto ra")
    return []


def server_ip(
    endpoint: Endpoint, attacker: Host, targets: tuple[str, str], _directory: pathlib.Path
) -> list[subprocess.Popen[t.Any]]:
    """DNS told the VPN client that the target is its server: the client exempts it from the tunnel."""
    for at, version in ((0, "-4"), (1, "-6")):
        endpoint.ip(f"{version} route add {targets[at]} via {plan.in_lan(0, 200)[at]} dev up0")
    return []


ATTACKS: dict[str, t.Callable[[Endpoint, Host, tuple[str, str], pathlib.Path], list[subprocess.Popen[t.Any]]]] = {
    "tunnel_vision": tunnel_vision,
    "local_net": local_net,
    "server_ip": server_ip,
}


@pytest.mark.parametrize("name", ATTACKS)
class TestLocalNetwork:
    def test_it_does_not_get_what_is_sent_from_the_inside_address(
        self, endpoint: Endpoint, lan: t.Callable[[str], Attack], name: str
    ) -> None:
        endpoint.apply(CORP, INET)
        attack = lan(name)
        endpoint.apply()
        with endpoint.capture() as seen:
            assert endpoint.wrong(attack.inside(endpoint)) == []
        assert [seen.left_by(source=address) for address in endpoint.inside.values()] == [{"vpn0"}] * 2
        # What stays exposed: unbound traffic, which main decides.
        assert endpoint.wrong(attack.unbound(endpoint, "nbr0")) == []
        expose(endpoint)
        with endpoint.capture() as seen:
            assert len(endpoint.wrong(attack.inside(endpoint))) == 6
        assert [seen.left_by(source=address) for address in endpoint.inside.values()] == [{"up0"}] * 2

    @pytest.mark.parametrize(("unbound_local", "reached"), [("none", TUNNEL), ("main", "nbr0")])
    def test_it_gets_unbound_traffic_of_a_full_tunnel_only_with_mains_routes(
        self, endpoint: Endpoint, lan: t.Callable[[str], Attack], name: str, unbound_local: str, reached: str
    ) -> None:
        endpoint.apply(CORP, INET, unbound="corp", unbound_local=unbound_local)
        attack = lan(name)
        endpoint.apply()
        assert endpoint.wrong(attack.unbound(endpoint, reached)) == []


# -- spoofed packets --------------------------------------------------------------------------------------------------


def spoof(endpoint: Endpoint, family: int) -> None:
    """A neighbour sends the inside address a question in the name of a far host (CVE-2019-14899), by the uplink."""
    attacker = endpoint.lab.hosts["nbr0"]
    inside, far, outside = endpoint.inside[family], plan.ANYCAST[family == 6], endpoint.outside[family]
    attacker.run(["ip", f"-{family}", "route", "replace", inside, "via", outside, "dev", "up0"])
    udp = dpkt.udp.UDP(sport=4444, dport=7000, data=b"?\n")
    udp.ulen = len(udp)
    packed = {True: _ipv6, False: _ipv4}[family == 6](udp, far, inside)
    level, option = (socket.IPPROTO_IPV6, IPV6_HDRINCL) if family == 6 else (socket.IPPROTO_IP, socket.IP_HDRINCL)
    with attacker.socket(FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(level, option, 1)
        raw.sendto(packed, (inside, 0))


def _ipv4(udp: t.Any, source: str, destination: str) -> bytes:
    addresses = {"src": socket.inet_aton(source), "dst": socket.inet_aton(destination)}
    return bytes(dpkt.ip.IP(p=17, ttl=64, len=20 + len(udp), data=udp, **addresses))


def _ipv6(udp: t.Any, source: str, destination: str) -> bytes:
    src, dst = (socket.inet_pton(socket.AF_INET6, address) for address in (source, destination))
    pseudo = src + dst + len(udp).to_bytes(4, "big") + b"\0\0\0\x11"
    udp.sum = dpkt.in_cksum(pseudo + bytes(udp))
    return bytes(dpkt.ip6.IP6(src=src, dst=dst, nxt=17, hlim=64, plen=len(udp), data=udp))


def reactions(endpoint: Endpoint, family: int) -> set[str]:
    """By which devices the host answers what was spoofed, encrypted or not: the attacker sees that it does."""
    with endpoint.capture() as seen:
        spoof(endpoint, family)
        time.sleep(0.1)
    assert seen.arrived_by(destination=endpoint.inside[family], sport=4444) == {"up0"}
    return seen.left_by(source=endpoint.inside[family])


class TestSpoofed:
    def test_strict_reverse_path_filtering_drops_it_in_ipv4(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        assert reactions(endpoint, 4) == {"vpn0"}
        endpoint.apply(CORP, INET, sysctls=["rp_filter"])
        assert reactions(endpoint, 4) == set()
        endpoint.ip("link set vpn0 down")
        endpoint.apply()
        assert reactions(endpoint, 4) == set()

    @pytest.mark.parametrize("rp_filter", [0, 1, 2])
    @pytest.mark.parametrize("family", [4, 6])
    def test_strict_ingress_drops_it(self, endpoint: Endpoint, family: int, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.apply(CORP, INET)
        dropped_anyway = (family, rp_filter) == (4, 1)
        assert reactions(endpoint, family) == (set() if dropped_anyway else {"vpn0"})
        endpoint.apply(CORP, INET, strict_ingress=True)
        assert reactions(endpoint, family) == set()
        assert endpoint.wrong(endpoint.identities(family)) == []


class TestArp:
    def asked(self, endpoint: Endpoint) -> bool:
        """Whether the host tells a neighbour that it has the inside address."""
        attacker = endpoint.lab.hosts["nbr0"]
        attacker.run(["ip", "route", "replace", endpoint.inside[4], "dev", "up0"])
        attacker.run(["ip", "neigh", "flush", "to", endpoint.inside[4]])
        endpoint.lab.probe(attacker, endpoint.inside[4], "icmp", timeout=0.3)
        known = attacker.ip_json("neigh", "show", "to", endpoint.inside[4])
        return any("lladdr" in entry for entry in known)

    def told(self, endpoint: Endpoint) -> set[str]:
        """As whom the host asks for a neighbour when a socket of the inside address is bound to the uplink."""
        endpoint.ip("neigh flush dev up0")
        with endpoint.capture() as seen:
            endpoint.lab.probe(
                endpoint.host, plan.in_lan(0, 200)[0], "udp", source=endpoint.inside[4], dev="up0", timeout=0.2
            )
        return {p.source for p in seen.seen(proto="arp", outgoing=True, destination=plan.in_lan(0, 200)[0])}

    def test_the_lan_does_not_learn_the_inside_address(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        assert self.asked(endpoint)
        endpoint.apply(CORP, INET, sysctls=["arp"])
        assert not self.asked(endpoint)
        assert endpoint.wrong(endpoint.both(endpoint.neighbourhood)) == []

    def test_the_lan_is_not_told_it_either(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET, sysctls=["arp"], strict_egress="false")
        assert endpoint.inside[4] not in self.told(endpoint)
        endpoint.host.sysctl(ipv4__conf__up0__arp_announce=0)
        assert endpoint.inside[4] in self.told(endpoint)


class TestSourceSelection:
    """IPv6 takes the source of an unbound socket from any device if the uplink's address is past its prime."""

    def spoil(self, endpoint: Endpoint, how: str) -> None:
        outside = endpoint.outside[6]
        if how == "deprecated":
            endpoint.ip(f"-6 addr change {outside}/64 dev up0 preferred_lft 0")
            return
        endpoint.ip(f"-6 addr del {outside}/64 dev up0")
        # Nobody answers for as long as the test takes: the address stays tentative.
        endpoint.host.sysctl(ipv6__conf__up0__dad_transmits=100, ipv6__conf__up0__accept_dad=1)
        endpoint.ip(f"-6 addr add {outside}/64 dev up0")

    def left(self, endpoint: Endpoint) -> tuple[set[str], set[str]]:
        """By which devices unbound packets left with the inside and the outside address."""
        with endpoint.capture() as seen:
            for proto in ("tcp", "udp", "icmp"):
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[1], proto, timeout=0.1)
        far = {"destination": plan.ANYCAST[1]}
        return seen.left_by(source=endpoint.inside[6], **far), seen.left_by(source=endpoint.outside[6], **far)

    @pytest.mark.parametrize(("how", "works"), [("deprecated", True), ("tentative", False)])
    def test_the_uplinks_own_addresses_alone(self, endpoint: Endpoint, how: str, works: bool) -> None:
        endpoint.apply(CORP, INET, strict_egress="false")
        self.spoil(endpoint, how)
        endpoint.apply()
        assert self.left(endpoint) == ({"up0"}, set())
        endpoint.apply(CORP, INET, strict_egress="false", sysctls=["use_oif_addrs_only"])
        assert self.left(endpoint) == (set(), {"up0"} if works else set())

    @pytest.mark.parametrize("how", ["deprecated", "tentative"])
    def test_the_guard_makes_it_a_failure(self, endpoint: Endpoint, how: str) -> None:
        """Packet sockets see a packet of an output device behind the guard: what is dropped is not seen."""
        endpoint.apply(CORP, INET)
        self.spoil(endpoint, how)
        endpoint.apply()
        assert self.left(endpoint) == (set(), set())


def test_unbound_traffic_and_dns_stay_where_main_sends_them(endpoint: Endpoint) -> None:
    """What the identities do not protect, said in the guide: by the uplink before, by the uplink after."""
    before = endpoint.both(endpoint.unbound)
    assert endpoint.wrong(before) == []
    endpoint.apply(CORP, INET)
    assert endpoint.wrong(before) == []
    resolver = [q for at in (0, 1) for q in ask(endpoint.host, plan.ANYCAST[at], UPLINK, proto="udp", connected=False)]
    assert endpoint.wrong(resolver) == []
