#!/usr/bin/python
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name a routing table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: table
short_description: Name a routing table
version_added: 1.0.0
author:
  - fleetvpn.routing contributors (@fleetvpn)
description:
  - Makes sure that a routing table has a name, or that a name is gone.
  - A name is for people, and for the options O(fleetvpn.routing.rule#module:table) and
    O(fleetvpn.routing.route#module:table). The kernel knows numbers alone, and a table exists as soon as it holds a
    route.
  - Names are written to C(/etc/iproute2/rt_tables.d/fleetvpn.conf). No other file is changed, and lines in it that
    other people wrote stay.
extends_documentation_fragment:
  - fleetvpn.routing._attributes
  - fleetvpn.routing._attributes.full
  - fleetvpn.routing._requirements.files
  - fleetvpn.routing._table
options:
  state:
    description:
      - V(present) makes sure that the table has the name. A name that this module gave moves to O(id).
      - V(absent) makes sure that this module's file does not have the name. With O(id), only if it names that table.
    type: str
    choices:
      - present
      - absent
    default: present
  netns:
    description:
      - The network namespace that the name is for. Where C(/etc/netns/NAME/iproute2) exists, the name is kept there,
        since C(ip netns exec) shows that directory in place of C(/etc/iproute2).
      - Otherwise names are the same in all network namespaces.
    type: str
requirements:
  - write access to C(/etc/iproute2), which C(become) as root gives; check mode needs none
seealso:
  - module: fleetvpn.routing.rule
  - module: fleetvpn.routing.route
"""

EXAMPLES = r"""
- name: Name the table of the inside identity
  fleetvpn.routing.table:
    name: inside
    id: 2000

- name: The name is gone
  fleetvpn.routing.table:
    name: inside
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
      description: Always V(table).
      type: str
    family:
      description: Always V(null), since a name is for both families.
      type: str
    text:
      description: The line of the file, a number and a name.
      type: str
  sample:
    - op: add
      kind: table
      family: null
      text: "2000\tinside"
"""

from ansible_collections.fleetvpn.routing.plugins.module_utils._ansible import run
from ansible_collections.fleetvpn.routing.plugins.module_utils._argspec import NETNS, STATE, TABLE, merged
from ansible_collections.fleetvpn.routing.plugins.module_utils._single import ensure_table


def main() -> None:
    """Run the module."""
    run(argument_spec=merged(TABLE, STATE, NETNS), worker=ensure_table)


if __name__ == "__main__":
    main()
