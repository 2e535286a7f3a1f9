# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other collection should use it.
"""Options of a table's name."""

from __future__ import annotations

import textwrap

_OPTIONS = r"""
name:
  description:
    - The name. A letter, then up to 31 letters, digits, dots, underscores or hyphens.
    - V(main), V(default) and V(local) name the tables that they always name, and no other.
  type: str
  required: true
id:
  description:
    - The number of the table, V(1) to V(4294967295). It must be given unless the name is to be removed.
    - A number that has another name already is refused.
  type: int
"""


class ModuleDocFragment:
    """A table's name, as options of a module and as entries of a list."""

    DOCUMENTATION: str = "options:\n" + textwrap.indent(_OPTIONS, "  ")

    LISTED: str = r"""
options:
  tables:
    description:
      - Names of routing tables, written to C(/etc/iproute2/rt_tables.d/fleetvpn.conf). Each entry is what
        M(fleetvpn.routing.table) takes.
    type: list
    elements: dict
    suboptions:
""" + textwrap.indent(_OPTIONS, "      ")
