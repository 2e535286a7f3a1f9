# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Follow the host: what clients, DHCP servers and other daemons change, and half of them without telling anybody.

Everything is imported before the first event: the program's file may be replaced or removed while this runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import typing as t

from .._errors import RoutingError
from .._netlink_filter import DEFAULT, Interest, joined
from .._surroundings import Host
from . import daemons
from .apply import Applied, apply_sets, close_sets
from .ear import Ear, Stopped
from .history import History, Repair, repairs
from .pace import MINUTE, Pace

if t.TYPE_CHECKING:
    from .._kernel import Events, Kernel

# A round that changed what it listens to is followed by another one, which sees what was missed; at most so often.
ROUNDS = 3

Say = t.Callable[[str], None]


def watch(kernel: Kernel, netns: str | None, say: Say) -> None:
    """Apply all sets now and after every event, until SIGTERM or SIGINT; without events nothing is done at all.

    What fails is said, once, and tried again with the next event. Raises NotPermitted.
    """
    with _stop_signals() as stop, contextlib.closing(_listen(kernel)) as events:
        rounds = _Rounds(kernel, netns, events, say)
        ear = Ear(events, stop)
        with contextlib.suppress(Stopped):
            rounds.run()
            _tell_systemd("READY=1")
            while True:
                ear.wait(rounds.pace, rounds.protect)
                rounds.run()


def _listen(kernel: Kernel) -> Events:
    """What we do ourselves is known: to look again after it would be another round for nothing."""
    return kernel.events(rules=True, routes=True, ruleset=True, own=False)


class _Rounds:
    """Rounds of applying, of which only what is new is said."""

    def __init__(self, kernel: Kernel, netns: str | None, events: Events, say: Say) -> None:
        self.pace = Pace()
        self._kernel = kernel
        self._netns = netns
        self._events = events
        self._interests: dict[str, Interest] | None = None
        self._history = History(Host(kernel, netns, persistent=False).history)
        self._journal = _Journal(say)
        self._say = say

    def run(self) -> None:
        """Apply, and once more where that taught us to listen to something else: it may have changed meanwhile."""
        for _round in range(ROUNDS):
            before = time.process_time()  # a round that had to wait for others has cost nothing
            found = apply_sets(self._kernel, self._netns)
            done = [repair for applied in found for repair in repairs(applied)]
            self.pace.round(time.process_time() - before, repaired=bool(done))
            self._journal.write(found, done, self.pace)
            self._remember(done)
            if not self._narrow(found):
                return

    def protect(self) -> None:
        """Before the next round is due: put the backstops back, so that the fight leaks nothing."""
        with contextlib.suppress(RoutingError):  # the next round says it
            close_sets(self._kernel, self._netns)

    def _remember(self, done: t.Sequence[Repair]) -> None:
        """A history that cannot be written is no reason to stop."""
        try:
            if done:
                self._history.add(done)
        except RoutingError as exc:
            self._say(exc.line())

    def _narrow(self, found: t.Iterable[Applied]) -> bool:
        """Listen to what these results depend on; whether that is something new."""
        before = self._interests
        self._interests = {applied.kept.name: _interest(applied, before or {}) for applied in found}
        if self._interests == before:
            return False
        self._events.narrow(joined([Interest(tables=frozenset({DEFAULT})), *self._interests.values()]))
        return True


def _interest(applied: Applied, before: t.Mapping[str, Interest]) -> Interest:
    """A set that failed keeps what it had; at first its tables have to do."""
    if applied.result is not None:
        return applied.result.interest
    tables = applied.kept.record.tables.values() if applied.kept.record else ()
    return before.get(applied.kept.name, Interest(tables=frozenset(tables)))


class _Journal:
    """One line for each change, one for each trouble that is new, and one a minute for a fight.

    While a fight lasts, troubles come and go with it: each is said once.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._troubles: set[str] = set()
        self._fought = -MINUTE

    def write(self, found: t.Sequence[Applied], done: t.Sequence[Repair], pace: Pace) -> None:
        """What came of a round."""
        for applied in found:
            mine = [repair for repair in done if repair.set == applied.kept.name]
            if applied.result is not None and applied.result.changed and not (mine and pace.fighting):
                self._say(f"{applied.line()}{_of(mine)}")
        if done and pace.fighting and time.monotonic() - self._fought >= MINUTE:
            self._fought = time.monotonic()
            self._say(_fight(done[0], pace))
        troubles = {line for applied in found for line in _troubles(applied)}
        for line in sorted(troubles - self._troubles):
            self._say(line)
        self._troubles = self._troubles | troubles if pace.fighting else troubles


def _of(done: t.Sequence[Repair]) -> str:
    """The repairs among the changes, by the first of them."""
    if not done:
        return ""
    more = f" and {len(done) - 1} more" if len(done) > 1 else ""
    return f"; {done[0].done} {done[0].object}{more}"


def _fight(repair: Repair, pace: Pace) -> str:
    who = ", ".join(daemons.running()) or "none of the daemons that are known for it"
    return (
        f"{repair.set}: somebody fights back, {pace.repairs} repairs in the last minute, now {repair.done}"
        f" {repair.object}; running here: {who}"
    )


def _troubles(applied: Applied) -> list[str]:
    if applied.result is None:
        return [applied.line()]
    return [
        *applied.remarks(counting=False),
        *(f"{applied.kept.name}: {line}" for line in applied.result.proof.wrong()),
    ]


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
