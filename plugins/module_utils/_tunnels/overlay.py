# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Overlays, and every client that only shows a device: none of them has a hook that knows of a changed address."""

from __future__ import annotations

import fnmatch
import re
import typing as t

from .client import Client, Wanted
from .files import exists, lines

if t.TYPE_CHECKING:
    import pathlib

TINC, NEBULA = "tinc", "nebula"
# Devices by which a client is known.
_DEVICES = {"tailscale*": "tailscale", "zt*": "zerotier"}
_TUN_DEV = re.compile(r"""\s*["']?dev["']?:\s*["']?([^\s"',#]+)""")


def find(wanted: Wanted, root: pathlib.Path) -> Client:
    """The client of a tunnel of type overlay. A connection is a device, a network of tinc, or a file of Nebula."""
    name = wanted.connection or ""
    manager = wanted.manager or _manager(name, root)
    stated = _STATED[manager](name, root) if manager in _STATED else None
    return Client(wanted.identity, "overlay", manager, wanted.connection, stated or name or None)


def _manager(name: str, root: pathlib.Path) -> str | None:
    if name and exists(root / f"etc/tinc/{name}/tinc.conf"):
        return TINC
    if name and exists(root / f"etc/nebula/{name}.yml"):
        return NEBULA
    return next((manager for pattern, manager in _DEVICES.items() if fnmatch.fnmatchcase(name, pattern)), None)


def _tinc_device(network: str, root: pathlib.Path) -> str | None:
    """As the file says; without a word of it the device bears the network's name."""
    parts = [line.replace("=", " ").split() for line in lines(root / f"etc/tinc/{network}/tinc.conf")]
    stated = [words[1] for words in parts if len(words) > 1 and words[0].lower() == "interface"]
    return stated[-1] if stated else None


def _nebula_device(name: str, root: pathlib.Path) -> str | None:
    """C(tun.dev), the only key of this name; without it the kernel chooses."""
    found = (_TUN_DEV.match(line) for line in lines(root / f"etc/nebula/{name}.yml"))
    return next((match[1] for match in found if match), None)


_STATED = {TINC: _tinc_device, NEBULA: _nebula_device}
