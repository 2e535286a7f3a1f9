# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What the kernel holds besides rules and routes, and what it answers, as values."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Link:
    """A network device."""

    index: int
    name: str
    kind: str | None = None  # IFLA_INFO_KIND: bridge, veth, tun, wireguard, ...; None for hardware
    arptype: int = 1  # ARPHRD_*: 1 Ethernet, 65534 none (tun, wireguard), 512 ppp, 772 loopback
    up: bool = False  # administratively up
    carrier: bool = False  # IFLA_CARRIER
    group: int = 0
    master: int | None = None  # index of the bridge or bond it is a port of


@dataclasses.dataclass(frozen=True)
class Address:
    """An address on a device."""

    family: int
    address: str
    prefixlen: int
    dev: str
    scope: int = 0  # 0 global, 253 link, 254 host
    secondary: bool = False
    temporary: bool = False
    deprecated: bool = False
    tentative: bool = False
    peer: str | None = None  # canonical prefix of the far end of a point-to-point address


@dataclasses.dataclass(frozen=True)
class Policy:
    """An IPsec policy for what this host sends: packets from C(src) to C(dst) are encrypted.

    With an C(if_id) only those that leave by the XFRM interface of that number.
    """

    src: str
    dst: str
    if_id: int = 0


@dataclasses.dataclass(frozen=True)
class Flow:
    """A question to the kernel: which way would this packet go?"""

    family: int
    to: str
    source: str | None = None
    iif: str | None = None  # None: sent by this host
    oif: str | None = None
    fwmark: int | None = None
    uid: int | None = None
    ipproto: int | None = None
    sport: int | None = None
    dport: int | None = None
    tos: int = 0


@dataclasses.dataclass(frozen=True)
class Path:
    """The kernel's answer for one lookup.

    C(type) is the route's type, or the kind of error: unreachable (EHOSTUNREACH, ENETUNREACH), prohibit (EACCES),
    blackhole (EINVAL). An error has neither device nor table.
    """

    type: str
    dev: str | None = None
    gateway: str | None = None
    src: str | None = None
    table: int | None = None
    errno: int | None = None
