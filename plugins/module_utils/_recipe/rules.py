# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The rules of a set, in the order in which they may safely appear.

Where each stands in the block does not depend on that, but on its kind alone.
"""

from __future__ import annotations

import ipaddress
import typing as t

from .._errors import InvalidInput
from .._model.declaration import Declaration, Identity
from .._model.fields import family_of
from .._model.rule import Rule
from .block import BOUND, END, EXEMPT, OUTER, POOL, SUPPRESS, TUNNEL, UPLINK, Block, host
from .facts import MAIN, WIDTH, Facts, covers, uplink_devices
from .follow import follow_rules, marks_of
from .unbound import SourceZero
from .ways import SharedTables, Way, main_ends, tunnels_of


def build_rules(declaration: Declaration, ways: t.Sequence[Way], shared: SharedTables,
                ready: t.Container[tuple[str, int]], facts: Facts) -> list[Rule]:  # fmt: skip
    """All rules of the set. C(ready) holds the (way, family) pairs whose table has a usable default."""
    block, local = Block(declaration), shared.local
    uplinks = [way for way in ways if not way.identity.by_tunnel]
    tunnels = [way for way in ways if way.identity.by_tunnel]
    marks = marks_of(declaration, ways)
    source_zero = SourceZero(block, declaration, ways, shared, ready, facts)
    rules = []
    for family in (4, 6):
        rules += [block.rule(family, END, action="nop")]
        rules += _behind_main(block, ways, shared, facts) if family == 6 else []
        rules += [r for way in tunnels for r in _outer_rules(block, way.identity, family)]
        rules += follow_rules(block, marks, family, shared, ready)
        rules += _exempt_rules(block, ways, family, facts)
        rules += [r for way in uplinks for r in _uplink_rules(block, way, family)]
        rules += [r for way in tunnels for r in _tunnel_rules(block, way, family, local, ready)]
        rules += [r for way in tunnels for r in _pool_rules(block, way, family, local, ready)]
        rules += [r for way in tunnels for r in _bound_rules(block, way, family)]
        rules += source_zero.rules(family)
    return [rule for rule in rules if rule.action != "nop" or _has_more(rules, rule.family)]


def _behind_main(block: Block, ways: t.Sequence[Way], shared: SharedTables, facts: Facts) -> list[Rule]:
    """What has no way stays without. IPv6 would try again with a tunnel's address, and programs would prefer that way.

    Behind main and not in the block, so that a default that comes, and a rule of somebody else, count at once.
    """
    return [block.behind_main(6, table=shared.nowhere)] if main_ends(ways, facts) else []


def _has_more(rules: t.Sequence[Rule], family: int) -> bool:
    return any(rule.family == family and rule.action != "nop" for rule in rules)


def _outer_rules(block: Block, identity: Identity, family: int) -> list[Rule]:
    """The tunnel's own packets never enter a tunnel."""
    rules = []
    if identity.outer.fwmark is not None:
        mark, mask = identity.outer.fwmark
        rules.append(block.leave(family, OUTER, fwmark=mark, fwmask=mask))
    if identity.outer.uidrange is not None:
        rules.append(block.leave(family, OUTER, uidrange=identity.outer.uidrange))
    return rules


def _bound_rules(block: Block, way: Way, family: int) -> list[Rule]:
    """Sockets bound to the tunnel's device; IPv6 finds no way without it."""
    if way.tunnel_device is None or family not in way.identity.families:
        return []
    return [block.local(family, BOUND, oif=way.tunnel_device, table=way.table)]


def _exempt_rules(block: Block, ways: t.Sequence[Way], family: int, facts: Facts) -> list[Rule]:
    """An uplink's address that nobody claims, inside a pool: without this a hotel's network cuts the laptop off."""
    tunnels = tunnels_of(ways)
    claimed = {address for way in ways for address in way.addresses}
    pools = [pool for way in ways for pool in way.identity.pools]
    found = [a.address for device in uplink_devices(facts, tunnels) for a in facts.on(device, family)]
    return [
        block.leave(family, EXEMPT, src=host(address))
        for address in dict.fromkeys(found)
        if address not in claimed and covers(pools, address)
    ]


def _uplink_rules(block: Block, way: Way, family: int) -> list[Rule]:
    """Main's specific routes count, its defaults and tunnels do not: a TCP socket looks up again with this source."""
    start = _start(block, way.identity, UPLINK, EXEMPT - 3)
    rules = []
    for address in way.in_family(family):
        src = host(address)
        rules.append(
            block.local(
                family, start, src=src, table=MAIN, suppress_prefixlength=SUPPRESS, suppress_ifgroup=block.group
            )
        )
        rules.append(block.local(family, start + 1, src=src, table=way.table))
        if way.identity.backstop:
            rules.append(block.local(family, start + 2, src=src, action="unreachable"))
    return rules


def _tunnel_rules(block: Block, way: Way, family: int, local: int, ready: t.Container[tuple[str, int]]) -> list[Rule]:
    start = _start(block, way.identity, TUNNEL, POOL - 3)
    retired = [address for address in way.retired if family_of(address) == family]
    sources = [(host(address), start) for address in (*way.in_family(family), *retired)]
    return _inside_rules(block, way, family, local, ready, sources)


def _pool_rules(block: Block, way: Way, family: int, local: int, ready: t.Container[tuple[str, int]]) -> list[Rule]:
    pools = [ipaddress.ip_network(p) for p in way.identity.pools if family_of(p) == family]
    sources = [(str(pool), POOL + 3 * (WIDTH[family] - pool.prefixlen)) for pool in pools if pool.prefixlen]
    return _inside_rules(block, way, family, local, ready, sources)


def _inside_rules(block: Block, way: Way, family: int, local: int, ready: t.Container[tuple[str, int]],
                  sources: t.Sequence[tuple[str, int]]) -> list[Rule]:  # fmt: skip
    """Three for each source: host-internal networks, the tunnel, the backstop (first while the table is empty)."""
    rules = []
    for src, offset in sources:
        near = block.local(family, offset, src=src, table=local)
        far = block.local(family, offset + 1, src=src, table=way.table)
        stop = [block.local(family, offset + 2, src=src, action="unreachable")] if way.identity.backstop else []
        rules += [near, far, *stop] if (way.key, family) in ready else [*stop, near, far]
    return rules


def _start(block: Block, identity: Identity, first: int, last: int) -> int:
    """The offset of an identity's exact addresses: its own priority, or the one that all of its kind share."""
    if identity.priority is None:
        return first
    offset = identity.priority - block.base
    if not first <= offset <= last:
        raise InvalidInput(
            "is outside the part of the block where its kind must stand",
            field=f"identity {identity.name}: priority",
            value=identity.priority,
            accepted=f"{block.base + first} to {block.base + last}",
        )
    return offset
