# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""How soon the watch may look again: at once, unless rounds never end, or somebody fights back. Times in seconds."""

from __future__ import annotations

import collections
import time
import typing as t

# Of a processor, for rounds that go on and on; and how many seconds of them may come in a row before that counts. A
# boot takes a second of them on a slow machine: its VPN must not wait for that.
SHARE = 0.2
CREDIT = 2.0
# So many repairs within a minute are somebody's mistake, more are a fight. From then on each waits twice as long as the
# one before, up to a bound: what we protect must not wait for long.
BURST = 20
MINUTE = 60.0
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Pace:
    """Told of each round, it says how long to wait before the next one."""

    def __init__(self, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._credit = CREDIT
        self._ended = clock()
        self._repairs: collections.deque[float] = collections.deque()

    def round(self, took: float, *, repaired: bool) -> None:
        """A round has ended, which took so much of a processor."""
        self._credit = self._credit_now() - took
        self._ended = self._clock()
        if repaired:
            self._repairs.append(self._ended)

    @property
    def repairs(self) -> int:
        """Rounds of the last minute that had to put something back."""
        while self._repairs and self._repairs[0] <= self._clock() - MINUTE:
            self._repairs.popleft()
        return len(self._repairs)

    @property
    def fighting(self) -> bool:
        """Whether what is put back does not stay."""
        return self.repairs > BURST

    def pause(self) -> float:
        """How long the next round has to wait, from now; 0 is at once."""
        until = self._ended - self._credit / SHARE
        if self.fighting:
            doubled = FIRST_PAUSE * 2.0 ** min(self.repairs - BURST - 1, 16)
            until = max(until, self._ended + min(doubled, LONGEST_PAUSE))
        return max(0.0, until - self._clock())

    def _credit_now(self) -> float:
        return min(CREDIT, self._credit + (self._clock() - self._ended) * SHARE)
