# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What both kinds of VPN have in common, and waiting."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from .host import Host

# split: routes to the corporate network in main; full: all unbound traffic; identity: addresses alone, no route.
# auto: wg-quick's `Table = auto` with the corporate network as AllowedIPs: it routes, and drops, by them.
MODES = ("split", "full", "identity", "auto")


class Tunnel(t.Protocol):
    """A client's tunnel. `device` and `connection` are what the user of such a client would call it."""

    kind: str
    device: str
    connection: str

    def begin(self) -> None:
        """Start the daemon; do not wait."""

    def finish(self) -> None:
        """Wait until the tunnel carries packets."""

    def stop(self) -> None:
        """Take the tunnel down as its user would."""

    def renumber(self, inside: t.Sequence[str]) -> None:
        """Give a running tunnel other inside addresses, as this VPN does it."""

    def kill(self) -> None:
        """SIGKILL to the daemon: no clean-up of its own."""


@dataclasses.dataclass
class Client:
    """A client host. `inside` and `outside` hold its addresses, IPv4 first where it has one."""

    host: Host
    mode: str
    inside: tuple[str, ...]
    outside: tuple[str, ...]
    tunnel: Tunnel
    container: Host | None = None
    pod: Host | None = None

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name

    def up(self) -> None:
        """Start the tunnel and wait for it."""
        self.tunnel.begin()
        self.tunnel.finish()

    def down(self) -> None:
        """Stop the tunnel."""
        self.tunnel.stop()

    def renumber(self, inside: t.Sequence[str]) -> None:
        """Other inside addresses; `inside` holds them afterwards. They should come from the same pool."""
        self.tunnel.renumber(inside)
        self.inside = tuple(inside)


def connect(one: Host, device: str, other: Host, peer: str) -> None:
    """Both ends of a cable up, and passing packets."""
    one.up(device)
    other.up(peer)
    wait_for(lambda: one.carries(device) and other.carries(peer), f"{one.name} {device} to {other.name} {peer}")


def wait_for(condition: t.Callable[[], bool], what: str, *, seconds: float = 30) -> None:
    """Until it holds. Raises TimeoutError that says what did not happen."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
