# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A run for one set: what is asked, what the host around the kernel gives, what is known first, and what came of it."""

from __future__ import annotations

import dataclasses
import typing as t

from ._confirm import NONE, Armed, Terms, Window
from ._errors import NotSupported
from ._model.declaration import Declaration
from ._plan import Desired, Plan
from ._recipe import Outcome
from ._recipe.facts import Facts
from ._record import Record
from ._sets import Scope
from ._store import Store
from ._verify import Proof

if t.TYPE_CHECKING:
    from ._netlink_filter import Interest

WHAT_IF = ENFORCE, REPORT, SKIP = "enforce", "report", "skip"
DEFAULT = Terms(NONE)


class Surroundings(t.Protocol):
    """The host around its kernel: files and VPN clients."""

    store: Store  # where this set is kept
    stores: t.Sequence[Store]  # all that may hold sets of this host

    @property
    def window(self) -> Window:
        """The change of this host that waits for its confirmation."""

    def table(self, value: object, field: str) -> int:
        """The number of a table that the host knows by name or number."""

    def refuse_contradiction(self, wanted: t.Sequence[tuple[str, int]]) -> None:
        """Refuse names of tables that the host has otherwise."""

    def misnamed_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> list[str]:
        """The lines of the name file that name_tables would change, C(+) or C(-) in front."""

    def name_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> None:
        """Give tables their names, and take away those that are no longer wanted."""

    def named_tables(self) -> t.Mapping[str, int]:
        """All names that the host has."""

    def tunnels(self, declaration: Declaration) -> t.Mapping[str, str]:
        """The device of each tunnel identity that names none, as its VPN client has it. Refuses what cannot work."""

    def clients_told(self, record: Record, name: str) -> list[dict[str, t.Any]]:
        """The VPN clients for the result, with what each must be told of us, C(record) being that of set C(name)."""

    def gateways(self) -> t.Mapping[str, tuple[str, ...]]:
        """Gateways by device, from leases and router advertisements."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One run for one set."""

    name: str
    params: t.Mapping[str, t.Any]  # the declaration as the user gave it
    paths: t.Sequence[t.Mapping[str, t.Any]] = ()
    absent: bool = False
    prune: bool = True
    adopt: bool = False  # whether foreign twins are taken over
    dry_run: bool = False
    keep_paths: t.Sequence[t.Mapping[str, t.Any]] = ()
    what_if: str = SKIP
    terms: Terms = DEFAULT  # how the change is confirmed
    waiting: bool = False  # whether a change of this set waits for its confirmation: until then nothing is recorded
    undo_wrong: bool = True  # whether a path that is proven wrong takes the change back
    meta: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Situation:
    """What is known before the first change."""

    declaration: Declaration
    record: Record | None
    others: tuple[Record, ...]  # of the other sets
    scope: Scope
    facts: Facts
    outcome: Outcome
    desired: Desired
    unguarded: NotSupported | None


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run found and did."""

    plan: Plan
    names: tuple[str, ...]  # lines of rt_tables.d that changed
    recorded: bool  # whether the record had to be written
    proof: Proof
    paths: tuple[dict[str, t.Any], ...]
    warnings: tuple[str, ...]
    record: Record
    situation: Situation
    armed: Armed | None = None  # what waits for a confirmation by the caller
    management: t.Mapping[str, t.Any] | None = None  # what was foreseen of the connection that the task came by
    connections: tuple[t.Mapping[str, t.Any], ...] = ()  # and of others that go another way

    @property
    def changed(self) -> bool:
        """Whether anything was, or would be, changed."""
        return bool(self.plan.operations or self.names or self.recorded)

    @property
    def unguarded(self) -> NotSupported | None:
        """Why the egress guard that is asked for cannot be had."""
        return self.situation.unguarded

    @property
    def interest(self) -> Interest:
        """The routes that all this depends on."""
        from ._interest import interest_of  # of those who listen alone

        return interest_of(self.situation.declaration, self.situation.outcome, self.situation.facts)
