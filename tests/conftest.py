# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the repository importable under its collection's name, wherever it was cloned to."""

from __future__ import annotations

import os
import pathlib
import sys

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
_COLLECTIONS = _REPOSITORY / "build" / "collections"


def _link() -> None:
    """Replaced in one step, so that two test runs at a time do not take it from each other."""
    link = _COLLECTIONS / "ansible_collections" / "fleetvpn" / "routing"
    if link.is_symlink() and link.resolve() == _REPOSITORY:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f"routing.{os.getpid()}")
    fresh.symlink_to(_REPOSITORY)
    fresh.replace(link)


_link()
if str(_COLLECTIONS) not in sys.path:
    sys.path.insert(0, str(_COLLECTIONS))
