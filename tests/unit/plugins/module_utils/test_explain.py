# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lookup leaves out no selector of a rule. That the kernel's goes so is for tests/functional/test_explain.py."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._explain import NO_MATCH, NOP, Scene, explain
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Flow

# What a rule is, whose it is, and what it does with that which matches.
NO_SELECTORS = {
    "family", "priority", "protocol", "invert", "action", "table", "goto", "suppress_prefixlength", "suppress_ifgroup",
}  # fmt: skip
# Each selector, by which the rule does not match the flow.
SELECTORS: dict[str, dict[str, t.Any]] = {
    "src": {"src": "198.51.100.10/32"},
    "dst": {"dst": "198.51.100.0/24"},
    "iif": {"iif": "up0"},
    "oif": {"oif": "up0"},
    "fwmark": {"fwmark": 1},
    "fwmask": {"fwmark": 0x12, "fwmask": 0xF},
    "tos": {"tos": 0x10},
    "dscp": {"dscp": 46},
    "uidrange": {"uidrange": (1000, 1999)},
    "ipproto": {"ipproto": 6},
    "sport": {"sport": (22, 22)},
    "dport": {"dport": (22, 22)},
    "tun_id": {"tun_id": 1},
    "l3mdev": {"l3mdev": True},
}
FLOW = Flow(4, "203.0.113.5", "192.0.2.10", fwmark=0x12)


def outcome(**selectors: t.Any) -> str:
    rule = Rule(4, 2000, action="nop", **selectors)
    return explain(Scene((rule,), lambda _table: (), {}), FLOW).steps[0].outcome


@pytest.mark.parametrize("selectors", SELECTORS.values(), ids=SELECTORS)
def test_a_selector_of_a_rule_is_compared(selectors: dict[str, t.Any]) -> None:
    assert outcome() == NOP
    assert outcome(**selectors) == NO_MATCH


def test_these_are_all() -> None:
    assert {field.name for field in dataclasses.fields(Rule)} == {*SELECTORS, *NO_SELECTORS}
