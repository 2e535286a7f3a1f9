# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The VPN clients of a host: which manager runs a tunnel, which device it has, and whether it would defeat the recipe.

One file for each type of VPN, with one function: C(find). Only what is needed of a client's configuration is read, and
nothing of it is ever shown: those files hold private keys.
"""

from __future__ import annotations

import pathlib
import typing as t

from .._errors import Conflict, InvalidInput
from . import openconnect, openvpn, ppp, wireguard
from .client import Client, Wanted

if t.TYPE_CHECKING:
    from .._model.declaration import Declaration, Identity, Tunnel

__all__ = ["Client", "find_clients", "refuse_overtaking"]

_FIND: dict[str, t.Callable[[Wanted, pathlib.Path], Client]] = {
    "openconnect": openconnect.find,
    "openvpn": openvpn.find,
    "ppp": ppp.find,
    "wireguard": wireguard.find,
}


def find_clients(declaration: Declaration, root: pathlib.Path = pathlib.Path("/")) -> list[Client]:
    """The client of every identity that has a tunnel. Raises InvalidInput where nothing says which device is meant."""
    return [
        _FIND[identity.tunnel.type](_wanted(identity, identity.tunnel, f"identities[{index}]"), root)
        for index, identity in enumerate(declaration.identities)
        if identity.tunnel is not None
    ]


def refuse_overtaking(clients: t.Iterable[Client]) -> None:
    """wg-quick with a /0 peer adds rules that jump in front: O is dead, and no order of ours mends it."""
    for client in clients:
        if client.takes_over:
            raise Conflict(
                f"has a peer with /0 and lets wg-quick set its own rules, which jump ahead of all others at its next"
                f" start (identity {client.identity})",
                field="tunnel",
                value=client.connection,
                accepted="Table = off; role fleetvpn.routing.vpn_wireguard starts it so without touching the file",
            )


def _wanted(identity: Identity, tunnel: Tunnel, field: str) -> Wanted:
    if tunnel.connection is None and not identity.interface:
        raise InvalidInput(
            "names neither connection nor interface",
            field=f"{field}.tunnel",
            value=tunnel.type,
            accepted="connection, or interface",
        )
    plain = [name for name in identity.interface if not set(name) & set("*?[") and name != "auto"]
    device = plain[0] if plain else None
    return Wanted(identity.name, tunnel.connection or device, tunnel.manager, device, identity.destinations, field)
