# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of addresses that leave by an uplink, where only IPsec policies encrypt them."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import NotPermitted
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Address, Policy
from ansible_collections.fleetvpn.routing.plugins.module_utils._policies import unencrypted

from tests.fakes.kernel import MemoryKernel
from tests.unit.plugins.module_utils.hosts import INSIDE, OUTSIDE, host, recipe

IPSEC: dict[str, t.Any] = {
    "name": "inside",
    "tunnel": {"type": "ipsec", "connection": "hq"},
    "pools": ["10.30.0.0/16", "fd00:30::/64"],
}
CLEAR = "identity inside: no IPsec policy covers {}: all that it sends leaves up0 in clear"
PARTLY = "identity inside: IPsec policies cover {} towards {} only: what it sends elsewhere leaves up0 in clear"
EVERYTHING = [Policy("10.30.0.5/32", "0.0.0.0/0")]
MANY = [Policy("10.30.0.5/32", f"10.{number}.0.0/24") for number in range(5)]
NAMED = "10.0.0.0/24, 10.1.0.0/24, 10.2.0.0/24 and 2 more"


def said(policies: list[Policy], *, six: bool = False) -> list[str]:
    address = Address(6, "fd00:30::5", 128, "up0") if six else Address(4, "10.30.0.5", 32, "up0")
    kernel = MemoryKernel()
    kernel.encrypted = policies
    return unencrypted(kernel, recipe(host(addresses=[address], tunnels={}), [OUTSIDE, IPSEC]).ways)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([], [CLEAR.format("10.30.0.5")]),
        ([Policy("10.30.0.6/32", "0.0.0.0/0")], [CLEAR.format("10.30.0.5")]),
        ([Policy("10.30.0.5/32", "0.0.0.0/0", if_id=7)], [CLEAR.format("10.30.0.5")]),
        ([Policy("10.30.0.0/16", "10.0.0.0/8")], [PARTLY.format("10.30.0.5", "10.0.0.0/8")]),
        (MANY, [PARTLY.format("10.30.0.5", NAMED)]),
        (EVERYTHING, []),
        ([Policy("10.30.0.5/32", "0.0.0.0/1"), Policy("10.30.0.5/32", "128.0.0.0/1")], []),
    ],
)
def test_one_line_for_what_leaves_in_clear(policies: list[Policy], expected: list[str]) -> None:
    assert said(policies) == expected


def test_in_both_families() -> None:
    assert said([Policy("fd00:30::/64", "2001:db8::/32")], six=True) == [PARTLY.format("fd00:30::5", "2001:db8::/32")]
    assert said([Policy("fd00:30::5/128", "::/0")], six=True) == []


def test_a_tunnel_with_a_device_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = MemoryKernel()
    monkeypatch.setattr(kernel, "policies", None)
    assert unencrypted(kernel, recipe(identities=[OUTSIDE, INSIDE]).ways) == []


def test_who_may_not_ask_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[Policy]:
        raise NotPermitted("no")

    kernel = MemoryKernel()
    monkeypatch.setattr(kernel, "policies", refuse)
    ways = recipe(host(addresses=[Address(4, "10.30.0.5", 32, "up0")], tunnels={}), [OUTSIDE, IPSEC]).ways
    assert "only root may ask" in unencrypted(kernel, ways)[0]
