# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A policy rule as rtnetlink writes it (linux/fib_rules.h). Pure: no socket, no device."""

from __future__ import annotations

import struct
import typing as t

from ._model.rule import Rule
from ._netlink_layout import AF, FAMILIES, Content, Layout, pack_prefix, unpack_prefix

LAYOUT = Layout(
    "fleetvpn_rule",
    (
        ("family", "B"),
        ("dst_len", "B"),
        ("src_len", "B"),
        ("tos", "B"),
        ("table", "B"),
        ("res1", "B"),
        ("res2", "B"),
        ("action", "B"),
        ("flags", "I"),
    ),
    (
        (1, "DST", "cdata"),
        (2, "SRC", "cdata"),
        (3, "IIFNAME", "asciiz"),
        (4, "GOTO", "uint32"),
        (6, "PRIORITY", "uint32"),
        (10, "FWMARK", "uint32"),
        (12, "TUN_ID", "be64"),
        (13, "SUPPRESS_IFGROUP", "uint32"),
        (14, "SUPPRESS_PREFIXLEN", "uint32"),
        (15, "TABLE", "uint32"),
        (16, "FWMASK", "uint32"),
        (17, "OIFNAME", "asciiz"),
        (19, "L3MDEV", "uint8"),
        (20, "UID_RANGE", "cdata"),
        (21, "PROTOCOL", "uint8"),
        (22, "IP_PROTO", "uint8"),
        (23, "SPORT_RANGE", "cdata"),
        (24, "DPORT_RANGE", "cdata"),
        (25, "DSCP", "uint8"),
    ),
)

_ACTIONS = {"lookup": 1, "goto": 2, "nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_ACTION_NAMES = {number: name for name, number in _ACTIONS.items()}
_FIB_RULE_INVERT = 0x2
_UNSET = 0xFFFFFFFF
# What the 8 bits of the header say when the table does not fit (RT_TABLE_COMPAT): the attribute counts.
_TABLE_COMPAT = 252

# Selectors that are one attribute with one number or name.
_PLAIN = {
    "iif": "IIFNAME",
    "oif": "OIFNAME",
    "goto": "GOTO",
    "table": "TABLE",
    "dscp": "DSCP",
    "ipproto": "IP_PROTO",
    "tun_id": "TUN_ID",
    "suppress_prefixlength": "SUPPRESS_PREFIXLEN",
    "suppress_ifgroup": "SUPPRESS_IFGROUP",
}
_RANGES = {"uidrange": ("UID_RANGE", "=II"), "sport": ("SPORT_RANGE", "=HH"), "dport": ("DPORT_RANGE", "=HH")}


def encode(rule: Rule) -> Content:
    """Everything that the rule says; the same for add and remove, since the kernel takes what is left out as any."""
    src, dst = pack_prefix(rule.src), pack_prefix(rule.dst)
    header = {
        "family": AF[rule.family],
        "dst_len": dst[1],
        "src_len": src[1],
        "tos": rule.tos or 0,
        "table": header_table(rule.table or 0),
        "action": _ACTIONS[rule.action],
        "flags": _FIB_RULE_INVERT if rule.invert else 0,
    }
    attrs: list[tuple[str, t.Any]] = [("PRIORITY", rule.priority), ("PROTOCOL", rule.protocol)]
    attrs += [(name, value) for name, value in (("SRC", src[0]), ("DST", dst[0])) if value is not None]
    attrs += [(name, getattr(rule, field)) for field, name in _PLAIN.items() if getattr(rule, field) is not None]
    attrs += _encode_mark(rule) + _encode_ranges(rule)
    if rule.l3mdev:
        attrs.append(("L3MDEV", 1))
    return Content(header, attrs)


def header_table(table: int) -> int:
    """The header's 8 bits for a table."""
    return table if table < 256 else _TABLE_COMPAT


def _encode_mark(rule: Rule) -> list[tuple[str, t.Any]]:
    """Mark and mask always together: the kernel reads a mark of 0 without a mask as any mark."""
    if rule.fwmark is None:
        return []
    mask = _UNSET if rule.fwmask is None else rule.fwmask
    return [("FWMARK", rule.fwmark), ("FWMASK", mask)]


def _encode_ranges(rule: Rule) -> list[tuple[str, t.Any]]:
    return [
        (name, struct.pack(form, *getattr(rule, field)))
        for field, (name, form) in _RANGES.items()
        if getattr(rule, field) is not None
    ]


def decode(fields: t.Mapping[str, t.Any]) -> Rule:
    """The rule in a message."""
    action = _ACTION_NAMES.get(fields["action"], str(fields["action"]))
    has_mark = "FWMARK" in fields or "FWMASK" in fields
    return Rule(
        family=FAMILIES[fields["family"]],
        priority=fields.get("PRIORITY", 0),
        action=action,
        table=_table(fields) if action == "lookup" else None,
        goto=fields.get("GOTO") if action == "goto" else None,
        invert=bool(fields["flags"] & _FIB_RULE_INVERT),
        src=unpack_prefix(fields, "SRC", "src_len"),
        dst=unpack_prefix(fields, "DST", "dst_len"),
        iif=fields.get("IIFNAME"),
        oif=fields.get("OIFNAME"),
        fwmark=fields.get("FWMARK", 0) if has_mark else None,
        fwmask=fields.get("FWMASK", _UNSET) if has_mark else None,
        tos=fields["tos"] or None,
        dscp=fields.get("DSCP"),
        uidrange=_range(fields, "uidrange"),
        ipproto=fields.get("IP_PROTO") or None,
        sport=_range(fields, "sport"),
        dport=_range(fields, "dport"),
        tun_id=fields.get("TUN_ID") or None,
        l3mdev=bool(fields.get("L3MDEV", 0)),
        suppress_prefixlength=_set(fields.get("SUPPRESS_PREFIXLEN")),
        suppress_ifgroup=_set(fields.get("SUPPRESS_IFGROUP")),
        protocol=fields.get("PROTOCOL", 0),
    )


def _table(fields: t.Mapping[str, t.Any]) -> int | None:
    return fields.get("TABLE", fields["table"]) or None


def _set(value: int | None) -> int | None:
    """The kernel reports a suppressor that is not set as -1."""
    return None if value == _UNSET else value


def _range(fields: t.Mapping[str, t.Any], field: str) -> tuple[int, int] | None:
    name, form = _RANGES[field]
    if name not in fields:
        return None
    first, last = struct.unpack(form, fields[name])
    return (first, last)
