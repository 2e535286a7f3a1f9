# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A gateway that was written down wrongly: the kernel gives the path, and everything on it is lost."""

from __future__ import annotations

import typing as t

from ._management import PATIENCE
from ._model.route import Route

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._plan import Plan
    from ._recipe.ways import Way


def silent(kernel: Kernel, plan: Plan, ways: t.Iterable[Way]) -> list[str]:
    """A line for each gateway that was stated, is about to be used, and does not answer on a device that is up.

    One that the host told us of is not asked: what it can reach today it can afterwards. Nor is one that is in use
    already: a router that is away for a while is no error of the declaration.
    """
    routes = (o.target for o in plan.operations if o.op != "remove" and isinstance(o.target, Route))
    coming = {(route.dev, route.gateway) for route in routes}
    up = {link.name for link in kernel.links() if link.up and link.carrier}
    return [
        f"{way.identity.name}: gateway {gateway} does not answer on {way.device}"
        for way in ways
        for gateway in way.gateways
        if gateway in way.identity.gateway and (way.device, gateway) in coming
        if way.device in up and not kernel.answers(str(way.device), gateway, PATIENCE)
    ]
