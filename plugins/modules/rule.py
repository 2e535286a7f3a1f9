#!/usr/bin/python
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manage one policy routing rule."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rule
short_description: Manage one policy routing rule
version_added: 1.0.0
author:
  - fleetvpn.routing contributors (@fleetvpn)
description:
  - Makes sure that the kernel holds a policy routing rule once, or not at all.
  - A rule is told from others by everything that the kernel matches on, and by its O(protocol). An equal rule of
    another protocol is reported and left alone.
  - The kernel forgets its rules when the host starts again. Use M(fleetvpn.routing.endpoint) for routing that stays.
extends_documentation_fragment:
  - fleetvpn.routing._attributes
  - fleetvpn.routing._attributes.full
  - fleetvpn.routing._requirements.privileged
  - fleetvpn.routing._rule
  - fleetvpn.routing._protocol
  - fleetvpn.routing._netns
options:
  state:
    description:
      - V(present) makes sure that the rule is there once.
      - V(absent) removes the rule and all its copies. It removes exactly what all options together describe.
    type: str
    choices:
      - present
      - absent
    default: present
seealso:
  - module: fleetvpn.routing.route
  - module: fleetvpn.routing.table
  - module: fleetvpn.routing.endpoint
"""

EXAMPLES = r"""
- name: What this host sends with its second address is looked up in a table of its own
  fleetvpn.routing.rule:
    priority: 1500
    from: 198.51.100.10
    iif: lo
    table: 1500

- name: It is unreachable rather than sent another way where that table has no route
  fleetvpn.routing.rule:
    priority: 1501
    from: 198.51.100.10
    iif: lo
    action: unreachable

- name: Marked packets skip both, and every other rule before that of table main
  fleetvpn.routing.rule:
    family: ipv4
    priority: 1499
    fwmark: 0x1/0xff
    action: goto
    goto: 32766

- name: Web traffic of one user over IPv6
  fleetvpn.routing.rule:
    family: ipv6
    priority: 1510
    uidrange: 1000
    ipproto: tcp
    dport: 443
    table: inside

- name: The rule is gone
  fleetvpn.routing.rule:
    priority: 1500
    from: 198.51.100.10
    iif: lo
    table: 1500
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
      description: V(add) or V(remove).
      type: str
    kind:
      description: Always V(rule).
      type: str
    family:
      description: V(ipv4) or V(ipv6).
      type: str
    text:
      description: The rule as C(ip -N rule show) writes it, with the action in words and without the protocol.
      type: str
  sample:
    - op: add
      kind: rule
      family: ipv4
      text: "1500:\tfrom 198.51.100.10 iif lo lookup 1500"
"""

from ansible_collections.fleetvpn.routing.plugins.module_utils._ansible import run
from ansible_collections.fleetvpn.routing.plugins.module_utils._argspec import NETNS, PROTOCOL, RULE, STATE, merged
from ansible_collections.fleetvpn.routing.plugins.module_utils._single import ensure_rule


def main() -> None:
    """Run the module."""
    run(argument_spec=merged(RULE, PROTOCOL, STATE, NETNS), worker=ensure_rule)


if __name__ == "__main__":
    main()
