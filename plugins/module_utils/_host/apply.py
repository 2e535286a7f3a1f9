# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Bring the kernel to what the recorded sets say: at boot, after an event, or by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .. import _netlink_apply
from .._confirm import restore
from .._converge import Request, Result, converge
from .._errors import NotSupported, RoutingError
from .._model.operation import Operation
from .._recipe.closed import backstops_alone
from .._record import Record, guard_of, has_ended, objects_of
from .._surroundings import Host
from .._suspension import resume, suspension
from .history import Repair
from .notes import ENDED, EVERY_SET, RESUMED, SUSPENDED, note
from .sets import Kept, kept_sets, readable_stores

if t.TYPE_CHECKING:
    from .._kernel import Kernel

LOADED = (_netlink_apply,)  # now: the file of this program may be gone when the kernel is to be changed


@dataclasses.dataclass(frozen=True)
class Applied:
    """What came of one set: a result or an error."""

    kept: Kept
    result: Result | None
    error: RoutingError | None
    gone: str = ""  # SUSPENDED or ENDED: the result is its absence

    def line(self) -> str:
        """One line for people."""
        if self.result is None:
            return f"{self.kept.name}: {'' if self.error is None else self.error.line()}"
        count = len(self.result.plan.operations) + len(self.result.names)
        done = f"{count or 'no'} change{'' if count == 1 else 's'}"
        done = f"{self.gone}, {done}" if self.gone else done
        found = [_identity_text(entry) for entry in self.result.proof.identities]
        return f"{self.kept.name}: {done}{'; ' if found else ''}{', '.join(found)}"

    def remarks(self, *, counting: bool = True) -> list[str]:
        """What somebody should look at; without C(counting) a line is the same as long as its matter is."""
        if self.gone:
            line = f"{self.kept.name}: is suspended, and so nothing of it is in the kernel"
            return [line] if self.result and self.gone == SUSPENDED else []
        lines = list(self.result.warnings) if self.result else []
        if self.kept.record is not None and self.kept.record.fallback:
            lines.append("its file is unreadable, the last readable generation stands in for it")
        if self.kept.armed is not None:
            lines.append(self.kept.armed.line(counting=counting))
        return [f"{self.kept.name}: {line}" for line in lines]


def apply_sets(kernel: Kernel, netns: str | None, only: str | None = None) -> list[Applied]:
    """Apply every set, or one, holding the lock that modules hold. A set that fails does not stop the others.

    On a host that is suspended all of them are taken out of the kernel instead, also a change that waits. Raises
    InvalidInput for an unknown set, NotPermitted.
    """
    host = Host(kernel, netns)
    with host.lock():
        suspended = is_suspended(netns)
        armed = host.window.read()
        if armed is not None and (armed.expired or suspended):
            restore(kernel, host, armed)
        ended = _end_sets(kernel, netns)
        return [*ended, *(withdraw_sets(kernel, netns) if suspended else converge_sets(kernel, netns, only))]


def _end_sets(kernel: Kernel, netns: str | None) -> list[Applied]:
    """Remove the sets whose time is up, once no change of theirs waits any more."""
    settled = [(kept, kept.record.declaration) for kept in kept_sets(netns) if kept.record and kept.armed is None]
    return [_end(kernel, netns, kept, given["expires"]) for kept, given in settled if has_ended(given)]


def _end(kernel: Kernel, netns: str | None, kept: Kept, when: str) -> Applied:
    host = Host(kernel, netns, persistent=kept.persistent)
    host.stores = readable_stores(netns)
    try:
        found = converge(kernel, host, Request(kept.name, {}, absent=True, undo_wrong=False))
    except RoutingError as exc:
        return Applied(kept, None, exc, gone=ENDED)
    note(netns, Repair(kept.name, ENDED, f"at {when}"))
    host.tidy()
    return Applied(kept, found, None, gone=ENDED)


def is_suspended(netns: str | None) -> bool:
    """Whether the host is suspended; a suspension whose time is up is ended by this."""
    found = suspension(netns)
    if found is None or not found.over:
        return found is not None
    resume(netns)
    note(netns, Repair(EVERY_SET, RESUMED, f"at {found.until}, as it was suspended"))
    return False


def withdraw_sets(kernel: Kernel, netns: str | None, *, dry_run: bool = False) -> list[Applied]:
    """Take everything of every set out of the kernel, to the state before the first of them, and keep the records."""
    gone: set[str] = set()
    return [_withdraw(kernel, netns, kept, gone, dry_run=dry_run) for kept in kept_sets(netns)]


def _withdraw(kernel: Kernel, netns: str | None, kept: Kept, gone: set[str], *, dry_run: bool) -> Applied:
    """C(gone) are those before it, which keep no sysctl and no device any more; this one joins them."""
    if kept.record is None:
        return Applied(kept, None, kept.error, gone=SUSPENDED)
    host = Host(kernel, netns, persistent=kept.persistent)
    host.stores = readable_stores(netns, without=gone)
    # As of a change that waits, nothing of it is written down.
    request = Request(kept.name, kept.record.declaration, absent=True, dry_run=dry_run, waiting=True, undo_wrong=False)
    try:
        found = converge(kernel, host, request)
        if not dry_run:
            host.name_tables({}, kept.record.names)
    except RoutingError as exc:
        return Applied(kept, None, exc, gone=SUSPENDED)
    gone.add(kept.name)
    return Applied(kept, found, None, gone=SUSPENDED)


def close_sets(kernel: Kernel, netns: str | None) -> None:
    """The backstops of every set, and nothing else: what can be done at once while the rest has to wait."""
    with Host(kernel, netns, persistent=False).lock():
        for kept in kept_sets(netns) if suspension(netns) is None else ():
            if kept.record is not None:
                close(kernel, kept.record)


def converge_sets(
    kernel: Kernel, netns: str | None, only: str | None = None, *, dry_run: bool = False
) -> list[Applied]:
    """The same without the lock; with C(dry_run) nothing is changed."""
    every = kept_sets(netns)
    # What is in the kernel may belong to a set that cannot be read: as long as there is one, nothing is removed.
    prune = all(kept.error is None for kept in every)
    wanted = every if only is None else kept_sets(netns, only)
    return [_converge(kernel, netns, kept, prune=prune, dry_run=dry_run) for kept in wanted]


def _converge(kernel: Kernel, netns: str | None, kept: Kept, *, prune: bool, dry_run: bool) -> Applied:
    if kept.record is None:
        return Applied(kept, None, kept.error)
    host = Host(kernel, netns, persistent=kept.persistent)
    host.stores = readable_stores(netns)
    request = Request(
        name=kept.name,
        params=kept.record.declaration,
        prune=prune and kept.record.meta.get("prune", True),
        dry_run=dry_run,
        waiting=kept.armed is not None,
        # What a user declared stays in force, backstops and all, when the host around it changes.
        undo_wrong=False,
        meta=kept.record.meta,
    )
    try:
        return Applied(kept, converge(kernel, host, request), None)
    except RoutingError as exc:
        if not dry_run:
            close(kernel, kept.record)
        return Applied(kept, None, exc)


def close(kernel: Kernel, record: Record) -> None:
    """What could not be applied leaves at least no address of a tunnel open: put missing backstops and guard back."""
    rules, _routes = objects_of(record)
    wanted = backstops_alone(rules, record.numbers["priority_base"])
    present = {(rule, rule.protocol) for family in (4, 6) for rule in kernel.rules(family)}
    kernel.apply([Operation("add", rule) for rule in wanted if (rule, rule.protocol) not in present])
    guard = guard_of(record)
    with contextlib.suppress(NotSupported):  # the backstops are all that a host without nft has
        if guard is not None and kernel.guard(guard.table) != guard:
            kernel.apply([Operation("add", guard)])


def _identity_text(entry: t.Mapping[str, t.Any]) -> str:
    found = [*([entry["interface"]] if entry["interface"] else []), *entry["addresses"]]
    return f"{entry['key']} {entry['verdict'] or 'unproven'} ({', '.join(found) or 'nothing yet'})"
