# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Replies that follow their connection: flows are marked by where they came in, and leave by it again.

A port of an inside address that is forwarded to a container is answered with the container's source, and connection
tracking puts the inside address back only behind routing. So the connection gets a mark, which its packets carry in
both directions (strict reverse-path filtering asks with the mark of what comes in) and what the host itself says about
it, as that a packet was too big.

Under a full tunnel flows that came in by an uplink get a mark as well, so that it does not draw what belongs to them.
"""

from __future__ import annotations

import typing as t

from .._errors import InvalidInput
from .._model.declaration import Declaration
from .._model.guard import Chain, NamedSet, Piece, Statement, device, in_state, marked, matching, rule, set_mark
from .._model.rule import Rule
from .block import CAME, FOLLOW, Block
from .facts import Facts
from .ways import SharedTables, Way, uplinks_of

BEHIND_MANGLE = -149  # wg-quick and others restore whole marks at -150
UPLINKS = "follow_uplinks"


class Marks(t.NamedTuple):
    """The mark of each followed way, and the one of what came in by an uplink."""

    mask: int
    ways: tuple[tuple[Way, int], ...] = ()
    uplink: int | None = None  # only under a full tunnel


def marks_of(declaration: Declaration, ways: t.Sequence[Way]) -> Marks:
    """One value after the other from the field that option C(mark) names. Raises InvalidInput if it is too narrow."""
    followed = [way for way in ways if way.identity.follow_connections]
    if declaration.mark is None:
        return Marks(0)
    first, mask = declaration.mark
    step = mask & -mask
    count = len(followed) + (declaration.unbound != "keep")
    values = [first + step * number for number in range(count)]
    if any(value & ~mask for value in values):
        raise InvalidInput(
            f"has room for fewer than the {count} values that are needed",
            field="mark",
            value=f"{first:#x}/{mask:#x}",
            accepted="a lower mark, or a mask of more bits",
        )
    return Marks(mask, tuple(zip(followed, values)), values[-1] if declaration.unbound != "keep" else None)


def follow_rules(
    block: Block, marks: Marks, family: int, shared: SharedTables, ready: t.Container[tuple[str, int]]
) -> list[Rule]:
    """Four for each way: what comes in by it is routed as ever; the rest nearby, by the way, or not at all.

    What belongs to a flow that came in by an uplink is main's, as without a full tunnel: also what the host says of it,
    which took the tunnel's address as its source before it had the mark.
    """
    rules = []
    if marks.uplink is not None:
        keys = {"fwmark": marks.uplink, "fwmask": marks.mask}
        rules.append(block.rule(family, CAME, **keys, action="goto", goto=block.end))
    for way, value in marks.ways:
        if family not in way.identity.families:
            continue
        keys = {"fwmark": value, "fwmask": marks.mask}
        inbound = [block.rule(family, FOLLOW, **keys, iif=way.device, action="goto", goto=block.end)]
        near = block.rule(family, FOLLOW + 1, **keys, table=shared.local)
        far = block.rule(family, FOLLOW + 2, **keys, table=way.table)
        stop = block.rule(family, FOLLOW + 3, **keys, action="unreachable")
        rules += inbound if way.device else []
        rules += [near, far, stop] if (way.key, family) in ready else [stop, near, far]
    return rules


def follow_piece(declaration: Declaration, ways: t.Sequence[Way], facts: Facts) -> Piece:
    """The marking. Bits outside the mask are other programs'."""
    marks = marks_of(declaration, ways)
    devices = [(matching("iifname", device(way.device)), value) for way, value in marks.ways if way.device]
    others = set(uplinks_of(ways, facts)) - {way.device for way, _value in marks.ways}
    uplinks = NamedSet.devices(UPLINKS, others if marks.uplink is not None else ())
    if marks.uplink is not None and uplinks.elements:
        devices.append((matching("iifname", f"@{UPLINKS}"), marks.uplink))
    if not devices:
        return Piece()
    values = [value for _came, value in devices]
    begin = [rule(came, in_state("new"), set_mark("ct", value, marks.mask)) for came, value in devices]
    both = [rule(*_restored(value, marks.mask)) for value in values]
    own = [rule(in_state("related"), *_restored(value, marks.mask)) for value in values]
    return Piece(
        (uplinks,),
        (
            Chain("follow_in", (*begin, *both), "prerouting", BEHIND_MANGLE),
            Chain("follow_out", tuple(own), "output", BEHIND_MANGLE, "route"),
        ),
    )


def _restored(value: int, mask: int) -> tuple[Statement, Statement]:
    return marked("ct", value, mask), set_mark("meta", value, mask)
