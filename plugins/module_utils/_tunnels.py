# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The VPN clients of a host: which manager runs a tunnel, which device it has, and whether it would defeat the recipe.

Only what is needed of their configuration is read, and nothing of it is ever shown: those files hold private keys.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import typing as t

from ._errors import Conflict, InvalidInput, NotPermitted
from ._model.declaration import Declaration, Identity

WG_QUICK = "wg-quick"
OPENVPN = "openvpn"
# Where role vpn_wireguard puts its drop-in; with it the unit starts from a derived file that has `Table = off`.
DROP_IN = "etc/systemd/system/wg-quick@{}.service.d/fleetvpn.conf"
_CLIENT_FILES = ("etc/openvpn/client/{}.conf", "etc/openvpn/{}.conf")
# Without a number the kernel chooses one, so that the device is known only once the client runs.
_NUMBERED = re.compile(r".*\d\Z")


@dataclasses.dataclass(frozen=True)
class Client:
    """The VPN client behind a tunnel identity, as found on the host."""

    identity: str
    type: str
    manager: str | None
    connection: str | None
    interface: str | None
    takes_over: bool = False  # would put rules of its own ahead of everybody's at its next start

    def as_result(self) -> dict[str, t.Any]:
        """As module endpoint returns it."""
        found = dataclasses.asdict(self)
        takes_over = found.pop("takes_over")
        return {**found, "needs": ["table_off"] if takes_over else []}


def find_clients(declaration: Declaration, root: pathlib.Path = pathlib.Path("/")) -> list[Client]:
    """The client of every identity that has a tunnel. Raises InvalidInput where nothing says which device is meant."""
    return [
        _find(identity, f"identities[{index}].tunnel", root)
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


def _find(identity: Identity, field: str, root: pathlib.Path) -> Client:
    tunnel = identity.tunnel
    if tunnel is None:
        raise InvalidInput("is missing", field=field)
    plain = [name for name in identity.interface if not set(name) & set("*?[") and name != "auto"]
    if tunnel.connection is None and not identity.interface:
        raise InvalidInput(
            "names neither connection nor interface",
            field=field,
            value=tunnel.type,
            accepted="connection, or interface",
        )
    connection = tunnel.connection or (plain[0] if plain else None)
    find = {"wireguard": _wireguard, "openvpn": _openvpn}[tunnel.type]
    return find(identity.name, connection, tunnel.manager, root)


def _wireguard(name: str, connection: str | None, manager: str | None, root: pathlib.Path) -> Client:
    """A WireGuard device bears its connection's name with every manager that starts one by name."""
    config = root / f"etc/wireguard/{connection}.conf"
    found = manager or (WG_QUICK if connection and _exists(config) else None)
    takes_over = found == WG_QUICK and _overtakes(config) and not _exists(root / DROP_IN.format(connection))
    return Client(name, "wireguard", found, connection, connection, takes_over)


def _overtakes(config: pathlib.Path) -> bool:
    """Whether wg-quick would route everything by itself: a peer with /0, and a table that is not off."""
    lines = [line.split("#")[0].partition("=") for line in _lines(config)]
    settings = [(key.strip().lower(), value.strip().lower()) for key, _sep, value in lines]
    tables = [value for key, value in settings if key == "table"]
    everything = any(re.search(r"/0\s*(,|\Z)", value) for key, value in settings if key == "allowedips")
    return everything and (not tables or tables[-1] == "auto")


def _openvpn(name: str, connection: str | None, manager: str | None, root: pathlib.Path) -> Client:
    configs = [root / pattern.format(connection) for pattern in _CLIENT_FILES]
    config = next((path for path in configs if connection and _exists(path)), None)
    found = manager or (OPENVPN if config else None)
    return Client(name, "openvpn", found, connection, _openvpn_device(config, root) if config else None)


def _openvpn_device(config: pathlib.Path, root: pathlib.Path) -> str | None:
    """The device of the file, or the one that the running client was given."""
    words = [line.split() for line in _lines(config)]
    stated = next((parts[1] for parts in words if len(parts) > 1 and parts[0] == "dev"), None)
    if stated is not None and _NUMBERED.match(stated):
        return stated
    running = _running_devices(config, root)
    return running[0] if running else None


def _running_devices(config: pathlib.Path, root: pathlib.Path) -> list[str]:
    """The tun devices that processes started with this file hold open."""
    found = []
    for process in sorted((root / "proc").glob("[0-9]*")):
        arguments = _bytes(process / "cmdline").split(b"\0")
        if b"openvpn" in arguments[0] and any(a.endswith(config.name.encode()) for a in arguments[1:]):
            found += [device for entry in (process / "fdinfo").glob("*") for device in _tun_of(entry)]
    return found


def _tun_of(entry: pathlib.Path) -> list[str]:
    return re.findall(r"^iff:\s*(\S+)", _bytes(entry).decode(errors="replace"), re.MULTILINE)


def _bytes(path: pathlib.Path) -> bytes:
    """The content of a file below /proc; nothing when the process is gone."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _exists(path: pathlib.Path) -> bool:
    try:
        return path.exists()
    except PermissionError as exc:
        raise NotPermitted(f"cannot read {path.parent}", field="tunnel", accepted="root") from exc


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except PermissionError as exc:
        raise NotPermitted(f"cannot read {path}", field="tunnel", accepted="root") from exc
