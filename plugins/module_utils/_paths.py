# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Flows, the way the kernel decides them, and whether that is what was declared.

A socket that has chosen no source is decided by two lookups: one without a source, and one with the source that the
first chose. `ip route get` shows the first alone, and a rule `from O` is seen by the second alone.
"""

from __future__ import annotations

import dataclasses
import errno
import typing as t

from ._model import fields
from ._model.path import ERRORS, Answer, Expect, IdentityPaths, PathSpec, Verdict
from ._model.state import Flow, Link, Path
from ._path_options import EXPECTED, parse_flow
from ._recipe.facts import NOWHERE_DEVICE

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._reading import Readable

__all__ = [
    "PENDING",
    "PROVEN",
    "UNCHANGED_FIELDS",
    "WRONG",
    "Answer",
    "Expect",
    "IdentityPaths",
    "PathSpec",
    "Verdict",
    "answer_all",
    "as_bound",
    "check",
    "compare",
    "failing",
    "judged",
    "obstacle",
    "owner",
    "parse_flow",
    "path_fields",
    "path_text",
    "present",
    "result",
    "text",
    "unasked",
    "walk",
    "without_neighbours",
]

PROVEN, PENDING, WRONG = "proven", "pending", "wrong"
_ETHERNET, _INFINIBAND = 1, 32  # ARPHRD_*
# What must be as before for a flow to be unchanged. Tables may differ: ours take over what main did.
UNCHANGED_FIELDS = ("type", "dev", "src", "gateway")


def walk(kernel: Readable, flow: Flow) -> Answer:
    """Ask the kernel as a connecting socket would: the second time with the source that the first lookup chose."""
    first = _ask(kernel, flow)
    if first.dev == NOWHERE_DEVICE:
        # Refused by our nftables table: for IPv6 such a lookup has to succeed, or it would be made again.
        return Answer(flow, Path("unreachable", errno=errno.ENETUNREACH), source=flow.source)
    if flow.source is not None or flow.iif is not None:
        return Answer(flow, first, source=flow.source)
    if first.type in ERRORS:
        return _retry(kernel, flow, first)
    if first.src is None:
        return Answer(flow, first)
    return Answer(flow, first, _ask(kernel, flow, first.src), first.src)


def _ask(kernel: Readable, flow: Flow, source: str | None = None) -> Path:
    return as_bound(kernel, flow, kernel.lookup(flow if source is None else dataclasses.replace(flow, source=source)))


def as_bound(kernel: Readable, flow: Flow, path: Path) -> Path:
    """An IPv6 socket bound to a device leaves by no other; RTM_GETROUTE with a source may say otherwise."""
    if flow.family == 4 or flow.oif in (None, path.dev) or path.type != "unicast":
        return path
    if any(link.name == flow.oif and link.kind == "vrf" for link in kernel.links()):
        return path  # leaves by a device of the VRF
    return Path("unreachable", errno=errno.ENETUNREACH)


def _retry(kernel: Readable, flow: Flow, first: Path) -> Answer:
    """After an error: IPv4 gives up; IPv6 takes a source from any device and asks again.

    Which source IPv6 takes cannot be asked, so the first that finds a way out counts: if any does, packets may leave.
    """
    if flow.family == 4:
        return Answer(flow, first)
    for address in kernel.addresses():
        if address.family == 6 and address.scope == 0 and not address.tentative:
            second = _ask(kernel, flow, address.address)
            if second.type not in ERRORS:
                return Answer(flow, first, second, address.address)
    return Answer(flow, first)


def obstacle(kernel: Readable, flow: Flow, devices: t.Collection[str]) -> str | None:
    """Why the kernel's answer to this flow would prove nothing, or None.

    From a source that is not local IPv4 answers "unreachable" without a look at the rules, IPv6 answers as if it were.
    C(devices) are the names of those that exist.
    """
    for name, device in (("iif", flow.iif), ("oif", flow.oif)):
        if device is not None and device not in devices:
            return f"{name}: there is no device {device}"
    if flow.source is None:
        return None
    local = kernel.lookup(Flow(flow.family, flow.source)).type == "local"
    if flow.iif is None and not local:
        return f"from: {flow.source} is not an address of this host now"
    if flow.iif is not None and local:
        return f"from: {flow.source} is an address of this host, no packet may arrive from it"
    return None


# --- comparing -------------------------------------------------------------------------------------------------------


def check(spec: PathSpec, answer: Answer, identities: t.Sequence[IdentityPaths]) -> Verdict:
    """Whether the kernel's answer is as expected, and in what it differs ("dev: wg0 expected, up0 found").

    An identity whose egress is gone is pending as long as the kernel answers with an error (its backstop).
    """
    if spec.expect is None:
        return Verdict(None)
    differs: list[str] = []
    for label, path in answer.counting():
        keys = ("identity", "dev", "type") if label else EXPECTED
        differs += [label + each for each in _differences(spec.expect, path, keys, identities)]
    if not differs:
        return Verdict(PROVEN)
    stopped = answer.decided.type in ERRORS and _without_egress(spec, answer.flow, identities)
    return Verdict(PENDING if stopped else WRONG, tuple(differs))


def _differences(
    expect: Expect, path: Path, keys: t.Iterable[str], identities: t.Sequence[IdentityPaths]
) -> t.Iterator[str]:
    for key in keys:
        wanted = getattr(expect, key)
        if wanted is None:
            continue
        found = _leaves_by(path, identities) if key == "identity" else (_found(path, key),)
        if wanted not in found:
            yield f"{key}: {wanted} expected, {_seen(key, path, found)} found"


def _found(path: Path, key: str) -> object:
    value = getattr(path, key)
    return "none" if value is None and key == "gateway" and path.type not in ERRORS else value


def _seen(key: str, path: Path, found: t.Sequence[object]) -> str:
    """What to say that was found: for an error its kind, which explains why there is no device."""
    if path.type in ERRORS and key not in ("src", "type"):
        return path.type
    words = [str(each) for each in found if each is not None]
    if key == "identity":
        return f"{' or '.join(words) or 'no identity'} (dev {path.dev})"
    return " or ".join(words) or "none"


def _leaves_by(path: Path, identities: t.Sequence[IdentityPaths]) -> list[str]:
    """The names of the identities whose egress this path takes; several only where nothing tells them apart."""
    if path.type in ERRORS or path.dev is None:
        return []
    found = [each for each in identities if path.dev in each.devices]
    for narrower in (
        [each for each in found if path.table in each.tables],
        [each for each in found if path.gateway is not None and path.gateway in each.gateways],
        [each for each in found if path.src in each.addresses],
    ):
        if len(found) > 1 and narrower:
            found = [each for each in found if each in narrower]
    return [each.name for each in found]


def owner(source: str | None, identities: t.Sequence[IdentityPaths]) -> str | None:
    """The identity that an address belongs to."""
    return next((each.name for each in identities if source is not None and source in each.addresses), None)


def _without_egress(spec: PathSpec, flow: Flow, identities: t.Sequence[IdentityPaths]) -> bool:
    """Whether the identity that this flow is about has no egress now."""
    name = (spec.expect and spec.expect.identity) or spec.identity or owner(flow.source, identities)
    return any(each.name == name and not each.devices for each in identities)


def without_neighbours(links: t.Iterable[Link]) -> frozenset[str]:
    """The names of devices on which a gateway means nothing: all but Ethernet and Infiniband."""
    return frozenset(link.name for link in links if link.arptype not in (_ETHERNET, _INFINIBAND))


def compare(before: Answer, after: Answer, *, without_neighbours: t.Collection[str] = ()) -> tuple[str, ...]:
    """In what two answers differ, both lookups: "dev: up0 before, wg0 now". For C(expect: unchanged).

    On the devices C(without_neighbours) the gateway is not compared. Unbound traffic in an OpenVPN full tunnel, for
    example, has a gateway in main and may have none in the tunnel's own table.
    """
    labels = dict(before.counting())
    differs: list[str] = []
    for label, now in after.counting():
        then = labels.get(label, before.decided)
        keys = [key for key in UNCHANGED_FIELDS if key != "gateway" or now.dev not in without_neighbours]
        differs += [
            f"{label}{key}: {getattr(then, key) or 'none'} before, {getattr(now, key) or 'none'} now"
            for key in keys
            if getattr(then, key) != getattr(now, key)
        ]
    return tuple(differs)


# --- results ---------------------------------------------------------------------------------------------------------


Walks = t.Callable[["Kernel", Answer], list[dict[str, t.Any]]]


def answer_all(
    kernel: Kernel,
    specs: t.Sequence[PathSpec],
    identities: t.Sequence[IdentityPaths],
    walks: Walks | None = None,
) -> list[dict[str, t.Any]]:
    """The result entries of all paths, in the order of the option. C(walks) (_walks.walks) adds C(walk) to each."""
    devices = {link.name for link in kernel.links()} if specs else set()
    found: list[dict[str, t.Any]] = []
    for spec in specs:
        for flow in spec.flows:
            entry, answer = _answered(kernel, spec, flow, identities, devices)
            found.append(entry if walks is None else {**entry, "walk": walks(kernel, answer) if answer else []})
        if not spec.flows:
            found.append(unasked(spec) if walks is None else {**unasked(spec), "walk": []})
    return found


def _answered(
    kernel: Kernel, spec: PathSpec, flow: Flow, identities: t.Sequence[IdentityPaths], devices: t.Collection[str]
) -> tuple[dict[str, t.Any], Answer | None]:
    why = obstacle(kernel, flow, devices)
    answer = None if why else walk(kernel, flow)
    return judged(spec, flow, answer, why, identities), answer


def judged(
    spec: PathSpec, flow: Flow, answer: Answer | None, why: str | None, identities: t.Sequence[IdentityPaths]
) -> dict[str, t.Any]:
    """The result entry of one flow, with its verdict; without an answer C(why) says what is in its way."""
    if answer is not None:
        return result(spec, flow, answer, check(spec, answer, identities), identities)
    lacking = owner(flow.source, identities) is not None or _without_egress(spec, flow, identities)
    status = None if spec.expect is None else PENDING if lacking and flow.iif is None else WRONG
    return result(spec, flow, None, Verdict(status, (why or "has no answer",)), identities)


def unasked(spec: PathSpec) -> dict[str, t.Any]:
    """The entry of an identity that has no address of the family: there is nothing to ask for."""
    why = f"from: {spec.identity} has no ipv{spec.family} address now"
    verdict = Verdict(None if spec.expect is None else PENDING, (why,))
    return {**result(spec, Flow(spec.family, spec.to), None, verdict, ()), "identity": spec.identity}


def result(
    spec: PathSpec,
    flow: Flow,
    answer: Answer | None,
    verdict: Verdict,
    identities: t.Sequence[IdentityPaths],
    before: Answer | None = None,
) -> dict[str, t.Any]:
    """One entry of the result C(paths). C(identity) is whose source address the packet carries."""
    source = flow.source if answer is None else answer.source
    return {
        "identity": spec.identity or owner(source, identities),
        "family": flow.family,
        "flow": text(flow),
        "from": flow.source,
        "to": flow.to,
        **path_fields(None if answer is None else answer.decided),
        "unconnected": None if answer is None or len(answer.counting()) == 1 else path_fields(answer.unconnected),
        "verdict": verdict.status,
        "before": None if before is None else path_fields(before.decided),
        "differs": list(verdict.differs),
    }


def path_fields(path: Path | None) -> dict[str, t.Any]:
    """A path as results have it; nothing in it where there is none."""
    return {key: getattr(path, key, None) for key in ("dev", "gateway", "src", "table", "type")}


def path_text(found: t.Mapping[str, t.Any]) -> str:
    """The same for people."""
    words = [found["type"]] if found["type"] != "unicast" else []
    named = (("via", "gateway"), ("dev", "dev"), ("src", "src"), ("table", "table"))
    return " ".join([*words, *(f"{word} {found[key]}" for word, key in named if found[key] is not None)])


def text(flow: Flow) -> str:
    """The flow as `ip route get` takes it."""
    words = {
        "from": flow.source,
        "iif": flow.iif,
        "oif": flow.oif,
        "mark": None if flow.fwmark is None else hex(flow.fwmark),
        "tos": hex(flow.tos) if flow.tos else None,
        "uid": flow.uid,
        "ipproto": None if flow.ipproto is None else fields.protocol_name(flow.ipproto),
        "sport": flow.sport,
        "dport": flow.dport,
    }
    return " ".join([flow.to, *(f"{word} {value}" for word, value in words.items() if value is not None)])


def failing(
    entries: t.Sequence[t.Mapping[str, t.Any]], identities: t.Sequence[IdentityPaths]
) -> list[t.Mapping[str, t.Any]]:
    """The entries that must fail the task: wrong, or pending although the identity is required."""
    required = {each.name for each in identities if each.required}
    return [
        each
        for each in entries
        if each["verdict"] == WRONG or (each["verdict"] == PENDING and each["identity"] in required)
    ]


def present(identity: IdentityPaths, links: t.Iterable[Link]) -> IdentityPaths:
    """The identity with the devices that are up now."""
    up = {link.name for link in links if link.up}
    return dataclasses.replace(identity, devices=tuple(each for each in identity.devices if each in up))
