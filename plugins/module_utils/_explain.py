# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""One lookup as the kernel makes it, over values: rule by rule, into which table, and what was found there. Pure.

Not modelled is what the values do not hold: VRF, state of neighbours, redirects, and IPv6 routes for some sources only.
Of an incoming packet it is the lookup alone, without rp_filter and forwarding.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import typing as t

from ._model import fields
from ._model.route import ERROR_TYPES, Nexthop, Route
from ._model.rule import Rule
from ._model.state import Flow, Link, Path

# What a step comes to.
NO_MATCH, NOP, GOTO, LOST_GOTO = "no match", "nop", "goto", "goto without target"
NO_ROUTE, SUPPRESSED, THROW, FOUND, ERROR = "no route", "suppressed", "throw", "found", "error"
EITHER = "found or suppressed"  # IPv6 chooses one of several ways first, and then looks at the group of its device


_UDP = fields.PROTOCOLS["udp"]
_ROUTE_ERRORS = {"unreachable": errno.EHOSTUNREACH, "prohibit": errno.EACCES, "blackhole": errno.EINVAL}
_ACTION_ERRORS = {**_ROUTE_ERRORS, "unreachable": errno.ENETUNREACH}
_PREFERENCES = {"low": 1, None: 2, "high": 3}


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a lookup looks at, of the flow's family."""

    rules: t.Sequence[Rule]  # in the kernel's order
    routes: t.Callable[[int], t.Sequence[Route]]  # of a table
    links: t.Mapping[str, Link]  # by name
    ignored: t.Collection[str] = ()  # devices whose routes do not count, as they have no carrier

    def alive(self, route: Route) -> tuple[Nexthop, ...]:
        """The ways of a route that count. One that has no other goes with its device, so it is not looked at."""
        ways = _ways(route)
        up = {name for name, link in self.links.items() if link.up}
        return tuple(way for way in ways if way.dev not in self.ignored and (len(ways) == 1 or way.dev in up))


@dataclasses.dataclass(frozen=True)
class Step:
    """One rule that was asked."""

    rule: Rule
    outcome: str
    why: str = ""  # it did not match, or what it found was not taken
    route: Route | None = None  # what the table has for the flow, taken or not
    ways: tuple[Nexthop, ...] = ()  # of that route, those that may be taken

    @property
    def ends(self) -> bool:
        """Whether no later rule is asked."""
        return self.outcome in (FOUND, ERROR)


@dataclasses.dataclass(frozen=True)
class Walk:
    """All rules that were asked, in order, and the paths that may come of it, one unless a route has several ways."""

    flow: Flow
    steps: tuple[Step, ...]
    paths: tuple[Path, ...]

    def agrees(self, answer: Path) -> bool:
        """Whether the kernel's answer is one of them. The source is not compared: routes seldom say it."""
        return any(dataclasses.replace(path, src=answer.src) == answer for path in self.paths)


def explain(scene: Scene, flow: Flow) -> Walk:
    """The walk of one lookup. C(flow.uid) must be stated where rules ask for it."""
    steps: list[Step] = []
    at = 0
    while at < len(scene.rules) and not (steps and steps[-1].ends):
        step = _step(scene, scene.rules[at], flow)
        steps.append(step)
        at = at + 1 if step.outcome != GOTO else _place(scene.rules, step.rule)
    return Walk(flow, tuple(steps), tuple(_paths(scene, flow, steps)))


def _place(rules: t.Sequence[Rule], jump: Rule) -> int:
    """Where a goto leads: to the first rule of that priority."""
    return next(at for at, rule in enumerate(rules) if rule.priority == jump.goto)


def _step(scene: Scene, rule: Rule, flow: Flow) -> Step:
    failing = [said for said, holds in _selectors(rule, flow) if not holds]
    if bool(failing) != rule.invert:
        return Step(rule, NO_MATCH, ", ".join(failing) or "all of it holds, and the rule says not")
    why = f"as the rule says not: {', '.join(failing)}" if rule.invert else ""
    if rule.action == "nop":
        return Step(rule, NOP, why)
    if rule.action == "goto":
        leads = any(other.priority == rule.goto for other in scene.rules)
        return Step(rule, GOTO if leads else LOST_GOTO, why)
    if rule.action != "lookup":
        return Step(rule, ERROR, why)
    return _looked_up(scene, rule, flow, why)


def _looked_up(scene: Scene, rule: Rule, flow: Flow, why: str) -> Step:
    found = _best(scene, rule.table or 0, flow)
    if found is None:
        return Step(rule, NO_ROUTE, why)
    route, ways = found
    if route.type == "throw":
        return Step(rule, THROW, why, route)
    if route.type in ERROR_TYPES:
        return Step(rule, ERROR, why, route)
    if rule.suppress_prefixlength is not None and _length(route.dst) <= rule.suppress_prefixlength:
        return Step(rule, SUPPRESSED, f"the prefix is not longer than {rule.suppress_prefixlength}", route)
    return _outside_group(scene, Step(rule, FOUND, why, route, ways))


def _outside_group(scene: Scene, step: Step) -> Step:
    """What the rule makes of it that a device is in a group. IPv4 looks at the device of the first way alone."""
    group, ways = step.rule.suppress_ifgroup, step.ways
    if group is None:
        return step
    looked_at = ways if step.rule.family == 6 or step.route is None else _ways(step.route)[:1]
    inside = [way.dev for way in looked_at if _group(scene, way) == group]
    if not inside:
        return step
    kept = tuple(way for way in ways if way.dev not in inside) if step.rule.family == 6 else ()
    why = f"{' and '.join(map(str, inside))} in group {group}"
    return dataclasses.replace(step, outcome=EITHER if kept else SUPPRESSED, why=why, ways=kept)


def _group(scene: Scene, way: Nexthop) -> int | None:
    link = scene.links.get(way.dev or "")
    return None if link is None else link.group


# --- selectors -------------------------------------------------------------------------------------------------------


def _selectors(rule: Rule, flow: Flow) -> t.Iterator[tuple[str, bool]]:
    """What the flow has where the rule asks for something, and whether that is it."""
    yield from _addresses(rule, flow)
    came = flow.iif or "lo"
    if rule.iif is not None:
        yield f"iif is {came}", rule.iif == came
    if rule.oif is not None:
        yield f"oif is {flow.oif}" if flow.oif else "not bound to a device", rule.oif == flow.oif
    if rule.fwmark is not None:
        mark = flow.fwmark or 0
        yield f"fwmark is {mark:#x}", mark & (rule.fwmask or 0) == rule.fwmark
    if rule.uidrange is not None:
        uid = (flow.uid or 0) if flow.iif is None else 0  # what is forwarded counts as root's
        yield f"uid is {uid}", rule.uidrange[0] <= uid <= rule.uidrange[1]
    yield from _packet(rule, flow)
    if rule.tun_id is not None:
        yield "no tunnel's key", False
    if rule.l3mdev:
        yield "not in a VRF", False


def _addresses(rule: Rule, flow: Flow) -> t.Iterator[tuple[str, bool]]:
    if rule.src is not None:
        # IPv6 compares no source where there is none, not even with ::/1; IPv4 compares 0.0.0.0.
        known = flow.family == 4 or flow.source is not None
        source = flow.source or fields.DEFAULT[flow.family].partition("/")[0]
        yield f"from is {source}" if flow.source else "no source yet", known and _inside(source, rule.src)
    if rule.dst is not None:
        yield f"to is {flow.to}", _inside(flow.to, rule.dst)


def _packet(rule: Rule, flow: Flow) -> t.Iterator[tuple[str, bool]]:
    if rule.tos is not None:
        yield f"tos is {flow.tos:#04x}", rule.tos == _tos(flow)
    if rule.dscp is not None:
        yield f"dscp is {flow.tos >> 2}", rule.dscp == flow.tos >> 2
    if rule.ipproto is not None:
        # RTM_GETROUTE takes an IPv4 flow without a protocol for UDP.
        found = flow.ipproto or (_UDP if flow.family == 4 else None)
        yield f"ipproto is {fields.protocol_name(found) if found else 'not stated'}", rule.ipproto == found
    for name, span, port in (("sport", rule.sport, flow.sport), ("dport", rule.dport, flow.dport)):
        if span is not None:
            yield f"{name} is {port or 'not stated'}", span[0] <= (port or 0) <= span[1]


def _tos(flow: Flow) -> int:
    """What is compared: in IPv4 without the three highest bits."""
    return flow.tos & 0x1C if flow.family == 4 else flow.tos


def _inside(address: str, prefix: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(prefix)


def _length(prefix: str) -> int:
    return int(prefix.partition("/")[2])


# --- tables ----------------------------------------------------------------------------------------------------------


def _best(scene: Scene, table: int, flow: Flow) -> tuple[Route, tuple[Nexthop, ...]] | None:
    """The route of a table for the flow, with the ways that may be taken: of the longest prefix that has any."""
    fitting = [route for route in scene.routes(table) if _inside(flow.to, route.dst)]
    for length in sorted({_length(route.dst) for route in fitting}, reverse=True):
        alike = [route for route in fitting if _length(route.dst) == length]
        found = _first4(scene, alike, flow) if flow.family == 4 else _first6(scene, alike, flow)
        if found is not None:
            return found
    return None


def _first4(scene: Scene, routes: t.Sequence[Route], flow: Flow) -> tuple[Route, tuple[Nexthop, ...]] | None:
    """In IPv4 an error route counts for sockets that are bound to a device, too."""
    for route in sorted(routes, key=lambda route: (-route.tos, route.metric)):
        if route.tos not in (0, _tos(flow)):
            continue
        ways = tuple(way for way in scene.alive(route) if flow.oif in (None, way.dev))
        if ways or route.type in ERROR_TYPES:
            return route, ways
    return None


def _first6(scene: Scene, routes: t.Sequence[Route], flow: Flow) -> tuple[Route, tuple[Nexthop, ...]] | None:
    """The best of the lowest metric, else the best of all others: the kernel compares metrics once."""
    ordered = sorted(routes, key=lambda route: route.metric)
    lowest = [route for route in ordered if route.metric == ordered[0].metric]
    for group in (lowest, ordered[len(lowest) :]):
        scored = [(score, route) for route in group if (score := _score(scene, route, flow))]
        if scored:
            route = max(scored, key=lambda each: each[0])[1]
            ways = scene.alive(route)
            return route, tuple(way for way in ways if way.dev == flow.oif) or ways
    return None


def _score(scene: Scene, route: Route, flow: Flow) -> int:
    """0 for a route that does not count. Without a source, only routes by the device that the socket is bound to do."""
    devices = {way.dev for way in scene.alive(route)}
    by_device = flow.oif is None or flow.oif in devices
    strict = flow.source is None or ipaddress.ip_address(flow.to).is_link_local
    if not devices or (strict and not by_device):
        return 0
    return 1 + 2 * by_device + 4 * _PREFERENCES[route.pref]


def _ways(route: Route) -> tuple[Nexthop, ...]:
    """IPv6 has its error routes on lo."""
    if route.family == 6 and route.type in ERROR_TYPES:
        return (Nexthop(dev="lo"),)
    return route.ways or route.through


# --- answers ---------------------------------------------------------------------------------------------------------


def _paths(scene: Scene, flow: Flow, steps: t.Sequence[Step]) -> t.Iterator[Path]:
    bound = scene.links.get(flow.oif) if flow.family == 4 and flow.oif and flow.iif is None else None
    if bound is not None and not bound.up:
        yield Path("unreachable", errno=errno.ENETUNREACH)
        return
    for step in steps:
        if step.outcome in (FOUND, EITHER) and step.route is not None:
            yield from _taken(step.route, step.ways)
    if not steps or steps[-1].outcome != FOUND:
        # IPv4 takes what it has no route for as a neighbour on the device that the socket is bound to.
        yield _failed(steps[-1] if steps else None) if bound is None else Path("unicast", bound.name)


def _failed(last: Step | None) -> Path:
    if last is None or last.outcome != ERROR:
        return Path("unreachable", errno=errno.ENETUNREACH)
    if last.route is not None:
        return Path(last.route.type, errno=_ROUTE_ERRORS[last.route.type])
    return Path(last.rule.action, errno=_ACTION_ERRORS[last.rule.action])


def _taken(route: Route, ways: t.Sequence[Nexthop]) -> t.Iterator[Path]:
    if route.type in ("local", "anycast"):
        yield Path(route.type, "lo", table=route.table)
        return
    for way in dict.fromkeys(ways):
        yield Path(route.type, way.dev, way.gateway, route.src, route.table)
