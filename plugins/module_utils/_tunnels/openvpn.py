# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""OpenVPN: the device is in the file, or is the one that the running client was given.

Nothing is written into the client's configuration: C(up) and the other hooks, and from 2.7 on C(dns-updown) and
C(route-table), stay the owner's.
"""

from __future__ import annotations

import re
import typing as t

from . import networkmanager
from .client import NETWORKMANAGER, Client, Wanted
from .files import exists, lines, process_file, tun_devices

if t.TYPE_CHECKING:
    import pathlib

OPENVPN = "openvpn"
_CLIENT_FILES = ("etc/openvpn/client/{}.conf", "etc/openvpn/{}.conf")
# Without a number the kernel chooses one, so that the device is known only once the client runs.
_NUMBERED = re.compile(r".*\d\Z")


def find(wanted: Wanted, root: pathlib.Path) -> Client:
    """The client of a tunnel of type openvpn."""
    name = wanted.connection
    configs = [root / pattern.format(name) for pattern in _CLIENT_FILES]
    config = next((path for path in configs if name and exists(path)), None)
    if config is None or wanted.manager == NETWORKMANAGER:
        client = networkmanager.find(wanted, "openvpn", root)
        if client is not None:
            return client
    found = wanted.manager or (OPENVPN if config else None)
    return Client(wanted.identity, "openvpn", found, name, _device(config, root) if config else None)


def _device(config: pathlib.Path, root: pathlib.Path) -> str | None:
    words = [line.split() for line in lines(config)]
    stated = next((parts[1] for parts in words if len(parts) > 1 and parts[0] == "dev"), None)
    if stated is not None and _NUMBERED.match(stated):
        return stated
    running = _running_devices(config, root)
    return running[0] if running else None


def _running_devices(config: pathlib.Path, root: pathlib.Path) -> list[str]:
    """The tun devices that processes started with this file hold open."""
    found = []
    for process in sorted((root / "proc").glob("[0-9]*")):
        arguments = process_file(process / "cmdline").split(b"\0")
        if b"openvpn" in arguments[0] and any(a.endswith(config.name.encode()) for a in arguments[1:]):
            found += tun_devices(process)
    return found
