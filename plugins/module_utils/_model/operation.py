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
    """The device group of a link: the one thing of a foreign device that is ever written."""

    name: str
    group: int

    def text(self) -> str:
        """As `ip link set` takes it."""
        return f"dev {self.name} group {self.group}"


Target = t.Union[Rule, Route, LinkGroup, Guard]


@dataclasses.dataclass(frozen=True)
class Operation:
    """C(op) is add, replace, remove (rules, routes, guard) or set (device groups); C(before) is what is displaced."""

    op: str
    target: Target
    before: Target | None = None

    @property
    def kind(self) -> str:
        """rule, route, group or guard."""
        return {Rule: "rule", Route: "route", LinkGroup: "group", Guard: "guard"}[type(self.target)]

    def inverse(self) -> Operation:
        """The operation that takes this one back."""
        if self.op == "add":
            return Operation("remove", self.target)
        if self.op == "remove":
            return Operation("add", self.target)
        if self.before is None:
            raise ValueError(f"{self.op} without what was there before has no inverse")
        return Operation(self.op, self.before, self.target)
