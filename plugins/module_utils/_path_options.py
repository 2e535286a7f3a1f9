# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Option C(paths): what a user writes of a flow, checked and normalised."""

from __future__ import annotations

import copy
import dataclasses
import typing as t

from ._errors import InvalidInput
from ._model import fields
from ._model.path import Expect, IdentityPaths, PathSpec
from ._model.route import TYPES
from ._model.state import Flow

UNCHANGED = "unchanged"
EXPECTED = ("identity", "dev", "gateway", "table", "src", "type")

# RTM_GETROUTE takes these alone (rtm_getroute_parse_ip_proto), each ICMP in its own family.
_TCP, _UDP = fields.PROTOCOLS["tcp"], fields.PROTOCOLS["udp"]
_LOOKED_UP = {4: {"tcp": _TCP, "udp": _UDP, "icmp": 1}, 6: {"tcp": _TCP, "udp": _UDP, "ipv6-icmp": 58}}

# For an argument specification; a value that is a mark, a port or a name is a string here and read below.
SPEC: dict[str, dict[str, t.Any]] = {
    "from": {"type": "str"},
    "to": {"type": "str", "required": True},
    "iif": {"type": "str"},
    "oif": {"type": "str"},
    "fwmark": {"type": "str"},
    "tos": {"type": "str"},
    "uid": {"type": "int"},
    "ipproto": {"type": "str"},
    "sport": {"type": "str"},
    "dport": {"type": "str"},
    "expect": {"type": "raw"},
}

Tables = t.Callable[[object, str], int]
Identities = t.Sequence[IdentityPaths]


def paths_spec(*, required: bool = False) -> dict[str, t.Any]:
    """Option C(paths) in an argument specification."""
    return {"type": "list", "elements": "dict", "required": required, "options": copy.deepcopy(SPEC)}


def keep_paths_spec() -> dict[str, t.Any]:
    """Option C(keep_paths): flows of which no more is expected than that they are answered as before."""
    return {"type": "list", "elements": "dict", "options": {k: dict(v) for k, v in SPEC.items() if k != "expect"}}


def parse_flow(
    params: t.Mapping[str, t.Any],
    field: str,
    identities: Identities,
    tables: Tables = fields.table_id,
    *,
    unchanged_allowed: bool = False,
) -> PathSpec:
    """One entry of C(paths). Raises InvalidInput, with C(field) (as C(paths[0])) ahead of the option's name.

    C(tables) turns a table's name or number into its number (_names.Names.table). The word C(unchanged) is accepted
    only where there is a before.
    """
    _known(params, tuple(SPEC), field)
    given = fields.Params(params, field)
    to = given.read("to", fields.address)
    if to is None:
        raise given.refuse("to", "is missing", "an address such as 192.0.2.1")
    family = fields.family_of(to)
    name, sources = _sources(given, family, identities)
    base = _flow(given, family, to)
    _check_combination(given, base, name)
    expect, unchanged = _expect(params.get("expect"), given.name("expect"), family, identities, tables)
    if unchanged and not unchanged_allowed:
        raise given.refuse("expect", "has no before to compare with here", f"a dictionary of {', '.join(EXPECTED)}")
    flows = tuple(dataclasses.replace(base, source=source) for source in sources)
    return PathSpec(field, family, to, params.get("from"), name, flows, expect, unchanged)


def _known(params: t.Mapping[str, t.Any], accepted: t.Sequence[str], field: str) -> None:
    for key in params:
        if key not in accepted:
            raise InvalidInput("is not an option", field=f"{field}.{key}", accepted=", ".join(accepted))


def _sources(given: fields.Params, family: int, identities: Identities) -> tuple[str | None, tuple[str | None, ...]]:
    """The identity that C(from) names, and the sources to ask for."""
    value = given.params.get("from")
    if value is None:
        return None, (None,)
    for identity in identities:
        if identity.name == value:
            return identity.name, tuple(each for each in identity.addresses if fields.family_of(each) == family)
    names = ", ".join(sorted(identity.name for identity in identities)) or "none of which is known"
    try:
        found = fields.address(value, given.name("from"))
    except InvalidInput:
        accepted = f"an address, or an identity: {names}"
        raise given.refuse("from", "is neither an address nor an identity", accepted) from None
    return None, (_of_family(found, family, given.name("from")),)


def _of_family(address: str, family: int, field: str) -> str:
    if fields.family_of(address) != family:
        accepted = f"an address of {fields.FAMILY_NAMES[family]}, as to is"
        raise InvalidInput("is of the other address family", field=field, value=address, accepted=accepted)
    return address


def _flow(given: fields.Params, family: int, to: str) -> Flow:
    return Flow(
        family=family,
        to=to,
        iif=given.read("iif", fields.device),
        oif=given.read("oif", fields.device),
        fwmark=given.number("fwmark", 0, fields.U32_MAX),
        tos=given.read("tos", fields.dsfield) or 0,
        uid=given.number("uid", 0, fields.U32_MAX - 1),
        ipproto=_ipproto(given, family),
        sport=given.number("sport", 1, 65535),
        dport=given.number("dport", 1, 65535),
    )


def _ipproto(given: fields.Params, family: int) -> int | None:
    found = given.read("ipproto", fields.ip_protocol)
    if found is not None and found not in _LOOKED_UP[family].values():
        raise given.refuse("ipproto", "cannot be looked up by the kernel", ", ".join(_LOOKED_UP[family]))
    return found


def _check_combination(given: fields.Params, flow: Flow, identity: str | None) -> None:
    for port in ("sport", "dport"):
        if given.given(port) and flow.ipproto not in (_TCP, _UDP):
            raise given.refuse(port, "needs a protocol with ports", "ipproto tcp or udp beside it")
    if flow.iif is None:
        return
    if flow.iif == "lo":
        raise given.refuse("iif", "is this host itself", "no iif")
    for other in ("oif", "uid"):
        if given.given(other):
            raise given.refuse(other, "cannot be known of a packet that is forwarded", f"either iif or {other}")
    if not given.given("from") or identity is not None:
        raise given.refuse("from", "is not the source of a packet that comes in", "the address of another host")


def _expect(
    value: object, field: str, family: int, identities: Identities, tables: Tables
) -> tuple[Expect | None, bool]:
    if value is None or value == UNCHANGED:
        return None, value == UNCHANGED
    if not isinstance(value, t.Mapping):
        accepted = f"a dictionary of {', '.join(EXPECTED)}"
        raise InvalidInput("is not a dictionary", field=field, value=value, accepted=accepted)
    _known(value, EXPECTED, field)
    given = fields.Params(value, field)
    src = given.read("src", fields.address)
    found = Expect(
        identity=given.read("identity", lambda name, where: _choice(name, where, [each.name for each in identities])),
        dev=given.read("dev", fields.device),
        gateway=given.read("gateway", _gateway),
        table=given.read("table", tables),
        src=None if src is None else _of_family(src, family, given.name("src")),
        type=given.read("type", lambda name, where: _choice(name, where, TYPES)),
    )
    return (None if found == Expect() else found), False


def _choice(value: object, field: str, accepted: t.Sequence[str]) -> str:
    return fields.choice(value, field, accepted or ("none is known",))


def _gateway(value: object, field: str) -> str:
    return "none" if value == "none" else fields.address(value, field)
