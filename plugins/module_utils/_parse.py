# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The options of module endpoint become one declaration. What can be refused without a host is refused here."""

from __future__ import annotations

import dataclasses
import typing as t

from ._errors import InvalidInput
from ._model import fields
from ._model.declaration import STRICT_EGRESS, Declaration, Numbers, Params, Tables
from ._model.identities import parse_identities
from ._model.route import Route
from ._model.rule import Rule, marks_meet
from ._model.table import Table


def parse_declaration(name: str, params: Params, numbers: Numbers, tables: Tables) -> Declaration:
    """The declaration that a user wrote. C(tables) resolves table names that the host knows already."""
    named = _named_tables(params.get("tables") or ())

    def resolve(value: object, field: str) -> int:
        return named[str(value)] if str(value) in named else tables(value, field)

    declaration = Declaration(
        name=name,
        identities=parse_identities(params.get("identities") or (), resolve),
        rules=tuple(
            dataclasses.replace(
                Rule.from_params(entry, field=f"rules[{index}]", tables=resolve), protocol=numbers.protocol
            )
            for index, entry in enumerate(params.get("rules") or ())
        ),
        routes=tuple(
            dataclasses.replace(
                Route.from_params(entry, field=f"routes[{index}]", tables=resolve), protocol=numbers.protocol
            )
            for index, entry in enumerate(params.get("routes") or ())
        ),
        tables=tuple(named.items()),
        local_networks=_local_networks(params.get("local_networks")),
        unbound=params.get("unbound") or "keep",
        unbound_local=params.get("unbound_local") or "none",
        unbound_forwarded=tuple(params.get("unbound_forwarded") or ()),
        unbound_backstop=bool(params.get("unbound_backstop")),
        mark=_mark(params.get("mark")),
        sysctls=tuple(dict.fromkeys(params.get("sysctls") or ())),
        strict_egress=_strict_egress(params.get("strict_egress")),
        strict_ingress=bool(params.get("strict_ingress")),
        numbers=numbers,
    )
    if declaration.unbound_backstop and declaration.unbound == "keep":
        raise InvalidInput(
            "would close what main decides",
            field="unbound_backstop",
            value=True,
            accepted="unbound with the name of an identity",
        )
    _check_marks(declaration)
    _refuse_twice(declaration)
    return declaration


def _named_tables(entries: t.Sequence[Params]) -> dict[str, int]:
    """Names that the declaration itself gives to tables."""
    named: dict[str, int] = {}
    for index, entry in enumerate(entries):
        table = Table.from_params(entry, field=f"tables[{index}]")
        name, number = table.name, table.id
        if named.get(name, number) != number:
            raise InvalidInput("names two tables", field=f"tables[{index}].name", value=name, accepted="one id")
        named[name] = number
    return named


def _local_networks(value: t.Sequence[str] | None) -> tuple[str, ...]:
    """Devices, patterns, prefixes, or C(auto)."""
    networks = []
    for index, entry in enumerate(("auto",) if value is None else value):
        field = f"local_networks[{index}]"
        if "/" in entry:
            networks.append(fields.prefix(entry, field))
        elif fields.is_device(entry):
            networks.append(entry)
        else:
            raise InvalidInput(
                "is no network", field=field, value=entry, accepted="a device, a pattern, a prefix, auto"
            )
    return tuple(networks)


def _strict_egress(value: object) -> str:
    """A truth value, or C(any)."""
    stated = "true" if value is None else str(value).lower()
    if stated not in STRICT_EGRESS:
        raise InvalidInput("is none of them", field="strict_egress", value=value, accepted=", ".join(STRICT_EGRESS))
    return stated


def _mark(value: object) -> tuple[int, int] | None:
    """Our marks are always masked: the other bits belong to other programs."""
    if value is None:
        return None
    first, mask = fields.mark(value, "mark")
    if mask == fields.U32_MAX:
        raise InvalidInput("has no mask", field="mark", value=value, accepted="MARK/MASK such as 0x1000000/0xf000000")
    if first == 0:
        raise InvalidInput("is what every packet has", field="mark", value=value, accepted="a mark other than 0")
    return first, mask


def _check_marks(declaration: Declaration) -> None:
    followed = next((identity for identity in declaration.identities if identity.follow_connections), None)
    if followed is not None and declaration.mark is None:
        raise InvalidInput(
            "needs a mark",
            field=f"identity {followed.name}: follow_connections",
            value=True,
            accepted="mark: MARK/MASK such as 0x1000000/0xf000000",
        )
    for identity in declaration.identities:
        if declaration.mark is not None and identity.outer.fwmark is not None:
            bits, mask = identity.outer.fwmark
            if marks_meet(Rule(4, 1, action="nop", fwmark=bits, fwmask=mask), declaration.mark[1]):
                raise InvalidInput(
                    f"has bits of outer.fwmark of identity {identity.name}",
                    field="mark",
                    value=f"{declaration.mark[0]:#x}/{declaration.mark[1]:#x}",
                    accepted="a mask that shares no bits with it",
                )


def _refuse_twice(declaration: Declaration) -> None:
    seen = set()
    for index, route in enumerate(declaration.routes):
        if route.key in seen:
            raise InvalidInput(
                "has the table, destination, tos and metric of another one",
                field=f"routes[{index}]",
                value=route.text(),
                accepted="each key once",
            )
        seen.add(route.key)
