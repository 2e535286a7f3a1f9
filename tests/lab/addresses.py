# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has which address in the lab. All of it is documentation, benchmark or private address space.

The corporate network is publicly routed: the Internet sends what is for it, the clients' inside addresses included,
to the VPN gateway. Outside addresses are public too, so that the corporate network can talk to them.
"""

from __future__ import annotations

import ipaddress

# Corporate network and, out of it, the inside addresses.
CORPORATE = ("198.18.0.0/16", "2001:db8:51::/48")
CORPORATE_LAN = ("198.18.0.0/24", "2001:db8:51::/64")
CORPORATE_GATEWAY = ("198.18.0.1", "2001:db8:51::1")
CORPORATE_HOST = ("198.18.0.10", "2001:db8:51::10")
OPENCONNECT_POOL = ("198.18.32.0/20", "2001:db8:51:32::/64")
PPP_POOL = ("198.18.48.0/20", "2001:db8:51:48::/64")
WIREGUARD_POOL = ("198.18.64.0/18", "2001:db8:51:64::/64")
OPENVPN_POOL = ("198.18.128.0/18", "2001:db8:51:128::/64")
IPSEC_POOL = ("198.18.16.0/21", "2001:db8:51:16::/64")
NEBULA_POOL = ("198.18.8.0/21", "2001:db8:51:8::/64")  # IPv4 only inside
TINC_POOL = ("198.18.24.0/21", "2001:db8:51:24::/64")
OTHER_POOL = ("198.18.192.0/18", "2001:db8:51:192::/64")

# The VPN gateway's own uplink.
GATEWAY_LINK = ("198.19.254.0/24", "2001:db8:2:fe::/64")
GATEWAY = ("198.19.254.2", "2001:db8:2:fe::2")
GATEWAY_ROUTER = ("198.19.254.1", "2001:db8:2:fe::1")

# The outside host, and an address that the Internet's router and the VPN gateway both own: who answers a probe to it
# tells by which way the probe went.
OUTSIDE_NET = ("203.0.113.0/24", "2001:db8:ffff::/64")
OUTSIDE_ROUTER = ("203.0.113.1", "2001:db8:ffff::1")
OUTSIDE_HOST = ("203.0.113.10", "2001:db8:ffff::10")
ANYCAST = ("203.0.113.5", "2001:db8:ffff::5")

# Behind the second router of each LAN.
SIDE_NET = ("10.50.0.0/16", "fd00:50::/64")
SIDE_HOST = ("10.50.0.5", "fd00:50::5")

# Behind each client that has containers.
BRIDGE = ("172.20.0.1", "fd00:20::1")
CONTAINER = ("172.20.0.2", "fd00:20::2")
POD = ("10.244.1.5", "fd00:244::5")

# The off-link gateway of hosts with a /32.
CLOUD_GATEWAY = ("198.19.255.1", "fe80::1")

CLIENTS_PER_LAN = 180


def lan(number: int) -> tuple[str, str]:
    """The prefixes of a LAN."""
    return f"198.19.{number}.0/24", str(ipaddress.IPv6Network(f"2001:db8:2:{number:x}::/64"))


def in_lan(number: int, host: int) -> tuple[str, str]:
    """A host's addresses in a LAN: 1 the router, 254 the second one, 200 the neighbour, clients from 10."""
    return f"198.19.{number}.{host}", str(ipaddress.IPv6Address(f"2001:db8:2:{number:x}::{host:x}"))


def cloud(number: int) -> tuple[str, str]:
    """The addresses of a host with a /32 and a /128."""
    return f"198.19.255.{10 + number}", f"2001:db8:2:ff::{10 + number:x}"


def inside(pool: tuple[str, str], number: int) -> tuple[str, str]:
    """A client's inside addresses, from 10 on: the first ones are the gateway's."""
    networks = [ipaddress.ip_network(prefix) for prefix in pool]
    return str(networks[0][10 + number]), str(networks[1][10 + number])


def first(pool: tuple[str, str]) -> tuple[str, str]:
    """The VPN gateway's own address in a pool."""
    networks = [ipaddress.ip_network(prefix) for prefix in pool]
    return str(networks[0][1]), str(networks[1][1])


def shifted(address: str, count: int) -> str:
    """The address that many further on."""
    return str(ipaddress.ip_address(address) + count)


def length(prefix: str) -> int:
    """The prefix length of a prefix."""
    return ipaddress.ip_network(prefix).prefixlen
