# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A policy routing rule as a value."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import NotSupported
from . import fields

# The numbers that `ip rule` gives its actions (FR_ACT_* of linux/fib_rules.h).
ACTIONS = ("lookup", "blackhole", "unreachable", "prohibit", "goto", "nop")
# Older kernels ignore the attribute.
DSCP_SINCE = (6, 13)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule of the policy database. Two rules are equal when the kernel matches and does the same.

    All that the kernel matches on is the identity; C(protocol) (who owns the rule) is compared apart, so that a foreign
    twin is recognised. What the kernel reports for "not set" (prefix of length 0, suppressors of all ones, table 0,
    tos 0) becomes None here; prefixes must come in canonical (fields.prefix), as the kernel gives them.
    """

    family: int  # 4 or 6
    priority: int
    action: str = "lookup"
    table: int | None = None  # only with action lookup
    goto: int | None = None  # only with action goto
    invert: bool = False  # `not`: inverts the whole rule, not one selector
    src: str | None = None  # canonical prefix "198.51.100.10/32"; None is `from all`
    dst: str | None = None
    iif: str | None = None
    oif: str | None = None
    fwmark: int | None = None
    fwmask: int | None = None  # 0xffffffff when a mark is given without mask
    tos: int | None = None
    dscp: int | None = None
    uidrange: tuple[int, int] | None = None
    ipproto: int | None = None
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    tun_id: int | None = None
    l3mdev: bool = False
    suppress_prefixlength: int | None = None
    suppress_ifgroup: int | None = None
    protocol: int = dataclasses.field(default=0, compare=False)

    def __post_init__(self) -> None:
        for name in ("src", "dst"):
            if getattr(self, name) == fields.DEFAULT[self.family]:
                object.__setattr__(self, name, None)
        for name in ("suppress_prefixlength", "suppress_ifgroup"):
            if getattr(self, name) == fields.U32_MAX:
                object.__setattr__(self, name, None)
        for name in ("table", "tos", "ipproto", "tun_id"):
            object.__setattr__(self, name, getattr(self, name) or None)
        self._complete_mark()

    def _complete_mark(self) -> None:
        # A mark without a mask means all bits; a mask without a mark is how the kernel reports mark 0.
        if self.fwmark is None and not self.fwmask:
            object.__setattr__(self, "fwmask", None)
        elif self.fwmask is None:
            object.__setattr__(self, "fwmask", fields.U32_MAX)
        elif self.fwmark is None:
            object.__setattr__(self, "fwmark", 0)

    def text(self) -> str:
        """The rule as `ip -N rule show` writes it, without the protocol; action and IP protocol in words.

        Numbers stand for what a file names (tables, groups); what the kernel itself defines stays readable.
        """
        return f"{self.priority}:\t" + " ".join([*self._selectors(), *self._ports(), *self._action()])

    def _selectors(self) -> t.Iterator[str]:
        if self.invert:
            yield "not"
        yield f"from {fields.shown(self.src) if self.src else 'all'}"
        if self.dst:
            yield f"to {fields.shown(self.dst)}"
        if self.tos:
            yield f"tos {self.tos:#04x}"
        if self.fwmark is not None:
            mark = f"{self.fwmark:#x}" if self.fwmark else "0"  # printf's %#x has no prefix for zero
            yield f"fwmark {mark}" + ("" if self.fwmask == fields.U32_MAX else f"/{self.fwmask:#x}")
        if self.iif:
            yield f"iif {self.iif}"
        if self.oif:
            yield f"oif {self.oif}"

    def _ports(self) -> t.Iterator[str]:
        if self.l3mdev:
            yield "lookup [l3mdev-table]"
        if self.uidrange:
            yield f"uidrange {self.uidrange[0]}-{self.uidrange[1]}"
        if self.ipproto:
            yield f"ipproto {fields.protocol_name(self.ipproto)}"
        for name, ports in (("sport", self.sport), ("dport", self.dport)):
            if ports:
                yield f"{name} {_span(ports)}"
        if self.tun_id:
            yield f"tun_id {self.tun_id}"

    def _action(self) -> t.Iterator[str]:
        if self.dscp is not None:
            yield f"dscp {self.dscp}"
        if self.table is not None:
            yield f"lookup {self.table}"
        if self.suppress_prefixlength is not None:
            yield f"suppress_prefixlength {self.suppress_prefixlength}"
        if self.suppress_ifgroup is not None:
            yield f"suppress_ifgroup {self.suppress_ifgroup}"
        if self.action == "goto":
            yield f"goto {self.goto}"
        elif self.action != "lookup":
            yield self.action

    @classmethod
    def from_params(
        cls,
        params: t.Mapping[str, t.Any],
        *,
        field: str = "",
        tables: t.Callable[[object, str], int] = fields.table_id,
    ) -> Rule:
        """The rule that a user wrote. Raises InvalidInput. C(field) is the prefix for error messages.

        C(tables) turns a table's name or number into its number (_names.Names.table); alone, it knows the three names
        that every kernel has.
        """
        given = fields.Params(params, field)
        src, dst = given.read("from", fields.prefix), given.read("to", fields.prefix)
        family = fields.one_family(given, {"from": src, "to": dst})
        mark, mask = given.read("fwmark", fields.mark) or (None, None)
        rule = cls(
            family=family,
            priority=fields.priority(params.get("priority"), given.name("priority")),
            action=fields.choice(params.get("action") or "lookup", given.name("action"), ACTIONS),
            table=given.read("table", tables),
            goto=given.number("goto", 1, fields.U32_MAX),
            invert=given.flag("not"),
            src=src,
            dst=dst,
            iif=given.read("iif", fields.device),
            oif=given.read("oif", fields.device),
            fwmark=mark,
            fwmask=mask,
            tos=given.read("tos", fields.dsfield),
            dscp=given.number("dscp", 0, 63),
            uidrange=given.read("uidrange", fields.uids),
            ipproto=given.read("ipproto", fields.ip_protocol),
            sport=given.read("sport", fields.ports),
            dport=given.read("dport", fields.ports),
            tun_id=given.number("tun_id", 1, 2**64 - 1),
            l3mdev=given.flag("l3mdev"),
            suppress_prefixlength=given.number("suppress_prefixlength", 0, fields.HOST_LENGTH[family]),
            suppress_ifgroup=given.number("suppress_ifgroup", 0, fields.U32_MAX - 1),
            protocol=given.read("protocol", fields.protocol) or 0,
        )
        _check_action(rule, given)
        _check_selectors(rule, given)
        return rule


def _span(ports: tuple[int, int]) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def _check_action(rule: Rule, given: fields.Params) -> None:
    if rule.action != "lookup":
        for key in ("table", "l3mdev", "suppress_prefixlength", "suppress_ifgroup"):
            value = given.params.get(key)
            if value is not None and value is not False:  # a suppressor of 0 is written
                raise given.refuse(key, f"does not go with action {rule.action}", "action lookup")
    elif rule.l3mdev and rule.table is not None:
        raise given.refuse("table", "does not go with l3mdev, which finds the table by the device", "one of the two")
    elif not rule.l3mdev and rule.table is None:
        raise given.refuse("table", "must be given with action lookup", "name or number of a table")
    if rule.action != "goto" and rule.goto is not None:
        raise given.refuse("goto", f"does not go with action {rule.action}", "action goto")
    if rule.action == "goto" and (rule.goto is None or rule.goto <= rule.priority):
        raise given.refuse("goto", "must lead forwards", f"a priority above {rule.priority}")


def _check_selectors(rule: Rule, given: fields.Params) -> None:
    for key, ports in (("sport", rule.sport), ("dport", rule.dport)):
        if ports and rule.ipproto not in fields.WITH_PORTS:
            raise given.refuse(key, "needs a protocol that has ports", "ipproto tcp, udp, dccp, sctp or udplite")
    if rule.tos is not None and rule.dscp is not None:
        raise given.refuse("dscp", "does not go with tos: both match the same byte", "one of the two")
    if rule.family == 4 and (rule.tos or 0) & 0xE0:
        # Where the kernel takes more than these three bits for IPv4, dscp is there too.
        raise given.refuse("tos", "has bits that IPv4 rules cannot match", "0x04 to 0x1c in steps of 4, or dscp")


def marks_meet(rule: Rule, mask: int) -> bool:
    """Whether a rule looks at bits of a mask. One that compares whole marks does if its own has bits there."""
    if rule.fwmark is None or rule.fwmask is None:
        return False
    return bool((rule.fwmark if rule.fwmask == fields.U32_MAX else rule.fwmask) & mask)


def refuse_unsupported(rule: Rule, release: str, *, field: str = "") -> None:
    """Refuse what a kernel of this release (`uname -r`) would drop in silence, leaving a rule that matches more than
    was asked for. Raises NotSupported.
    """
    if rule.dscp is not None and not _at_least(release, DSCP_SINCE):
        given = fields.Params({"dscp": rule.dscp}, field)
        accepted = "tos, or Linux {}.{} or later".format(*DSCP_SINCE)
        raise NotSupported(
            f"needs a newer kernel than {release}", field=given.name("dscp"), value=rule.dscp, accepted=accepted
        )


def _at_least(release: str, version: tuple[int, int]) -> bool:
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= version
