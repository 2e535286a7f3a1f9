# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Joining identities: what wins, what stays, and what is refused in one line."""

from __future__ import annotations

import copy
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fleetvpn.routing.plugins.filter.join_identities import FilterModule, join_identities
from hypothesis import given
from hypothesis import strategies as st

OUTSIDE = {"name": "outside", "interface": "auto"}
INSIDE = {
    "name": "inside",
    "tunnel": {"type": "wireguard", "manager": "wg-quick", "connection": "wg0"},
    "priority": 2300,
}

names = st.sampled_from(["inside", "outside", "guest", "lab"])
identities = st.fixed_dictionaries(
    {"name": names},
    optional={"priority": st.one_of(st.none(), st.integers(1, 9)), "pools": st.lists(st.just("10.0.0.0/8"))},
)
levels = st.lists(st.lists(identities, unique_by=lambda identity: identity["name"]), max_size=4)


def test_three_levels_become_one_list_in_the_order_of_the_first_mention() -> None:
    """The common case: all, group, host."""
    assert join_identities([OUTSIDE], [INSIDE], [{"name": "lab", "interface": "eth9"}]) == [
        OUTSIDE,
        INSIDE,
        {"name": "lab", "interface": "eth9"},
    ]


def test_a_later_identity_changes_single_keys() -> None:
    """What the later one does not mention stays."""
    assert join_identities([OUTSIDE, INSIDE], [{"name": "inside", "priority": 2400}]) == [
        OUTSIDE,
        {**INSIDE, "priority": 2400},
    ]


def test_a_nested_key_is_replaced_as_a_whole() -> None:
    """Else a group's manager would survive a host's other tunnel type."""
    later = {"name": "inside", "tunnel": {"type": "openvpn", "connection": "corp"}}
    assert join_identities([INSIDE], [later])[0]["tunnel"] == {"type": "openvpn", "connection": "corp"}


def test_null_gives_the_default_back() -> None:
    """A host can take away what its group set."""
    assert "priority" not in join_identities([INSIDE], [{"name": "inside", "priority": None}])[0]


def test_false_and_zero_are_values() -> None:
    """Only null is no value."""
    assert join_identities([{"name": "a", "backstop": True}], [{"name": "a", "backstop": False}]) == [
        {"name": "a", "backstop": False}
    ]


def test_levels_may_be_empty_or_null() -> None:
    """A group that declares nothing."""
    assert join_identities([], None, [OUTSIDE]) == [OUTSIDE]
    assert join_identities() == []


def test_the_filter_is_known_by_its_name() -> None:
    """What a playbook calls."""
    assert FilterModule().filters()["join_identities"] is join_identities


@pytest.mark.parametrize(
    ("given_levels", "message"),
    [
        (([OUTSIDE, OUTSIDE],), "first list, entry 1: 'outside' is there twice; accepted: one of each name"),
        (([], [INSIDE, {"interface": "wg0"}]), "second list, entry 1: has no name; accepted: a dictionary with a name"),
        (([], [], [{"name": ""}]), "third list, entry 0: has no name; accepted: a dictionary with a name"),
        (([{"name": 7}],), "first list, entry 0: has no name; accepted: a dictionary with a name"),
        ((["inside"],), "first list, entry 0: a string is no identity; accepted: a dictionary with a name"),
        (("inside",), "first list: a string is no list of identities; accepted: a list"),
        (([], {"name": "inside"}), "second list: a dictionary is no list of identities; accepted: a list"),
        (([], [], [], 5), "number 4 list: a number is no list of identities; accepted: a list"),
    ],
)
def test_what_is_no_list_of_named_identities_is_refused(given_levels: tuple[object, ...], message: str) -> None:
    """One line that says where, and what would be accepted."""
    with pytest.raises(AnsibleFilterError) as caught:
        join_identities(*given_levels)
    assert str(caught.value) == message


@given(levels)
def test_the_last_word_wins_and_nothing_that_came_in_changes(given_levels: list[list[dict[str, t.Any]]]) -> None:
    """For every name and key: the last level that mentions the key decides."""
    before = copy.deepcopy(given_levels)
    joined = {identity["name"]: identity for identity in join_identities(*given_levels)}
    assert given_levels == before
    for name in {identity["name"] for level in given_levels for identity in level}:
        said = [identity for level in given_levels for identity in level if identity["name"] == name]
        expected = {key: value for identity in said for key, value in identity.items()}
        assert joined[name] == {key: value for key, value in expected.items() if value is not None}


@given(levels)
def test_joining_twice_is_joining_once(given_levels: list[list[dict[str, t.Any]]]) -> None:
    """The joined list is a declaration like any other."""
    once = join_identities(*given_levels)
    assert join_identities(once) == once
