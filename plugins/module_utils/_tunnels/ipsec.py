# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""IPsec: who speaks IKE, and what strongSwan's charon has to be told of our tables and rules.

Neither says which device a connection has: a route-based one has a device of its own, a policy-based one none at all.
That is found out by the addresses (C(_recipe/facts.py)).
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .client import CHARON, Client, Wanted
from .files import exists, lines

if t.TYPE_CHECKING:
    import pathlib

STRONGSWAN, LIBRESWAN = "strongswan", "libreswan"
# Where strongSwan's configuration is: Debian and its like, Fedora and its like.
_DIRECTORIES = ("etc", "etc/strongswan")
_LIBRESWAN = "usr/libexec/ipsec/pluto"
# Where role vpn_ipsec puts what charon reads when it starts.
DROP_IN = "strongswan.d/fleetvpn.conf"
# charon's rule stands at 220 by default, ahead of us; this far behind the last of our blocks it is still ahead of main.
_BEHIND, _LAST = 220, 32765
_NO_ROUTES = re.compile(r"\s*install_routes\s*=\s*(no|false|0)\s*(#.*)?\Z")


def find(wanted: Wanted, root: pathlib.Path) -> Client:
    """The client of a tunnel of type ipsec."""
    found = STRONGSWAN if _strongswan(root) else LIBRESWAN if exists(root / _LIBRESWAN) else None
    return Client(wanted.identity, "ipsec", wanted.manager or found, wanted.connection, None)


def told(client: Client, tables: t.Iterable[int], end: int, root: pathlib.Path) -> Client:
    """The client with what it must be told of our C(tables), and of the priority where our last block ends.

    charon looks for its way to the VPN gateway in all tables and asks no rule, so that a tunnel's default in a table of
    ours counts; and its own rule sends what an uplink's address answers into the tunnel.
    """
    directory = _strongswan(root)
    if client.manager != STRONGSWAN or directory is None or _leaves_routes_alone(directory):
        return client
    settings = {
        "ignore_routing_tables": " ".join(str(table) for table in sorted(set(tables))),
        "routing_table_prio": str(min(end + _BEHIND, _LAST)),
    }
    held = {line.strip() for line in lines(directory / DROP_IN)}
    missing = any(f"{key} = {value}" not in held for key, value in settings.items())
    return dataclasses.replace(client, needs=(CHARON,) if missing else (), settings=settings)


def _strongswan(root: pathlib.Path) -> pathlib.Path | None:
    return next((root / each for each in _DIRECTORIES if exists(root / each / "strongswan.conf")), None)


def _leaves_routes_alone(directory: pathlib.Path) -> bool:
    """Whether charon writes no routes: then it asks the kernel for its way, rules and all."""
    files = [directory / "strongswan.conf", *sorted((directory / "strongswan.d").glob("*.conf"))]
    return any(_NO_ROUTES.match(line) for path in files for line in lines(path))
