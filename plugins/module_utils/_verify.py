# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Proof: the kernel itself is asked which way each identity's packets take."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

from ._model.fields import family_of, prefixes_of
from ._model.path import ERRORS, Answer, IdentityPaths
from ._model.route import Route
from ._model.state import Flow
from ._paths import PENDING, PROVEN, WRONG, PathSpec, Verdict, result, walk
from ._policies import in_clear
from ._recipe import Outcome
from ._recipe.facts import Facts, devices_of, is_default
from ._recipe.ways import Way

if t.TYPE_CHECKING:
    from ._kernel import Kernel

# Far destinations to ask for: documentation and benchmark prefixes first, then others, for a host may use the former.
# The kernel is only asked; no packet is sent.
FAR = {
    4: ("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "9.9.9.9", "1.1.1.1", "130.89.1.1"),
    6: ("2001:db8::1", "2001:db8:ffff:ffff::1", "3fff::1", "2620:fe::9", "2600::1", "2a00::1"),
}
# IP protocols that the kernel can be asked about: any, TCP, UDP, ICMP.
ASKABLE = {4: (None, 6, 17, 1), 6: (None, 6, 17, 58)}


@dataclasses.dataclass(frozen=True)
class Proof:
    """The answers for one set."""

    paths: tuple[dict[str, t.Any], ...]
    identities: tuple[dict[str, t.Any], ...]

    def wrong(self) -> list[str]:
        """One line for each path that is not as declared."""
        return [f"{p['identity']}: {p['flow']}: {', '.join(p['differs'])}" for p in self.paths if p["verdict"] == WRONG]


def identity_paths(outcome: Outcome, facts: Facts) -> list[IdentityPaths]:
    """The identities as the flows of C(paths) need them."""
    found: dict[str, IdentityPaths] = {}
    for way in outcome.ways:
        link = facts.link(way.device)
        known = found.get(way.identity.name, IdentityPaths(way.identity.name, required=way.identity.required))
        found[known.name] = dataclasses.replace(
            known,
            addresses=(*known.addresses, *way.addresses),
            devices=(*known.devices, *([link.name] if link and link.up else [])),
            tables=(*known.tables, way.table),
            gateways=(*known.gateways, *way.gateways),
        )
    return list(found.values())


def prove(kernel: Kernel, outcome: Outcome, facts: Facts) -> Proof:
    """Ask for every address of every way, both families: far away, and where the other identities live."""
    return judge(outcome, facts, lambda flow: walk(kernel, flow), in_clear(kernel, outcome.ways))


def asked(outcome: Outcome, facts: Facts) -> list[Flow]:
    """The flows that prove a set."""
    return [flow for way in outcome.ways for flow in _flows(way, outcome, facts)]


def judge(
    outcome: Outcome, facts: Facts, answer: t.Callable[[Flow], Answer | None], clear: t.Collection[str] = ()
) -> Proof:
    """The proof by these answers; a flow without an answer has no verdict.

    C(clear) are the keys of ways by which all leaves unencrypted that a tunnel should carry.
    """
    paths = [_judged(way, flow, answer(flow), outcome) for way in outcome.ways for flow in _flows(way, outcome, facts)]
    identities = [
        _identity(way, paths, outcome, complete=_has_all(way, facts) and way.key not in clear) for way in outcome.ways
    ]
    return Proof(tuple(paths), tuple(identities))


def _flows(way: Way, outcome: Outcome, facts: Facts) -> t.Iterator[Flow]:
    """From an address that is not there the kernel's answer proves nothing; the verdict is pending."""
    for address in way.addresses:
        if facts.is_local(address):
            for to in _destinations(way, family_of(address), outcome, facts):
                yield Flow(family_of(address), to, source=address)
    yield from _pinned(way, outcome, facts)


def _judged(way: Way, flow: Flow, answer: Answer | None, outcome: Outcome) -> dict[str, t.Any]:
    spec = PathSpec("", flow.family, flow.to, flow.source, way.identity.name, (flow,))
    verdict = Verdict(None) if answer is None else _judge(way, flow.family, answer, outcome)
    return result(spec, flow, answer, verdict, ())


def _pinned(way: Way, outcome: Outcome, facts: Facts) -> t.Iterator[Flow]:
    """A packet without a source of each pinned socket."""
    for pin in way.identity.pin:
        for family in way.identity.families:
            if pin.ipproto in ASKABLE[family] and (way.key, family) in outcome.ready:
                port = pin.sport[0] if pin.sport else None
                user = pin.uidrange[0] if pin.uidrange else None
                for to in _far(family, facts):
                    yield Flow(family, to, ipproto=pin.ipproto, sport=port, uid=user)


def _judge(way: Way, family: int, answer: Answer, outcome: Outcome) -> Verdict:
    path = answer.decided
    if (way.key, family) not in outcome.ready:
        if path.type in ERRORS or not way.identity.backstop:
            return Verdict(PENDING)
        return Verdict(WRONG, (f"type: unreachable expected, {path.type} by {path.dev} found",))
    differs = []
    if path.dev != way.device:
        differs.append(f"dev: {way.device} expected, {path.dev or path.type} found")
    if path.table != way.table:
        differs.append(f"table: {way.table} expected, {path.table} found")
    return Verdict(WRONG if differs else PROVEN, tuple(differs))


def _destinations(way: Way, family: int, outcome: Outcome, facts: Facts) -> list[str]:
    """One far destination that no specific route covers, and what would go astray without us.

    For a tunnel those are the uplinks' gateways, for an uplink what main sends into the tunnels, unless a specific
    route that the identity keeps covers it.
    """
    specific = [r for r in facts.main if r.family == family and not _is_wide(r)]
    if way.identity.by_tunnel:
        kept = [r for r in outcome.desired.routes if r.table == outcome.shared.local and r.type == "unicast"]
        cross = [gateway for other in outcome.ways if not other.identity.by_tunnel for gateway in other.gateways]
    else:
        kept = [r for r in specific if r.dev not in _tunnels(outcome)]
        cross = [_first_host(r) for r in _into_tunnels(outcome, facts, family)][:2]
    far = _far(family, facts)
    crossing = [to for to in cross if family_of(to) == family and not _is_link_local(to) and not _covered(to, kept)]
    return [to for to in dict.fromkeys([*far, *crossing]) if not facts.is_local(to)]


def _far(family: int, facts: Facts) -> list[str]:
    """One destination that no specific route of main covers."""
    specific = [r for r in facts.main if r.family == family and not _is_wide(r)]
    found = next((to for to in FAR[family] if not _covered(to, specific)), None)
    return [] if found is None else [found]


def _is_wide(route: Route) -> bool:
    """Defaults and the halves that VPN clients lay over them: rules of ours suppress them."""
    return route.dst.endswith(("/0", "/1"))


def _into_tunnels(outcome: Outcome, facts: Facts, family: int) -> list[Route]:
    tunnels = _tunnels(outcome)
    return [
        r
        for r in facts.main
        if r.family == family and not is_default(r) and any(device in tunnels for device in devices_of(r))
    ]


def _tunnels(outcome: Outcome) -> set[str | None]:
    return {way.tunnel_device for way in outcome.ways if way.tunnel_device}


def _first_host(route: Route) -> str:
    network = ipaddress.ip_network(route.dst)
    return str(network[1] if network.num_addresses > 1 else network[0])


def _is_link_local(address: str) -> bool:
    return ipaddress.ip_address(address).is_link_local or ipaddress.ip_address(address).is_multicast


def _covered(to: str, routes: t.Iterable[Route]) -> bool:
    prefixes = prefixes_of(to)
    return any(r.dst in prefixes for r in routes)


def _identity(way: Way, paths: t.Sequence[dict[str, t.Any]], outcome: Outcome, *, complete: bool) -> dict[str, t.Any]:
    """One way with its verdict; proven if all of it is there."""
    own = [p["verdict"] for p in paths if p["identity"] == way.identity.name and p["from"] in way.addresses]
    complete = bool(own) and PENDING not in own and complete
    return {
        **way.as_result(),
        "priority": next((r.priority for r in outcome.desired.rules if r.table == way.table), None),
        "verdict": WRONG if WRONG in own else None if None in own else PROVEN if complete else PENDING,
    }


def _has_all(way: Way, facts: Facts) -> bool:
    """Whether every address of the way is there."""
    return all(facts.is_local(address) for address in way.addresses)
