# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The connection by which this host is managed, and whether its replies will still find their way."""

from __future__ import annotations

import dataclasses
import fnmatch
import socket
import time
import typing as t

from ._controller import management_flow
from ._errors import VerificationError
from ._model.fields import family_of
from ._model.path import ERRORS
from ._model.state import Flow, Path
from ._paths import obstacle, text, walk

if t.TYPE_CHECKING:
    from ._confirm import Armed, Terms
    from ._kernel import Kernel
    from ._recipe.ways import Way

# Seconds.
PATIENCE = 2.0  # that a gateway has to answer
ATTEMPT = 2.0  # at most, for one connection of a probe
PAUSE = 0.1  # between two of them
MARGIN = 0.5  # for undoing a change at once rather than when its time is up


@dataclasses.dataclass(frozen=True)
class Watched:
    """The replies of the connection that manages this host, and their way before the change."""

    flow: Flow
    today: Path


@dataclasses.dataclass(frozen=True)
class Egress:
    """A declared way out of the identity that owns the address at which this host is managed."""

    identity: str
    dev: str | None
    gateway: str | None
    at_home: bool  # whether the address sits where the identity says
    alive: t.Callable[[], bool]  # device up, gateway answers; asked only if it matters


def judge(today: Path, planned: Path, egresses: t.Iterable[Egress]) -> str | None:
    """Why replies by C(planned) would not arrive; None if they go as today, or by a declared egress that is alive.

    The table may differ, and curing an asymmetric path is the mission: today's way need not be the declared one.
    """
    if planned.type in ERRORS or planned.dev is None:
        return f"no way out ({planned.type})"
    if (planned.dev, planned.gateway) == (today.dev, today.gateway):
        return None
    way = _way(planned)
    declared = [each for each in egresses if (each.dev, each.gateway) == (planned.dev, planned.gateway)]
    if not declared:
        return f"{way}, which is neither today's way ({_way(today)}) nor the egress of the identity of that address"
    if not any(each.at_home for each in declared):
        return f"{way}, but its address is not where identity {declared[0].identity} says"
    if not any(each.alive() for each in declared):
        return f"{way}, where nobody answers"
    return None


def watched(kernel: Kernel) -> Watched | None:
    """The connection by which this task came, if it came by SSH, with the kernel's answer of now."""
    flow = management_flow()
    if flow is None or obstacle(kernel, flow, {link.name for link in kernel.links()}) is not None:
        return None
    return Watched(flow, walk(kernel, flow).decided)


def refuse_lost(kernel: Kernel, watch: Watched, planned_path: t.Callable[[Flow], Path], ways: t.Sequence[Way]) -> None:
    """Refuse a change after which the controller would be cut off. Raises VerificationError.

    C(planned_path) answers as the kernel will: a scratch namespace before the change, or the kernel itself after it.
    """
    planned = planned_path(watch.flow)
    why = judge(watch.today, planned, _egresses(kernel, watch.flow, ways))
    if why is not None:
        raise VerificationError(
            f"would cut off the connection that manages this host: its replies would have {why}",
            field="management path",
            value=text(watch.flow),
            accepted="a way by which the controller can be answered, or what_if: skip",
        )


def _egresses(kernel: Kernel, flow: Flow, ways: t.Sequence[Way]) -> list[Egress]:
    own = [way for way in ways if flow.source in way.addresses]
    sits = {address.dev for address in kernel.addresses() if address.address == flow.source}
    return [
        Egress(
            way.identity.name, way.device, gateway, _at_home(way, sits), _prober(kernel, way.device, gateway or flow.to)
        )
        for way in own
        for gateway in dict.fromkeys((way.gateway(flow.family), None))  # None: the controller is a neighbour
    ]


def _at_home(way: Way, sits: t.Collection[str]) -> bool:
    wanted = way.identity.address_interface or ((way.device,) if way.device else ())
    return "any" in wanted or any(fnmatch.fnmatchcase(dev, pattern) for dev in sits for pattern in wanted)


def _prober(kernel: Kernel, device: str | None, neighbour: str) -> t.Callable[[], bool]:
    def alive() -> bool:
        link = next((link for link in kernel.links() if link.name == device), None)
        if device is None or link is None or not (link.up and link.carrier):
            return False
        return kernel.answers(device, neighbour, PATIENCE)

    return alive


def _way(path: Path) -> str:
    if path.type in ERRORS or path.dev is None:
        return path.type
    return f"dev {path.dev}" if path.gateway is None else f"via {path.gateway} dev {path.dev}"


def reach(terms: Terms, flows: t.Sequence[Flow], armed: Armed) -> None:
    """Reach the address and port of C(terms) from the source, by the device and with the mark of each flow.

    Raises VerificationError as soon as there is no time left but for undoing the change.
    """
    to, port = str(terms.address), int(terms.port or 0)
    same = [flow for flow in flows if flow.family == family_of(to) and flow.iif is None]
    ways = dict.fromkeys((flow.source, flow.oif, flow.fwmark) for flow in same) or {(None, None, None): None}
    for source, device, mark in ways:
        why = "no time was left"
        while armed.left > MARGIN:
            try:
                _connect(to, port, source, device, mark, min(armed.left - MARGIN, ATTEMPT))
                break
            except OSError as exc:
                why = exc.strerror or str(exc)
                time.sleep(PAUSE)
        else:
            origin = " ".join(f"{word} {value}" for word, value in (("from", source), ("by", device)) if value)
            raise VerificationError(
                f"port {port} cannot be reached {origin}: {why}",
                field="confirm.address",
                value=to,
                accepted="an answer",
            )


def _connect(to: str, port: int, source: str | None, device: str | None, mark: int | None, timeout: float) -> None:
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_STREAM) as made:
        made.settimeout(timeout)
        if mark is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if device is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if source is not None:
            made.bind((source, 0))
        made.connect((to, port))
