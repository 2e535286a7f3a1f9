# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What of a set goes into the kernel when the rest cannot: a host that is closed rather than open."""

from __future__ import annotations

import typing as t

from .._model.rule import Rule
from .block import END, EXEMPT
from .facts import LOOPBACK, MAIN

ERRORS = ("unreachable", "prohibit", "blackhole")


def backstops_alone(rules: t.Collection[Rule], base: int) -> list[Rule]:
    """The backstops of a set's tunnels, from its rules as last recorded, in the order in which they may appear.

    The uplinks' addresses are taken out ahead of them, for one of them may lie inside a pool.
    """
    uplinks = {(rule.family, rule.src) for rule in rules if rule.src and rule.table == MAIN}
    stops = [rule for rule in rules if rule.action in ERRORS and rule.src and (rule.family, rule.src) not in uplinks]
    chosen = [
        Rule(
            rule.family,
            base + EXEMPT,
            action="goto",
            goto=base + END,
            iif=LOOPBACK,
            src=rule.src,
            protocol=rule.protocol,
        )
        for rule in rules
        if (rule.family, rule.src) in uplinks and rule.table == MAIN and rule.src != "0.0.0.0/32"
    ]
    ends = [rule for rule in rules if rule.action == "nop"]
    return [*ends, *chosen, *sorted(stops, key=lambda rule: rule.priority)]
