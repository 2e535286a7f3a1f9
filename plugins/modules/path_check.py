#!/usr/bin/python
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check which way the kernel sends flows."""

from __future__ import annotations

DOCUMENTATION = r"""
module: path_check
short_description: Check which way the kernel sends flows
version_added: 1.0.0
author:
  - fleetvpn.routing contributors (@fleetvpn)
description:
  - Asks the kernel for the path of flows, as real sockets get it, and returns all of them.
  - Fails if any path is not as expected, and names all that differ.
  - A path of an identity whose egress or address is not there is pending. That fails only if the identity is declared
    as required, or if its packets could leave by another way.
  - Unlike C(ip route get) it makes both lookups that the kernel makes for a socket without a source, and refuses
    answers that prove nothing, such as those for a source that is not an address of the host.
extends_documentation_fragment:
  - fleetvpn.routing._attributes
  - fleetvpn.routing._attributes.info
  - fleetvpn.routing._requirements
  - fleetvpn.routing._paths.required
  - fleetvpn.routing._netns
notes:
  - Reading needs no privilege. Identities are known from the records of the sets on the host, which only root can
    read. So a path that names an identity needs root.
options:
  explain:
    description:
      - Whether each path carries its walk, the rules that were asked, in order, and what came of each.
      - It reads the tables that the rules look up, which takes time where they are large.
    type: bool
    default: false
seealso:
  - module: fleetvpn.routing.endpoint
  - module: fleetvpn.routing.endpoint_info
"""

EXAMPLES = r"""
- name: Replies of the web server leave by the address that was asked
  fleetvpn.routing.path_check:
    paths:
      - {from: inside, to: 203.0.113.5, ipproto: tcp, sport: "443", expect: {identity: inside}}
      - {from: outside, to: 10.1.0.5, ipproto: tcp, sport: "443", expect: {identity: outside}}

- name: Unbound traffic stays on the uplink
  fleetvpn.routing.path_check:
    paths:
      - to: 203.0.113.5
        expect:
          dev: eth0
          gateway: 192.0.2.1
      - to: 2001:db8:ffff::5
        expect:
          dev: eth0

- name: Containers reach the Internet by the uplink, and marked packets stop
  fleetvpn.routing.path_check:
    paths:
      - {from: 172.17.0.2, iif: docker0, to: 203.0.113.5, expect: {dev: eth0}}
      - {to: 203.0.113.5, fwmark: "0x1", expect: {type: unreachable}}

- name: Which way does it go, and why
  fleetvpn.routing.path_check:
    paths:
      - to: 203.0.113.5
    explain: true
  register: found
"""

RETURN = r"""
paths:
  description: Every path, in the order of O(paths), with one for each address of an identity that is named as source.
  returned: always, also when the task fails because paths differ
  type: list
  elements: dict
  contains:
    identity:
      description: The identity that the packet's source address belongs to.
      type: str
    family:
      description: V(4) or V(6).
      type: int
    flow:
      description: The flow as C(ip route get) takes it.
      type: str
    from:
      description: The source that was asked for, nothing if the kernel was to choose it.
      type: str
    to:
      description: The destination.
      type: str
    dev:
      description: The device that it leaves by, nothing for an error.
      type: str
    gateway:
      description: The gateway.
      type: str
    src:
      description: The source address of the packet, given or chosen by the kernel.
      type: str
    table:
      description: The number of the routing table that gave the answer.
      type: int
    type:
      description:
        - The type of the route, such as V(unicast) or V(local), or the kind of error, V(unreachable), V(prohibit) or
          V(blackhole).
        - Nothing if an answer would prove nothing; RV(paths[].differs) says why.
      type: str
    unconnected:
      description:
        - The answer of the first lookup, which sockets get that are not connected, as C(dev), C(gateway), C(src),
          C(table) and C(type). Nothing where there is no second lookup, or where only the second counts.
      type: dict
    verdict:
      description:
        - V(proven), V(pending) if egress or address of the identity are not there, V(wrong), or nothing if nothing was
          expected.
      type: str
    before:
      description: Always nothing, as nothing is changed. In M(fleetvpn.routing.endpoint), the answer before the change.
      type: dict
    differs:
      description: What is not as expected, or why there is no answer.
      type: list
      elements: str
    walk:
      description:
        - The lookups behind the answer, one or two, in order. Nothing where there is no answer.
        - Rules and routes are read and followed here. RV(paths[].walk[].agrees) is false where the kernel does
          otherwise, which it may for reasons that are in none of them, such as a VRF, a neighbour that does not answer,
          or a redirect. Of an incoming packet this is the lookup alone, without rp_filter and forwarding.
      returned: if O(explain)
      type: list
      elements: dict
      contains:
        from:
          description: The source of this lookup, nothing if it had none yet.
          type: str
        steps:
          description: Every rule that was asked.
          type: list
          elements: dict
          contains:
            rule:
              description: The rule as iproute2 writes it.
              type: str
            outcome:
              description:
                - V(no match), V(nop), V(goto), V(goto without target), V(no route), V(suppressed), V(throw), V(found)
                  or V(error). The last two end the lookup.
                - V(found or suppressed) where an IPv6 route has several ways, and some by devices of the group.
              type: str
            why:
              description: What of the flow did not match the rule, or why what was found was not taken.
              type: str
            route:
              description: The route that the table has for the flow, taken or not.
              type: str
        expected:
          description: What the answer should be by these rules and routes, several where a route has several ways.
          type: list
          elements: dict
        answer:
          description: The kernel's own answer to this lookup.
          type: dict
        agrees:
          description: Whether the kernel's answer is one of RV(paths[].walk[].expected).
          type: bool
  sample:
    - identity: outside
      family: 4
      flow: 10.1.0.5 from 192.0.2.10
      from: 192.0.2.10
      to: 10.1.0.5
      dev: eth0
      gateway: 192.0.2.1
      src: 192.0.2.10
      table: 2001
      type: unicast
      unconnected:
      verdict: proven
      before:
      differs: []
"""

from ansible_collections.fleetvpn.routing.plugins.module_utils._ansible import run
from ansible_collections.fleetvpn.routing.plugins.module_utils._argspec import NETNS, merged
from ansible_collections.fleetvpn.routing.plugins.module_utils._path_check import check_paths
from ansible_collections.fleetvpn.routing.plugins.module_utils._path_options import paths_spec

PATH_CHECK = {"paths": paths_spec(required=True), "explain": {"type": "bool", "default": False}}


def main() -> None:
    """Run the module."""
    run(argument_spec=merged(PATH_CHECK, NETNS), worker=check_paths)


if __name__ == "__main__":
    main()
