# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The nftables table of a set as a value, equal to another if nft loads and lists both alike.

A rule is kept as nft writes it in JSON (libnftables-json(5)), made canonical: what counts packets, names handles or
depends on the version of nft is not part of it. The builders below make the statements that rules consist of.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import typing as t

FAMILY = "inet"
# A chain without rules, by which a table is known as ours whoever has lost its record.
MARK = "owned_by_fleetvpn"
ADDRESSES = {4: "ipv4_addr", 6: "ipv6_addr"}
DEVICES = "ifname"

# is_constant() of nft's parser for JSON.
_CONSTANTS = frozenset({"tcp", "udp", "udplite", "esp", "ah", "icmp", "icmpv6", "comp", "dccp", "sctp", "redirect"})

Statement = dict[str, t.Any]
U32_MAX = 0xFFFFFFFF


def table_of(name: str) -> str:
    """The name of the table of a set."""
    return "fleetvpn" if name == "main" else f"fleetvpn_{name}"


@dataclasses.dataclass(frozen=True)
class NamedSet:
    """A named set: addresses and prefixes, or names of devices."""

    name: str
    type: str  # ADDRESSES or DEVICES
    elements: tuple[str, ...]

    @classmethod
    def addresses(cls, name: str, family: int, prefixes: t.Iterable[str]) -> NamedSet:
        """A set of addresses and prefixes of a family, as few prefixes as hold them all."""
        networks = [t.cast(t.Any, ipaddress.ip_network(prefix)) for prefix in prefixes]
        kept = list(ipaddress.collapse_addresses(networks))
        host = f"/{kept[0].max_prefixlen}" if kept else ""
        return cls(name, ADDRESSES[family], tuple(str(network).removesuffix(host) for network in kept))

    @classmethod
    def devices(cls, name: str, names: t.Iterable[str]) -> NamedSet:
        """A set of devices, each by its exact name."""
        return cls(name, DEVICES, tuple(sorted(set(names))))

    def lines(self) -> list[str]:
        """As nft writes it."""
        by_name = self.type == DEVICES
        flags = [] if by_name else ["flags interval"]
        elements = ", ".join(quoted(device(name)) for name in self.elements) if by_name else ", ".join(self.elements)
        inner = [f"type {self.type}", *flags, f"elements = {{ {elements} }}"]
        return [f"set {self.name} {{", *(f"\t{line}" for line in inner), "}"]


@dataclasses.dataclass(frozen=True)
class Chain:
    """A chain. Without a hook it is reached from other chains alone. Each rule is what C(rule) makes."""

    name: str
    rules: tuple[str, ...] = ()
    hook: str | None = None  # prerouting, output, postrouting, ...
    priority: int = 0
    type: str = "filter"
    policy: str = "accept"

    def lines(self) -> list[str]:
        """As nft writes it."""
        head = f"type {self.type} hook {self.hook} priority {self.priority}; policy {self.policy};"
        inner = [*([head] if self.hook else []), *(rule_text(rule) for rule in self.rules)]
        return [f"chain {self.name} {{", *(f"\t{line}" for line in inner), "}"]


@dataclasses.dataclass(frozen=True)
class Guard:
    """One table: named sets, chains in the order of their names, and in a reading what we never make."""

    table: str
    sets: tuple[NamedSet, ...] = ()
    chains: tuple[Chain, ...] = ()
    strange: tuple[str, ...] = ()

    @property
    def marked(self) -> bool:
        """Whether it carries our mark."""
        return any(chain.name == MARK for chain in self.chains)

    def text(self) -> str:
        """One line that names it."""
        return f"table {FAMILY} {self.table}"

    def lines(self) -> list[str]:
        """All of it, as nft writes it."""
        parts = [line for each in self.sets for line in each.lines()]
        parts += [line for each in self.chains for line in each.lines()]
        return [f"{self.text()} {{", *(f"\t{line}" for line in (*parts, *self.strange)), "}"]


@dataclasses.dataclass(frozen=True)
class Piece:
    """What one measure puts into the table. Names of sets and chains must differ from those of other measures."""

    sets: tuple[NamedSet, ...] = ()
    chains: tuple[Chain, ...] = ()


def assemble(table: str, pieces: t.Iterable[Piece]) -> Guard | None:
    """The table of all measures; None if none of them has a chain. Sets without elements are left out."""
    every = list(pieces)
    chains = [chain for piece in every for chain in piece.chains]
    if not chains:
        return None
    sets = [each for piece in every for each in piece.sets if each.elements]
    return Guard(table, tuple(sorted(sets, key=_name)), tuple(sorted([Chain(MARK), *chains], key=_name)))


def _name(part: NamedSet | Chain) -> str:
    return part.name


# -- rules


def rule(*statements: Statement) -> str:
    """A rule of a chain."""
    return json.dumps(canonical(list(statements)), sort_keys=True)


def statements_of(made: str) -> list[Statement]:
    """What C(rule) was made of."""
    found: list[Statement] = json.loads(made)
    return found


def matching(left: str, right: str, *, equal: bool = True) -> Statement:
    """A comparison. C(left) is written as nft does: C(ip saddr), C(oifname), C(fib saddr . oif type)."""
    return {"match": {"op": "==" if equal else "!=", "left": _LEFT[left], "right": right}}


def device(name: str) -> str:
    """The exact name of a device in a comparison, where nft takes a star at the end for any rest."""
    return f"{name[:-1]}\\*" if name.endswith("*") else name


def is_device_to_nft(name: str) -> bool:
    """Whether nft takes the name in JSON for that of a device, not for a set or for a number that it knows by name."""
    return name.isprintable() and not name.startswith("@") and name not in _CONSTANTS


def jump(chain: str, *, back: bool = False) -> Statement:
    """On to another chain; with C(back) the rules behind this one follow it."""
    return {"jump" if back else "goto": {"target": chain}}


def in_state(state: str) -> Statement:
    """What connection tracking says of the packet: C(new), C(related), ..."""
    return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": state}}


def marked(of: str, mark: int, mask: int) -> Statement:
    """The mark of the packet (C(meta)) or of its connection (C(ct)), as far as the mask goes."""
    return {"match": {"op": "==", "left": {"&": [{of: {"key": "mark"}}, mask]}, "right": mark}}


def set_mark(of: str, mark: int, mask: int) -> Statement:
    """Set it as far as the mask goes; the other bits stay."""
    kept = {"&": [{of: {"key": "mark"}}, U32_MAX & ~mask]}
    return {"mangle": {"key": {of: {"key": "mark"}}, "value": {"|": [kept, mark]}}}


def reject(kind: str, code: str | None = None) -> Statement:
    """Refuse with an error for the sender: C(tcp reset), or C(icmpx) with a code, which names no
    family: for one of a family some versions of nft list a match of that family too.
    """
    return {"reject": {"type": kind, **({"expr": code} if code else {})}}


COUNTER: Statement = {"counter": None}
ACCEPT: Statement = {"accept": None}
DROP: Statement = {"drop": None}

_LEFT: dict[str, Statement] = {
    **{
        f"{protocol} {field}": {"payload": {"protocol": protocol, "field": field}}
        for protocol in ("ip", "ip6")
        for field in ("saddr", "daddr")
    },
    **{key: {"meta": {"key": key}} for key in ("iifname", "oifname")},
    "meta l4proto": {"meta": {"key": "l4proto"}},
    "ct state": {"ct": {"key": "state"}},
    **{
        f"fib {' . '.join(flags)} type": {"fib": {"result": "type", "flags": sorted(flags)}}
        for flags in (("saddr",), ("saddr", "oif"), ("daddr",), ("daddr", "iif"))
    },
}


# Without /etc/protocols (package netbase) nft lists numbers, and with it names.
_PROTOCOLS = {"tcp": 6}


def canonical(value: t.Any, key: str = "") -> t.Any:
    """JSON of nft without what counts or differs from host to host."""
    if key == "counter":
        return None
    if key == "flags":
        return sorted([value] if isinstance(value, str) else value)
    if isinstance(value, dict):
        return _by_number(_whole_masks({name: canonical(item, name) for name, item in value.items()}))
    if isinstance(value, list):
        items = [canonical(item) for item in value]
        return sorted(items, key=json.dumps) if key == "set" else items
    return value


def _by_number(value: dict[str, t.Any]) -> dict[str, t.Any]:
    """A protocol that is compared with, as its number."""
    if value.get("left") != _LEFT["meta l4proto"] or not isinstance(value["right"], str):
        return value
    return {**value, "right": _PROTOCOLS.get(value["right"], value["right"])}


def _whole_masks(value: dict[str, t.Any]) -> dict[str, t.Any]:
    """Of bits that are cleared and then set again nft lists only that they are set."""
    if list(value) != ["|"] or not isinstance(value["|"][0], dict) or "&" not in value["|"][0]:
        return value
    (left, kept), bits = value["|"][0]["&"], value["|"][1]
    return {"|": [left if kept | bits == U32_MAX else {"&": [left, kept | bits]}, bits]}


# -- text


def quoted(name: str) -> str:
    """The name of a device as nft writes it."""
    return f'"{name}"'


def rule_text(made: str) -> str:
    """A rule as nft writes it; a statement that is not one of ours as JSON."""
    return " ".join(_statement_text(statement) for statement in statements_of(made))


def _statement_text(statement: Statement) -> str:
    ((kind, content),) = statement.items()
    if kind == "match":
        return _match_text(content)
    if kind in ("goto", "jump"):
        return f"{kind} {content['target']}"
    if kind == "reject":
        code = f" {content['expr']}" if "expr" in content else ""
        return f"reject with {content['type']}{code}"
    if kind == "mangle":
        return f"{_value_text(content['key'])} set {_value_text(content['value'])}"
    return kind if content is None else json.dumps(statement)


def _value_text(value: t.Any) -> str:
    """Marks and what is made of them."""
    if isinstance(value, int):
        return f"{value:#x}"
    ((kind, content),) = value.items()
    if kind in ("&", "|"):
        return f" {kind} ".join(_value_text(part) for part in content)
    return f"{kind} {content['key']}"


def _match_text(content: t.Mapping[str, t.Any]) -> str:
    if "&" in content["left"]:
        return f"{_value_text(content['left'])} == {_value_text(content['right'])}"
    left = next((text for text, known in _LEFT.items() if known == content["left"]), json.dumps(content["left"]))
    right = content["right"]
    shown = right if isinstance(right, str) else json.dumps(right)
    if left in ("iifname", "oifname") and not shown.startswith("@"):
        shown = quoted(shown)
    return f"{left} {'' if content['op'] in ('==', 'in') else content['op'] + ' '}{shown}"
