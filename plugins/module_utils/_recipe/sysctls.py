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

STRICT, LOOSE = 1, 2
# What each word of option C(sysctls) sets, on which devices.
VALUES: dict[str, tuple[tuple[str, str], ...]] = {
    "rp_filter": (("ipv4/conf/{}/rp_filter", "1"),),
    "arp": (("ipv4/conf/{}/arp_ignore", "1"), ("ipv4/conf/{}/arp_announce", "2")),
    "use_oif_addrs_only": (("ipv6/conf/{}/use_oif_addrs_only", "1"),),
    "src_valid_mark": (("ipv4/conf/{}/src_valid_mark", "1"),),
}


def sysctls(declaration: Declaration, ways: t.Sequence[Way], facts: Facts) -> tuple[Sysctl, ...]:
    """What devices shall have: uplinks, and for C(src_valid_mark) those whose connections are followed."""
    wanted = [
        (pattern.format(device), value)
        for word in declaration.sysctls
        for pattern, value in VALUES[word]
        for device in (_followed(ways) if word == "src_valid_mark" else uplinks_of(ways, facts))
    ]
    found = ((name, value, facts.sysctl(name)) for name, value in wanted)
    return tuple(Sysctl(name, _kept(name, value, now)) for name, value, now in found if now is not None)


def _followed(ways: t.Sequence[Way]) -> list[str]:
    return [way.device for way in ways if way.identity.follow_connections and way.device]


def missing_sysctls(ways: t.Sequence[Way], facts: Facts, wanted: t.Collection[Sysctl]) -> t.Iterator[str]:
    """What keeps a measure from working, one line each. The kernel takes the larger value of all and the device."""
    values = {entry.name: entry.value for entry in wanted}

    def effective(device: str, leaf: str) -> int:
        own = f"ipv4/conf/{device}/{leaf}"
        found = (facts.sysctl(f"ipv4/conf/all/{leaf}"), values.get(own, facts.sysctl(own)))
        return max(int(value or 0) for value in found)

    for device in sorted({name.split("/")[2] for name in values if name.endswith("/rp_filter")}):
        if effective(device, "rp_filter") == LOOSE:
            yield f"net.ipv4.conf.all.rp_filter=2 makes reverse-path filtering loose on {device} too"
    for device in _followed(ways):
        if effective(device, "rp_filter") == STRICT and not effective(device, "src_valid_mark"):
            yield (
                f"strict reverse-path filtering on {device} drops the connections that follow_connections follows; "
                "sysctls: [src_valid_mark] lets them pass"
            )


def _kept(name: str, value: str, now: str) -> str:
    """A host that already answers fewer ARP requests goes on doing so."""
    return now if name.endswith("/arp_ignore") and int(now) > int(value) else value
