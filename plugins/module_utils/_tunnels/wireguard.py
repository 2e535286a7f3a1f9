# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""WireGuard: a device bears its connection's name with every manager that starts one by name."""

from __future__ import annotations

import re
import typing as t

from .client import TABLE_OFF, Client, Wanted
from .files import exists, lines

if t.TYPE_CHECKING:
    import pathlib

WG_QUICK = "wg-quick"
# Where role vpn_wireguard puts its drop-in; with it the unit starts from a derived file that has `Table = off`.
DROP_IN = "etc/systemd/system/wg-quick@{}.service.d/fleetvpn.conf"


def find(wanted: Wanted, root: pathlib.Path) -> Client:
    """The client of a tunnel of type wireguard."""
    name = wanted.connection
    config = root / f"etc/wireguard/{name}.conf"
    found = wanted.manager or (WG_QUICK if name and exists(config) else None)
    takes_over = found == WG_QUICK and _overtakes(config) and not exists(root / DROP_IN.format(name))
    return Client(wanted.identity, "wireguard", found, name, name, (TABLE_OFF,) if takes_over else ())


def _overtakes(config: pathlib.Path) -> bool:
    """Whether wg-quick would route everything by itself: a peer with /0, and a table that is not off."""
    parts = [line.split("#")[0].partition("=") for line in lines(config)]
    settings = [(key.strip().lower(), value.strip().lower()) for key, _sep, value in parts]
    tables = [value for key, value in settings if key == "table"]
    everything = any(re.search(r"/0\s*(,|\Z)", value) for key, value in settings if key == "allowedips")
    return everything and (not tables or tables[-1] == "auto")
