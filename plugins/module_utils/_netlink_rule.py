# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A policy rule as rtnetlink writes it (linux/fib_rules.h). Pure: no socket, no device."""

from __future__ import annotations

import typing as t

from ._model.rule import Rule
from ._netlink_codec import AF, FAMILIES, Content, Message, header_table, join_prefix, split_prefix

MESSAGE = Message(
    "fibmsg",
    (
        "FRA_DST",
        "FRA_SRC",
        "FRA_IIFNAME",
        "FRA_GOTO",
        "FRA_PRIORITY",
        "FRA_FWMARK",
        "FRA_TUN_ID",
        "FRA_SUPPRESS_IFGROUP",
        "FRA_SUPPRESS_PREFIXLEN",
        "FRA_TABLE",
        "FRA_FWMASK",
        "FRA_OIFNAME",
        "FRA_L3MDEV",
        "FRA_UID_RANGE",
        "FRA_PROTOCOL",
        "FRA_IP_PROTO",
        "FRA_SPORT_RANGE",
        "FRA_DPORT_RANGE",
        "FRA_DSCP",
    ),
    missing=((25, "FRA_DSCP", "uint8"),),
)

_ACTIONS = {"lookup": 1, "goto": 2, "nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}
_ACTION_NAMES = {number: name for name, number in _ACTIONS.items()}
_FIB_RULE_INVERT = 0x2
_UNSET = 0xFFFFFFFF

# Selectors that are one attribute with one number or name.
_PLAIN = {
    "iif": "FRA_IIFNAME",
    "oif": "FRA_OIFNAME",
    "goto": "FRA_GOTO",
    "table": "FRA_TABLE",
    "dscp": "FRA_DSCP",
    "ipproto": "FRA_IP_PROTO",
    "tun_id": "FRA_TUN_ID",
    "suppress_prefixlength": "FRA_SUPPRESS_PREFIXLEN",
    "suppress_ifgroup": "FRA_SUPPRESS_IFGROUP",
}
_RANGES = {"uidrange": "FRA_UID_RANGE", "sport": "FRA_SPORT_RANGE", "dport": "FRA_DPORT_RANGE"}


def encode(rule: Rule) -> Content:
    """Everything that the rule says; the same for add and remove, since the kernel takes what is left out as any."""
    src, dst = split_prefix(rule.src), split_prefix(rule.dst)
    header = {
        "family": AF[rule.family],
        "dst_len": dst[1],
        "src_len": src[1],
        "tos": rule.tos or 0,
        "table": header_table(rule.table or 0),
        "action": _ACTIONS[rule.action],
        "flags": _FIB_RULE_INVERT if rule.invert else 0,
    }
    attrs: list[tuple[str, t.Any]] = [("FRA_PRIORITY", rule.priority), ("FRA_PROTOCOL", rule.protocol)]
    attrs += [(name, value) for name, value in (("FRA_SRC", src[0]), ("FRA_DST", dst[0])) if value is not None]
    attrs += [(name, getattr(rule, field)) for field, name in _PLAIN.items() if getattr(rule, field) is not None]
    attrs += _encode_mark(rule) + _encode_ranges(rule)
    if rule.l3mdev:
        attrs.append(("FRA_L3MDEV", 1))
    return Content(header, attrs)


def _encode_mark(rule: Rule) -> list[tuple[str, t.Any]]:
    """Mark and mask always together: the kernel reads a mark of 0 without a mask as any mark."""
    if rule.fwmark is None:
        return []
    mask = _UNSET if rule.fwmask is None else rule.fwmask
    return [("FRA_FWMARK", rule.fwmark), ("FRA_FWMASK", mask)]


def _encode_ranges(rule: Rule) -> list[tuple[str, t.Any]]:
    return [
        (name, "{}:{}".format(*getattr(rule, field)))
        for field, name in _RANGES.items()
        if getattr(rule, field) is not None
    ]


def decode(fields: t.Mapping[str, t.Any]) -> Rule:
    """The rule in a message."""
    action = _ACTION_NAMES.get(fields["action"], str(fields["action"]))
    has_mark = "FRA_FWMARK" in fields or "FRA_FWMASK" in fields
    return Rule(
        family=FAMILIES[fields["family"]],
        priority=fields.get("FRA_PRIORITY", 0),
        action=action,
        table=_table(fields) if action == "lookup" else None,
        goto=fields.get("FRA_GOTO") if action == "goto" else None,
        invert=bool(fields["flags"] & _FIB_RULE_INVERT),
        src=join_prefix(fields, "FRA_SRC", "src_len"),
        dst=join_prefix(fields, "FRA_DST", "dst_len"),
        iif=fields.get("FRA_IIFNAME"),
        oif=fields.get("FRA_OIFNAME"),
        fwmark=fields.get("FRA_FWMARK", 0) if has_mark else None,
        fwmask=fields.get("FRA_FWMASK", _UNSET) if has_mark else None,
        tos=fields["tos"] or None,
        dscp=fields.get("FRA_DSCP"),
        uidrange=_range(fields, "uidrange"),
        ipproto=fields.get("FRA_IP_PROTO") or None,
        sport=_range(fields, "sport"),
        dport=_range(fields, "dport"),
        tun_id=fields.get("FRA_TUN_ID") or None,
        l3mdev=bool(fields.get("FRA_L3MDEV", 0)),
        suppress_prefixlength=_set(fields.get("FRA_SUPPRESS_PREFIXLEN")),
        suppress_ifgroup=_set(fields.get("FRA_SUPPRESS_IFGROUP")),
        protocol=fields.get("FRA_PROTOCOL", 0),
    )


def _table(fields: t.Mapping[str, t.Any]) -> int | None:
    return fields.get("FRA_TABLE", fields["table"]) or None


def _set(value: int | None) -> int | None:
    """The kernel reports a suppressor that is not set as -1."""
    return None if value == _UNSET else value


def _range(fields: t.Mapping[str, t.Any], field: str) -> tuple[int, int] | None:
    if _RANGES[field] not in fields:
        return None
    first, last = fields[_RANGES[field]].split(":")
    return (int(first), int(last))
