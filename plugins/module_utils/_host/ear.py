# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Waiting for events: without end, then for a moment of silence after them. Times in seconds."""

from __future__ import annotations

import select
import time
import typing as t

from .._netlink_events import EventsLost

if t.TYPE_CHECKING:
    from .._kernel import Events
    from .pace import Pace

# A client that comes up makes a dozen events within a few milliseconds; a storm must not put us off for ever.
QUIET = 0.005
LONGEST = 0.1
# Between two looks at the backstops, while somebody fights over the rest.
BACKSTOPS = 0.05

# After these a backstop may be missing.
_DELETED = frozenset({"rule", "ruleset"})
_LOST = frozenset({"link", "address", "rule", "route", "ruleset"})


class Stopped(Exception):
    """Somebody wants an end."""


class Ear:
    """Listens to the events and to the descriptor that says it is time to stop. All raises Stopped."""

    def __init__(self, events: Events, stop: int) -> None:
        self._events = events
        self._stop = stop
        self._poll = select.poll()
        self._poll.register(events.fileno(), select.POLLIN)
        self._poll.register(stop, select.POLLIN)
        self._protected = 0.0

    def wait(self, pace: Pace, protect: t.Callable[[], None]) -> None:
        """Until something happens, and then until the next round is due. In a fight, C(protect) is called meanwhile."""
        heard = self._first()
        start = time.monotonic()
        latest, due = start + LONGEST, start + max(QUIET, pace.pause())
        missing = bool(heard & _DELETED)
        while (left := due - time.monotonic()) > 0:
            owed = self._protected + BACKSTOPS - time.monotonic() if missing and pace.fighting else left
            if owed <= 0:
                protect()
                self._protected, missing = time.monotonic(), False
                continue
            heard = self._hear(min(left, owed))
            missing = missing or bool(heard & _DELETED)
            if heard:
                due = max(due, min(time.monotonic() + QUIET, latest))

    def _first(self) -> frozenset[str]:
        """The next events that matter; some are found not to only when they are read."""
        while True:
            heard = self._hear(None)
            if heard:
                return heard

    def _hear(self, seconds: float | None) -> frozenset[str]:
        """The kinds of the events that come next, or nothing after so many seconds."""
        ready = {number for number, _event in self._poll.poll(None if seconds is None else seconds * 1000)}
        if self._stop in ready:
            raise Stopped
        if not ready:
            return frozenset()
        try:
            return frozenset(self._events.read())
        except EventsLost:  # everything is read anew anyhow
            return _LOST
