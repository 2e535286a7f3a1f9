# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other collection should use it.
"""Options of a route."""

from __future__ import annotations

import textwrap

_OPTIONS = r"""
family:
  description:
    - The address family of the route.
    - It is needed only where neither O(dst), O(src) nor O(gateway) tells it, or where an IPv4 default route has an IPv6
      gateway.
  type: str
  choices:
    - ipv4
    - ipv6
dst:
  description:
    - The destination, as a prefix without host bits such as V(10.0.0.0/8), as an address, or V(default).
  type: str
  required: true
table:
  description:
    - The table, by number or name. A name must be known on the host, and be the name of one table only.
  type: str
  default: main
type:
  description:
    - What the route does. V(unicast) sends packets on, by a device or to a gateway.
    - V(unreachable) and V(prohibit) refuse packets with an error to the sender, V(blackhole) drops them in silence.
    - V(throw) ends the lookup in this table. The kernel goes on with the next rule.
    - V(local), V(broadcast), V(anycast) and V(multicast) need O(dev).
  type: str
  choices:
    - unicast
    - local
    - broadcast
    - anycast
    - multicast
    - blackhole
    - unreachable
    - prohibit
    - throw
  default: unicast
gateway:
  description:
    - The next router. In an IPv4 route it may be an IPv6 address (C(via inet6)).
    - It must be reachable on a device, unless O(onlink) is set. A link-local one needs O(dev).
  type: str
dev:
  description:
    - The device that the packets leave by. It must exist.
  type: str
src:
  description:
    - The source address that this host chooses for packets by this route. It must be an address of this host.
  type: str
metric:
  description:
    - The preference among routes to the same destination, V(0) to V(4294967295). The lowest is used.
    - It is part of what tells one route from another. Without it, IPv4 has V(0) and IPv6 has V(1024).
  type: int
scope:
  description:
    - The scope of an IPv4 route, V(global), V(site), V(link), V(host) or a number.
    - Without it, it is the one that C(ip route) takes, that is V(link) for a unicast route without gateway, V(host) for
      type V(local), V(link) for V(broadcast), V(anycast) and V(multicast), and V(global) otherwise.
  type: str
onlink:
  description:
    - The gateway is directly reachable by O(dev), even if no prefix of that device covers it.
    - It needs O(gateway) and O(dev).
  type: bool
  default: false
mtu:
  description:
    - The MTU of the path in bytes, V(68) to V(65520), in IPv6 V(1280) at least.
  type: int
advmss:
  description:
    - The maximum segment size in bytes that TCP announces, V(1) to V(65495).
  type: int
tos:
  description:
    - The type of service that an IPv4 route is for, as V(0x10). Its two lowest bits must be zero.
    - It is part of what tells one route from another.
  type: str
pref:
  description:
    - The router preference of an IPv6 route. The kernel takes V(medium) without it.
  type: str
  choices:
    - low
    - medium
    - high
nexthops:
  description:
    - Several nexthops of one route, used in proportion to their weights, in place of O(gateway) and O(dev).
  type: list
  elements: dict
  suboptions:
    gateway:
      description:
        - As O(gateway). In an IPv6 route it must be given.
      type: str
    dev:
      description:
        - As O(dev).
      type: str
    weight:
      description:
        - The share of this nexthop in relation to the others, V(1) to V(256).
      type: int
      default: 1
    onlink:
      description:
        - As O(onlink).
      type: bool
      default: false
nexthop_id:
  description:
    - The number of a nexthop object (C(ip nexthop)), in place of O(gateway), O(dev) and O(nexthops). The object must
      exist.
  type: int
"""


class ModuleDocFragment:
    """A route, as options of a module and as entries of a list."""

    DOCUMENTATION: str = "options:\n" + textwrap.indent(_OPTIONS, "  ")

    LISTED: str = r"""
options:
  routes:
    description:
      - Routes of your own besides those of the identities. Each entry is what M(fleetvpn.routing.route) takes.
    type: list
    elements: dict
    suboptions:
""" + textwrap.indent(_OPTIONS.replace("O(", "O(routes[]."), "      ")
