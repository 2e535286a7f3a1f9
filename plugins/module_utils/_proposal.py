# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The declaration that a host without one could have. Pure: values in, identities and remarks out.

What can be found out at each run is left to be found out, so that one declaration stays right. What the host does not
tell is not guessed: a remark says what somebody who knows has to decide.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from ._model.declaration import NAME, RESERVED, Numbers
from ._model.fields import DEFAULT, FAMILY_NAMES
from ._model.rule import Rule
from ._recipe.block import BLOCK
from ._recipe.facts import (
    LINK_SCOPE,
    LOOPBACK,
    MAIN,
    covers,
    devices_of,
    uplink_devices,
)
from ._seen import Seen, by_source_alone, is_address

if t.TYPE_CHECKING:
    from ._tunnels.client import Client

INTERNAL_KINDS = ("bridge", "dummy", "vrf")
HALVES = ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1", "2000::/3")


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Options of module endpoint, and what they leave open, a line each."""

    declaration: dict[str, t.Any]
    remarks: tuple[str, ...]

    def as_result(self) -> dict[str, t.Any]:
        """As module endpoint_info returns it."""
        return {"declaration": self.declaration, "remarks": list(self.remarks)}


@dataclasses.dataclass(frozen=True)
class _Way:
    """An identity to be, by the device that it leaves by. Its remarks begin with its name."""

    device: str
    entry: dict[str, t.Any]
    sources: tuple[str, ...] = ()  # addresses and pools that it is about
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.entry["name"])


def propose(seen: Seen) -> Proposal:
    """What this host could declare."""
    uplinks = seen.uplinks()
    tunnels = [device for device in seen.tunnels() if device not in uplinks]
    ways = [*_uplink_ways(seen, uplinks), *_tunnel_ways(seen, tunnels), *_policy_based(seen, tunnels)]
    replaced = [(rule, way) for rule in seen.rules for way in ways if _does(way, rule, seen)]
    numbers = _ahead_of([rule for rule, _way in replaced])
    adopted = {} if numbers else _same_tables(replaced)
    remarks = [
        *(f"{way.name}: {remark}" for way in ways for remark in way.remarks),
        *_missing(uplinks, ways),
        *_unknown(seen, [*uplinks, *tunnels]),
        *_unbound(seen, tunnels),
        *_placed(numbers, adopted),
        *(_about(rule, seen, ways, numbers.get("priority_base", Numbers.priority_base)) for rule in seen.rules),
    ]
    declaration = {
        "identities": [{**way.entry, **adopted.get(way.name, {})} for way in ways],
        **({"numbers": numbers} if numbers else {}),
        **({"adopt": True} if adopted else {}),
    }
    return Proposal(declaration, tuple(dict.fromkeys(remarks)))


# --- identities ------------------------------------------------------------------------------------------------------


def _uplink_ways(seen: Seen, uplinks: t.Sequence[str]) -> t.Iterator[_Way]:
    for device in uplinks:
        alone = len(uplinks) == 1
        entry: dict[str, t.Any] = {
            "name": "outside" if alone else _name(device),
            "interface": "auto" if alone and uplink_devices(seen.facts, ()) == [device] else device,
        }
        told, gateways = seen.told_families(device), seen.stated_gateways(device)
        silent = {address.family for address in seen.beyond(device)} - told - set(gateways)
        if gateways:
            entry["gateway"] = list(gateways.values())
        if silent:
            entry["families"] = [FAMILY_NAMES[family] for family in FAMILY_NAMES if family not in silent]
        remarks = tuple(_open_uplink(device, sorted(silent), by_look=seen.is_tunnel(device)))
        yield _Way(device, entry, tuple(address.address for address in seen.beyond(device)), remarks)


def _open_uplink(device: str, silent: t.Iterable[int], *, by_look: bool) -> t.Iterator[str]:
    """What is not known of an uplink."""
    if by_look:
        yield f"{device} looks like a tunnel, and is taken for the uplink since main has no other default"
    for family in silent:
        yield f"{device} has addresses of IPv{family} and no gateway is known there: add it, and the family to families"


def _tunnel_ways(seen: Seen, tunnels: t.Sequence[str]) -> t.Iterator[_Way]:
    for device in tunnels:
        entry: dict[str, t.Any] = {"name": "inside" if len(tunnels) == 1 else _name(device)}
        client = seen.clients.get(device)
        entry.update(_tunnel(client, device) if client else {"interface": device, "gateway": "none"})
        claims = seen.claims(device)
        pools = [claim for claim in claims if not is_address(claim)]
        elsewhere = _elsewhere(seen, device, [claim.partition("/")[0] for claim in claims if is_address(claim)])
        if pools:
            entry["pools"] = pools
        if elsewhere:
            entry.update(addresses=elsewhere, address_interface="any")
        own = [address.address for address in seen.beyond(device)]
        yield _Way(device, entry, (*own, *elsewhere, *pools), tuple(_open(seen, device, client, pools)))


def _tunnel(client: Client, device: str) -> dict[str, t.Any]:
    """The tunnel as it is declared; the device only where it would not be found."""
    tunnel = {"type": client.type, **({"connection": client.connection} if client.connection else {})}
    found = client.interface == device and client.connection
    return {"tunnel": tunnel} if found else {"tunnel": tunnel, "interface": device}


def _elsewhere(seen: Seen, device: str, claimed: t.Iterable[str]) -> list[str]:
    """Addresses that hand-made rules send by a device, and that sit on another."""
    own = {address.address for address in seen.beyond(device)}
    elsewhere = [address for address in claimed if address not in own and seen.facts.is_local(address)]
    return [*sorted(own), *elsewhere] if elsewhere else []


def _open(seen: Seen, device: str, client: Client | None, pools: t.Collection[str]) -> t.Iterator[str]:
    """What is not known of a tunnel."""
    if client is None or (client.type == "overlay" and client.manager is None):
        yield f"it is not known what makes {device}; state the tunnel's type and connection if you know it"
    if client is not None and client.takes_over:
        yield (
            f"{client.connection} has a peer with /0, and wg-quick would set its own rules ahead of all others: role"
            " endpoint starts it with Table = off if tunnel.apply is restart, otherwise at its next start"
        )
    if not pools and not (client and client.type == "wireguard"):
        held = ", ".join(f"{a.address}/{a.prefixlen}" for a in seen.beyond(device))
        yield (
            f"state as pools where the VPN gives its addresses from ({device} has {held or 'none'}), so that nothing"
            " of a new address leaks before it is known"
        )


def _policy_based(seen: Seen, tunnels: t.Collection[str]) -> t.Iterator[_Way]:
    """IPsec without a device: the addresses of its policies, wherever they sit."""
    local = [p.src.partition("/")[0] for p in seen.policies if not p.if_id and is_address(p.src)]
    found = [a for a in dict.fromkeys(local) if seen.holder(a) not in (None, *tunnels)]
    if found:
        entry = {
            "name": "inside" if not tunnels else "ipsec",
            "tunnel": {"type": "ipsec"},
            "interface": "auto",
            "address_interface": "any",
            "addresses": found,
        }
        remark = "it is IPsec by policies; state pools in place of addresses if the gateway gives them"
        yield _Way("", entry, tuple(found), (remark,))


def _name(device: str) -> str:
    """A name of the kind that identities may have."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", device)
    return name if NAME.match(name) and name not in RESERVED else f"dev_{name}"


# --- hand-made rules that identities replace --------------------------------------------------------------------------


def _ahead_of(rules: t.Iterable[Rule]) -> dict[str, int]:
    """Where the block of the set has to begin, so that it is asked before these. Nothing where it is, or cannot be."""
    first = min((rule.priority for rule in rules), default=Numbers.priority_base + BLOCK)
    if first >= Numbers.priority_base + BLOCK or first <= BLOCK:
        return {}
    return {"priority_base": first - BLOCK}


def _same_tables(replaced: t.Iterable[tuple[Rule, _Way]]) -> dict[str, dict[str, t.Any]]:
    """For what is asked before any block can be: the identity takes over the table, so that both say the same."""
    early = [(rule, way) for rule, way in replaced if rule.priority <= BLOCK]
    tables: dict[str, set[int | None]] = {way.name: set() for _rule, way in early}
    for rule, way in early:
        tables[way.name].add(rule.table)
    return {name: {"table": str(numbers.pop())} for name, numbers in tables.items() if len(numbers) == 1}


def _placed(numbers: t.Mapping[str, int], adopted: t.Mapping[str, t.Mapping[str, str]]) -> t.Iterator[str]:
    """Why a declaration has numbers that nobody would have given it."""
    if numbers:
        yield f"the set begins at priority {numbers['priority_base']}, ahead of the hand-made rules that it replaces"
    for name, entry in adopted.items():
        yield (
            f"{name}: it takes table {entry['table']} over, since a hand-made rule looks that up before any set can be"
            " asked"
        )


# --- remarks ---------------------------------------------------------------------------------------------------------


def _missing(uplinks: t.Collection[str], ways: t.Collection[_Way]) -> t.Iterator[str]:
    if not uplinks:
        yield "no uplink was found: main has no default, and no device a lease"
    if len(uplinks) == len(ways):
        yield "no tunnel was found: if the host has a VPN, look again while it is connected"


def _unknown(seen: Seen, known: t.Collection[str]) -> t.Iterator[str]:
    """Devices that may be uplinks, and of which nobody tells the gateway."""
    for link in seen.facts.links:
        held = [f"{a.address}/{a.prefixlen}" for a in seen.beyond(link.name) if a.scope != LINK_SCOPE]
        apart = link.name in (*known, LOOPBACK) or link.master is not None or link.kind in INTERNAL_KINDS
        if held and link.up and not apart:
            yield (
                f"{link.name} has {', '.join(held)}, and no gateway is known there: if it is an uplink, add an identity"
                f" with interface {link.name} and its gateway"
            )


def _unbound(seen: Seen, tunnels: t.Collection[str]) -> t.Iterator[str]:
    for device in tunnels:
        everything = (*DEFAULT.values(), *HALVES)
        if any(device in devices_of(route) and route.dst in everything for route in seen.facts.main):
            yield f"main sends what has chosen no source by {device}, and it stays so (unbound: keep)"


def _about(rule: Rule, seen: Seen, ways: t.Iterable[_Way], base: int) -> str:
    """What becomes of a hand-made rule."""
    where, _colon, text = " ".join(rule.text().split()).partition(": ")
    shown = f"rule {where}: {text} (IPv{rule.family})"
    by = next((way for way in ways if _does(way, rule, seen)), None)
    if by is not None:
        command = f"ip -{rule.family} rule del pref {where} {text}"
        return f"{shown} does what identity {by.name} will do: once that is proven, `{command}`, and in what made it"
    if _is_wg_quicks(rule, seen):
        return f"{shown} is wg-quick's, and is not there any more once it starts with Table = off"
    place = "ahead of" if rule.priority < base else "between" if rule.priority < base + BLOCK else "behind"
    return (
        f"{shown} says what no identity can, and stays; it is asked {place} those of the set. If nobody else looks"
        " after it, state it in rules, with adopt, and it is the set's"
    )


def _is_wg_quicks(rule: Rule, seen: Seen) -> bool:
    """One of the two that it makes for a peer with /0."""
    taken = {device for device, client in seen.clients.items() if client.takes_over}
    whole = rule.invert and bool(taken & {route.dev for route in seen.defaults_of(rule)})
    return bool(taken) and (whole or (rule.table == MAIN and rule.suppress_prefixlength == 0))


def _does(way: _Way, rule: Rule, seen: Seen) -> bool:
    devices = {route.dev for route in seen.defaults_of(rule)}
    if not by_source_alone(rule) or devices != {way.device} or rule.src is None:
        return False
    return rule.src in way.sources or (is_address(rule.src) and covers(_hosts(way), rule.src.partition("/")[0]))


def _hosts(way: _Way) -> list[str]:
    """The sources of a way as prefixes."""
    return [str(ipaddress.ip_network(source)) for source in way.sources]
