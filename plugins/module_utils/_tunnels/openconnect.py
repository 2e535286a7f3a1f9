# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""OpenConnect, and the clients of those who make the servers: what runs, and by which device."""

from __future__ import annotations

import fnmatch
import typing as t

from .._errors import InvalidInput
from . import networkmanager
from .client import HOOK, NETWORKMANAGER, Client, Wanted
from .files import exists, is_ours, process_file, tun_devices

if t.TYPE_CHECKING:
    import pathlib

OPENCONNECT = "openconnect"
# The clients of the vendors, and the devices by which they are known without being named. Ivanti's is any tun device.
VENDORS = {
    "cisco": "cscotun*",
    "forticlient": "fctvpn*",
    "globalprotect": "gpd*",
    "ivanti": "",
}
PROGRAM = "usr/sbin/openconnect"
# vpnc-script waits for each: for the first before it sets the device up, for the second before the first packet.
HOOKS = ("etc/vpnc/connect.d/fleetvpn", "etc/vpnc/post-connect.d/fleetvpn")


def find(wanted: Wanted, root: pathlib.Path) -> Client:
    """The client of a tunnel of type openconnect. Raises InvalidInput for a manager that nobody knows."""
    stated = wanted.one_of(OPENCONNECT, NETWORKMANAGER, *VENDORS)
    device = wanted.interface or (_running(wanted.connection, root) if stated in (None, OPENCONNECT) else None)
    if device is None and (client := networkmanager.find(wanted, "openconnect", root)) is not None:
        return client
    manager = stated or _manager(wanted, root)
    hooked = manager != OPENCONNECT or not exists(root / PROGRAM) or all(is_ours(root / hook) for hook in HOOKS)
    return Client(
        wanted.identity,
        "openconnect",
        manager,
        wanted.connection,
        device,
        needs=() if hooked else (HOOK,),
        hooks=tuple(f"/{hook}" for hook in HOOKS) if manager == OPENCONNECT else (),
        remarks=_remarks(wanted, manager),
    )


def _manager(wanted: Wanted, root: pathlib.Path) -> str | None:
    device = wanted.interface or ""
    vendor = next((name for name, pattern in VENDORS.items() if fnmatch.fnmatchcase(device, pattern or "/")), None)
    return vendor or (OPENCONNECT if exists(root / PROGRAM) else None)


def _remarks(wanted: Wanted, manager: str | None) -> tuple[str, ...]:
    """What a vendor's client is told apart by. Raises InvalidInput for what none of them leaves in place."""
    if manager not in VENDORS:
        return ()
    if wanted.destinations:
        raise InvalidInput(
            f"of identity {wanted.identity} would be routes in table main, which the client {manager} supervises: it"
            " removes them, or ends the session",
            field=f"{wanted.field}.destinations",
            value=", ".join(wanted.destinations),
            accepted="none with this client; openconnect speaks its protocol too",
        )
    return (
        f"identity {wanted.identity}: the client {manager} is tolerated, not supported: it supervises table main and"
        " may drop what does not enter its tunnel",
    )


def _running(unit: str | None, root: pathlib.Path) -> str | None:
    """The tun device of the client that a unit runs; the unit is named in full, or by its instance."""
    for process in sorted((root / "proc").glob("[0-9]*")):
        if b"openconnect" not in process_file(process / "cmdline").split(b"\0")[0]:
            continue
        devices = tun_devices(process)
        if devices and unit and _is_of(unit, process):
            return devices[0]
    return None


def _is_of(unit: str, process: pathlib.Path) -> bool:
    groups = process_file(process / "cgroup").decode(errors="replace").splitlines()
    service = f"{unit.removesuffix('.service')}.service"
    names = [line.rpartition("/")[2] for line in groups]
    return any(name == service or name.endswith(f"@{service}") for name in names)
