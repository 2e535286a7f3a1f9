#!/usr/bin/python
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manage one route."""

from __future__ import annotations

DOCUMENTATION = r"""
module: route
short_description: Manage one route
version_added: 1.0.0
author:
  - fleetvpn.routing contributors (@fleetvpn)
description:
  - Makes sure that the kernel holds a route, or does not.
  - A route is told from others by its family, O(table), O(dst), O(tos) and O(metric). Everything else of it is changed
    in place.
  - Where a route of another O(protocol) has the same of these, the module fails instead of overwriting it.
  - The kernel forgets its routes when the host starts again, and those by a device when it goes. Use
    M(fleetvpn.routing.endpoint) for routing that stays.
extends_documentation_fragment:
  - fleetvpn.routing._attributes
  - fleetvpn.routing._attributes.full
  - fleetvpn.routing._requirements.privileged
  - fleetvpn.routing._route
  - fleetvpn.routing._protocol
  - fleetvpn.routing._netns
options:
  state:
    description:
      - V(present) makes sure that the route is there as described.
      - V(absent) removes the route with this family, O(table), O(dst), O(tos), O(metric) and O(protocol), whichever way
        it leads.
    type: str
    choices:
      - present
      - absent
    default: present
seealso:
  - module: fleetvpn.routing.rule
  - module: fleetvpn.routing.table
  - module: fleetvpn.routing.endpoint
"""

EXAMPLES = r"""
- name: A table with a default route by the tunnel
  fleetvpn.routing.route:
    dst: default
    table: 1500
    dev: wg0
    src: 198.51.100.10

- name: Unreachable when that route is gone, in IPv6
  fleetvpn.routing.route:
    family: ipv6
    dst: default
    table: 1500
    type: unreachable
    metric: 4294967295

- name: A gateway outside the prefix of its link
  fleetvpn.routing.route:
    dst: default
    table: 1501
    gateway: 203.0.113.1
    dev: eth0
    onlink: true

- name: Two gateways, used in proportion two to one
  fleetvpn.routing.route:
    dst: 10.0.0.0/8
    nexthops:
      - gateway: 192.0.2.1
        weight: 2
      - gateway: 192.0.2.2

- name: The route is gone, wherever it led
  fleetvpn.routing.route:
    dst: 10.0.0.0/8
    state: absent
"""

RETURN = r"""
plan:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: dict
  contains:
    op:
      description: V(add), V(replace) or V(remove).
      type: str
    kind:
      description: Always V(route).
      type: str
    family:
      description: V(ipv4) or V(ipv6).
      type: str
    text:
      description:
        - The route as C(ip -N route show table all) writes it, always with its table, with the type in words and
          without the protocol.
      type: str
  sample:
    - op: add
      kind: route
      family: ipv4
      text: default dev wg0 table 1500 scope 253 src 198.51.100.10
"""

from ansible_collections.fleetvpn.routing.plugins.module_utils._ansible import run
from ansible_collections.fleetvpn.routing.plugins.module_utils._argspec import NETNS, PROTOCOL, ROUTE, STATE, merged
from ansible_collections.fleetvpn.routing.plugins.module_utils._single import ensure_route


def main() -> None:
    """Run the module."""
    run(argument_spec=merged(ROUTE, PROTOCOL, STATE, NETNS), worker=ensure_route)


if __name__ == "__main__":
    main()
