# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Rules for packets whose socket has chosen no source: pins, and what C(unbound) sends by an identity.

Such packets are looked up with source zero first; with the source that this lookup gives them, the rules for addresses
decide.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._model.declaration import Declaration
from .._model.rule import Rule
from .block import BARRED, FAR, LEAVE, MIDDLE, NEAR, PAIR, PIN, STOP, SUPPRESS, Block
from .facts import LOOPBACK, MAIN, Facts, matching
from .nowhere import closes_pins, closes_unbound
from .ways import SharedTables, Way, uplinks_of


@dataclasses.dataclass(frozen=True)
class SourceZero:
    """Makes the rules for packets without a source."""

    block: Block
    declaration: Declaration
    ways: t.Sequence[Way]
    shared: SharedTables
    ready: t.Container[tuple[str, int]]
    facts: Facts

    def rules(self, family: int) -> list[Rule]:
        """All of a family, behind those that take everything else out."""
        pins = [r for way in self.ways if family in way.identity.families for r in self._pin_rules(way, family)]
        unbound = [r for way in self.ways if way.key == self.declaration.unbound for r in self._unbound(way, family)]
        barred = self._barred() if family == 6 else []
        if not pins and not unbound and not barred:
            return []
        leave = [self.block.leave(family, LEAVE, oif=device) for device in uplinks_of(self.ways, self.facts)]
        if family == 6:
            # A source-less IPv6 lookup matches no `from`; so everything with a source is taken out, half by half.
            leave += [self.block.leave(6, PAIR, src=half) for half in ("::/1", "8000::/1")]
        return [*leave, *pins, *barred, *unbound]

    def _barred(self) -> list[Rule]:
        """What main refuses stays refused."""
        table = self.shared.barred
        return [] if table is None else [self.block.local(6, BARRED, table=table)]

    def _pin_rules(self, way: Way, family: int) -> list[Rule]:
        """Sockets of a port or a user, by the identity; nearby as every identity reaches it."""
        near: dict[str, t.Any] = {"table": self.shared.local}
        if not way.identity.by_tunnel:
            near = {"table": MAIN, "suppress_prefixlength": SUPPRESS, "suppress_ifgroup": self.block.group}
        rules = []
        for pin in way.identity.pin:
            keys = {**_without_source(family), **dataclasses.asdict(pin)}
            ahead = [self.block.rule(family, PIN, **keys, **near)]
            far = [self.block.rule(family, PIN + 1, **keys, table=way.table)]
            closed = closes_pins(way, family)
            stop = [self.block.rule(family, PIN + 2, **keys, table=self.shared.nowhere)] if closed else []
            rules += [*ahead, *self._in_order(way, family, far, stop)]
        return rules

    def _unbound(self, way: Way, family: int) -> list[Rule]:
        """What has chosen no source, and what is forwarded along with it, by the identity, or nowhere."""
        closed = closes_unbound(self.declaration, family, self.facts)
        carried = family in way.identity.families
        rules = []
        for selector in (_without_source(family), *self._forwarded()) if carried or closed else ():
            far = [self.block.rule(family, FAR, table=way.table, **selector)] if carried else []
            stop = [self._stop(family, selector)] if closed else []
            rules += [*self._near(family, selector), *self._in_order(way, family, far, stop)]
        return rules

    def _in_order(self, way: Way, family: int, far: list[Rule], stop: list[Rule]) -> list[Rule]:
        """A backstop appears before the rule whose table is still empty."""
        return [*far, *stop] if (way.key, family) in self.ready else [*stop, *far]

    def _forwarded(self) -> list[dict[str, t.Any]]:
        return [{"iif": device} for device in matching(self.facts, self.declaration.unbound_forwarded)]

    def _near(self, family: int, selector: t.Mapping[str, t.Any]) -> list[Rule]:
        rules = [self.block.rule(family, NEAR, table=self.shared.local, **selector)]
        if self.declaration.unbound_local == "main":
            rules.append(self.block.rule(family, MIDDLE, table=MAIN, suppress_prefixlength=SUPPRESS, **selector))
        return rules

    def _stop(self, family: int, selector: t.Mapping[str, t.Any]) -> Rule:
        """The kill switch. What is forwarded has a source, and is looked up once: there the plain action does."""
        if selector["iif"] != LOOPBACK:
            return self.block.rule(family, STOP, action="unreachable", **selector)
        return self.block.rule(family, STOP, table=self.shared.nowhere, **selector)


def _without_source(family: int) -> dict[str, t.Any]:
    """What tells packets without a source, behind the rules that take out all others."""
    return {"iif": LOOPBACK, **({"src": "0.0.0.0/32"} if family == 4 else {})}
