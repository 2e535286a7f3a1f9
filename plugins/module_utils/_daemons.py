# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Programs on a host that have their own mind about rules and routes, and what they were told."""

from __future__ import annotations

import configparser
import dataclasses
import os
import pathlib
import typing as t

from ._netns import THIS_NETNS
from ._tunnels.files import process_file

# Where systemd looks, the first that has a file of a name winning.
_CONFIGURATION = ("etc", "run", "usr/local/lib", "usr/lib")
_NETWORKD = "systemd/networkd.conf"
_KEEPS = ("ManageForeignRoutingPolicyRules", "ManageForeignRoutes")
_NO = ("0", "no", "n", "false", "f", "off")
# The same for NetworkManager; netplan writes its profiles below run.
_PROFILES = tuple(f"{folder}/NetworkManager/system-connections" for folder in ("etc", "run", "usr/lib"))

NETWORKD, NETWORKMANAGER, NETPLAN = "systemd-networkd", "NetworkManager", "netplan"
# Of these all is said in _audit.
MANAGERS = (NETWORKD, NETWORKMANAGER, "dhcpcd", "mwan3track", "mwan3rtmon")
CLIENTS = {
    "vpnagentd": "Cisco Secure Client (AnyConnect)",
    "PanGPS": "GlobalProtect",
    "pulsesecure": "Ivanti Secure Access (Pulse)",
    "fctsched": "FortiClient",
    "mullvad-daemon": "Mullvad",
    "nordvpnd": "NordVPN",
    "expressvpnd": "ExpressVPN",
    "warp-svc": "Cloudflare WARP",
    "tailscaled": "Tailscale",
    "netbird": "NetBird",
}
_KNOWN = frozenset((*MANAGERS, *CLIENTS))


@dataclasses.dataclass(frozen=True)
class Daemon:
    """One such program. C(lacks) is what would have to be said to it, or where it was told to interfere."""

    name: str
    lacks: tuple[str, ...] = ()


def find_daemons(root: pathlib.Path) -> list[Daemon]:
    """Those that run in this network namespace, and netplan and pbr, which run only when they are called."""
    found = [Daemon(name, _lacks(name, root)) for name in sorted(_running(root / "proc"))]
    if any((root / "etc/netplan").glob("*.yaml")):
        found.append(Daemon(NETPLAN))
    if (root / "etc/config/pbr").exists():
        found.append(Daemon("pbr"))
    return found


def _running(proc: pathlib.Path) -> set[str]:
    here = os.stat(THIS_NETNS).st_ino
    found: set[str] = set()
    for process in proc.glob("[0-9]*"):
        try:
            if os.stat(process / "ns/net").st_ino == here:
                found |= _names(process) & _KNOWN
        except OSError:
            continue  # gone, or not ours to know
    return found


def _names(process: pathlib.Path) -> set[str]:
    """The program, or the script that a shell runs."""
    words = process_file(process / "cmdline").split(b"\0")[:2]
    return {os.path.basename(word.decode(errors="replace")) for word in words}


def _lacks(name: str, root: pathlib.Path) -> tuple[str, ...]:
    if name == NETWORKD:
        told = _settings(_merged(root, _NETWORKD)).get("Network", {})
        return tuple(key for key in _KEEPS if told.get(key, "yes").lower() not in _NO)
    if name == NETWORKMANAGER:
        profiles = {p.name: p for folder in reversed(_PROFILES) for p in (root / folder).glob("*.nmconnection")}
        return tuple(path.stem for _name, path in sorted(profiles.items()) if _has_own_table(_settings([path])))
    return ()


def _has_own_table(profile: t.Mapping[str, t.Mapping[str, str]]) -> bool:
    return any(profile.get(family, {}).get("route-table", "0") not in ("", "0", "254") for family in ("ipv4", "ipv6"))


def _merged(root: pathlib.Path, name: str) -> list[pathlib.Path]:
    """A file of systemd and its drop-ins in the order of reading: by name, whichever directory they are in."""
    main = [path for folder in _CONFIGURATION if (path := root / folder / name).exists()][:1]
    dropins = {
        path.name: path for folder in reversed(_CONFIGURATION) for path in (root / folder / f"{name}.d").glob("*.conf")
    }
    return [*main, *(dropins[each] for each in sorted(dropins))]


class _Parser(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        """Keys have upper and lower case."""
        return optionstr


def _settings(paths: t.Iterable[pathlib.Path]) -> dict[str, dict[str, str]]:
    """Sections and keys; of a key that is there twice the last counts. A file that cannot be read says nothing."""
    parser = _Parser(
        delimiters=("=",), comment_prefixes=("#", ";"), strict=False, interpolation=None, allow_no_value=True
    )
    for path in paths:
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
    return {name: {key: value or "" for key, value in parser.items(name)} for name in parser.sections()}
