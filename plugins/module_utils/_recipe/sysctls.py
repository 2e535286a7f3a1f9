# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The sysctls that a declaration allows to be changed, as far as this host needs them. Nothing here is set unasked."""

from __future__ import annotations

import typing as t

from .._model.declaration import Declaration
from .._model.operation import Sysctl
from .facts import Facts
from .ways import Way, uplinks_of

# What each word of option C(sysctls) sets, on which devices.
VALUES: dict[str, tuple[tuple[str, str], ...]] = {
    "rp_filter": (("ipv4/conf/{}/rp_filter", "1"),),
    "arp": (("ipv4/conf/{}/arp_ignore", "1"), ("ipv4/conf/{}/arp_announce", "2")),
    "use_oif_addrs_only": (("ipv6/conf/{}/use_oif_addrs_only", "1"),),
}


def sysctls(declaration: Declaration, ways: t.Sequence[Way], facts: Facts) -> tuple[Sysctl, ...]:
    """What the uplinks' devices shall have."""
    uplinks = [device for device in uplinks_of(ways, facts) if facts.link(device)]
    wanted = [
        (pattern.format(device), value)
        for word in declaration.sysctls
        for pattern, value in VALUES.get(word, ())
        for device in uplinks
    ]
    found = ((name, value, facts.sysctl(name)) for name, value in wanted)
    return tuple(Sysctl(name, _kept(name, value, now)) for name, value, now in found if now is not None)


def _kept(name: str, value: str, now: str) -> str:
    """A host that already answers fewer ARP requests goes on doing so."""
    return now if name.endswith("/arp_ignore") and int(now) > int(value) else value
