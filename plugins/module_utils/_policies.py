# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Policy-based IPsec: whether the kernel's policies encrypt what an identity sends by the uplink."""

from __future__ import annotations

import ipaddress
import typing as t

from ._errors import NotPermitted
from ._model.fields import family_of
from ._recipe.facts import covers

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._model.state import Policy
    from ._reading import Readable
    from ._recipe.ways import Way

NAMED = 3  # of many networks in a warning


def unencrypted(kernel: Readable, ways: t.Iterable[Way]) -> list[str]:
    """One line for each address whose packets leave an uplink in clear, all of them or those to some networks."""
    asked = [(way, address) for way in ways if way.by_uplink for address in way.addresses]
    try:
        policies = kernel.policies() if asked else []
    except NotPermitted:
        return ["whether IPsec policies cover what leaves by the uplink is not known: only root may ask"]
    lines = [_unencrypted(way, address, policies) for way, address in asked]
    return [line for line in lines if line is not None]


def in_clear(kernel: Kernel, ways: t.Iterable[Way]) -> set[str]:
    """The keys of the ways of which nothing is encrypted, as their tunnel is not up; none where it is not known."""
    asked = [way for way in ways if way.by_uplink]
    try:
        policies = kernel.policies() if asked else []
    except NotPermitted:
        return set()
    return {way.key for way in asked if not any(_towards(address, policies) for address in way.addresses)}


def _towards(address: str, policies: t.Iterable[Policy]) -> list[str]:
    return [p.dst for p in policies if not p.if_id and covers([p.src], address)]


def _unencrypted(way: Way, address: str, policies: t.Iterable[Policy]) -> str | None:
    towards = _towards(address, policies)
    if not towards:
        return f"identity {way.key}: no IPsec policy covers {address}: all that it sends leaves {way.device} in clear"
    networks = [str(network) for network in _merged(towards)]
    if networks == [("0.0.0.0/0", "::/0")[family_of(address) == 6]]:
        return None
    more = f" and {len(networks) - NAMED} more" if len(networks) > NAMED else ""
    named = ", ".join(networks[:NAMED])
    return (
        f"identity {way.key}: IPsec policies cover {address} towards {named}{more} only:"
        f" what it sends elsewhere leaves {way.device} in clear"
    )


def _merged(prefixes: t.Iterable[str]) -> t.Iterable[object]:
    """Of one family; two halves are everything."""
    return ipaddress.collapse_addresses(t.cast(t.Any, [ipaddress.ip_network(prefix) for prefix in prefixes]))
