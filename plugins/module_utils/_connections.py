# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The connections that live while a plan is made, as flows: those that it would send another way are foreseen."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

from ._errors import NotSupported
from ._model.rule import Rule
from ._model.state import Flow

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._plan import Plan

MOST_SOCKETS = 10_000  # that are read
MOST_FLOWS = 32  # that are asked for
# What a lookup need not be asked with unless a rule looks at it, and by what name the rule has it.
_SELECTORS = {"uid": "uidrange", "ipproto": "ipproto", "sport": "sport", "dport": "dport"}


@dataclasses.dataclass(frozen=True)
class LiveConnections:
    """Flows of connections, each once; and why there are more."""

    flows: tuple[Flow, ...] = ()
    unjudged: str | None = None


def live_connections(kernel: Kernel, plan: Plan, apart: Flow | None = None) -> LiveConnections:
    """What connected sockets send to other hosts, but for C(apart), the connection that is judged by itself."""
    try:
        found = kernel.connections(MOST_SOCKETS)
    except NotSupported as exc:
        return LiveConnections(unjudged=exc.line())
    if found is None:
        return LiveConnections(unjudged=f"there are more than {MOST_SOCKETS}")
    here = {address.address for address in kernel.addresses()}
    leaving = [flow for flow in found if _leaves(flow, here) and not _is_same(flow, apart)]
    ignored: dict[str, t.Any] = {name: None for name in _SELECTORS if name not in _looked_at(kernel, plan)}
    flows = tuple(dict.fromkeys(dataclasses.replace(flow, **ignored) for flow in leaving))
    more = len(flows) - MOST_FLOWS
    return LiveConnections(flows[:MOST_FLOWS], f"there are {more} more than are asked for" if more > 0 else None)


def _leaves(flow: Flow, here: t.Container[str]) -> bool:
    return flow.source in here and flow.to not in here and not ipaddress.ip_address(flow.to).is_loopback


def _is_same(flow: Flow, other: Flow | None) -> bool:
    keys = ("source", "sport", "to", "dport")
    return other is not None and all(getattr(flow, key) == getattr(other, key) for key in keys)


def _looked_at(kernel: Kernel, plan: Plan) -> set[str]:
    """What any rule looks at, of today or of the plan. A port is one of a protocol."""
    rules = [*kernel.rules(4), *kernel.rules(6), *(each.target for each in plan.operations)]
    found = {
        name
        for rule in rules
        if isinstance(rule, Rule)
        for name, selector in _SELECTORS.items()
        if getattr(rule, selector) is not None
    }
    return found | ({"ipproto"} if found & {"sport", "dport"} else set())
