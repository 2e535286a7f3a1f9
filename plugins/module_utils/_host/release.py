# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The distribution of the host, and whether the collection is tested on it."""

from __future__ import annotations

import pathlib

# By os-release(5). Debian's testing and sid have no version.
TESTED = {"debian": ("11", "12", "13", "")}


def remarks(root: pathlib.Path) -> list[str]:
    """One line where it is not tested."""
    found = _os_release(root)
    name, version = found.get("ID", ""), found.get("VERSION_ID", "")
    if version in TESTED.get(name, ()):
        return []
    told = " ".join(filter(None, (name, version))) or "a platform that does not say its name"
    return [f"this host is {told}, on which fleetvpn.routing is not tested; README.md says what is expected to work"]


def _os_release(root: pathlib.Path) -> dict[str, str]:
    """Its lines, NAME=value with or without quotes; nothing where it cannot be read."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        try:
            lines = (root / path).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        parts = (line.partition("=") for line in lines)
        return {name: value.strip().strip("\"'") for name, _separator, value in parts}
    return {}
