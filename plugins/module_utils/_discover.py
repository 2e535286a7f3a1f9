# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Reading a host on which nothing is declared, for a proposal."""

from __future__ import annotations

import pathlib
import typing as t

from ._errors import NotPermitted
from ._model.fields import KERNEL
from ._read import FAMILIES, read_facts
from ._recipe.facts import looks_like_tunnel
from ._seen import Seen
from ._surroundings import Host
from ._tunnels.running import find_running

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._model.rule import Rule
    from ._model.state import Policy

NOTHING = pathlib.Path("/nonexistent")  # a namespace has neither files nor programs that could be told from the host's


def look(kernel: Kernel, netns: str | None, root: pathlib.Path) -> Seen:
    """All that a proposal is made of."""
    facts = read_facts(kernel, {}, {}, Host(kernel, netns).gateways(), frozenset(), 0)
    rules = [rule for family in FAMILIES for rule in kernel.rules(family) if rule.protocol != KERNEL]
    tunnels = [link for link in facts.links if looks_like_tunnel(link)]
    holders = {address.address: address.dev for address in facts.addresses}
    clients = find_running(tunnels, root if netns is None else NOTHING, holders.get)
    return Seen(facts, rules, _tables(kernel, rules), clients, _policies(kernel))


def _tables(kernel: Kernel, rules: t.Iterable[Rule]) -> dict[int, t.Any]:
    numbers = sorted({rule.table for rule in rules if rule.table is not None})
    return {number: [r for family in FAMILIES for r in kernel.routes(family, table=number)] for number in numbers}


def _policies(kernel: Kernel) -> list[Policy]:
    try:
        return kernel.policies()
    except NotPermitted:
        return []
