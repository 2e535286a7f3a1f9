# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""One change of the kernel's state as a value, with its inverse."""

from __future__ import annotations

import dataclasses
import typing as t

from .guard import Guard
from .route import Route
from .rule import Rule


@dataclasses.dataclass(frozen=True)
class LinkGroup:
    """The device group of a link: the one thing of a foreign device that is written unasked."""

    name: str
    group: int

    def text(self) -> str:
        """As `ip link set` takes it."""
        return f"dev {self.name} group {self.group}"


@dataclasses.dataclass(frozen=True)
class Sysctl:
    """A value below /proc/sys/net. C(name) is its path there, such as C(ipv4/conf/eth0/rp_filter)."""

    name: str
    value: str

    def text(self) -> str:
        """As sysctl(8) takes it: a dot in a device's name is written as a slash."""
        return f"net.{self.name.translate(str.maketrans('./', '/.'))}={self.value}"


@dataclasses.dataclass(frozen=True)
class OwnLink:
    """A device of our own that leads nowhere: no addresses, no ports, and nobody at its other end."""

    name: str
    up: bool = True

    def text(self) -> str:
        """As `ip link` takes it."""
        return f"dev {self.name} addrgenmode none {'up' if self.up else 'down'}"


_KINDS = {Rule: "rule", Route: "route", LinkGroup: "group", Sysctl: "sysctl", OwnLink: "link", Guard: "guard"}
Target = t.Union[Rule, Route, LinkGroup, Sysctl, OwnLink, Guard]


@dataclasses.dataclass(frozen=True)
class Operation:
    """C(op) is add, replace, remove (rules, routes, links, guard) or set (groups, sysctls, links that are down or up).

    C(before) is what is displaced. C(adopted) says that what goes is somebody else's, and equal to what is asked for.
    """

    op: str
    target: Target
    before: Target | None = None
    adopted: bool = False

    @property
    def kind(self) -> str:
        """rule, route, group, sysctl, link or guard."""
        return _KINDS[type(self.target)]

    def text(self) -> str:
        """The target as iproute2 writes it; with the protocol where that is all that tells it from one of ours."""
        return with_owner(self.target) if self.adopted and self.op == "remove" else self.target.text()

    def displaced(self) -> Target | None:
        """What is not there any more afterwards, or not as it was."""
        return self.target if self.op == "remove" else self.before

    def inverse(self) -> Operation:
        """The operation that takes this one back."""
        if self.op == "add":
            return Operation("remove", self.target)
        if self.op == "remove":
            return Operation("add", self.target)
        if self.before is None:
            raise ValueError(f"{self.op} without what was there before has no inverse")
        return Operation(self.op, self.before, self.target)


def with_owner(target: Target) -> str:
    """A rule or route with the number of its protocol, as `ip -N -d` shows it."""
    owner = f" proto {target.protocol}" if isinstance(target, (Rule, Route)) else ""
    return f"{target.text()}{owner}"
