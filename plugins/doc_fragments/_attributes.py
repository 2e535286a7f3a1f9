# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other collection should use it.
"""What modules can do, as attributes."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of every module; how far each supports them is said in the module."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in check mode and say what would be changed, without changing anything.
  diff_mode:
    description: Returns what was or would be changed as C(diff), when run in diff mode.
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing.
  platform:
    description: The operating systems of the hosts that it works on.
    platforms: linux
    support: full
    details:
      - Tested on Debian 11, 12, 13 and sid. Expected to work, but not tested, on Ubuntu 22.04 and later, Fedora,
        and RHEL 9 and later.
  action_group:
    description: Use C(group/fleetvpn.routing.routing) in C(module_defaults) to set options for all modules at once.
    membership:
      - fleetvpn.routing.routing
    support: full
"""

    # Modules that change things and do all three in full.
    FULL = r"""
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

    # Modules that only read.
    INFO = r"""
attributes:
  check_mode:
    support: full
    details:
      - It changes nothing in any mode.
  diff_mode:
    support: N/A
    details:
      - It changes nothing.
  idempotent:
    support: full
"""
