# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Programs that are known to delete or overtake what others put into the kernel, as far as they run here."""

from __future__ import annotations

import pathlib

# By the name of their process, of which the kernel keeps 15 characters.
KNOWN = {
    "systemd-network": "systemd-networkd",
    "NetworkManager": "NetworkManager",
    "dhcpcd": "dhcpcd",
    "connmand": "connman",
    "tailscaled": "tailscaled",
    "netbird": "netbird",
    "mwan3track": "mwan3",
    "mwan3rtmon": "mwan3",
    "pbr": "pbr",
    "netifd": "netifd",
    "charon": "strongSwan",
    "charon-systemd": "strongSwan",
    "pluto": "Libreswan",
    "openvpn": "OpenVPN",
    "zebra": "FRR",
    "bird": "BIRD",
    "keepalived": "keepalived",
    "firewalld": "firewalld",
    "dockerd": "Docker",
}


def running(proc: pathlib.Path = pathlib.Path("/proc")) -> list[str]:
    """Those of the known programs that run, each once, sorted."""
    return sorted({KNOWN[name] for entry in proc.glob("[0-9]*") if (name := _name(entry)) in KNOWN})


def _name(entry: pathlib.Path) -> str:
    try:
        return (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # it has ended, or this user may not see it
        return ""
