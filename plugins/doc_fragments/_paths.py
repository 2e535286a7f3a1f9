# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other collection should use it.
"""Options C(paths) and C(keep_paths)."""

from __future__ import annotations

# What tells a flow, in the option of that name.
_FLOW = r"""
      from:
        description:
          - The source, as an address or as the name of an identity, which stands for each of its addresses in the
            family of O(OPTION[].to).
          - With O(OPTION[].iif), the address of the other host that the packet comes from.
        type: str
      to:
        description: The destination, an address.
        type: str
        required: true
      iif:
        description:
          - The device that the packet comes in by, for one that this host forwards. It then needs O(OPTION[].from).
        type: str
      oif:
        description: The device that the socket is bound to.
        type: str
      fwmark:
        description: The firewall mark of the packet, such as V(0x1).
        type: str
      tos:
        description: The type of service byte of the packet, such as V(0x10), without the two bits of ECN.
        type: str
      uid:
        description: The number of the user that sends. The user that the module runs as, unless given.
        type: int
      ipproto:
        description:
          - The protocol, V(tcp), V(udp), V(icmp) or V(ipv6-icmp). The kernel looks up no other.
          - Without it, IPv4 is looked up as UDP.
        type: str
      sport:
        description: The source port. It needs O(OPTION[].ipproto).
        type: str
      dport:
        description: The destination port. It needs O(OPTION[].ipproto).
        type: str
"""

_OPTION = r"""
options:
  paths:
    description:
      - Flows to ask the kernel for, with what its answer shall be.
      - A flow that this host sends without O(paths[].from) is looked up as the kernel does it for a socket that has
        chosen no source, first without a source and then with the one that the first lookup chose. Both answers must
        leave by the expected device, except that TCP over IPv4 uses the second alone.
      - No packet is sent. The answer holds for the rules and routes of this host, not for firewalls or for what lies
        behind the next hop.
    type: list
    elements: dict
    required: REQUIRED
    suboptions:
      expect:
        description:
          - What the answer shall be, a dictionary of one or more of C(identity) (leaves by the egress of that
            identity), C(dev), C(gateway) (an address, or V(none)), C(table) (a name or number), C(src) (the source
            address of the packet) and C(type) (the type of the route, or the kind of error, such as V(unreachable)).
          - In M(fleetvpn.routing.endpoint) also the word V(unchanged), for a flow that shall be answered as before.
          - Without it, the path is only returned.
        type: raw
"""

_KEPT = r"""
options:
  keep_paths:
    description:
      - Flows that the kernel must answer after the change as it did before, by device, gateway, source and type. The
        table may differ. Otherwise the change is undone at once.
      - With O(confirm.by=probe), the probe is made from the source, by the device and with the mark of each of them.
    type: list
    elements: dict
    suboptions:
"""


class ModuleDocFragment:
    """The paths that the kernel is asked for."""

    DOCUMENTATION: str = _OPTION.replace("REQUIRED", "false") + _FLOW.replace("OPTION", "paths")

    # For a module that does nothing else.
    REQUIRED: str = _OPTION.replace("REQUIRED", "true") + _FLOW.replace("OPTION", "paths")

    # For one that changes something.
    KEPT: str = _KEPT + _FLOW.replace("OPTION", "keep_paths")
