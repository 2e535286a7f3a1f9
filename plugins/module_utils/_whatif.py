# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What the kernel would answer after a plan: it is asked in a network namespace that copies what the host holds.

The copy is asked before the plan, too. Where it then answers otherwise than the host, by a redirect, a neighbour that
does not answer, or whatever else is not copied, it says nothing about the flow afterwards either.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import typing as t

from ._errors import RoutingError
from ._kernel import open_scratch
from ._model.fields import FAMILY_NAMES, HOST_LENGTH, family_of
from ._model.operation import LinkGroup, Target
from ._model.path import Answer
from ._model.route import Route
from ._model.rule import Rule
from ._model.state import Address, Flow, Link, Path
from ._netlink_copy import Copied
from ._netlink_socket import Refused
from ._paths import obstacle, path_fields, path_text, walk
from ._reading import Reading

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._plan import Plan
    from ._reading import Readable

# Of a table that has more, only the routes that answer the flows today are copied.
MOST_ROUTES = 2000
MOST_ADDRESSES = 32  # of a device
# The device by which the copy answers what it does not know.
UNKNOWN = "?"

_SYSCTLS = {
    4: ("accept_local", "forwarding", "ignore_routes_with_linkdown", "route_localnet", "rp_filter", "src_valid_mark"),
    6: ("disable_ipv6", "forwarding", "ignore_routes_with_linkdown", "use_oif_addrs_only", "use_tempaddr"),
}
_GLOBAL_SYSCTLS = {
    4: ("ip_forward", "fwmark_reflect", "fib_multipath_hash_policy", "fib_multipath_hash_fields"),
    6: ("fwmark_reflect", "fib_multipath_hash_policy", "fib_multipath_hash_fields"),
}
# What of a plan decides for lookups; the guard and the sysctls do not.
_ROUTING = ("link", "rule", "route", "group")


@dataclasses.dataclass(frozen=True)
class Foreseen:
    """One flow: the answer of today, and the one after the plan.

    C(obstacle) says why an answer would prove nothing, after the plan; C(unjudged) why there is none to be had.
    """

    before: Answer | None
    planned: Answer | None = None
    obstacle: str | None = None
    unjudged: str | None = None


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is foreseen of each flow, and why nothing could be said at all."""

    flows: t.Mapping[Flow, Foreseen]
    unavailable: str | None = None


def foresee(kernel: Kernel, plan: Plan, flows: t.Iterable[Flow]) -> Forecast:
    """Ask for all flows, before and after the plan. Nothing of the host is changed."""
    asked = tuple(dict.fromkeys(flows))
    host = _Host(kernel, plan, asked)
    before = {flow: answer for flow, (answer, _why) in _ask_all(kernel, asked, host.devices).items()}
    try:
        with open_scratch() as (copy, scratch):
            lost = scratch.load(host.copied)
            today = _ask_all(copy, asked, host.devices)
            copy.apply([operation for operation in plan.operations if operation.kind in _ROUTING])
            planned = _ask_all(copy, asked, host.devices)
    except Refused as refused:
        return Forecast({flow: Foreseen(before[flow]) for flow in asked}, f"it cannot be copied: {refused.text}")
    except RoutingError as exc:
        return Forecast({flow: Foreseen(before[flow]) for flow in asked}, exc.line())
    doubts = _Doubts(host, lost)
    return Forecast({f: doubts.judge(f, before[f], today[f][0], *planned[f]) for f in asked})


class _Still(Reading):
    """A kernel that nobody changes meanwhile: most flows share their source, so that is looked up once."""

    def __init__(self, kernel: Readable) -> None:
        super().__init__(kernel)
        self.lookup = functools.lru_cache(maxsize=None)(kernel.lookup)


def _ask_all(
    kernel: Readable, flows: t.Iterable[Flow], devices: t.Collection[str]
) -> dict[Flow, tuple[Answer | None, str | None]]:
    """Of each flow the answer, or why there is none that proves anything."""
    still = _Still(kernel)
    found: dict[Flow, tuple[Answer | None, str | None]] = {}
    for flow in flows:
        why = obstacle(still, flow, devices)
        found[flow] = (None, why) if why else (walk(still, flow), None)
    return found


class _Host:
    """What is copied of the host: what the flows can meet."""

    def __init__(self, kernel: Kernel, plan: Plan, flows: t.Sequence[Flow]) -> None:
        self._kernel = kernel
        self._plan = plan
        self._flows = flows
        links = kernel.links()
        self.devices = {link.name for link in links}
        self.rules = [rule for family in FAMILY_NAMES for rule in kernel.rules(family)]
        self.large: set[tuple[int, int]] = set()  # family and table
        self.unclear: list[Route] = []  # routes that cannot be copied as they are
        routes = [
            route for family in FAMILY_NAMES for table in self._tables(family) for route in self._read(family, table)
        ]
        addresses = self._addresses(routes)
        chosen = self._chosen(links, routes, addresses)
        names = {link.name for link in chosen}
        self.copied = Copied(
            tuple(chosen),
            tuple(address for address in addresses if address.dev in names),
            tuple(self.rules),
            tuple(routes),
            self._sysctls(names - {UNKNOWN}),
        )

    def _targets(self) -> list[Target]:
        return [operation.target for operation in self._plan.operations]

    def _tables(self, family: int) -> list[int]:
        """Those that rules look up, now or then."""
        rules = [*self.rules, *(target for target in self._targets() if isinstance(target, Rule))]
        return sorted({rule.table for rule in rules if rule.family == family and rule.table is not None})

    def _destinations(self, family: int) -> set[str]:
        """What lookups ask for: of packets, of their way back, and of gateways that the kernel checks."""
        planned = [target for target in self._targets() if isinstance(target, Route)]
        found = [to for flow in self._flows for to in (flow.to, flow.source)]
        found += [way.gateway for route in planned for way in route.ways]
        return {to for to in found if to is not None and family_of(to) == family}

    def _addresses(self, routes: t.Iterable[Route]) -> list[Address]:
        """Those in use; of a device with very many the first, which the kernel prefers, and what is named anywhere."""
        named = self._destinations(4) | self._destinations(6)
        named |= {target.src for target in [*routes, *self._targets()] if isinstance(target, Route) and target.src}
        found: list[Address] = []
        held: collections.Counter[tuple[str, int]] = collections.Counter()
        for address in self._kernel.addresses():
            place = (address.dev, address.family)
            held[place] += 1
            if not address.tentative and (held[place] <= MOST_ADDRESSES or address.address in named):
                found.append(address)
        return found

    def _read(self, family: int, table: int) -> list[Route]:
        destinations = self._destinations(family)
        found = self._kernel.covering(family, table, destinations, MOST_ROUTES)
        if found is None:
            self.large.add((family, table))
            found = self._answering(family, table, destinations)
        merging = _merging(found)
        self.unclear += [route for route in found if route.nexthop_id or route in merging]
        return [route for route in found if not route.nexthop_id]

    def _answering(self, family: int, table: int, destinations: t.Collection[str]) -> list[Route]:
        """Of a large table the routes that answer today, and for what else may be in it one that says so."""
        asked = [*self._flows, *(Flow(family, to) for to in destinations)]
        known: dict[str, Route] = {}
        for flow in asked:
            route = self._kernel.matched(flow) if flow.family == family and flow.oif is None else None
            if route is not None and route.table == table:
                known[flow.to] = route
        unknown = [f"{to}/{HOST_LENGTH[family]}" for to in destinations if to not in known]
        return [*dict.fromkeys(known.values()), *(Route(family, dst, table, dev=UNKNOWN) for dst in unknown)]

    def _chosen(self, links: t.Sequence[Link], routes: t.Sequence[Route], addresses: t.Sequence[Address]) -> list[Link]:
        """The devices that flows, routes and addresses name; of thousands of containers' cables none is needed."""
        named = {"lo"} | {name for flow in self._flows for name in (flow.iif, flow.oif)}
        for target in [*routes, *self._targets()]:
            named |= {way.dev for way in target.ways} if isinstance(target, Route) else set()
            named |= {target.name} if isinstance(target, LinkGroup) else set()
        asked = self._destinations(4) | self._destinations(6)
        named |= {address.dev for address in addresses if address.scope == 0 or address.address in asked}
        found = [link for link in links if link.name in named]
        return [*found, *([Link(0, UNKNOWN, up=True, carrier=True)] if self.large else [])]

    def _sysctls(self, devices: t.Iterable[str]) -> dict[str, str]:
        places = ["all", *sorted(devices)]
        paths = [f"ipv{f}/conf/{place}/{name}" for f, names in _SYSCTLS.items() for name in names for place in places]
        paths = [f"ipv{f}/{name}" for f, names in _GLOBAL_SYSCTLS.items() for name in names] + paths
        values = {path: self._kernel.sysctl(path) for path in paths}
        return {path: value for path, value in values.items() if value is not None}


def _merging(routes: t.Sequence[Route]) -> list[Route]:
    """IPv6 routes by several routers that are routes of their own, which a copy would make one route of."""
    by_gateway = [route for route in routes if route.family == 6 and route.gateway]
    keys = [route.key for route in by_gateway]
    return [route for route in by_gateway if keys.count(route.key) > 1]


class _Doubts:
    """When an answer of the copy says nothing about the host."""

    def __init__(self, host: _Host, lost: t.Iterable[Address | Rule | Route]) -> None:
        self._large = host.large
        lost = list(lost)
        self._routes = [*host.unclear, *(each for each in lost if isinstance(each, Route))]
        self._others = [each for each in lost if not isinstance(each, Route)]

    def judge(
        self, flow: Flow, before: Answer | None, today: Answer | None, planned: Answer | None, why: str | None
    ) -> Foreseen:
        """What can be said of the flow."""
        doubt = self._doubt(flow, before, today, planned)
        return Foreseen(before, unjudged=doubt) if doubt else Foreseen(before, planned, why)

    def _doubt(self, flow: Flow, before: Answer | None, today: Answer | None, planned: Answer | None) -> str | None:
        for lost in self._others:
            if lost.family == flow.family:
                return f"{lost.text() if isinstance(lost, Rule) else lost.address} cannot be copied"
        for route in self._routes:
            if route.family == flow.family and _is_met(route, flow):
                return f"{route.text()} cannot be copied"
        if flow.oif is not None and any(family == flow.family for family, _table in self._large):
            return "a table with so many routes is copied in part, which is not enough for a bound socket"
        if _is_unknown(planned):
            return "it depends on a table with so many routes that it is copied in part"
        if before != today and not _is_unknown(today):
            return f"the copy says {_text(today)}, this host {_text(before)}"
        return None


def _is_unknown(answer: Answer | None) -> bool:
    return answer is not None and UNKNOWN in (answer.first.dev, answer.second and answer.second.dev)


def _is_met(route: Route, flow: Flow) -> bool:
    return any(route.holds(address) for address in (flow.to, flow.source) if address is not None)


def _text(answer: Answer | None) -> str:
    if answer is None:
        return "nothing"
    paths: list[Path] = [answer.first, *([answer.second] if answer.second else [])]
    return ", then ".join(path_text(path_fields(path)) for path in paths)
