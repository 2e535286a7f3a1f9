# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other collection should use it.
"""Option C(netns)."""

from __future__ import annotations


class ModuleDocFragment:
    """The network namespace that a module works in."""

    DOCUMENTATION = r"""
options:
  netns:
    description:
      - The network namespace to work in, by the name that C(ip netns) gave it, or as a path such as
        V(/proc/4711/ns/net).
      - Without it, the network namespace of the connection to the host is used.
      - Entering another one needs the capability CAP_SYS_ADMIN.
    type: str
"""
