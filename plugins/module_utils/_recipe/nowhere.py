# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The table that leads nowhere, for packets without a source that must not fall through to main.

In IPv4 that is an unreachable default, not the action of a rule, for lookups without a source also answer whether a
gateway that somebody adds is there. In IPv6 an error would not do: the kernel then takes a source from any device and
looks up again, and the rule for that source, or main, has an answer. So the lookup has to succeed, by a device of our
own that has no addresses and nobody at its other end, and what is sent there is refused.
"""

from __future__ import annotations

import ipaddress
import typing as t

from .._model.declaration import Declaration
from .._model.guard import Chain, Piece, matching, reject, rule
from .._model.operation import OwnLink
from .._model.route import Route
from .facts import NOWHERE_DEVICE, Facts, error_routes
from .local import throw, within
from .tables import DEFAULTS, METRICS, unreachable
from .ways import SharedTables, Way, main_ends


def closes_unbound(declaration: Declaration, family: int, facts: Facts) -> bool:
    """Whether unbound traffic of a family is refused rather than left to main.

    Also in a family that the identity lacks; not in one that the host lacks, whose rules the kernel would refuse.
    """
    return declaration.unbound_backstop and any(address.family == family for address in facts.addresses)


def closes_pins(way: Way, family: int) -> bool:
    """Whether what a pin selects is refused while its identity has no way out."""
    return way.identity.by_tunnel and way.identity.backstop and family in way.identity.families


def closed_families(declaration: Declaration, ways: t.Sequence[Way], facts: Facts) -> list[int]:
    """The families that need the table."""
    pinned = [way for way in ways if way.identity.pin]
    return [
        family
        for family in (4, 6)
        if closes_unbound(declaration, family, facts)
        or any(closes_pins(way, family) for way in pinned)
        or (family == 6 and main_ends(ways, facts))
    ]


def nowhere_routes(families: t.Container[int], shared: SharedTables, protocol: int) -> list[Route]:
    """What the table holds."""
    if shared.nowhere is None:
        return []
    ends = (
        unreachable(DEFAULTS[4], shared.nowhere, protocol),
        Route(6, DEFAULTS[6], shared.nowhere, dev=NOWHERE_DEVICE, metric=METRICS[6], protocol=protocol),
    )
    return [route for route in ends if route.family in families]


def barred_routes(facts: Facts, shared: SharedTables, protocol: int) -> list[Route]:
    """What main refuses in IPv6, as routes that lead nowhere; what it reaches inside such a prefix is left to it.

    The kernel would take main's error as a reason to try again with any address, and the tunnel's has a way.
    """
    if shared.barred is None:
        return []
    errors = error_routes(facts, protocol)
    networks = [ipaddress.ip_network(route.dst) for route in errors]
    refused = {route.dst for route in errors}
    better = {r.dst: r for r in facts.main if r.family == 6 and r.dst not in refused and within(networks, r.dst)}
    ends = [Route(6, dst, shared.barred, dev=NOWHERE_DEVICE, metric=METRICS[6], protocol=protocol) for dst in refused]
    return [*ends, *(throw(route, shared.barred, protocol) for route in better.values())]


def nowhere_piece(links: t.Collection[OwnLink]) -> Piece:
    """What is sent to the device is refused: at once, where the sender would wait for an answer."""
    if not links:
        return Piece()
    sent = matching("oifname", NOWHERE_DEVICE)
    rules = (
        rule(sent, matching("meta l4proto", "tcp"), reject("tcp reset")),
        rule(sent, reject("icmpx", "no-route")),
    )
    return Piece(chains=(Chain("nowhere", rules, "output"),))


def nowhere_links(families: t.Container[int], shared: SharedTables) -> tuple[OwnLink, ...]:
    """The device, where IPv6 needs it."""
    return (OwnLink(NOWHERE_DEVICE),) if 6 in families or shared.barred is not None else ()
