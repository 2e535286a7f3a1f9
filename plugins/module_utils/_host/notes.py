# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What was done to a host on purpose, or refused there, and by whom. A boot does not end it."""

from __future__ import annotations

import contextlib

from .._controller import author, named
from .._errors import Conflict, KernelError, RoutingError, VerificationError
from .._surroundings import Host
from .history import History, Repair

# The object is then who did it, or when, or why it was refused.
SUSPENDED, RESUMED, ENDED = "suspended", "resumed", "ended"
REFUSED, ACCEPTED = "refused", "accepted"
EVERY_SET = "all sets"
LETTERS = 500  # of a reason; one may list every path


def told(netns: str | None) -> list[Repair]:
    """All that is remembered, the last first. Raises NotPermitted."""
    host = Host(None, netns)
    found = [*_notes(host).read(), *History(host.history).read()]
    return sorted(found, key=lambda each: each.last, reverse=True)


def note(netns: str | None, event: Repair) -> None:
    """Remember this; the caller holds the lock. What cannot be written is no reason to stop or to say another."""
    with contextlib.suppress(RoutingError, OSError):
        _notes(Host(None, netns)).add([event])


def refusals(netns: str | None) -> list[Repair]:
    """The last refusal of each set behind which nothing of that set was accepted. Raises NotPermitted."""
    latest: dict[str, Repair] = {}
    for each in _notes(Host(None, netns)).read():
        if each.done in (REFUSED, ACCEPTED):
            latest.setdefault(each.set, each)
    return [each for each in latest.values() if each.done == REFUSED]


def refuse(netns: str | None, name: str, why: RoutingError) -> None:
    """Remember that a change of a set was refused, so that a host which has the older one is not taken for right.

    Only what the host itself stood against: a wrong word in a declaration leaves nothing on any host, and that somebody
    else's change waits there is over by itself.
    """
    held = isinstance(why, Conflict) and why.field == "confirm"
    if held or not isinstance(why, (VerificationError, Conflict, KernelError)):
        return
    host = Host(None, netns)
    with contextlib.suppress(RoutingError), host.lock():
        note(netns, Repair(name, REFUSED, why.line()[:LETTERS]))
        host.tidy(notes=False)


def accept(netns: str | None, name: str) -> None:
    """A change of this set was made, or nothing was to be done: what was refused before it is over."""
    with contextlib.suppress(RoutingError):
        if any(each.set == name for each in refusals(netns)):
            host = Host(None, netns)
            with host.lock():
                note(netns, Repair(name, ACCEPTED, f"by {named(author())}"))
                host.tidy()


def _notes(host: Host) -> History:
    return History(host.notes, lasting=True)
