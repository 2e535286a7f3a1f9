# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What the recipe knows of a host, and what it works out before the first rule: which device is whose egress."""

from __future__ import annotations

import dataclasses
import fnmatch
import ipaddress
import typing as t

from .._model.declaration import Declaration, Identity
from .._model.fields import KERNEL, family_of
from .._model.path import ERRORS
from .._model.route import Route
from .._model.state import Address, Link

LOOPBACK = "lo"
NOWHERE_DEVICE = "fleetvpn0"  # of our own, see nowhere.py
MAIN = 254
LINK_SCOPE = 253
WIDTH = {4: 32, 6: 128}

# Devices without a link layer, or of a kind that carries tunnels (ARPHRD_* of linux/if_arp.h).
TUNNEL_ARPTYPES = frozenset({512, 768, 769, 776, 778, 823, 65534})
TUNNEL_KINDS = frozenset({"tun", "wireguard", "xfrm", "vti", "vti6", "gre", "gretap", "ipip", "sit", "ip6tnl", "ppp"})


@dataclasses.dataclass(frozen=True)
class Remembered:
    """What the last run found for one way, so that it stays right while its device or address is away."""

    table: int
    device: str | None = None
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Facts:
    """A host as the recipe sees it: plain values, so that the recipe stays a pure function."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    main: tuple[Route, ...] = ()  # routes of table main, both families
    tunnels: t.Mapping[str, str] = dataclasses.field(default_factory=dict)  # identity -> device its VPN client uses
    leases: t.Mapping[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )  # device -> gateways of lease or RA
    remembered: t.Mapping[str, Remembered] = dataclasses.field(default_factory=dict)
    is_free: t.Callable[[int], bool] = lambda table: True
    sysctl: t.Callable[[str], str | None] = lambda path: None

    def link(self, name: str | None) -> Link | None:
        """The device of that name, if it is there."""
        return next((link for link in self.links if link.name == name), None)

    def on(self, device: str, family: int) -> list[Address]:
        """The addresses of a device that packets beyond the link may carry."""
        return [
            a for a in self.addresses if a.dev == device and a.family == family and a.scope not in (LINK_SCOPE, 254)
        ]

    def is_local(self, address: str) -> bool:
        """Whether the host holds the address and may use it as a source."""
        return any(a.address == address and not a.tentative for a in self.addresses)

    def defaults(self, family: int) -> list[Route]:
        """The usable defaults of main, the preferred first, each nexthop as a route of its own.

        Halves such as 0.0.0.0/1 are none.
        """
        found = [r for r in self.main if r.family == family and is_default(r) and r.type == "unicast"]
        return [single for route in sorted(found, key=lambda route: route.metric) for single in by_nexthop(route)]


def is_default(route: Route) -> bool:
    """Whether a route leads everywhere."""
    return route.dst in ("0.0.0.0/0", "::/0")


def error_routes(facts: Facts, protocol: int) -> list[Route]:
    """What table main refuses in IPv6, unless it has a better route for the same prefix. C(protocol) is ours."""
    six = [route for route in facts.main if route.family == 6]
    best = {route.dst: route for route in sorted(six, key=lambda route: -route.metric)}
    return [r for r in best.values() if r.type in ERRORS and r.protocol not in (protocol, KERNEL)]


def by_nexthop(route: Route) -> list[Route]:
    """A route of several nexthops, or by a nexthop object, as routes of one nexthop each."""
    hops = route.nexthops or route.through
    plain = dataclasses.replace(route, nexthops=(), nexthop_id=None, through=())
    return [dataclasses.replace(plain, gateway=h.gateway, dev=h.dev, onlink=h.onlink) for h in hops] or [route]


def devices_of(route: Route) -> list[str]:
    """The devices that a route may leave by."""
    return [d for d in (route.dev, *(hop.dev for hop in (*route.nexthops, *route.through))) if d is not None]


def matching(facts: Facts, patterns: t.Sequence[str]) -> list[str]:
    """The names of present devices that match, in the order of the patterns."""
    names = [link.name for link in facts.links]
    found = [name for pattern in patterns for name in names if fnmatch.fnmatchcase(name, pattern)]
    return list(dict.fromkeys(found))


def looks_like_tunnel(link: Link | None) -> bool:
    """Whether a device has no link layer, as VPNs make them. A PPPoE uplink looks the same, hence only a preference."""
    return link is not None and (link.arptype in TUNNEL_ARPTYPES or link.kind in TUNNEL_KINDS)


def tunnel_devices(declaration: Declaration, facts: Facts) -> set[str]:
    """The devices that VPNs made, present or not; no uplink is among them that a tunnel identity leaves by."""
    tunnels = [identity for identity in declaration.identities if identity.by_tunnel]
    egresses = [(identity, tunnel_device(identity, facts)) for identity in tunnels]
    return {device for identity, device in egresses if device and not leaves_by_uplink(identity, device, facts)}


def leaves_by_uplink(identity: Identity, device: str | None, facts: Facts) -> bool:
    """Whether a tunnel has no device of its own: policy-based IPsec, which encrypts what leaves by the uplink."""
    if identity.interface == ("auto",):
        return identity.by_tunnel
    link = facts.link(device)
    by_policy = identity.tunnel is not None and identity.tunnel.type == "ipsec"
    return by_policy and link is not None and not looks_like_tunnel(link)


def tunnel_device(identity: Identity, facts: Facts) -> str | None:
    """The device a tunnel identity leaves by: the one that matches, the one its client uses, or the last one known."""
    uplink = next(iter(uplink_devices(facts, ())), None)
    if identity.interface == ("auto",):
        return uplink
    holders = [address.dev for address in roaming(identity, facts)] if identity.found_by_address else []
    if holders:
        return next((device for device in holders if looks_like_tunnel(facts.link(device))), uplink)
    present = matching(facts, identity.interface)
    if present:
        return present[0]
    plain = [name for name in identity.interface if not set(name) & set("*?[")]
    last = facts.remembered.get(identity.name)
    return facts.tunnels.get(identity.name) or (plain[0] if plain else None) or (last.device if last else None)


def roaming(identity: Identity, facts: Facts) -> list[Address]:
    """The addresses of a tunnel that may sit anywhere, on an uplink (strongSwan) or on lo (Libreswan) too.

    Unless it is said that they may, one on a device that is no tunnel's counts only if it has no neighbours: a hotel's
    network inside the pool is none of ours.
    """
    if not identity.by_tunnel or not (identity.address_interface == ("any",) or identity.found_by_address):
        return []
    inside = [a for a in facts.addresses if a.address in identity.addresses or covers(identity.pools, a.address)]
    if identity.address_interface == ("any",):
        return inside
    return [a for a in inside if a.prefixlen == WIDTH[a.family] or looks_like_tunnel(facts.link(a.dev))]


def uplink_devices(facts: Facts, tunnels: t.Collection[str]) -> list[str]:
    """The device of main's default in each family, not fooled by a VPN that replaced it or laid halves over it."""
    found = [device for family in (4, 6) for device in _uplinks_in(facts, family, tunnels)[:1]]
    return list(dict.fromkeys(found))


def _uplinks_in(facts: Facts, family: int, tunnels: t.Collection[str]) -> list[str]:
    by_default = [d for route in facts.defaults(family) for d in devices_of(route) if d not in tunnels]
    real = [device for device in by_default if not looks_like_tunnel(facts.link(device))]
    return real or [r.dev for r in server_routes(facts, family) if r.dev and r.dev not in tunnels] or by_default


def server_routes(facts: Facts, family: int) -> list[Route]:
    """Host routes by a gateway of a real device: what VPN clients leave for their server when they take the default."""
    return [
        route
        for route in facts.main
        if route.family == family
        and route.gateway
        and ipaddress.ip_network(route.dst).prefixlen == WIDTH[family]
        and not looks_like_tunnel(facts.link(route.dev))
    ]


def covers(prefixes: t.Iterable[str], address: str) -> bool:
    """Whether one of the prefixes holds the address."""
    return any(
        family_of(prefix) == family_of(address) and ipaddress.ip_address(address) in ipaddress.ip_network(prefix)
        for prefix in prefixes
    )
