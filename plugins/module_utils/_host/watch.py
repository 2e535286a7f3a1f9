# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Follow the host: devices and addresses come and go, and half of the VPN clients have no hook that says so.

Everything is imported before the first event: the program's file may be replaced or removed while this runs.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
import typing as t

from .._errors import RoutingError
from .._kernel import EventsLost
from .apply import Applied, apply_sets

if t.TYPE_CHECKING:
    from .._kernel import Events, Kernel

# Seconds. A client that comes up makes a dozen events within a few milliseconds; a storm must not put us off for ever.
QUIET = 0.02
LONGEST = 0.2

Say = t.Callable[[str], None]


def watch(kernel: Kernel, netns: str | None, say: Say) -> None:
    """Apply all sets now and after every event, until SIGTERM or SIGINT; without events nothing is done at all.

    What fails is said, once, and tried again with the next event. Raises NotPermitted.
    """
    rounds = _Rounds(kernel, netns, say)
    with _stop_signals() as stop, contextlib.closing(kernel.events()) as events:
        rounds.run()
        _tell_systemd("READY=1")
        while _next_event(events, stop):
            rounds.run()


class _Rounds:
    """Rounds of applying, of which only what is new is said."""

    def __init__(self, kernel: Kernel, netns: str | None, say: Say) -> None:
        self._kernel = kernel
        self._netns = netns
        self._say = say
        self._said: set[str] = set()

    def run(self) -> None:
        """One round."""
        found = apply_sets(self._kernel, self._netns)
        troubles = {line for applied in found for line in _troubles(applied)}
        for line in [applied.line() for applied in found if applied.result is not None and applied.result.changed]:
            self._say(line)
        for line in sorted(troubles - self._said):
            self._say(line)
        self._said = troubles


def _troubles(applied: Applied) -> list[str]:
    if applied.result is None:
        return [applied.line()]
    return [*applied.remarks(), *(f"{applied.kept.name}: {line}" for line in applied.result.proof.wrong())]


def _next_event(events: Events, stop: int) -> bool:
    """Wait for an event, and then for a moment of silence after it. False: it is time to stop."""
    poll = select.poll()
    poll.register(events.fileno(), select.POLLIN)
    poll.register(stop, select.POLLIN)
    wait: float | None = None  # without end
    latest = 0.0
    while ready := {descriptor for descriptor, _event in poll.poll(None if wait is None else wait * 1000)}:
        if stop in ready:
            return False
        with contextlib.suppress(EventsLost):  # everything is read anew anyhow
            events.read()
        now = time.monotonic()
        latest = latest or now + LONGEST
        wait = min(QUIET, latest - now)
        if wait <= 0:
            break
    return True


@contextlib.contextmanager
def _stop_signals() -> t.Iterator[int]:
    """A descriptor that becomes readable when somebody wants an end. A round that runs is finished first."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in (signal.SIGTERM, signal.SIGINT)}
    old = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _tell_systemd(state: str) -> None:
    """As sd_notify(3); nothing if it was not systemd that started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError as exc:
            raise RoutingError(f"cannot tell systemd through {address}: {exc.strerror}") from exc
