# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What of a declaration this host cannot carry, refused before anything changes."""

from __future__ import annotations

import dataclasses
import platform
import typing as t

from ._errors import Conflict, InvalidInput, NotPermitted, NotSupported
from ._model.fields import FAMILY_NAMES
from ._model.rule import refuse_unsupported
from ._reach import Reach

if t.TYPE_CHECKING:
    from ._model.declaration import Declaration
    from ._model.guard import Guard
    from ._model.operation import OwnLink
    from ._model.route import Route
    from ._model.rule import Rule
    from ._reading import Readable

_NOT_PROMISED = (
    "Rules and backstops stand, but what they do not decide may leave by a wrong device: sockets bound to a device,"
    " replies of forwarded ports, IPv6 packets that take the tunnel's address on another device, forwarded packets"
    " from a pool, and everything once somebody flushes the rules"
)


def fitted(declaration: Declaration, kernel: Readable, *, patient: bool) -> Declaration:
    """The declaration with the device of every gateway. Raises InvalidInput and NotSupported.

    At boot (C(patient)) a device may not be there yet: its routes wait, and the rest is not held up.
    """
    for index, rule in enumerate(declaration.rules):
        refuse_unsupported(rule, platform.release(), field=f"rules[{index}]")
    reach = Reach(kernel)
    routes = [_completed(route, index, reach, patient=patient) for index, route in enumerate(declaration.routes)]
    return dataclasses.replace(declaration, routes=tuple(route for route in routes if route is not None))


def why_unguarded(
    declaration: Declaration, guard: Guard | None, kernel: Readable, *, patient: bool
) -> NotSupported | None:
    """Why the host cannot have its egress guard; None if it can. Its C(value) is the program nft, if that is there.

    Raises NotSupported where more was stated than the default. At boot (C(patient)) the rest is not held up.
    """
    try:
        if guard is not None:
            kernel.guard(guard.table)
    except NotPermitted:
        return None  # nothing is loaded without privilege either
    except NotSupported as exc:
        _refuse_unguarded(declaration, exc, patient=patient)
        return exc
    return None


def unguarded_warning(why: NotSupported) -> str:
    """What is not promised without an egress guard."""
    return f"no egress guard: {why.line()}. {_NOT_PROMISED}"


def _refuse_unguarded(declaration: Declaration, exc: NotSupported, *, patient: bool) -> None:
    stated = {
        "strict_egress": declaration.strict_egress == "any",
        "strict_ingress": declaration.strict_ingress,
        "mark": declaration.mark is not None,
    }
    field = next((name for name, value in stated.items() if value), None)
    if field is not None and not patient:
        value = getattr(declaration, field)
        raise NotSupported(f"needs nft: {exc.msg}", field=field, value=value, accepted=exc.accepted) from exc


def _completed(route: Route, index: int, reach: Reach, *, patient: bool) -> Route | None:
    try:
        return reach.completed(route, field=f"routes[{index}]")
    except InvalidInput:
        if patient:
            return None
        raise


def refuse_foreign_links(wanted: t.Iterable[OwnLink], known: t.Container[str], kernel: Readable) -> None:
    """Refuse to take a device for ours that no set has made. Raises Conflict."""
    present = {link.name for link in kernel.links()}
    for link in wanted:
        if link.name in present and link.name not in known:
            raise Conflict(
                "is a device that somebody else has made",
                field="unbound_backstop",
                value=link.name,
                accepted="that name free for a device of our own",
            )


def refuse_lost_gotos(
    rules: t.Sequence[Rule], planned: t.Iterable[Rule], kernel: Readable, leaves: t.Callable[[Rule], bool]
) -> None:
    """Refuse a stated rule whose goto leads to no rule, present or planned. Those that C(leaves) names may be going."""
    present = [rule for family in FAMILY_NAMES for rule in kernel.rules(family)]
    known = {(rule.family, rule.priority) for rule in present if not leaves(rule)}
    known |= {(rule.family, rule.priority) for rule in planned}
    for index, rule in enumerate(rules):
        refuse_lost_goto(rule, known, field=f"rules[{index}].goto")


def refuse_lost_goto(rule: Rule, known: t.Container[tuple[int, int]], *, field: str = "goto") -> None:
    """Refuse a goto to a priority that C(known), pairs of family and priority, does not have."""
    if rule.goto is not None and (rule.family, rule.goto) not in known:
        accepted = f"the priority of an {FAMILY_NAMES[rule.family]} rule that exists"
        raise InvalidInput("leads to no rule", field=field, value=rule.goto, accepted=accepted)
