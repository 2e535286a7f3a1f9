# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What an operator declares: identities, and the options of module endpoint, as values."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from .fields import family_of
from .route import Route
from .rule import Rule

FAMILIES = (4, 6)
RESERVED = ("keep", "auto", "any", "none", "main", "local", "default")
SYSCTLS = ("rp_filter", "arp", "use_oif_addrs_only", "src_valid_mark")
STRICT_EGRESS = ("true", "any", "false")
TUNNEL_TYPES = ("ipsec", "openconnect", "openvpn", "overlay", "ppp", "wireguard")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}\Z")
Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Params = t.Mapping[str, t.Any]
Tables = t.Callable[[object, str], int]  # (name or number, field) -> number


@dataclasses.dataclass(frozen=True)
class Tunnel:
    """Which VPN client carries an identity."""

    type: str
    manager: str | None = None
    connection: str | None = None
    apply: str = "next_connect"


@dataclasses.dataclass(frozen=True)
class Outer:
    """How the tunnel's own packets are told from others: by mark (value, mask) or by user ids."""

    fwmark: tuple[int, int] | None = None
    uidrange: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Pin:
    """Sockets that cannot bind an address, told by what they send from: IP protocol, source port, user ids."""

    ipproto: int | None = None
    sport: tuple[int, int] | None = None
    uidrange: tuple[int, int] | None = None

    def text(self) -> str:
        """As a policy rule shows it."""
        rule = Rule(4, 1, action="nop", **dataclasses.asdict(self)).text()
        return rule.partition("from all ")[2].rpartition(" ")[0]

    def overlaps(self, other: Pin) -> bool:
        """Whether one packet may match both."""
        return (
            (None in (self.ipproto, other.ipproto) or self.ipproto == other.ipproto)
            and _meet(self.sport, other.sport)
            and _meet(self.uidrange, other.uidrange)
        )


@dataclasses.dataclass(frozen=True)
class Identity:
    """A named set of local addresses, or a pool that they come from, with one way out."""

    name: str
    tunnel: Tunnel | None = None
    interface: tuple[str, ...] = ()  # names or patterns of the egress, or ("auto",)
    address_interface: tuple[str, ...] = ()  # where the addresses sit; empty: on the egress; ("any",)
    addresses: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()  # canonical prefixes
    gateway: tuple[str, ...] = ("auto",)  # "auto", "none", or at most one address for each family
    table: int | None = None
    priority: int | None = None
    backstop: bool = True
    required: bool = False
    destinations: tuple[str, ...] = ()
    destinations_backstop: bool = False
    outer: Outer = Outer()
    mtu: int | None = None
    advmss: int | None = None
    pin: tuple[Pin, ...] = ()
    follow_connections: bool = False
    families: tuple[int, ...] = FAMILIES

    @property
    def by_tunnel(self) -> bool:
        """Whether it leaves by a tunnel; every other identity is one of the uplink."""
        return self.tunnel is not None or self.gateway == ("none",)

    @property
    def found_by_address(self) -> bool:
        """Whether its device is the one that holds its addresses: of IPsec, where nothing else is said."""
        return self.tunnel is not None and self.tunnel.type == "ipsec" and not self.interface

    def gateway_in(self, family: int) -> str | None:
        """The gateway that was written down for a family."""
        stated = [gateway for gateway in self.gateway if gateway not in ("auto", "none")]
        return next((gateway for gateway in stated if family_of(gateway) == family), None)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Where our rules and tables stand, and the marks that say whose they are."""

    priority_base: int = 2000
    table_base: int = 2000
    protocol: int = 151
    group: int = 151


@dataclasses.dataclass(frozen=True)
class Declaration:
    """Everything that one set asks of a host."""

    name: str = "main"  # of the set
    identities: tuple[Identity, ...] = ()
    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    tables: tuple[tuple[str, int], ...] = ()
    local_networks: tuple[str, ...] = ("auto",)
    unbound: str = "keep"
    unbound_local: str = "none"
    unbound_forwarded: tuple[str, ...] = ()
    unbound_backstop: bool = False
    mark: tuple[int, int] | None = None  # the first value, and the mask of the field that is ours
    sysctls: tuple[str, ...] = ()  # words of SYSCTLS: what may be changed
    strict_egress: str = "true"  # one of STRICT_EGRESS
    strict_ingress: bool = False
    numbers: Numbers = Numbers()


def _meet(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    return one is None or other is None or (one[0] <= other[1] and other[0] <= one[1])
