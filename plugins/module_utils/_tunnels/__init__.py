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

import importlib
import pathlib
import typing as t

from .._errors import Conflict, InvalidInput
from .client import NETWORKMANAGER, Client, Wanted

if t.TYPE_CHECKING:
    from .._model.declaration import Declaration, Identity, Tunnel

    # Loaded by name, and only those of a declaration; Ansible sends to a host what is imported anywhere.
    from . import ipsec, openconnect, openvpn, overlay, ppp, wireguard  # noqa: F401

__all__ = ["Client", "find_clients", "refuse_lost_sockets", "refuse_overtaking", "told_clients"]

Holder = t.Callable[[str], t.Optional[str]]


def _nobody(_address: str) -> str | None:
    return None


def find_clients(
    declaration: Declaration, root: pathlib.Path = pathlib.Path("/"), holder: Holder = _nobody
) -> list[Client]:
    """The client of every identity that has a tunnel. C(holder) tells which device has an address.

    Raises InvalidInput where nothing says which device is meant.
    """
    return [
        _find(identity.tunnel.type)(_wanted(identity, identity.tunnel, f"identities[{index}]", holder), root)
        for index, identity in enumerate(declaration.identities)
        if identity.tunnel is not None
    ]


def _find(tunnel_type: str) -> t.Callable[[Wanted, pathlib.Path], Client]:
    found: t.Callable[[Wanted, pathlib.Path], Client] = importlib.import_module(f"{__name__}.{tunnel_type}").find
    return found


def told_clients(clients: t.Iterable[Client], tables: t.Iterable[int], end: int, root: pathlib.Path) -> list[Client]:
    """The clients, each with what it must be told of our C(tables), and of the priority where our last block ends."""
    ours = tuple(tables)
    return [_told(client, ours, end, root) if client.type == "ipsec" else client for client in clients]


def _told(client: Client, tables: tuple[int, ...], end: int, root: pathlib.Path) -> Client:
    from . import ipsec

    return ipsec.told(client, tables, end, root)


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


def refuse_lost_sockets(declaration: Declaration, clients: t.Iterable[Client]) -> None:
    """NetworkManager's OpenVPN changes its user after its first socket, whose packets a rule for user ids then misses:
    with all unbound traffic in the tunnel they would enter it themselves.
    """
    managed = {client.identity for client in clients if (client.type, client.manager) == ("openvpn", NETWORKMANAGER)}
    for index, identity in enumerate(declaration.identities):
        if identity.name in managed & {declaration.unbound} and identity.outer.uidrange is not None:
            raise InvalidInput(
                "does not match the first socket of NetworkManager's OpenVPN, which is made before it changes its user",
                field=f"identities[{index}].outer.uidrange",
                value="{}-{}".format(*identity.outer.uidrange),
                accepted="unbound: keep, with the full tunnel left to NetworkManager; or the unit openvpn-client@ with"
                " `mark` in its file, and outer.fwmark",
            )


def _wanted(identity: Identity, tunnel: Tunnel, field: str, holder: Holder) -> Wanted:
    if tunnel.connection is None and not identity.interface:
        raise InvalidInput(
            "names neither connection nor interface",
            field=f"{field}.tunnel",
            value=tunnel.type,
            accepted="connection, or interface",
        )
    plain = [name for name in identity.interface if not set(name) & set("*?[") and name != "auto"]
    device = plain[0] if plain else None
    connection = tunnel.connection or device
    return Wanted(identity.name, connection, tunnel.manager, holder, device, identity.destinations, field)
