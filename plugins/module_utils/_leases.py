# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Gateways that DHCP clients wrote down, for uplinks whose default is not in main."""

from __future__ import annotations

import configparser
import pathlib

NETWORKD = "run/systemd/netif/leases"
NETWORK_MANAGER = "run/NetworkManager/devices"


def lease_gateways(names: dict[int, str], root: pathlib.Path = pathlib.Path("/")) -> dict[str, tuple[str, ...]]:
    """Gateways by device name. C(names) gives the name of each device index, by which both daemons name their files."""
    found: dict[str, tuple[str, ...]] = {}
    for index, name in names.items():
        gateways = _networkd(root / NETWORKD / str(index)) or _network_manager(root / NETWORK_MANAGER / str(index))
        if gateways:
            found[name] = tuple(gateways)
    return found


def _networkd(path: pathlib.Path) -> list[str]:
    return _read(path).get("lease", "ROUTER", fallback="").split()


def _network_manager(path: pathlib.Path) -> list[str]:
    return _read(path).get("dhcp4", "routers", fallback="").split()


def _read(path: pathlib.Path) -> configparser.ConfigParser:
    """Both are key files; networkd's has no section, so that it gets one."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        parser.read_string(text if text.lstrip().startswith("[") else f"[lease]\n{text}")
    except (FileNotFoundError, PermissionError, configparser.Error):
        pass  # a hint that cannot be read is no hint
    return parser
