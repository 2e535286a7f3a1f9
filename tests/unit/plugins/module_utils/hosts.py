# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as facts, for tests of the pure core: the host H of the experiments, and variations of it."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.fleetvpn.routing.plugins.module_utils._model.declaration import Numbers
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Address, Link
from ansible_collections.fleetvpn.routing.plugins.module_utils._names import Names
from ansible_collections.fleetvpn.routing.plugins.module_utils._parse import parse_declaration
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe import Outcome, build
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe.facts import Facts, Remembered

KERNEL, BOOT, DHCP = 2, 3, 16
OUTSIDE: dict[str, t.Any] = {"name": "outside", "interface": ["auto"]}
INSIDE: dict[str, t.Any] = {"name": "inside", "tunnel": {"type": "wireguard", "connection": "vpn0"}}

LO = Link(1, "lo", None, 772, up=True, carrier=True)
UP0 = Link(2, "up0", None, 1, up=True, carrier=True)
VPN0 = Link(3, "vpn0", "tun", 65534, up=True, carrier=True)
BR0 = Link(4, "br0", "bridge", 1, up=True, carrier=True)
UP1 = Link(5, "up1", None, 1, up=True, carrier=True)


def connected(dev: str, dst: str, src: str) -> Route:
    """A prefix as the kernel puts it into main for an address."""
    family = 6 if ":" in dst else 4
    scope, metric = (253, 0) if family == 4 else (0, 256)
    return Route(family, dst, dev=dev, src=src if family == 4 else None, scope=scope, metric=metric, protocol=KERNEL)


def default(dev: str, gateway: str | None, metric: int = 0) -> Route:
    """A default of main."""
    family = 6 if gateway and ":" in gateway else 4
    return Route(
        family,
        "::/0" if family == 6 else "0.0.0.0/0",
        gateway=gateway,
        dev=dev,
        metric=metric or (1024 if family == 6 else 0),
        scope=0 if gateway or family == 6 else 253,
        protocol=DHCP,
    )


H = Facts(
    links=(LO, UP0, VPN0, BR0),
    addresses=(
        Address(4, "192.0.2.10", 24, "up0"),
        Address(6, "2001:db8:2::10", 64, "up0"),
        Address(6, "fe80::10", 64, "up0", scope=253),
        Address(4, "198.51.100.10", 32, "vpn0"),
        Address(6, "2001:db8:51::10", 128, "vpn0"),
        Address(4, "172.20.0.1", 24, "br0"),
    ),
    main=(
        default("up0", "192.0.2.1"),
        connected("up0", "192.0.2.0/24", "192.0.2.10"),
        connected("br0", "172.20.0.0/24", "172.20.0.1"),
        default("up0", "2001:db8:2::1"),
        connected("up0", "2001:db8:2::/64", "2001:db8:2::10"),
        connected("vpn0", "fe80::/64", ""),
    ),
    tunnels={"inside": "vpn0"},
)


def host(**changes: t.Any) -> Facts:
    """H with other facts; C(main) and C(addresses) given as a list are added."""
    added = {key: (*getattr(H, key), *value) for key, value in changes.items() if isinstance(value, list)}
    return dataclasses.replace(H, **{**changes, **added})


def recipe(facts: Facts = H, identities: t.Sequence[dict[str, t.Any]] = (OUTSIDE, INSIDE), **options: t.Any) -> Outcome:
    """What the recipe makes of identities on a host."""
    params = {"identities": list(identities), **options}
    tables = Names("rt_tables", (), t.cast("t.Any", None)).table
    return build(parse_declaration("main", params, Numbers(), tables), facts)


def texts(outcome: Outcome, kind: str = "rules", family: int | None = None) -> list[str]:
    """Rules or routes as iproute2 writes them, tabs as blanks; rules in the kernel's order."""
    found = [each for each in getattr(outcome.desired, kind) if family in (None, each.family)]
    if kind == "rules":
        found.sort(key=lambda rule: rule.priority)
    return [each.text().replace("\t", " ") for each in found]


__all__ = ["BR0", "INSIDE", "LO", "OUTSIDE", "UP0", "UP1", "VPN0", "H", "Remembered", "connected", "default", "host"]
