# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sysctls: only what was asked for, on the uplinks alone, listed, saved and put back."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import RoutingError
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation, Sysctl

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import CORP, INET, Endpoint

WORDS = ["rp_filter", "arp", "use_oif_addrs_only"]
SET = {
    "ipv4/conf/up0/rp_filter": "1",
    "ipv4/conf/up0/arp_ignore": "1",
    "ipv4/conf/up0/arp_announce": "2",
    "ipv6/conf/up0/use_oif_addrs_only": "1",
}


@pytest.fixture
def endpoint(make: Make) -> Endpoint:
    return make(mode="identity")


def values(endpoint: Endpoint) -> dict[str, str]:
    """Every setting of every device, and those of all and default."""
    script = "cd /proc/sys/net && grep -rs . ipv4/conf ipv6/conf | grep -v stable_secret"
    lines = endpoint.host.shell(script).splitlines()
    return {name: value for name, _colon, value in (line.partition(":") for line in lines)}


def changed(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in after.items() if before.get(name) != value}


def test_nothing_is_changed_unasked(endpoint: Endpoint) -> None:
    before = values(endpoint)
    endpoint.apply(CORP, INET, unbound="corp")
    assert changed(before, values(endpoint)) == {}


def test_what_was_asked_for_is_listed_and_put_back(endpoint: Endpoint) -> None:
    endpoint.apply(CORP, INET)
    before = values(endpoint)
    endpoint.params["sysctls"] = WORDS
    announced = endpoint.announce().plan.as_result()
    assert changed(before, values(endpoint)) == {}
    plan = endpoint.apply().plan.as_result()
    assert plan == announced
    assert {(step["op"], step["kind"], step["text"]) for step in plan} == {
        ("set", "sysctl", f"net.{name.replace('/', '.')}={value}") for name, value in SET.items()
    }
    assert changed(before, values(endpoint)) == SET
    assert not endpoint.apply().changed
    endpoint.remove()
    assert changed(before, values(endpoint)) == {}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_is_no_longer_there_takes_its_values_back(endpoint: Endpoint, word: str) -> None:
    endpoint.host.sysctl(ipv4__conf__up0__rp_filter=2)
    before = values(endpoint)
    endpoint.apply(CORP, INET, sysctls=WORDS)
    endpoint.apply(CORP, INET, sysctls=[other for other in WORDS if other != word])
    kept = {name for name in SET if f"/{word.partition('_')[0]}" not in name}
    assert set(changed(before, values(endpoint))) == kept
    endpoint.remove()
    assert changed(before, values(endpoint)) == {}


def test_what_lets_followed_connections_pass_is_put_back(endpoint: Endpoint) -> None:
    """On the tunnel that they are followed by, and nowhere else."""
    followed, mark = {**CORP, "follow_connections": True}, {"mark": "0x1000000/0xf000000"}
    endpoint.apply(followed, INET, **mark)
    before = values(endpoint)
    endpoint.apply(followed, INET, **mark, sysctls=["src_valid_mark"])
    assert changed(before, values(endpoint)) == {"ipv4/conf/vpn0/src_valid_mark": "1"}
    endpoint.apply(followed, INET, **mark, sysctls=[])
    assert changed(before, values(endpoint)) == {}
    endpoint.apply(followed, INET, **mark, sysctls=["src_valid_mark"])
    endpoint.remove()
    assert changed(before, values(endpoint)) == {}


def test_what_somebody_else_has_changed_meanwhile_stays(endpoint: Endpoint) -> None:
    endpoint.apply(CORP, INET, sysctls=["rp_filter"])
    endpoint.host.sysctl(ipv4__conf__up0__rp_filter=2)
    endpoint.remove()
    assert values(endpoint)["ipv4/conf/up0/rp_filter"] == "2"


def test_a_host_that_answers_even_less_arp_goes_on_doing_so(endpoint: Endpoint) -> None:
    endpoint.host.sysctl(ipv4__conf__up0__arp_ignore=2)
    endpoint.apply(CORP, INET, sysctls=["arp"])
    assert values(endpoint)["ipv4/conf/up0/arp_ignore"] == "2"
    endpoint.remove()
    assert values(endpoint)["ipv4/conf/up0/arp_ignore"] == "2"


def test_a_device_that_comes_back_gets_them_again(endpoint: Endpoint) -> None:
    endpoint.apply(CORP, INET, sysctls=["rp_filter"])
    before = values(endpoint)
    endpoint.host.sysctl(ipv4__conf__up0__rp_filter=0)
    endpoint.apply()
    assert changed(before, values(endpoint)) == {}
    endpoint.remove()
    assert values(endpoint)["ipv4/conf/up0/rp_filter"] == "0"


def test_a_failure_puts_them_back(endpoint: Endpoint) -> None:
    before = values(endpoint)

    class Refusing:
        """Takes everything, sysctls included, and then an operation that the kernel refuses."""

        def __init__(self, real: Kernel) -> None:
            self._real = real

        def __getattr__(self, name: str) -> t.Any:
            return getattr(self._real, name)

        def apply(self, operations: t.Sequence[Operation]) -> None:
            nowhere = Sysctl("ipv4/conf/fvtnone/rp_filter", "1")
            self._real.apply([*operations, Operation("set", nowhere, nowhere)])

    state = endpoint.state()
    with pytest.raises(RoutingError, match=r"net\.ipv4\.conf\.fvtnone\.rp_filter=1"):
        endpoint.apply(CORP, INET, sysctls=WORDS, kernel=Refusing)
    assert (changed(before, values(endpoint)), endpoint.state()) == ({}, state)


def test_all_that_is_looser_than_the_device_is_said(endpoint: Endpoint) -> None:
    endpoint.strict(2)
    found = endpoint.apply(CORP, INET, sysctls=["rp_filter"])
    assert [text for text in found.warnings if "net.ipv4.conf.all.rp_filter=2" in text and "up0" in text]
    endpoint.strict(0)
    assert not [text for text in endpoint.apply().warnings if "rp_filter" in text]


def test_everything_still_answers_where_it_should(make: Make) -> None:
    endpoint = make()
    endpoint.apply(CORP, INET, sysctls=WORDS)
    assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
    assert endpoint.wrong(endpoint.both(endpoint.unbound)) == []
