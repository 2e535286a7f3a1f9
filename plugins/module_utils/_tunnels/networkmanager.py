# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""NetworkManager: nmcli says which device a connection has. It is asked only where NetworkManager runs.

The plugins for VPNs let the kernel or the client choose the name of the device, and nmcli names the uplink below it;
what it tells are the addresses of the connection, and the kernel knows where those sit.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import subprocess
import typing as t

from .._model.declaration import TUNNEL_TYPES
from .client import NETWORKMANAGER, Client, Wanted

if t.TYPE_CHECKING:
    import pathlib

NMCLI = "usr/bin/nmcli"
RUNNING = "run/NetworkManager"
_FIELDS = "connection.type,vpn.service-type,connection.interface-name,IP4.ADDRESS,IP6.ADDRESS"
_LONGEST = 5  # seconds


@dataclasses.dataclass(frozen=True)
class Profile:
    """What NetworkManager says of a connection."""

    type: str  # of tunnel, as declarations name it
    device: str | None  # that the profile names
    addresses: tuple[str, ...]  # that it has now


class _Known:
    """A client as it was found. As long as its device is there, with the index that it had, it has no other one."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._index = _index(client.interface)

    def is_there(self) -> bool:
        return self._index != 0 and self._index == _index(self.client.interface)


# Asking costs more than all else that a round of the watch does.
_KNOWN: dict[tuple[object, ...], _Known] = {}


def find(wanted: Wanted, tunnel_type: str, root: pathlib.Path) -> Client | None:
    """The client of a tunnel, if NetworkManager is said to run it or has such a connection."""
    name = wanted.connection
    if name is None or wanted.manager not in (None, NETWORKMANAGER):
        return None
    key = (root, tunnel_type, wanted.identity, name, wanted.manager)
    if key in _KNOWN and _KNOWN[key].is_there():
        return _KNOWN[key].client
    profile = _ask(name, root)
    if wanted.manager is None and (profile is None or profile.type != tunnel_type):
        return None
    _KNOWN[key] = _Known(Client(wanted.identity, tunnel_type, NETWORKMANAGER, name, _device(profile, wanted)))
    return _KNOWN[key].client


def active(root: pathlib.Path, holder: t.Callable[[str], str | None]) -> list[tuple[str, str, str]]:
    """Name, type and device of the connections to VPNs that are up, of the types that declarations know."""
    told = _nmcli(root, "--fields", "NAME,TYPE", "connection", "show", "--active") or []
    names = [name for name, _sep, kind in (line.rpartition(":") for line in told) if kind in ("vpn", "wireguard")]
    found = []
    for name in names:
        profile = _ask(name, root)
        device = _device(profile, Wanted(name, name, None, holder))
        if profile is not None and profile.type in TUNNEL_TYPES and device is not None:
            found.append((name, profile.type, device))
    return found


def _device(profile: Profile | None, wanted: Wanted) -> str | None:
    if profile is None:
        return None
    holders = [device for address in profile.addresses if (device := wanted.holder(address)) is not None]
    return next(iter(holders), profile.device)


def _index(device: str | None) -> int:
    """The device's number, 0 if it is not there."""
    try:
        return socket.if_nametoindex(device) if device else 0
    except OSError:
        return 0


def _ask(name: str, root: pathlib.Path) -> Profile | None:
    """What nmcli tells. Nothing that it does not show by itself is asked for, so that no secret is."""
    told = _nmcli(root, "--mode", "multiline", "--fields", _FIELDS, "connection", "show", "id", name)
    return None if told is None else _profile([line.partition(":")[::2] for line in told])


def _nmcli(root: pathlib.Path, *arguments: str) -> list[str] | None:
    """The lines of its answer; None where NetworkManager does not run, or does not know."""
    if not ((root / RUNNING).is_dir() and (root / NMCLI).exists()):
        return None
    try:
        done = subprocess.run(
            [str(root / NMCLI), "--terse", "--escape", "no", *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=_LONGEST,
            env={"LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):  # it does not run yet, or has no such connection
        return None
    return done.stdout.splitlines()


def _profile(fields: t.Sequence[tuple[str, str]]) -> Profile:
    """From the lines of nmcli, in which addresses are numbered: C(IP4.ADDRESS[1])."""
    single = {key: value for key, value in fields if value}
    kind = single.get("vpn.service-type", single.get("connection.type", "")).rpartition(".")[2]
    addresses = [value.partition("/")[0] for key, value in fields if ".ADDRESS[" in key]
    global_ = [address for address in addresses if not ipaddress.ip_address(address).is_link_local]
    return Profile(kind, single.get("connection.interface-name"), tuple(global_))
