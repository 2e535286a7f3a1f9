# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other collection should use it.
"""What a managed host needs."""

from __future__ import annotations


class ModuleDocFragment:
    """Requirements of every module that talks to the kernel."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - Linux
  - Python >= 3.9
  - pyroute2 >= 0.7.2
"""

    # Modules that only deal with files.
    FILES = r"""
options: {}
requirements:
  - Linux
  - Python >= 3.9
"""

    # Modules that change the kernel's routing.
    PRIVILEGED = r"""
options: {}
requirements:
  - Linux
  - Python >= 3.9
  - pyroute2 >= 0.7.2
  - the capability CAP_NET_ADMIN, which C(become) as root gives; check mode needs none
"""
