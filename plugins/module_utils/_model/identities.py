# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Identities as they are written: read, and checked each by itself and all against each other."""

from __future__ import annotations

import ipaddress
import typing as t

from .._errors import InvalidInput
from . import fields
from .declaration import (
    NAME,
    RESERVED,
    TUNNEL_TYPES,
    Identity,
    Network,
    Outer,
    Params,
    Pin,
    Tables,
    Tunnel,
)
from .fields import family_of
from .route import ADVMSS_MAX, MTU, MTU_MAX
from .rule import Rule

CONNECTION = 200  # bytes: files and units are named after it, and a name has 255 with what they put around it
BROADCAST = ipaddress.ip_address("255.255.255.255")
# tailscaled's usual device, and what it sets on its own sockets.
TAILSCALE, TAILSCALE_DEVICE, TAILSCALE_MARK = "tailscale", "tailscale0", "0x80000/0xff0000"


def parse_identities(entries: t.Sequence[Params], tables: Tables) -> tuple[Identity, ...]:
    """The identities that a user wrote, each right in itself and none at odds with another. Raises InvalidInput."""
    identities = tuple(parse_identity(entry, f"identities[{index}]", tables) for index, entry in enumerate(entries))
    _refuse_shared(identities, "name", lambda identity: [identity.name])
    _refuse_shared(identities, "addresses", lambda identity: list(identity.addresses))
    _refuse_shared(identities, "table", lambda identity: [identity.table] if identity.table else [])
    _refuse_shared(identities, "priority", lambda identity: [identity.priority] if identity.priority else [])
    _refuse_overlaps(identities)
    _refuse_overlapping_pins(identities)
    return identities


def parse_identity(entry: Params, field: str, tables: Tables) -> Identity:
    """One identity, right in itself."""
    given = {key: value for key, value in entry.items() if value is not None}
    table = given.get("table")
    tunnel = _tunnel(given.get("tunnel"), f"{field}.tunnel")
    families = tuple(int(family[-1]) for family in given.get("families") or ("ipv4", "ipv6"))
    numbers = fields.Params(given, field)
    identity = Identity(
        name=parse_name(given.get("name"), f"{field}.name"),
        tunnel=tunnel,
        interface=_devices(given.get("interface"), f"{field}.interface", "auto"),
        address_interface=_devices(given.get("address_interface"), f"{field}.address_interface", "any"),
        addresses=tuple(dict.fromkeys(_address(a, f"{field}.addresses") for a in given.get("addresses") or ())),
        pools=tuple(dict.fromkeys(_pool(p, f"{field}.pools") for p in given.get("pools") or ())),
        gateway=_gateways(given.get("gateway"), f"{field}.gateway"),
        table=None if table is None else _own_table(tables(table, f"{field}.table"), f"{field}.table"),
        priority=fields.priority(given["priority"], f"{field}.priority") if "priority" in given else None,
        backstop=given.get("backstop", True),
        required=given.get("required", False),
        destinations=tuple(_prefix(d, f"{field}.destinations") for d in given.get("destinations") or ()),
        destinations_backstop=given.get("destinations_backstop", False),
        outer=_outer(given.get("outer") or _known_outer(tunnel), f"{field}.outer"),
        mtu=numbers.number("mtu", MTU[max(families)], MTU_MAX),
        advmss=numbers.number("advmss", 1, ADVMSS_MAX),
        pin=tuple(_pin(entry, f"{field}.pin[{index}]") for index, entry in enumerate(given.get("pin") or ())),
        follow_connections=given.get("follow_connections", False),
        families=families,
    )
    _check_identity(identity, field)
    return identity


def parse_name(value: object, field: str) -> str:
    """A name that is safe in file names, table names and reports."""
    name = "" if value is None else str(value)
    accepted = "a letter, then up to 31 letters, digits, _ or -"
    if not NAME.match(name):
        raise InvalidInput("is no name", field=field, value=name, accepted=accepted)
    if name in RESERVED:
        raise InvalidInput(
            "is a reserved name", field=field, value=name, accepted=f"{accepted}; not {', '.join(RESERVED)}"
        )
    return name


def _check_identity(identity: Identity, field: str) -> None:
    if not (identity.addresses or identity.pools or identity.interface or identity.tunnel):
        raise InvalidInput(
            "has nothing to be found by",
            field=field,
            value=identity.name,
            accepted="at least one of addresses, pools, interface, tunnel",
        )
    if identity.found_by_address and not (identity.addresses or identity.pools):
        raise InvalidInput(
            "has a device that is found by its addresses, and none are given",
            field=field,
            value=identity.name,
            accepted="at least one of addresses, pools, interface",
        )
    if identity.pools and not identity.by_tunnel:
        raise InvalidInput(
            "is of no use to an uplink, whose addresses are found on its device",
            field=f"{field}.pools",
            value=", ".join(identity.pools),
            accepted="pools of an identity with tunnel, or with gateway: none",
        )
    known = {family_of(text) for text in (*identity.addresses, *identity.pools)}
    for family in known - set(identity.families):
        raise InvalidInput(f"has an IPv{family} address", field=f"{field}.families", value=_names(identity.families))
    possible = known or set(identity.families)
    for gateway in identity.gateway:
        if gateway not in ("auto", "none") and family_of(gateway) not in possible:
            raise InvalidInput(
                "is of a family in which the identity has no address",
                field=f"{field}.gateway",
                value=gateway,
                accepted=", ".join(f"an IPv{family} address" for family in sorted(possible)),
            )


def _names(families: t.Iterable[int]) -> str:
    return ", ".join(f"ipv{family}" for family in families)


def _tunnel(value: Params | None, field: str) -> Tunnel | None:
    if not value:
        return None
    given = {key: item for key, item in value.items() if item is not None}
    if given.get("type") not in TUNNEL_TYPES:
        raise InvalidInput(
            "is no known tunnel type", field=f"{field}.type", value=given.get("type"), accepted=", ".join(TUNNEL_TYPES)
        )
    connection = given.get("connection")
    if connection is not None and not _is_file_name(connection):
        raise InvalidInput(
            "is no connection name",
            field=f"{field}.connection",
            value=connection,
            accepted=f"1 to {CONNECTION} bytes without /",
        )
    return Tunnel(**given)


def _is_file_name(name: str) -> bool:
    """What is not printable is a NUL, another control character, or half of a surrogate pair."""
    plain = name.isprintable() and "/" not in name and name not in ("", ".", "..")
    return plain and len(name.encode()) <= CONNECTION


def _devices(value: t.Sequence[str] | None, field: str, word: str) -> tuple[str, ...]:
    devices = tuple(value or ())
    for device in devices:
        if not fields.is_device(device):
            raise InvalidInput("is no device name", field=field, value=device, accepted=f"{fields.DEVICE}, or {word}")
    if word in devices and len(devices) > 1:
        raise InvalidInput("stands alone", field=field, value=list(devices), accepted=f"{word}, or names and patterns")
    return devices


def _address(value: object, field: str) -> str:
    """An address that a device may have; a length as `ip addr` prints it is dropped."""
    address = fields.interface_address(value, field)
    found = ipaddress.ip_address(address)
    if found.is_unspecified or found.is_multicast or found == BROADCAST:
        raise InvalidInput("is no address of a device", field=field, value=value, accepted="an address of one host")
    return address


def _pool(value: object, field: str) -> str:
    """A prefix that addresses come from. What has no source yet has the unspecified one, and is not the tunnel's."""
    prefix = _prefix(value, field)
    pool = ipaddress.ip_network(prefix)
    if pool.network_address.is_unspecified:
        accepted = "a prefix without the unspecified address"
        raise InvalidInput("holds what has no address yet", field=field, value=value, accepted=accepted)
    if pool.is_multicast or pool.network_address == BROADCAST:
        raise InvalidInput("holds no address of a device", field=field, value=value, accepted="a prefix of hosts")
    return prefix


def _prefix(value: object, field: str) -> str:
    """A prefix that names somewhere: one of length zero would take everything."""
    prefix = fields.prefix(value, field)
    if prefix.endswith("/0"):
        raise InvalidInput("covers every address", field=field, value=value, accepted="a prefix of length 1 or more")
    return prefix


def _gateways(value: t.Sequence[str] | None, field: str) -> tuple[str, ...]:
    gateways = tuple(value or ("auto",))
    if len(gateways) > 1 and ({"auto", "none"} & set(gateways)):
        raise InvalidInput(
            "stands alone", field=field, value=list(gateways), accepted="auto, none, or one address for each family"
        )
    stated = [g if g in ("auto", "none") else fields.address(g, field) for g in gateways]
    if len({family_of(g) for g in stated}) < len(stated):
        raise InvalidInput(
            "is a second gateway of one family", field=field, value=stated[-1], accepted="one address for each family"
        )
    return tuple(stated)


def _own_table(number: int, field: str) -> int:
    if number in fields.RESERVED_TABLES.values():
        raise InvalidInput("is a table of the kernel", field=field, value=number, accepted="a table of its own")
    return number


def _outer(value: Params, field: str) -> Outer:
    """The mark or the user ids of a tunnel's own packets, read by the same rules as those of a policy rule."""
    given = {key: item for key, item in value.items() if item is not None}
    if not given:
        return Outer()
    rule = Rule.from_params({"family": "ipv4", "priority": 1, "action": "nop", **given}, field=field)
    mark = None if rule.fwmark is None else (rule.fwmark, 0xFFFFFFFF if rule.fwmask is None else rule.fwmask)
    return Outer(mark, rule.uidrange)


def _pin(value: Params, field: str) -> Pin:
    """What a pin selects, read by the same rules as a policy rule."""
    given = {key: item for key, item in value.items() if item is not None}
    if not given:
        raise InvalidInput("selects nothing", field=field, accepted="ipproto with sport, uidrange, or both")
    rule = Rule.from_params({"family": "ipv4", "priority": 1, "action": "nop", **given}, field=field)
    if rule.uidrange is not None and rule.uidrange[0] == 0:
        raise InvalidInput(
            "holds user 0, and so all that the kernel itself sends",
            field=f"{field}.uidrange",
            value=given["uidrange"],
            accepted="users other than root, or ipproto with sport",
        )
    return Pin(rule.ipproto, rule.sport, rule.uidrange)


def _refuse_overlapping_pins(identities: t.Sequence[Identity]) -> None:
    pins = [
        (identity, f"identities[{index}].pin[{place}]", pin)
        for index, identity in enumerate(identities)
        for place, pin in enumerate(identity.pin)
    ]
    for position, (_identity, field, pin) in enumerate(pins):
        for other, _field, earlier in pins[:position]:
            if pin.overlaps(earlier):
                raise InvalidInput(
                    f"selects what a pin of identity {other.name} selects",
                    field=field,
                    value=pin.text(),
                    accepted="pins that no packet matches twice",
                )


def _known_outer(tunnel: Tunnel | None) -> Params:
    """The mark that a client always sets on its own packets, whatever its configuration says."""
    words = () if tunnel is None else (tunnel.manager, tunnel.connection)
    return {"fwmark": TAILSCALE_MARK} if TAILSCALE in words or TAILSCALE_DEVICE in words else {}


def _refuse_shared(
    identities: t.Sequence[Identity], key: str, values: t.Callable[[Identity], t.Sequence[object]]
) -> None:
    owners: dict[object, str] = {}
    for index, identity in enumerate(identities):
        for value in values(identity):
            if value in owners:
                raise InvalidInput(
                    f"is claimed by identity {owners[value]} already",
                    field=f"identities[{index}].{key}",
                    value=value,
                    accepted="one that no other identity claims",
                )
            owners[value] = identity.name


def _refuse_overlaps(identities: t.Sequence[Identity]) -> None:
    pools = [
        (identity, index, ipaddress.ip_network(pool))
        for index, identity in enumerate(identities)
        for pool in identity.pools
    ]
    for position, (identity, index, pool) in enumerate(pools):
        for other, _index, earlier in pools[:position]:
            if other is not identity and _overlap(pool, earlier):
                raise InvalidInput(
                    f"overlaps {earlier} of identity {other.name}",
                    field=f"identities[{index}].pools",
                    value=str(pool),
                    accepted="pools that share no address",
                )


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(t.cast(t.Any, other))
