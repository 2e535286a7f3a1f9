# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the scenarios' network: flows between its containers, and the devices by which packets leave."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import os
import subprocess
import time
import typing as t

from tests.lab import addresses as plan
from tests.lab.capture import Capture
from tests.lab.containers import container
from tests.lab.host import Host, family_of
from tests.lab.probes import Answer, Probe
from tests.lab.responder import Responder
from tests.lab.topology import UPLINK

CLIENTS = ("fvt-split", "fvt-full")
FAMILIES = (4, 6)
HOSTS = (*CLIENTS, "fvt-internet", "fvt-gateway", "fvt-lan", "fvt-split-pod", "fvt-full-pod")
NEIGHBOUR = plan.in_lan(0, 200)
# A packet into a bridge is seen on the bridge and on its port.
BRIDGE = frozenset({"br0", "c0"})
TUNNELS = {
    "ipsec": ("ipsec0", plan.IPSEC_POOL),
    "nebula": ("nebula0", plan.NEBULA_POOL),
    "openconnect": ("oc0", plan.OPENCONNECT_POOL),
    "openvpn": ("tun0", plan.OPENVPN_POOL),
    "overlay": ("tinc0", plan.TINC_POOL),
    "ppp": ("ppp0", plan.PPP_POOL),
    "wireguard": ("wg0", plan.WIREGUARD_POOL),
}
UNITS = {
    "ipsec": "strongswan.service",
    "nebula": "nebula@corp.service",
    "openconnect": "openconnect@corp.service",
    "openvpn": "openvpn-client@corp.service",
    "overlay": "tinc@corp.service",
    "ppp": "ppp@corp.service",
    "wireguard": "wg-quick@wg0.service",
}
SOON = 20  # seconds, for daemons that have to notice first
# What option sysctls sets, and what is beside it.
_SYSCTLS = (
    *(f"/proc/sys/net/ipv4/conf/{UPLINK}/{leaf}" for leaf in ("rp_filter", "src_valid_mark", "arp_*")),
    f"/proc/sys/net/ipv6/conf/{UPLINK}/use_oif_addrs_only",
)
_SOCKETS = (("icmp", True), ("tcp", True), ("udp", True), ("udp", False))


# Into the tunnel, as all from the inside address, where strongSwan drops what none of its selectors holds, and Nebula
# what none of its routes does.
UNSELECTED = {("ipsec", "fvt-split", "I", "neighbour"), ("nebula", "fvt-split", "I", "neighbour")}


@dataclasses.dataclass(frozen=True)
class Client:
    """An endpoint: its addresses, its tunnel, for some families. C(shift): its inside ones are that many further on."""

    name: str
    kind: str
    families: tuple[int, ...]
    shift: int = 0

    @property
    def tunnel(self) -> str:
        return TUNNELS[self.kind][0]

    @property
    def unit(self) -> str:
        """Of the VPN."""
        return UNITS[self.kind]

    @property
    def pool(self) -> tuple[str, str]:
        """Out of which it gets its inside addresses."""
        return TUNNELS[self.kind][1]

    @property
    def inside(self) -> tuple[str, ...]:
        """One of each family that the tunnel carries."""
        both = plan.inside(self.pool, CLIENTS.index(self.name) + self.shift)
        return tuple(address for address in both if family_of(address) in self.families)

    @property
    def outside(self) -> tuple[str, str]:
        return plan.in_lan(0, 10 + CLIENTS.index(self.name))

    def own(self, version: int) -> dict[str, str]:
        """Its addresses of one family, by the identity's letter; without I where the tunnel carries none."""
        addresses = [("I", address) for address in self.inside] + [("O", address) for address in self.outside]
        return {identity: address for identity, address in addresses if family_of(address) == FAMILIES[version]}


@dataclasses.dataclass(frozen=True)
class Flow:
    """A question, and what to look for in the captures of the client: outgoing packets with these fields."""

    client: Client
    text: str
    probe: Probe
    look_for: t.Mapping[str, str]
    expected: frozenset[str] = frozenset()
    answered: bool = True

    def label(self) -> str:
        """In words: who asks whom, over what."""
        kind = self.probe.proto if self.probe.connected else f"{self.probe.proto} unconnected"
        return f"{self.client.name}: {self.text}, IPv{family_of(self.probe.to)} {kind}"


@dataclasses.dataclass(frozen=True)
class Found:
    """What came of a flow."""

    flow: Flow
    answer: Answer
    left_by: frozenset[str]

    @property
    def right(self) -> bool:
        """Answered if it can be, and the client's packets left by the devices that they should, and by no other."""
        return self.answer.ok is self.flow.answered and self.left_by == self.flow.expected

    def __str__(self) -> str:
        answer = self.answer.error or "answered"
        return f"{self.flow.label()}: {answer}, left by {sorted(self.left_by)}, expected {sorted(self.flow.expected)}"


class Network:
    """The containers as hosts, with servers on all of them."""

    def __init__(self, kind: str) -> None:
        self.clients = [Client(name, kind, tuple(scenario(name)["vpn_families"])) for name in CLIENTS]
        self.hosts = {name: container(name) for name in HOSTS}
        self._responder = Responder()
        for host in self.hosts.values():
            self._responder.listen(host)

    def close(self) -> None:
        """Close the servers."""
        self._responder.close()

    def host(self, client: Client) -> Host:
        """The container of an endpoint."""
        return self.hosts[client.name]

    def wait_for_tunnels(self, seconds: float = 30) -> None:
        """Wait until the gateway reaches every inside address. What is not reached by then is for the tests to say."""
        deadline = time.monotonic() + seconds
        gateway = self.hosts["fvt-gateway"]
        waiting = [Probe(gateway, address, timeout=1) for client in self.clients for address in client.inside]
        while waiting and time.monotonic() < deadline:
            waiting = [probe for probe in waiting if not probe.ask()]

    def ask(self, flows: t.Sequence[Flow]) -> list[Found]:
        """Ask all at once, captures on every device of every client."""
        captures = {client.name: Capture(self.host(client)) for client in self.clients}
        with captures[CLIENTS[0]], captures[CLIENTS[1]], concurrent.futures.ThreadPoolExecutor(128) as pool:
            answers = list(pool.map(Probe.ask, [flow.probe for flow in flows]))
        return [_found(flow, answer, captures[flow.client.name]) for flow, answer in zip(flows, answers)]

    def right_soon(self) -> None:
        """Every reply, and the hosts' own word for it, within a time."""
        self.wait_for_tunnels()
        deadline = time.monotonic() + SOON
        while True:
            wrong = [str(one) for one in self.ask(self.asked()) if not one.right]
            states = [verdict(self.host(client)) for client in self.clients]
            if (not wrong and set(states) == {"proven"}) or time.monotonic() > deadline:
                break
        assert (wrong, states) == ([], ["proven"] * len(states))

    # -- what is asked --------------------------------------------------------------------------------------------

    def asked(self) -> list[Flow]:
        """Questions from everywhere to both identities of each client."""
        return [flow for client in self.clients for version in (0, 1) for flow in self._asked(client, version)]

    def chosen(self) -> list[Flow]:
        """Questions of each client by sockets bound to either address."""
        return [flow for client in self.clients for version in (0, 1) for flow in self._chosen(client, version)]

    def unbound(self) -> list[Flow]:
        """Questions of each client by sockets that chose no source, and what its container sends into the world."""
        return [flow for client in self.clients for version in (0, 1) for flow in self._unbound(client, version)]

    def _asked(self, client: Client, version: int) -> t.Iterator[Flow]:
        tunnel, uplink = frozenset({client.tunnel}), frozenset({UPLINK})
        for asker, name, source, ways in (
            ("Internet", "fvt-internet", plan.OUTSIDE_HOST, {"I": tunnel, "O": uplink}),
            ("corporate", "fvt-gateway", plan.CORPORATE_HOST, {"I": tunnel, "O": uplink}),
            ("neighbour", "fvt-lan", NEIGHBOUR, {"O": uplink}),
            ("second router", "fvt-lan", plan.SIDE_HOST, {"O": uplink}),
            ("container", f"{client.name}-pod", plan.CONTAINER, {"I": BRIDGE, "O": BRIDGE}),
        ):
            for (identity, address, expected), (proto, connected) in _product(client.own(version), ways):
                probe = Probe(self.hosts[name], address, proto, source=source[version], connected=connected)
                look_for = {"source": address, "destination": source[version]}
                yield Flow(client, f"{asker} -> {identity}", probe, look_for, expected)

    def _chosen(self, client: Client, version: int) -> t.Iterator[Flow]:
        tunnel, uplink = frozenset({client.tunnel}), frozenset({UPLINK})
        for destination, to, ways in (
            ("Internet", plan.OUTSIDE_HOST, {"I": tunnel, "O": uplink}),
            ("corporate", plan.CORPORATE_HOST, {"I": tunnel, "O": uplink}),
            ("neighbour", NEIGHBOUR, {"I": tunnel, "O": uplink}),
            ("second router", plan.SIDE_HOST, {"O": uplink}),
            ("container", plan.CONTAINER, {"I": BRIDGE, "O": BRIDGE}),
        ):
            for (identity, address, expected), (proto, connected) in _product(client.own(version), ways):
                probe = Probe(self.host(client), to[version], proto, source=address, connected=connected)
                look_for = {"source": address, "destination": to[version]}
                lost = (client.kind, client.name, identity, destination) in UNSELECTED
                yield Flow(client, f"{identity} -> {destination}", probe, look_for, expected, not lost)

    def _unbound(self, client: Client, version: int) -> t.Iterator[Flow]:
        pod = self.hosts[f"{client.name}-pod"]
        for asker, host, destination, to in (
            ("unbound", self.host(client), "Internet", plan.OUTSIDE_HOST),
            ("unbound", self.host(client), "corporate", plan.CORPORATE_HOST),
            ("unbound", self.host(client), "neighbour", NEIGHBOUR),
            ("unbound", self.host(client), "second router", plan.SIDE_HOST),
            ("unbound", self.host(client), "container", plan.CONTAINER),
            # Without address translation nobody can answer it: it is about the device.
            ("container", pod, "Internet", plan.OUTSIDE_HOST),
            ("container", pod, "corporate", plan.CORPORATE_HOST),
        ):
            for proto, connected in _SOCKETS:
                probe = Probe(host, to[version], proto, connected=connected, timeout=1)
                look_for = {"destination": to[version]}
                if host is pod:
                    look_for["source"] = plan.CONTAINER[version]
                yield Flow(client, f"{asker} -> {destination}", probe, look_for)


_Way = tuple[str, str, frozenset[str]]


def _product(own: dict[str, str], ways: dict[str, frozenset[str]]) -> t.Iterator[tuple[_Way, tuple[str, bool]]]:
    """Identities that have an address, with it and their devices; each with every kind of socket."""
    has = [(identity, own[identity], devices) for identity, devices in ways.items() if identity in own]
    return ((way, kind) for way in has for kind in _SOCKETS)


def _found(flow: Flow, answer: Answer, capture: Capture) -> Found:
    proto = "icmp6" if flow.probe.proto == "icmp" and ":" in flow.probe.to else flow.probe.proto
    left = {packet.dev for packet in capture.seen(outgoing=True, proto=proto, **flow.look_for)}
    return Found(flow, answer, frozenset(left))


@functools.cache
def scenario(name: str = CLIENTS[0]) -> dict[str, t.Any]:
    """What the inventory of the scenario says of a host. Raises CalledProcessError."""
    command = ["ansible-inventory", "-i", os.environ["FLEETVPN_INVENTORY"], "--host", name]
    said: dict[str, t.Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return said


def not_shown() -> list[str]:
    """What this scenario does not show, in words for whoever reads that it passed."""
    return list(scenario()["vpn_not_shown"])


def state(host: Host) -> dict[str, list[str]]:
    """All rules and routes of a host, its nftables tables and its uplink's sysctls, as text in a stable order.

    Without link-local ones, which devices come with.
    """
    found = {
        "tables": [json.dumps({"nftables": table}) for table in tables(host)],
        "sysctls": [json.dumps({"sysctl": name, "value": value}) for name, value in sysctls(host).items()],
    }
    for kind, arguments in (("rules", ("rule",)), ("routes", ("route", "show", "table", "all"))):
        for family in ("-4", "-6"):
            entries = [json.dumps(entry, sort_keys=True) for entry in host.ip_json("-N", family, *arguments)]
            found[f"{kind} {family}"] = sorted(
                entry for entry in entries if "fe80" not in entry and "ff00" not in entry
            )
    return found


def tables(host: Host) -> list[str]:
    """Of nftables, by family and name."""
    listed = json.loads(host.run(["nft", "-j", "list", "tables"]).stdout)["nftables"]
    found = [entry["table"] for entry in listed if "table" in entry]
    return sorted(f"{table['family']} {table['name']}" for table in found)


def sysctls(host: Host) -> dict[str, str]:
    """Of the uplink, by the last part of their names."""
    lines = host.shell("grep . " + " ".join(_SYSCTLS)).splitlines()
    return dict(sorted(line.rpartition("/")[2].split(":") for line in lines))


def guard(host: Host) -> str:
    """The table of the egress guard, as nft lists it; empty without one."""
    return host.run(["nft", "--stateless", "list", "table", "inet", "fleetvpn"], check=False).stdout


def verdict(host: Host) -> str:
    """What a host says of itself."""
    found: str = json.loads(host.run(["fleetvpn-endpoint", "status", "--json"], check=False).stdout)["state"]
    return found


def invocation(host: Host, unit: str) -> str:
    """What systemd calls this run of a unit; a restart is another one."""
    return host.run(["systemctl", "show", "--value", "--property", "InvocationID", unit]).stdout.strip()


def wait(true: t.Callable[[], bool], what: str) -> None:
    """Until it holds."""
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
