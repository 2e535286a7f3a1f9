# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other collection should use it.
"""Options of a rule."""

from __future__ import annotations

import textwrap

_OPTIONS = r"""
family:
  description:
    - The address family of the rule.
    - It is needed only where neither O(from) nor O(to) is given, since an address tells its family.
  type: str
  choices:
    - ipv4
    - ipv6
priority:
  description:
    - Where the rule stands. The kernel walks through its rules from the lowest number to the highest.
    - It must be given, since a rule that the kernel places itself lands ahead of all others.
    - Accepted are V(1) to V(4294967295), except V(32766) and V(32767), which are rules of the kernel.
  type: int
  required: true
not:
  description:
    - Invert the rule. It then matches every packet that does B(not) match all of the selectors together.
    - With two selectors, a packet that meets only one of them is matched. Use a rule with O(action=goto) instead where
      that is not what is meant.
  type: bool
  default: false
from:
  description:
    - The source, as a prefix without host bits such as V(198.51.100.0/24), or as an address.
    - An address that no device has is accepted. In IPv4, V(0.0.0.0/32) matches packets of sockets that have not chosen
      a source yet. In IPv6 no prefix matches these.
  type: str
to:
  description:
    - The destination, as a prefix without host bits or as an address.
  type: str
iif:
  description:
    - The device that a packet came in by. V(lo) matches packets that this host sends.
    - The device need not exist yet.
  type: str
oif:
  description:
    - The device that a socket is bound to. The device need not exist yet.
  type: str
fwmark:
  description:
    - The firewall mark, as V(0x1), or with the mask of the bits that count, as V(0x1/0xff).
    - A mark with bits outside its mask could never match and is refused.
  type: str
tos:
  description:
    - The type of service byte, as V(0x10). Its two lowest bits belong to ECN and must be zero.
    - IPv4 rules know V(0x04) to V(0x1c) only. O(dscp) knows all values.
  type: str
dscp:
  description:
    - The differentiated services code point, V(0) to V(63).
    - It needs Linux 6.13 or later and is refused where the kernel lacks it.
  type: int
uidrange:
  description:
    - The user who owns the socket, as V(1000) or V(1000-1999). These are numbers, since the same name may have another
      number on each host.
  type: str
ipproto:
  description:
    - The IP protocol by name or number, as V(tcp), V(udp), V(icmp), V(ipv6-icmp) or V(47).
  type: str
sport:
  description:
    - The source port or ports, as V(53) or V(1000-2000), within V(1) to V(65534). It needs O(ipproto).
  type: str
dport:
  description:
    - The destination port or ports, as V(53) or V(1000-2000), within V(1) to V(65534). It needs O(ipproto).
  type: str
tun_id:
  description:
    - The key of the tunnel that a packet came in by, where a tunnel device collects metadata.
  type: int
l3mdev:
  description:
    - Look up the table of the VRF that the packet's device belongs to. It stands in place of O(table).
  type: bool
  default: false
action:
  description:
    - What happens to a packet that matches.
    - V(lookup) looks it up in O(table), and goes on to the next rule where that gives no route.
    - V(blackhole) drops it in silence, V(unreachable) and V(prohibit) refuse it with an error to the sender.
    - V(goto) goes on at the rule with priority O(goto). V(nop) does nothing, and can be the
      target of a V(goto).
  type: str
  choices:
    - lookup
    - blackhole
    - unreachable
    - prohibit
    - goto
    - nop
  default: lookup
table:
  description:
    - The table for O(action=lookup), by number or name. A name must be known on the host, and be the name of one table
      only.
  type: str
goto:
  description:
    - The priority to go on at, for O(action=goto). It must be higher than O(priority), and a rule must stand there.
  type: int
suppress_prefixlength:
  description:
    - Ignore a route that the table gives if its prefix has this length or a shorter one, and go on with the next rule.
      V(0) ignores default routes.
  type: int
suppress_ifgroup:
  description:
    - Ignore a route that the table gives if it leaves by a device of this group, and go on with the next rule. It is
      the number of the group.
  type: int
"""


class ModuleDocFragment:
    """A rule, as options of a module and as entries of a list."""

    DOCUMENTATION: str = "options:\n" + textwrap.indent(_OPTIONS, "  ")

    LISTED: str = r"""
options:
  rules:
    description:
      - Rules of your own besides those of the identities. Each entry is what M(fleetvpn.routing.rule) takes.
    type: list
    elements: dict
    suboptions:
""" + textwrap.indent(_OPTIONS.replace("O(", "O(rules[]."), "      ")
