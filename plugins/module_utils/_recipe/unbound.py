# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Rules for packets whose socket has chosen no source: pins, and what C(unbound) sends by an identity.

Such packets are looked up with source zero first; with the source that this lookup gives them, the rules for addresses
decide.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._model.declaration import Declaration
from .._model.rule import Rule
from .block import FAR, LEAVE, MIDDLE, NEAR, PAIR, PIN, SUPPRESS, Block
from .facts import LOOPBACK, MAIN, Facts, matching
from .ways import Way, uplinks_of


def source_zero_rules(block: Block, declaration: Declaration, ways: t.Sequence[Way], family: int, local: int,
                      facts: Facts) -> list[Rule]:  # fmt: skip
    """All rules of a family for packets without a source, behind those that take everything else out."""
    pins = [r for way in ways if family in way.identity.families for r in _pin_rules(block, way, family, local)]
    unbound = _unbound_rules(block, declaration, ways, family, local, facts)
    if not pins and not unbound:
        return []
    leave = [block.leave(family, LEAVE, oif=device) for device in uplinks_of(ways, facts)]
    if family == 6:
        # A source-less IPv6 lookup matches no `from`; so everything with a source is taken out, half by half.
        leave += [block.leave(6, PAIR, src=half) for half in ("::/1", "8000::/1")]
    return [*leave, *pins, *unbound]


def _without_source(family: int) -> dict[str, t.Any]:
    """What tells packets without a source, behind the rules that take out all others."""
    return {"iif": LOOPBACK, **({"src": "0.0.0.0/32"} if family == 4 else {})}


def _pin_rules(block: Block, way: Way, family: int, local: int) -> list[Rule]:
    """Sockets of a port or a user, by the identity; nearby as every identity reaches it."""
    rules = []
    for pin in way.identity.pin:
        keys = {**_without_source(family), **dataclasses.asdict(pin)}
        near: dict[str, t.Any] = {"table": local}
        if not way.identity.by_tunnel:
            near = {"table": MAIN, "suppress_prefixlength": SUPPRESS, "suppress_ifgroup": block.group}
        rules.append(block.rule(family, PIN, **keys, **near))
        rules.append(block.rule(family, PIN + 1, **keys, table=way.table))
    return rules


def _unbound_rules(block: Block, declaration: Declaration, ways: t.Sequence[Way], family: int, local: int,
                   facts: Facts) -> list[Rule]:  # fmt: skip
    """What has chosen no source, and what is forwarded along with it, by the identity that is asked for."""
    way = next((way for way in ways if way.identity.name == declaration.unbound), None)
    if way is None or family not in way.identity.families:
        return []
    forwarded = [{"iif": device} for device in matching(facts, declaration.unbound_forwarded)]
    selectors = (_without_source(family), *forwarded)
    return [rule for each in selectors for rule in _lookups(block, declaration, way, family, local, each)]


def _lookups(block: Block, declaration: Declaration, way: Way, family: int, local: int,
             selector: t.Mapping[str, t.Any]) -> list[Rule]:  # fmt: skip
    rules = [block.rule(family, NEAR, table=local, **selector)]
    if declaration.unbound_local == "main":
        rules.append(block.rule(family, MIDDLE, table=MAIN, suppress_prefixlength=SUPPRESS, **selector))
    return [*rules, block.rule(family, FAR, table=way.table, **selector)]
