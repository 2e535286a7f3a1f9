# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What on a host stands against its sets, or will, and what to do about it. Pure: values in, findings out."""

from __future__ import annotations

import dataclasses
import typing as t

from . import _daemons
from ._model.declaration import Numbers
from ._model.fields import FAMILY_NAMES, KERNEL, RESERVED_TABLES, U32_MAX, family_of
from ._model.path import ERRORS
from ._model.rule import marks_meet
from ._recipe.block import BLOCK
from ._record import Record, objects_of

if t.TYPE_CHECKING:
    from ._model.route import Route
    from ._model.rule import Rule
    from ._model.state import Address
    from ._names import Names

ERROR, WARNING, INFO = "error", "warning", "info"
MAIN, LOCAL = RESERVED_TABLES["main"], RESERVED_TABLES["local"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One of them."""

    kind: str
    severity: str
    object: str
    text: str
    advice: str

    def as_result(self) -> dict[str, str]:
        """As module endpoint_info returns it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class View:
    """What is looked at."""

    rules: t.Sequence[Rule]
    main: t.Sequence[Route]
    addresses: t.Sequence[Address]
    records: t.Sequence[Record]
    names: Names
    daemons: t.Sequence[_daemons.Daemon]

    @property
    def protocols(self) -> set[int]:
        """The protocol numbers of the sets."""
        return {Numbers().protocol, *(record.numbers["protocol"] for record in self.records if record.numbers)}

    @property
    def bases(self) -> list[int]:
        """Where the blocks of the sets begin."""
        return [r.numbers["priority_base"] for r in self.records if r.numbers] or [Numbers().priority_base]

    @property
    def foreign(self) -> list[Rule]:
        """The rules of others, the kernel's own apart."""
        return [rule for rule in self.rules if rule.protocol not in (*self.protocols, KERNEL) and rule.table != LOCAL]

    @property
    def ours(self) -> set[Rule]:
        """The rules of the sets, as recorded."""
        return {rule for record in self.records for rule in objects_of(record)[0]}

    @property
    def identities(self) -> list[tuple[dict[str, t.Any], dict[str, t.Any]]]:
        """Each as it was last found, with its declaration."""
        return [
            (entry, declared)
            for record in self.records
            for entry in record.identities
            for declared in record.declaration.get("identities") or ()
            if declared["name"] == entry["name"]
        ]


def audit(view: View) -> list[Finding]:
    """All that was found, the worst first."""
    found = [finding for look in _LOOKS for finding in look(view)]
    return sorted(found, key=lambda finding: (ERROR, WARNING, INFO).index(finding.severity))


def _is_tunnel(declared: t.Mapping[str, t.Any]) -> bool:
    return bool(declared.get("tunnel")) or declared.get("gateway") == ["none"]


# --- rules -----------------------------------------------------------------------------------------------------------


def _local(view: View) -> t.Iterator[Finding]:
    for family, name in FAMILY_NAMES.items():
        rules = [rule.priority for rule in view.rules if rule.family == family]
        local = [rule.priority for rule in view.rules if rule.family == family and rule.table == LOCAL]
        if rules and (not local or min(local) >= min(view.bases)):
            yield Finding(
                "local",
                ERROR,
                f"{name}: lookup local",
                "the kernel's rule for table local stands behind our block, so that packets to this host leave it",
                f"ip -{family} rule add priority 0 lookup local protocol kernel",
            )


def _rules(view: View) -> t.Iterator[Finding]:
    first = min(view.bases)
    for rule in view.foreign:
        shown = f"{FAMILY_NAMES[rule.family]}: {' '.join(rule.text().split())}"
        if rule in view.ours:
            text, advice = "equals one of ours, protocol apart", "remove it, or set adopt: with ours it is not missed"
            yield Finding("twin", WARNING, shown, text, advice)
        elif rule.priority < first:
            text = f"is asked before our block, which begins at {first}"
            advice = f"give it {first + BLOCK} or above, or put the block ahead of it (numbers.priority_base)"
            yield Finding("ahead", WARNING, shown, text, advice)
        elif any(base <= rule.priority < base + BLOCK for base in view.bases):
            text, advice = "is asked between rules of ours", "give it a priority outside of our block"
            yield Finding("between", WARNING, shown, text, advice)
        yield from _marks(rule, shown, view)


def _marks(rule: Rule, shown: str, view: View) -> t.Iterator[Finding]:
    for own in sorted(view.ours, key=lambda each: each.priority):
        if own.family == rule.family and _share_bits(rule, own) and own != rule:
            yield Finding(
                "mark",
                WARNING,
                shown,
                f"looks at bits of the mark that is read by {' '.join(own.text().split())}",
                "give one of them a mark in other bits, with a mask",
            )
            return


def _share_bits(rule: Rule, own: Rule) -> bool:
    """Whether a rule looks at bits that one of ours looks at: who sets or clears them does it for both."""
    if own.fwmark is None or own.fwmask is None:
        return False
    return marks_meet(rule, own.fwmark if own.fwmask == U32_MAX else own.fwmask)


# --- routes, addresses, names ----------------------------------------------------------------------------------------


def _error_routes(view: View) -> t.Iterator[Finding]:
    uplinks = {family_of(a) for entry, said in view.identities if not _is_tunnel(said) for a in entry["addresses"]}
    for route in view.main:
        if route.type in ERRORS and route.protocol not in (*view.protocols, KERNEL) and route.family in uplinks:
            yield Finding(
                "error_route",
                WARNING,
                route.text(),
                "ends the lookup of an uplink's address, where a route that leads nowhere for it would be passed over",
                "keep such routes in a table of their own, which is looked up behind our block",
            )


def _pairs(view: View) -> t.Iterator[Finding]:
    """A route of main gives an address to unbound traffic that our rules then send by another device."""
    home = {address: entry["interface"] for entry, _said in view.identities for address in entry["addresses"]}
    egresses = set(home.values())
    for route in view.main:
        devices = {way.dev for way in route.ways} & egresses
        if route.src in home and route.type == "unicast" and devices and home[route.src] not in devices:
            yield Finding(
                "pair",
                WARNING,
                route.text(),
                f"leaves by {', '.join(sorted(map(str, devices)))} with an address of {home[route.src]}: sockets that"
                " connect are then sent there, others are not answered",
                "have whoever makes the route leave its source away, or state one of that device",
            )


def _silence(view: View) -> t.Iterator[Finding]:
    for entry, declared in view.identities:
        known = {FAMILY_NAMES[family_of(each)] for each in (*entry["addresses"], *entry["pools"])}
        for name in declared.get("families") or FAMILY_NAMES.values():
            if name not in known:
                yield Finding(
                    "silent",
                    INFO,
                    f"{entry['key']}: {name}",
                    "has no address and no pool of this family, so nothing is done for it",
                    "state addresses or pools of the family, or leave it out of families",
                )


def _twice(view: View) -> t.Iterator[Finding]:
    inside = {address for entry, said in view.identities if _is_tunnel(said) for address in entry["addresses"]}
    for address in sorted(inside):
        devices = sorted({each.dev for each in view.addresses if each.address == address})
        if len(devices) > 1:
            yield Finding(
                "address",
                ERROR,
                address,
                f"sits on {' and '.join(devices)}, and no rule tells the one from the other",
                "have one of the VPNs give another address, or stop one of them",
            )


def _table_names(view: View) -> t.Iterator[Finding]:
    given = {**RESERVED_TABLES, **{name: number for record in view.records for name, number in record.names.items()}}
    for entry in view.names.entries:
        right = given.get(entry.name)
        known = next((name for name, number in given.items() if number == entry.id), entry.name)
        if right not in (None, entry.id):
            text = f"says that {entry.name} is table {entry.id}, but it is {right}"
        elif known != entry.name:
            text = f"says that table {entry.id} is {entry.name}, but it is {known}"
        else:
            continue
        advice = "remove the line: ip shows the wrong name, and what is typed by that name goes elsewhere"
        yield Finding("table_name", WARNING, f"{entry.path}: {entry.id} {entry.name}", text, advice)


# --- programs --------------------------------------------------------------------------------------------------------

_INTERFERE = {
    "dhcpcd": (INFO, "writes routes into main alone, and leaves rules alone", "nothing is to be done"),
    "mwan3track": (WARNING, "has mwan3 set up its rules and marks again at each event", "compare its marks with ours"),
    "mwan3rtmon": (WARNING, "has mwan3 copy routes into its own tables", "compare its tables with ours"),
    "pbr": (WARNING, "sets up its rules and marks again at each reload", "compare its priorities and marks with ours"),
}


def _programs(view: View) -> t.Iterator[Finding]:
    for daemon in view.daemons:
        if daemon.name == _daemons.NETWORKD:
            yield _networkd(daemon)
        elif daemon.name == _daemons.NETWORKMANAGER:
            yield _network_manager(daemon)
        elif daemon.name == _daemons.NETPLAN:
            yield from _netplan(view)
        elif daemon.name in _INTERFERE:
            severity, text, advice = _INTERFERE[daemon.name]
            yield Finding("daemon", severity, daemon.name, text, advice)
        else:
            yield _client(daemon)


def _networkd(daemon: _daemons.Daemon) -> Finding:
    if not daemon.lacks:
        return Finding("daemon", INFO, daemon.name, "is told to leave foreign rules and routes alone", "keep it so")
    wanted = " and ".join(f"{key}=no" for key in daemon.lacks)
    return Finding(
        "daemon",
        WARNING,
        daemon.name,
        "removes foreign rules and routes whenever it configures a link",
        f"{wanted} in [Network] of a file in /etc/systemd/networkd.conf.d, then restart it",
    )


def _network_manager(daemon: _daemons.Daemon) -> Finding:
    if not daemon.lacks:
        text = "leaves foreign rules and the tables of others alone"
        return Finding("daemon", INFO, daemon.name, text, "declare no rule in a profile that equals one of ours")
    return Finding(
        "daemon",
        WARNING,
        daemon.name,
        f"removes foreign routes of all tables by the devices of {', '.join(daemon.lacks)}, which have a route-table",
        "take route-table out of the profile, and use the tables of the set instead",
    )


def _netplan(view: View) -> t.Iterator[Finding]:
    told = [each for each in view.daemons if each.name == _daemons.NETWORKD]
    if told and told[0].lacks:
        text = "apply has networkd configure every link anew, and so remove foreign rules and routes"
        yield Finding("daemon", WARNING, _daemons.NETPLAN, text, "tell systemd-networkd to leave them alone")


def _client(daemon: _daemons.Daemon) -> Finding:
    return Finding(
        "client",
        WARNING,
        f"{daemon.name}: {_daemons.CLIENTS[daemon.name]}",
        "supervises routes or rules by itself, and may put its own ahead of ours or take ours away",
        "look at `ip rule` while it is connected, keep the watch running, and state paths that must hold",
    )


_LOOKS: tuple[t.Callable[[View], t.Iterator[Finding]], ...] = (
    _local,
    _rules,
    _error_routes,
    _pairs,
    _silence,
    _twice,
    _table_names,
    _programs,
)
