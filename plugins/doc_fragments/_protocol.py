# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other collection should use it.
"""Option C(protocol)."""

from __future__ import annotations


class ModuleDocFragment:
    """Who owns a rule or route."""

    DOCUMENTATION = r"""
options:
  protocol:
    description:
      - The number that the kernel keeps with the object to tell who owns it, as C(protocol) of C(ip).
        It has no other effect.
      - What carries another number is never changed or removed.
      - The default is C(fleetvpn_task). M(fleetvpn.routing.endpoint) owns what carries V(151), and removes what carries
        it and is not declared there.
      - Accepted are V(1) to V(255), except V(2), which is the kernel itself.
    type: int
    default: 152
"""
