# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What of the kernel's routes an outcome depends on, so that the watch need not look at all others."""

from __future__ import annotations

import typing as t

from ._netlink_filter import Interest
from ._recipe.facts import MAIN, uplink_devices
from ._recipe.ways import tunnels_of

if t.TYPE_CHECKING:
    from ._model.declaration import Declaration
    from ._recipe import Outcome
    from ._recipe.facts import Facts


def interest_of(declaration: Declaration, outcome: Outcome, facts: Facts) -> Interest:
    """The set's tables; of main what the recipe reads: see C(_recipe/local.py), C(_recipe/tables.py), C(facts.py)."""
    named = {way.device for way in outcome.ways if not way.identity.by_tunnel and way.device}
    several = len(named) > 1  # then each of their tables has all of main's routes by its device
    uplinks = named | set(uplink_devices(facts, tunnels_of(outcome.ways)))
    index = {link.name: link.index for link in facts.links}
    inside = {r.dst for r in outcome.desired.routes if r.table == outcome.shared.local}
    written = {r.table for r in outcome.desired.routes if r.table != MAIN}  # a kill switch's among them
    stated = {network for network in declaration.local_networks if "/" in network}
    return Interest(
        tables=frozenset({outcome.shared.local, *(way.table for way in outcome.ways), *written}),
        protocols=frozenset({declaration.numbers.protocol}),
        devices=frozenset(index[name] for name in (*outcome.internal, *(named if several else ())) if name in index),
        uplinks=frozenset(index[name] for name in uplinks if name in index),
        prefixes=frozenset(inside | stated),
    )
