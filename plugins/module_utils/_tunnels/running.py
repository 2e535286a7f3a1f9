# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Which client is behind a device, for a host on which nobody has said it: the way back from what C(find) does."""

from __future__ import annotations

import fnmatch
import importlib
import os
import pathlib
import typing as t

from .._errors import InvalidInput
from .._netns import THIS_NETNS
from . import networkmanager
from .client import Client, Wanted
from .files import exists, process_file, tun_devices
from .openconnect import VENDORS
from .ppp import pid_files

if t.TYPE_CHECKING:
    from .._model.state import Link

Behind = tuple[str, t.Optional[str]]  # type and connection
Holder = t.Callable[[str], t.Optional[str]]

_KINDS = {"wireguard": "wireguard", "xfrm": "ipsec", "vti": "ipsec", "vti6": "ipsec", "ppp": "ppp"}
# Programs that hold a tun device, and the option behind which each has what its connection is named after.
_PROGRAMS = {
    "openvpn": ("openvpn", ("--config",)),
    "openconnect": ("openconnect", ()),
    "tincd": ("overlay", ("-n", "--net")),
    "nebula": ("overlay", ("-config", "--config")),
}


def find_running(links: t.Iterable[Link], root: pathlib.Path, holder: Holder) -> dict[str, Client]:
    """The client of each of these devices, as a declaration would name it.

    Its C(interface) is the device that C(find) gets from type and connection alone; where that is another one or none,
    a declaration has to name the device as well. What nobody is known to run is an overlay without manager.
    """
    devices = {link.name: link.kind for link in links}
    known = {**_by_kind(devices, root), **_by_process(root), **_by_networkmanager(root, holder)}
    return {name: _client(name, *known.get(name, ("overlay", name)), root, holder) for name in devices}


def _client(device: str, tunnel_type: str, connection: str | None, root: pathlib.Path, holder: Holder) -> Client:
    find: t.Callable[[Wanted, pathlib.Path], Client] = importlib.import_module(f".{tunnel_type}", __package__).find
    try:
        return find(Wanted(device, connection, None, holder), root)
    except InvalidInput:  # it would want to be told more than is known
        return Client(device, tunnel_type, None, connection, None)


def _by_kind(devices: t.Mapping[str, str | None], root: pathlib.Path) -> dict[str, Behind]:
    """What the device itself tells. WireGuard without the kernel's help is a tun device with a file of its name."""
    found: dict[str, Behind] = {}
    for name, kind in devices.items():
        if exists(root / f"etc/wireguard/{name}.conf"):
            found[name] = ("wireguard", name)
        elif kind in _KINDS:
            found[name] = (_KINDS[kind], name if kind == "wireguard" else None)
        elif any(pattern and fnmatch.fnmatchcase(name, pattern) for pattern in VENDORS.values()):
            found[name] = ("openconnect", None)
    return found


def _by_process(root: pathlib.Path) -> dict[str, Behind]:
    """The devices of the programs that run in this network namespace."""
    found: dict[str, Behind] = {}
    for process in sorted((root / "proc").glob("[0-9]*")):
        words = process_file(process / "cmdline").decode(errors="replace").split("\0")
        program = os.path.basename(words[0])
        if program in _PROGRAMS and _is_here(process):
            tunnel_type, options = _PROGRAMS[program]
            named = _unit(process) if tunnel_type == "openconnect" else _named(words, options)
            found.update((device, (tunnel_type, named)) for device in tun_devices(process))
        elif program == "pppd" and _is_here(process):
            owned = [path.stem for path in pid_files(root) if process_file(path).split() == [process.name.encode()]]
            found.update((device, ("ppp", _named(words, ("call",)))) for device in owned)
    return found


def _is_here(process: pathlib.Path) -> bool:
    try:
        return os.stat(process / "ns/net").st_ino == os.stat(THIS_NETNS).st_ino
    except OSError:
        return False  # gone, or not ours to know


def _named(words: t.Sequence[str], options: t.Sequence[str]) -> str | None:
    """What stands behind one of the options; of a file its name without the suffix."""
    value = next((value for option, value in zip(words, words[1:]) if option in options), None)
    return pathlib.PurePath(value).stem if value else None


def _unit(process: pathlib.Path) -> str | None:
    """The service that runs it."""
    groups = process_file(process / "cgroup").decode(errors="replace").splitlines()
    names = [line.rpartition("/")[2] for line in groups]
    return next((name.removesuffix(".service") for name in names if name.endswith(".service")), None)


def _by_networkmanager(root: pathlib.Path, holder: Holder) -> dict[str, Behind]:
    return {device: (kind, name) for name, kind, device in networkmanager.active(root, holder)}
