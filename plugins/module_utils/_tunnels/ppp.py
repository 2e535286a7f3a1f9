# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""PPP: whatever carries it (L2TP, PPTP, SSTP, openfortivpn), pppd has the device and runs what is below /etc/ppp."""

from __future__ import annotations

import os
import re
import shlex
import typing as t

from . import networkmanager
from .client import HOOK, NETWORKMANAGER, Client, Wanted
from .files import exists, is_ours, lines, process_file

if t.TYPE_CHECKING:
    import pathlib

PPPD = "pppd"
MANAGERS = (PPPD, "xl2tpd", "openfortivpn", NETWORKMANAGER)
PROGRAM = "usr/sbin/pppd"
# pppd waits for the first, before the link carries anything. It does not wait for the second.
EVENTS = ("ip-pre-up", "ip-up")
# In our script alone: somebody else's may call the same hook.
MARK = "# fleetvpn.routing.vpn_ppp:"
# The options by which a process of pppd is told from others.
_NAMING = ("call", "file", "ipparam", "linkname")


def find(wanted: Wanted, root: pathlib.Path) -> Client:
    """The client of a tunnel of type ppp. Raises InvalidInput for a manager that nobody knows."""
    manager = wanted.one_of(*MANAGERS) or (PPPD if exists(root / PROGRAM) else None)
    device = wanted.interface or (
        _managed(wanted, root)
        if manager == NETWORKMANAGER
        else _stated(wanted.connection, root) or _running(wanted.connection, root)
    )
    hooks, remarks = _hooks(root) if exists(root / PROGRAM) else ([], [])
    hooked = all(is_ours(root / hook) and os.access(root / hook, os.X_OK) for hook in hooks)
    return Client(
        wanted.identity,
        "ppp",
        manager,
        wanted.connection,
        device,
        needs=() if hooked else (HOOK,),
        hooks=tuple(f"/{hook}" for hook in hooks),
        remarks=tuple(f"identity {wanted.identity}: {remark}" for remark in remarks),
    )


def _managed(wanted: Wanted, root: pathlib.Path) -> str | None:
    client = networkmanager.find(wanted, "ppp", root)
    return client.interface if client else None


def _stated(name: str | None, root: pathlib.Path) -> str | None:
    """The device that a peer's file asks for."""
    try:
        words = shlex.split("\n".join(lines(root / f"etc/ppp/peers/{name}")), comments=True)
    except ValueError:  # a quote without end, which pppd refuses too
        return None
    options = dict(zip(words, words[1:]))
    return options.get("ifname") or (f"ppp{options['unit']}" if "unit" in options else None)


def _running(name: str | None, root: pathlib.Path) -> str | None:
    """The device of the process that was started for this peer, after which the file of its process id is named."""
    for process in sorted((root / "proc").glob("[0-9]*")):
        words = process_file(process / "cmdline").decode(errors="replace").split("\0")
        if words[0].rpartition("/")[2] != PPPD:
            continue
        named = {value.rpartition("/")[2] for option, value in zip(words, words[1:]) if option in _NAMING}
        devices = [path.stem for path in pid_files(root) if process_file(path).split() == [process.name.encode()]]
        if name in named and devices:
            return devices[0]
    return None


def pid_files(root: pathlib.Path) -> list[pathlib.Path]:
    """Those of pppd 2.4 are in /run, those of 2.5 in /run/pppd."""
    return sorted([*(root / "run").glob("*.pid"), *(root / "run/pppd").glob("*.pid")])


def _hooks(root: pathlib.Path) -> tuple[list[str], list[str]]:
    """Where this distribution's pppd finds scripts, and why one of ours would not be run."""
    found = [_hook(event, root) for event in EVENTS]
    return [path for path, _remark in found if path], [remark for _path, remark in found if remark]


def _hook(event: str, root: pathlib.Path) -> tuple[str | None, str | None]:
    """Debian and SUSE run what is in EVENT.d, Debian only names without a dot, Arch only those that end with .sh.
    Fedora runs EVENT.local alone. Where a distribution has no script for an event, pppd runs ours itself.
    """
    text = "\n".join(lines(root / f"etc/ppp/{event}"))
    local = f"etc/ppp/{event}.local"
    runs_local = f"{event}.local" in text
    if re.search(r"\.d\b", text) and MARK not in text and exists(root / f"etc/ppp/{event}.d"):
        replaced = runs_local and "run-parts" in text and os.access(root / local, os.X_OK)
        remark = f"/{local} replaces all of /etc/ppp/{event}.d, so the watch alone follows" if replaced else None
        return f"etc/ppp/{event}.d/fleetvpn{'.sh' if '*.sh' in text else ''}", remark
    path = local if runs_local and MARK not in text else f"etc/ppp/{event}"
    if exists(root / path) and MARK not in "\n".join(lines(root / path)):
        return None, f"/{path} is somebody else's, so the watch alone follows"
    return path, None
