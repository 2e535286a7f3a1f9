# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Who makes a change, and where the connection of the controller is from that this process came by.

sudo drops SSH_CONNECTION, but the shell that sshd started still has it: whoever may change routes may read it there.
"""

from __future__ import annotations

import os
import pathlib
import typing as t

from ._model.fields import family_of
from ._model.state import Flow
from ._version import VERSION

PLAY = "FLEETVPN_PLAY"  # set by the action plugin: the name of the play
_TCP = 6
_PROC = pathlib.Path("/proc")


def management_flow() -> Flow | None:
    """The replies of the SSH connection that an ancestor of this process serves, in the same network namespace."""
    pid = os.getpid()
    while pid > 1:
        stated = _connection_of(pid)
        if stated is not None:
            return _flow(stated) if _same_network(pid) else None
        pid = _parent_of(pid)
    return None


def controller() -> str:
    """The address of the controller, empty if it did not come by SSH."""
    flow = management_flow()
    return "" if flow is None else flow.to


def author() -> dict[str, str]:
    """Who changes something, as far as the host can tell."""
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or ""
    return {"user": user, "controller": controller(), "play": os.environ.get(PLAY, ""), "version": VERSION}


def named(author: t.Mapping[str, t.Any]) -> str:
    """An author in a few words."""
    return "@".join(str(author[key]) for key in ("user", "controller") if author.get(key)) or "somebody"


def _flow(stated: str) -> Flow | None:
    """From what sshd says: the client's address and port, then the server's. A zone names the device."""
    words = stated.split()
    if len(words) != 4:
        return None
    remote, _percent, zone = words[0].partition("%")
    local = words[2].partition("%")[0]
    sport, dport = int(words[3]), int(words[1])
    return Flow(family_of(remote), remote, source=local, oif=zone or None, ipproto=_TCP, sport=sport, dport=dport)


def _connection_of(pid: int) -> str | None:
    try:
        entries = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    found = [entry for entry in entries if entry.startswith(b"SSH_CONNECTION=")]
    return found[0].partition(b"=")[2].decode(errors="replace") if found else None


def _parent_of(pid: int) -> int:
    """0 if it has none, or is gone. The command's name, in parentheses, may hold anything."""
    try:
        state = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(state.rpartition(")")[2].split()[1])


def _same_network(pid: int) -> bool:
    try:
        return os.path.samestat(os.stat(_PROC / str(pid) / "ns/net"), os.stat(_PROC / "thread-self/ns/net"))
    except OSError:
        return False
