# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The block of priorities of a set: where each kind of rule stands in it, by its kind alone.

Exact addresses before pools, uplinks before tunnels, longer pools before shorter ones, traffic without a source last.
"""

from __future__ import annotations

import typing as t

from .._model.declaration import Declaration
from .._model.fields import family_of
from .._model.rule import Rule
from .facts import LOOPBACK, WIDTH

BLOCK = 1000
OUTER, CAME, FOLLOW, BOUND, UPLINK, TUNNEL, POOL = 0, 49, 50, 100, 200, 300, 600
EXEMPT = UPLINK + 99
BEHIND_MAIN = 32768  # ahead of the block's own base, so that each set has its own
# Pools end at 983. What bears a device or a source leaves the block; pins; then what is left of unbound traffic.
LEAVE, PAIR, PIN, BARRED, NEAR, MIDDLE, FAR, STOP, END = 984, 985, 986, 990, 992, 993, 994, 995, 999
# wg-quick's clean-up deletes every rule with `suppress_prefixlength 0`; 1 suppresses defaults (and /1 halves) as well.
SUPPRESS = 1


class Block:
    """Makes rules at their place in the block of a set."""

    def __init__(self, declaration: Declaration) -> None:
        self.base = declaration.numbers.priority_base
        self.group = declaration.numbers.group
        self._protocol = declaration.numbers.protocol

    @property
    def end(self) -> int:
        """The priority of the rule behind which the block is over."""
        return self.base + END

    def local(self, family: int, offset: int, **keys: t.Any) -> Rule:
        """A rule for packets that this host sends."""
        return self.rule(family, offset, iif=LOOPBACK, **keys)

    def rule(self, family: int, offset: int, **keys: t.Any) -> Rule:
        """A rule at C(offset) in the block."""
        return Rule(family, self.base + offset, protocol=self._protocol, **keys)

    def behind_main(self, family: int, **keys: t.Any) -> Rule:
        """A rule for packets that this host sends and that nobody's rule, main's included, has a way for."""
        return Rule(family, BEHIND_MAIN + self.base, iif=LOOPBACK, protocol=self._protocol, **keys)

    def leave(self, family: int, offset: int, **keys: t.Any) -> Rule:
        """A rule that takes packets out of the block."""
        return self.local(family, offset, action="goto", goto=self.end, **keys)


def host(address: str) -> str:
    """The prefix that holds one address."""
    return f"{address}/{WIDTH[family_of(address)]}"
