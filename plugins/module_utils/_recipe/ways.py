# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Identities become ways: one egress each, with the addresses, gateways and the table that belong to it."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import InvalidInput
from .._model.declaration import Declaration, Identity
from .._model.fields import family_of
from .facts import (
    Facts,
    Remembered,
    covers,
    error_routes,
    is_default,
    leaves_by_uplink,
    matching,
    roaming,
    server_routes,
    tunnel_device,
    tunnel_devices,
    uplink_devices,
)

RETIRED = 4  # addresses kept for each family
LOCAL = "local"  # the key of T_loc; no identity may have this name
NOWHERE = "none"  # of the table that leads nowhere; nor this one
BARRED = "keep"  # of the table with what main refuses; nor this one


@dataclasses.dataclass(frozen=True)
class Way:
    """One egress of one identity."""

    key: str  # the identity's name; for a further device of the same identity "name.device"
    identity: Identity
    device: str | None  # None: not known yet
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]  # at most one for each family
    table: int
    retired: tuple[str, ...] = ()  # addresses that a tunnel had before; sockets may still send from them
    by_uplink: bool = False  # a tunnel identity whose packets leave by an uplink: policy-based IPsec

    @property
    def tunnel_device(self) -> str | None:
        """The device that its VPN made, if it has one."""
        return self.device if self.identity.by_tunnel and not self.by_uplink else None

    def gateway(self, family: int) -> str | None:
        """The gateway in a family; None where the device needs none or none is known."""
        return next((gateway for gateway in self.gateways if family_of(gateway) == family), None)

    def in_family(self, family: int) -> list[str]:
        """Its addresses in a family."""
        return [address for address in self.addresses if family_of(address) == family]

    def as_result(self) -> dict[str, t.Any]:
        """What results and records show of it."""
        return {
            "key": self.key,
            "name": self.identity.name,
            "interface": self.device,
            "addresses": list(self.addresses),
            "pools": list(self.identity.pools),
            "gateways": list(self.gateways),
            "table": self.table,
        }


def tunnels_of(ways: t.Iterable[Way]) -> set[str]:
    """The devices that VPNs made."""
    return {way.tunnel_device for way in ways if way.tunnel_device is not None}


class SharedTables(t.NamedTuple):
    """The tables that belong to no way."""

    local: int  # T_loc
    nowhere: int | None = None  # if anything is to be closed
    barred: int | None = None  # if main refuses anything that a tunnel would take

    def by_key(self) -> dict[str, int]:
        """Their numbers as a record keeps them."""
        found = {LOCAL: self.local, NOWHERE: self.nowhere, BARRED: self.barred}
        return {key: number for key, number in found.items() if number is not None}


def find_ways(declaration: Declaration, facts: Facts) -> tuple[list[Way], SharedTables]:
    """The ways of all identities, and the numbers of the other tables."""
    tunnels = tunnel_devices(declaration, facts)
    egresses = [
        (key, identity, device)
        for identity in declaration.identities
        for key, device in _egresses(identity, facts, tunnels)
    ]
    tables = _Tables(declaration, facts)
    local = tables.number(LOCAL, None)
    ways = [_way(key, i, device, tables.number(key, i.table), declaration, facts) for key, i, device in egresses]
    closed = declaration.unbound_backstop or any(identity.pin for identity in declaration.identities)
    nowhere = tables.number(NOWHERE, None) if closed or main_ends(ways, facts) else None
    shared = SharedTables(local, nowhere, tables.number(BARRED, None) if _bars(declaration, facts) else None)
    _refuse_taken_tables(declaration, {**shared.by_key(), **{way.key: way.table for way in ways}})
    return ways, shared


def _refuse_taken_tables(declaration: Declaration, numbers: t.Mapping[str, int]) -> None:
    """What this host has for one of them keeps its number, which another cannot take."""
    for index, identity in enumerate(declaration.identities):
        others = [key for key, number in numbers.items() if number == identity.table and key != identity.name]
        if others:
            raise InvalidInput(
                f"is what this host has for {others[0]} already",
                field=f"identities[{index}].table",
                value=identity.table,
                accepted="a table that this set has for nothing else",
            )


def _bars(declaration: Declaration, facts: Facts) -> bool:
    """Whether main decides for unbound IPv6 traffic, refuses some of it, and a tunnel would take that."""
    by_main = declaration.unbound == "keep" or declaration.unbound_local == "main"
    tunnels = any(identity.by_tunnel and 6 in identity.families for identity in declaration.identities)
    return by_main and tunnels and bool(error_routes(facts, declaration.numbers.protocol))


def main_ends(ways: t.Iterable[Way], facts: Facts) -> bool:
    """Whether main has no way for some unbound IPv6 traffic, and a tunnel would take it."""
    leads = any(route.family == 6 and is_default(route) for route in facts.main)
    return not leads and any(way.identity.by_tunnel and way.in_family(6) for way in ways)


def uplinks_of(ways: t.Sequence[Way], facts: Facts) -> list[str]:
    """The uplinks' devices: of the identities, else of main's default."""
    named = [way.device for way in ways if not way.identity.by_tunnel and way.device]
    return list(dict.fromkeys([*named, *uplink_devices(facts, tunnels_of(ways))]))


def _egresses(identity: Identity, facts: Facts, tunnels: t.Collection[str]) -> list[tuple[str, str | None]]:
    if identity.by_tunnel:
        return [(identity.name, tunnel_device(identity, facts))]
    patterns = identity.interface or ("auto",)
    if patterns == ("auto",):
        devices = _claimed(identity, facts) or uplink_devices(facts, tunnels)
    else:
        devices = [device for device in matching(facts, patterns) if device not in tunnels]
    last = facts.remembered.get(identity.name)
    first = devices[0] if devices else (last.device if last else None)
    return [(identity.name, first), *((f"{identity.name}.{device}", device) for device in devices[1:])]


def _claimed(identity: Identity, facts: Facts) -> list[str]:
    """The devices that hold the addresses an uplink identity states; with them no default needs to be found."""
    return list(dict.fromkeys(a.dev for a in facts.addresses if a.address in identity.addresses and a.dev != "lo"))


def _way(key: str, identity: Identity, device: str | None, table: int, declaration: Declaration, facts: Facts) -> Way:
    last = facts.remembered.get(key)
    if identity.by_tunnel:
        addresses = _tunnel_addresses(identity, device, facts)
    else:
        addresses = _uplink_addresses(identity, device, declaration, facts)
    addresses = (*addresses, *_missed(identity, addresses, last, facts))
    addresses = tuple(a for a in addresses if family_of(a) in identity.families)
    retired = _retired(identity, addresses, last, facts)
    way = Way(key, identity, device, addresses, (), table, retired, leaves_by_uplink(identity, device, facts))
    return dataclasses.replace(way, gateways=_gateways(way, facts, last))


def _retired(identity: Identity, addresses: t.Sequence[str], last: Remembered | None, facts: Facts) -> tuple[str, ...]:
    """The addresses that a tunnel had before: IPv6 sockets keep sending from them, and without a rule by the uplink.

    The last few of each family, not those of the last minutes: a run must not depend on when it comes. Whoever holds
    such an address now has it for himself.
    """
    if last is None or identity.addresses or not identity.by_tunnel:
        return ()
    earlier = dict.fromkeys((*last.addresses, *last.retired))
    held = {address.address for address in facts.addresses}
    past = [a for a in earlier if a not in addresses and a not in held and family_of(a) in identity.families]
    return tuple(a for family in (4, 6) for a in [p for p in past if family_of(p) == family][:RETIRED])


def _missed(identity: Identity, found: t.Sequence[str], last: Remembered | None, facts: Facts) -> t.Sequence[str]:
    """The last known addresses where there are none now: the rules of a VPN that is down stay, and its backstop.

    A tunnel gets its addresses one family after the other; sockets of the second one may still be sending.
    """
    if last is None or not found:
        return last.addresses if last else ()
    if identity.addresses or not identity.by_tunnel:
        return ()
    families = {family_of(address) for address in found}
    return [a for a in last.addresses if family_of(a) not in families and not facts.is_local(a)]


def _tunnel_addresses(identity: Identity, device: str | None, facts: Facts) -> tuple[str, ...]:
    if identity.addresses:
        return identity.addresses
    if identity.address_interface == ("any",) or (identity.found_by_address and not identity.address_interface):
        return tuple(address.address for address in roaming(identity, facts))
    holders = matching(facts, identity.address_interface) if identity.address_interface else [device or ""]
    return tuple(a.address for holder in holders for family in (4, 6) for a in facts.on(holder, family))


def _uplink_addresses(
    identity: Identity, device: str | None, declaration: Declaration, facts: Facts
) -> tuple[str, ...]:
    """What sits on the uplink belongs to it, even inside another's pool, unless that one says otherwise."""
    found = [a.address for family in (4, 6) for a in facts.on(device or "", family)]
    if identity.addresses:
        _refuse_never_seen(identity, facts)
        return tuple(a for a in identity.addresses if a in found)
    others = [other for other in declaration.identities if other is not identity]
    claimed = {address for other in others for address in other.addresses}
    claimed |= {a for other in others for a in _sitting_on(other, device, facts)}
    return tuple(a for a in found if a not in claimed)


def _sitting_on(identity: Identity, device: str | None, facts: Facts) -> list[str]:
    """The addresses of a tunnel identity that may sit on this uplink and do."""
    if identity.by_tunnel and device is not None and device in identity.address_interface:
        return [a.address for a in facts.addresses if a.dev == device and covers(identity.pools, a.address)]
    return [address.address for address in roaming(identity, facts)]


def may_sit_on(identity: Identity, device: str | None) -> bool:
    """Whether a tunnel identity says that its addresses may sit on this uplink."""
    return identity.by_tunnel and (
        identity.address_interface == ("any",) or (device is not None and device in identity.address_interface)
    )


def _refuse_never_seen(identity: Identity, facts: Facts) -> None:
    known = {address for last in facts.remembered.values() for address in last.addresses}
    for address in identity.addresses:
        if address not in known and not any(a.address == address for a in facts.addresses):
            raise InvalidInput(
                "is not on this host (a cloud's elastic address is not; name the private one)",
                field=f"identity {identity.name}: addresses",
                value=address,
                accepted="an address of one of its devices",
            )


def _gateways(way: Way, facts: Facts, last: Remembered | None) -> tuple[str, ...]:
    found = (_gateway(way, family, facts, last) for family in way.identity.families)
    return tuple(gateway for gateway in found if gateway is not None)


def _gateway(way: Way, family: int, facts: Facts, last: Remembered | None) -> str | None:
    """Stated; else main's default, a VPN client's host route, lease or RA, or what was known for the same addresses.

    Also where one is stated for the other family alone: that says nothing about this one.
    """
    stated = way.identity.gateway_in(family)
    if stated and last is None:
        _refuse_lacking_family(way, family, stated)
    through = way.identity.by_tunnel and not way.by_uplink
    if stated or through or way.identity.gateway == ("none",):
        return stated
    defaults = [r for r in facts.defaults(family) if r.dev == way.device]
    if defaults:
        _refuse_other_family(way, family, defaults[0].gateway)
        return defaults[0].gateway
    hints = [r.gateway for r in server_routes(facts, family) if r.dev == way.device]
    leases = [g for g in facts.leases.get(way.device or "", ()) if family_of(g) == family]
    known = [g for g in last.gateways if family_of(g) == family] if last and _same_place(last, way, family) else []
    found = next(iter([*hints, *leases, *known]), None)
    if found is None and way.identity.gateway == ("auto",):
        _refuse_guess(way, family, facts)
    return found


def _refuse_other_family(way: Way, family: int, gateway: str | None) -> None:
    """An IPv4 default `via inet6`: the table would get no default, and the backstop would cut the address off."""
    if gateway is not None and family_of(gateway) != family and way.in_family(family):
        raise InvalidInput(
            f"finds only a gateway of the other family on {way.device}: {gateway}",
            field=f"identity {way.identity.name}: gateway",
            value="auto",
            accepted=f"an IPv{family} gateway",
        )


def _refuse_lacking_family(way: Way, family: int, gateway: str) -> None:
    """Of a host that is declared for the first time; later an address may be away for a while, as at boot."""
    known = {family_of(text) for text in (*way.addresses, *way.identity.pools)}
    if known and family not in known:
        raise InvalidInput(
            "is of a family in which the identity has no address",
            field=f"identity {way.identity.name}: gateway",
            value=gateway,
            accepted=", ".join(f"an IPv{each} address" for each in sorted(known)),
        )


def _same_place(last: Remembered, way: Way, family: int) -> bool:
    before = {address for address in last.addresses if family_of(address) == family}
    return last.device == way.device and bool(before & set(way.in_family(family)))


def _refuse_guess(way: Way, family: int, facts: Facts) -> None:
    """Without a gateway the address would lose what main gives it by another uplink today."""
    # A nexthop object that the kernel does not explain may be this device's as well as another's.
    elsewhere = [r for r in facts.defaults(family) if r.dev is None or (r.gateway and r.dev != way.device)]
    if way.in_family(family) and elsewhere:
        raise InvalidInput(
            f"finds no gateway on {way.device} in main, lease or router advertisement (IPv{family})",
            field=f"identity {way.identity.name}: gateway",
            value="auto",
            accepted="the gateway's address, or none for a device without neighbours",
        )


class _Tables:
    """Table numbers: explicit wins, else what this host has for that identity, else the next free."""

    def __init__(self, declaration: Declaration, facts: Facts) -> None:
        self._base = declaration.numbers.table_base
        self._facts = facts
        stated = {identity.table for identity in declaration.identities if identity.table is not None}
        remembered = {last.table for last in facts.remembered.values()}
        self._taken = stated | remembered | {number for _name, number in declaration.tables}

    def number(self, key: str, stated: int | None) -> int:
        """The table of a way."""
        if stated is not None and "." not in key:
            return stated
        last = self._facts.remembered.get(key)
        number = last.table if last else self._next()
        self._taken.add(number)
        return number

    def _next(self) -> int:
        number = self._base
        while number in self._taken or not self._facts.is_free(number):
            number += 1
        return number
