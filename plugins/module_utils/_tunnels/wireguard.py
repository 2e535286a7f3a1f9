# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""WireGuard: a device bears its connection's name with wg-quick and networkd; NetworkManager's profile names it.

wg-quick alone puts its rules ahead of everybody's. NetworkManager's automatic default route
(C(ip4-auto-default-route)) has its rules at 30000 and more, and networkd has no rules but those that its owner wrote.
"""

from __future__ import annotations

import configparser
import re
import typing as t

from . import networkmanager
from .client import NETWORKMANAGER, TABLE_OFF, Client, Wanted
from .files import exists, lines

if t.TYPE_CHECKING:
    import pathlib

WG_QUICK = "wg-quick"
NETWORKD = "networkd"
_NETDEVS = ("etc/systemd/network", "run/systemd/network", "usr/lib/systemd/network")
# Where role vpn_wireguard puts its drop-in; with it the unit starts from a derived file that has `Table = off`.
DROP_IN = "etc/systemd/system/wg-quick@{}.service.d/fleetvpn.conf"


def find(wanted: Wanted, root: pathlib.Path) -> Client:
    """The client of a tunnel of type wireguard."""
    name = wanted.connection
    config = root / f"etc/wireguard/{name}.conf"
    found = wanted.manager or _manager(name, config, root)
    if found is None or found == NETWORKMANAGER:
        client = networkmanager.find(wanted, "wireguard", root)
        if client is not None:
            return client
    takes_over = found == WG_QUICK and _overtakes(config) and not exists(root / DROP_IN.format(name))
    return Client(wanted.identity, "wireguard", found, name, name, (TABLE_OFF,) if takes_over else ())


def _manager(name: str | None, config: pathlib.Path, root: pathlib.Path) -> str | None:
    """Who has a file for the device."""
    if name and exists(config):
        return WG_QUICK
    files = [path for folder in _NETDEVS for path in sorted((root / folder).glob("*.netdev"))]
    return NETWORKD if any(_netdev_name(path) == name for path in files) else None


def _netdev_name(path: pathlib.Path) -> str | None:
    """The device that a file of systemd-networkd makes."""
    parser = configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None)
    try:
        parser.read_string("\n".join(lines(path)))
    except configparser.Error:  # its text would show the line
        return None
    return parser.get("NetDev", "Name", fallback=None)


def _overtakes(config: pathlib.Path) -> bool:
    """Whether wg-quick would route everything by itself: a peer with /0, and a table that is not off."""
    parts = [line.split("#")[0].partition("=") for line in lines(config)]
    settings = [(key.strip().lower(), value.strip().lower()) for key, _sep, value in parts]
    tables = [value for key, value in settings if key == "table"]
    everything = any(re.search(r"/0\s*(,|\Z)", value) for key, value in settings if key == "allowedips")
    return everything and (not tables or tables[-1] == "auto")
