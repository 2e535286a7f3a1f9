# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a topology, each on its own: the Internet, a LAN, the corporate network, a client, its containers."""

from __future__ import annotations

import os
import typing as t

from . import addresses as plan
from .host import Host, queue_address
from .netlink import Batch

UPLINK = "up0"
BRIDGE = "br0"


class Wires(t.Protocol):
    """What a topology needs of the lab."""

    def host(self, name: str, *, private: bool = False) -> Host:
        """A new host."""

    def link(self, one: Host, device: str, other: Host, peer: str, *, bridge: str | None = None) -> None:
        """A cable between two hosts."""


def quiet(host: Host, *, forward: bool = False, rp_filter: int = 0) -> None:
    """Sysctls before any device: no duplicate address detection, no router advertisements, a known rp_filter."""
    host.sysctl(
        ipv4__conf__all__rp_filter=0,
        ipv4__conf__default__rp_filter=rp_filter,
        ipv4__ip_forward=int(forward),
        ipv6__conf__all__forwarding=int(forward),
        ipv6__conf__default__accept_dad=0,
        ipv6__conf__default__accept_ra=0,
        ipv4__icmp_ratelimit=0,
        # A SYN-ACK that goes astray would be repeated for a minute, into the captures of whatever comes next.
        ipv4__tcp_synack_retries=0,
    )
    host.batch().add("link", "set", index=1, state="up").send()


def internet(wires: Wires) -> tuple[Host, Host]:
    """The Internet's router and a host out there."""
    router, outside = wires.host("inet"), wires.host("out")
    quiet(router, forward=True)
    quiet(outside)
    wires.link(router, "out0", outside, UPLINK)
    settle(router, "out0", _with(plan.OUTSIDE_ROUTER, plan.OUTSIDE_NET))
    settle(outside, UPLINK, _with(plan.OUTSIDE_HOST, plan.OUTSIDE_NET), gateways=plan.OUTSIDE_ROUTER)
    router.address("lo", *single(plan.ANYCAST))
    return router, outside


def corporate(wires: Wires, router: Host) -> tuple[Host, Host]:
    """The VPN gateway and a host behind it, to which the Internet routes its public prefix by the VPN gateway."""
    gateway, host = wires.host("gw", private=True), wires.host("corp")
    quiet(gateway, forward=True)
    quiet(host)
    wires.link(router, "gw0", gateway, UPLINK)
    wires.link(gateway, "corp0", host, UPLINK)
    settle(router, "gw0", _with(plan.GATEWAY_ROUTER, plan.GATEWAY_LINK))
    settle(gateway, UPLINK, _with(plan.GATEWAY, plan.GATEWAY_LINK), gateways=plan.GATEWAY_ROUTER)
    settle(gateway, "corp0", _with(plan.CORPORATE_GATEWAY, plan.CORPORATE_LAN))
    settle(host, UPLINK, _with(plan.CORPORATE_HOST, plan.CORPORATE_LAN), gateways=plan.CORPORATE_GATEWAY)
    gateway.address("lo", *single(plan.ANYCAST))
    for prefix, via in zip(plan.CORPORATE, plan.GATEWAY, strict=True):
        router.route(prefix, via=via)
    return gateway, host


def lan(wires: Wires, router: Host, number: int) -> tuple[Host, Host]:
    """A LAN on the Internet's router, with a second router and a neighbour."""
    bridge = f"lan{number}"
    make_bridge(router, bridge)
    settle(router, bridge, _with(plan.in_lan(number, 1), plan.lan(number)))
    refuse_foreign_sources(router, bridge)
    second, neighbour = wires.host(f"r2-{number}"), wires.host(f"nbr{number}")
    for host, last in ((second, 254), (neighbour, 200)):
        quiet(host, forward=host is second)
        wires.link(router, f"l{number}h{last}", host, UPLINK, bridge=bridge)
        settle(host, UPLINK, _with(plan.in_lan(number, last), plan.lan(number)), gateways=plan.in_lan(number, 1))
    second.address("lo", *single(plan.SIDE_HOST))
    return second, neighbour


def refuse_foreign_sources(router: Host, device: str) -> None:
    """As Internet providers should (BCP 38): from a customer's link comes no source of the corporate network."""
    for prefix in plan.CORPORATE:
        router.run(["ip", "-6" if ":" in prefix else "-4", "rule", "add", "from", prefix, "iif", device, "blackhole"])


def lan_client(wires: Wires, router: Host, host: Host, number: int, position: int) -> tuple[str, str]:
    """Plug a client into a LAN; also a static route by the second router, as it is usual. Its outside addresses."""
    own = plan.in_lan(number, 10 + position)
    wires.link(router, f"l{number}c{position}", host, UPLINK, bridge=f"lan{number}")
    settle(host, UPLINK, _with(own, plan.lan(number)), gateways=plan.in_lan(number, 1))
    for prefix, via in zip(plan.SIDE_NET, plan.in_lan(number, 254), strict=True):
        host.route(prefix, via=via, dev=UPLINK)
    return own


def second_uplink(wires: Wires, router: Host, host: Host, number: int, position: int) -> tuple[str, str]:
    """Another uplink of a client, into any LAN, its own included. No default by it, as a second lease brings none."""
    own, device = plan.in_lan(number, 201 + position), "up1"
    wires.link(router, f"l{number}x{position}", host, device, bridge=f"lan{number}")
    settle(host, device, _with(own, plan.lan(number)))
    return own


def cloud_client(wires: Wires, router: Host, host: Host, number: int) -> tuple[str, str]:
    """A cloud host: a /32 and a /128, the gateways outside of them. Its outside addresses."""
    own, device = plan.cloud(number), f"cloud{number}"
    wires.link(router, device, host, UPLINK)
    settle(router, device, [f"{plan.CLOUD_GATEWAY[0]}/32", f"{plan.CLOUD_GATEWAY[1]}/64"])
    refuse_foreign_sources(router, device)
    for address in single(own):
        router.route(address, dev=device)
    settle(host, UPLINK, single(own))
    host.route(f"{plan.CLOUD_GATEWAY[0]}/32", dev=UPLINK, scope=253)
    for gateway in plan.CLOUD_GATEWAY:
        host.route("default", via=gateway, dev=UPLINK)
    return own


def containers(wires: Wires, host: Host) -> Host:
    """A bridge in a client with a container on it; the client forwards, as container hosts do."""
    inner = wires.host(f"{host.name}-c")
    host.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    quiet(inner)
    make_bridge(host, BRIDGE)
    wires.link(host, "c0", inner, "eth0", bridge=BRIDGE)
    settle(host, BRIDGE, [f"{plan.BRIDGE[0]}/24", f"{plan.BRIDGE[1]}/64"])
    settle(inner, "eth0", [f"{plan.CONTAINER[0]}/24", f"{plan.CONTAINER[1]}/64"], gateways=plan.BRIDGE)
    return inner


def pod(wires: Wires, host: Host) -> Host:
    """A pod as some cluster networks make it: a device without address and a host route to it."""
    inner = wires.host(f"{host.name}-p")
    host.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    quiet(inner)
    wires.link(host, "cali0", inner, "eth0")
    host.sysctl(ipv4__conf__cali0__proxy_arp=1, ipv4__neigh__cali0__proxy_delay=0)
    host.address("cali0", "fe80::ee/64")
    settle(inner, "eth0", single(plan.POD))
    inner.route("169.254.1.1/32", dev="eth0", scope=253)
    for gateway in ("169.254.1.1", "fe80::ee"):
        inner.route("default", via=gateway, dev="eth0")
    host.route(f"{plan.POD[0]}/32", dev="cali0", scope=253)
    host.route(f"{plan.POD[1]}/128", dev="cali0")
    return inner


def make_bridge(host: Host, name: str) -> None:
    """A bridge that forwards at once and floods neighbour discovery."""
    settings = {"br_forward_delay": 0, "br_stp_state": 0, "br_mcast_snooping": 0}
    # Stated, so that it stays: otherwise it changes with the ports, and neighbours keep the one that they knew.
    address = f"02:{os.urandom(5).hex(':')}"
    host.batch().add("link", "add", ifname=name, kind="bridge", address=address, **settings).send()
    host.up(name)


def settle(host: Host, device: str, own: t.Sequence[str], *, gateways: t.Sequence[str] = ()) -> None:
    """Addresses and defaults of a device."""
    batch, index = host.batch(), host.index(device)
    for address in own:
        queue_address(batch, index, address)
    for gateway in gateways:
        _queue_default(batch, index, gateway)
    batch.send()


def _queue_default(batch: Batch, index: int, gateway: str) -> None:
    batch.add("route", "add", dst="default", family=10 if ":" in gateway else 2, gateway=gateway, oif=index)


def _with(addresses: t.Sequence[str], prefixes: t.Sequence[str]) -> list[str]:
    """Addresses with the lengths of their prefixes."""
    return [f"{own}/{plan.length(prefix)}" for own, prefix in zip(addresses, prefixes, strict=True)]


def single(addresses: t.Sequence[str]) -> list[str]:
    """Addresses as prefixes of their own: what sits on lo must not make its neighbours local."""
    return [f"{own}/{128 if ':' in own else 32}" for own in addresses]
