# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to which set, as values; tests/functional/test_sets.py asks the kernel."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict, InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.declaration import Identity, Numbers
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._parse import parse_declaration
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe.ways import Way
from ansible_collections.fleetvpn.routing.plugins.module_utils._record import Record, objects_from
from ansible_collections.fleetvpn.routing.plugins.module_utils._sets import (
    choose_numbers,
    refuse_found,
    refuse_shared,
    remembered,
    scope_of,
)

OURS, TASK = 151, 152
RULE = Rule(4, 2300, src="198.51.100.10/32", table=2001, protocol=OURS)
STATED = Rule(4, 1800, src="10.99.0.0/24", table=900, protocol=OURS)
ROUTE = Route(4, "0.0.0.0/0", 2001, dev="vpn0", protocol=OURS)
EXTRA = Route(4, "10.99.0.0/16", 900, dev="up0", protocol=OURS)
IN_MAIN = Route(4, "10.88.0.0/16", 254, dev="vpn0", metric=151, protocol=OURS)
MAIN_SET = Record(
    declaration={
        "identities": [
            {"name": "outside", "interface": ["up0"]},
            {
                "name": "inside",
                "gateway": ["none"],
                "destinations": ["10.88.0.0/16"],
                "addresses": ["198.51.100.10", "203.0.113.7/32"],
            },
        ]
    },
    objects=objects_from({RULE, STATED}, {ROUTE, EXTRA, IN_MAIN}),
    tables={"local": 2000, "inside": 2001},
    names={"corp": 900, "fleetvpn_inside": 2001},
    identities=[
        {"key": "outside", "interface": "up0", "addresses": ["192.0.2.10"]},
        {"key": "inside", "interface": "vpn0", "addresses": ["198.51.100.10"], "pools": ["10.8.0.0/16"]},
    ],
    numbers={"priority_base": 2000, "table_base": 2000, "protocol": OURS, "group": OURS},
)
ANOTHER: dict[str, t.Any] = {"name": "other", "interface": ["vpn1"], "gateway": ["none"]}


def number(value: object, field: str) -> int:
    return int(str(value))


def way(address: str, gateway: tuple[str, ...] = ("none",)) -> Way:
    return Way("other", Identity("other", interface=("vpn1",), gateway=gateway), "vpn1", (address,), (), 2010)


class TestNumbers:
    def test_first_set_has_the_usual_ones(self) -> None:
        assert choose_numbers({}, None, {}) == Numbers()

    def test_another_set_has_the_next_block(self) -> None:
        assert choose_numbers({}, None, {"main": MAIN_SET}).priority_base == 3000

    def test_what_a_set_has_it_keeps(self) -> None:
        kept = Record(numbers={"priority_base": 5000, "table_base": 7000, "protocol": OURS, "group": OURS})
        assert choose_numbers({}, kept, {}) == Numbers(5000, 7000)

    def test_stated_ones_win(self) -> None:
        stated = {"priority_base": 6000, "group": 99, "protocol": None}
        assert choose_numbers(stated, MAIN_SET, {}) == Numbers(6000, group=99)

    @pytest.mark.parametrize("base", [1001, 2000, 2999])
    def test_blocks_do_not_overlap(self, base: int) -> None:
        with pytest.raises(Conflict, match="set main") as caught:
            choose_numbers({"priority_base": base}, None, {"main": MAIN_SET})
        assert caught.value.field == "numbers.priority_base"

    @pytest.mark.parametrize("base", [1000, 3000])
    def test_blocks_may_touch(self, base: int) -> None:
        assert choose_numbers({"priority_base": base}, None, {"main": MAIN_SET}).priority_base == base

    @pytest.mark.parametrize(
        ("key", "accepted", "refused"),
        [
            ("priority_base", (1, 31766), (-1, 0, 31767, 32000, 32768, 4294967295)),
            ("table_base", (256, 4294966296), (-1, 0, 1, 100, 253, 255, 4294966297, 2**33)),
            ("protocol", (5, 150, 255), (-1, 0, 1, 2, 3, 4, TASK, 256, 300)),
            ("group", (1, 4294967294), (-1, 0, 4294967295, 2**33)),
        ],
    )
    def test_each_has_its_limits(self, key: str, accepted: tuple[int, ...], refused: tuple[int, ...]) -> None:
        assert [getattr(choose_numbers({key: number}, None, {}), key) for number in accepted] == list(accepted)
        for number in refused:
            with pytest.raises(InvalidInput) as caught:
                choose_numbers({key: number}, None, {})
            assert (caught.value.field, caught.value.value) == (f"numbers.{key}", number)
            assert caught.value.accepted

    def test_all_blocks_ahead_of_main_may_be_taken(self) -> None:
        full = {str(base): Record(numbers={"priority_base": base}) for base in range(2000, 32000, 1000)}
        with pytest.raises(InvalidInput, match=r"numbers\.priority_base"):
            choose_numbers({}, None, full)
        assert choose_numbers({"priority_base": 1000}, None, full).priority_base == 1000

    def test_what_a_set_has_is_not_asked_again(self) -> None:
        kept = Record(numbers={"priority_base": 40000, "protocol": TASK})
        assert choose_numbers({}, kept, {}) == Numbers(40000, protocol=TASK)


class TestScope:
    mine = scope_of(Numbers(), [MAIN_SET], [])
    other = scope_of(Numbers(3000), [], [MAIN_SET])

    def test_own_are_those_of_the_block_and_those_written_down(self) -> None:
        assert self.mine.owns_rule(Rule(4, 2999, action="nop", protocol=OURS))
        assert self.mine.owns_rule(STATED)
        assert not self.mine.owns_rule(Rule(4, 1801, src="10.99.0.0/24", table=900, protocol=OURS))
        assert self.mine.owns_route(Route(6, "::/0", 2001, dev="vpn0", metric=1024, protocol=OURS), ())
        assert self.mine.owns_route(IN_MAIN, ())
        assert not self.mine.owns_route(Route(4, "10.1.0.0/16", 254, dev="vpn0", protocol=OURS), ())

    def test_a_single_task_owns_its_own(self) -> None:
        assert not self.mine.owns_rule(Rule(4, 2300, src="10.1.0.0/16", table=2001, protocol=TASK))
        assert not self.mine.owns_route(Route(4, "10.1.0.0/16", 2001, dev="vpn0", protocol=TASK), (2001,))

    def test_what_another_wrote_down_is_the_others(self) -> None:
        assert not self.other.owns_rule(RULE)
        assert not self.other.owns_route(EXTRA, (900,))
        assert not self.other.owns_route(IN_MAIN, ())
        assert self.other.foreign_tables == {2000, 2001, 900}


CLAIMS: dict[str, tuple[str, dict[str, t.Any]]] = {
    "address": ("addresses", {"identities": [{**ANOTHER, "addresses": ["198.51.100.10"]}]}),
    "address in a pool": ("addresses", {"identities": [{**ANOTHER, "addresses": ["10.8.3.4"]}]}),
    "pool around an address": ("pools", {"identities": [{**ANOTHER, "pools": ["198.51.100.0/24"]}]}),
    "pool around a stated address": ("pools", {"identities": [{**ANOTHER, "pools": ["203.0.113.0/24"]}]}),
    "pool": ("pools", {"identities": [{**ANOTHER, "pools": ["10.8.0.0/24"]}]}),
    "table": ("table", {"identities": [{**ANOTHER, "table": "2001"}]}),
    "table of routes": ("table", {"identities": [{**ANOTHER, "table": "900"}]}),
    "name of a table": ("tables", {"tables": [{"name": "corp", "id": 901}]}),
    "destination": ("destinations", {"identities": [{**ANOTHER, "destinations": ["10.88.0.0/16"]}]}),
    "route": ("routes", {"routes": [{"dst": "10.88.0.0/16", "table": "254", "metric": 151, "dev": "up0"}]}),
    "route in a table": ("routes", {"routes": [{"dst": "10.1.0.0/16", "table": "900", "dev": "up0"}]}),
    "rule": ("rules", {"rules": [{"priority": 1800, "family": "ipv6", "action": "nop"}]}),
    "rule in the block": ("rules", {"rules": [{"priority": 2001, "family": "ipv6", "action": "nop"}]}),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_another_set_has_is_refused(name: str) -> None:
    field, params = CLAIMS[name]
    declaration = parse_declaration("second", params, Numbers(3000), number)
    refuse_shared(declaration, {})
    with pytest.raises(Conflict, match="claimed by set main already") as caught:
        refuse_shared(declaration, {"main": MAIN_SET})
    assert caught.value.field == field


def test_what_no_other_has_is_accepted() -> None:
    params = {
        "identities": [{**ANOTHER, "addresses": ["198.51.100.11"], "pools": ["10.9.0.0/16"], "table": "2002"}],
        "routes": [{"dst": "10.88.0.0/16", "table": "254", "metric": 152, "dev": "up0"}],
        "rules": [{"priority": 1801, "family": "ipv6", "action": "nop"}],
    }
    refuse_shared(parse_declaration("second", params, Numbers(3000), number), {"main": MAIN_SET})


def test_a_found_address_is_refused_as_a_stated_one() -> None:
    refuse_found([way("198.51.100.11")], {"main": MAIN_SET})
    for address in ("198.51.100.10", "10.8.3.4"):
        with pytest.raises(Conflict, match="set main"):
            refuse_found([way(address)], {"main": MAIN_SET})


def test_an_uplinks_address_may_be_in_a_pool() -> None:
    """Every pool spares it, and whoever travels does not choose it."""
    refuse_found([way("10.8.3.4", gateway=("auto",))], {"main": MAIN_SET})
    identities = [
        {**ANOTHER, "pools": ["192.0.2.0/24"]},
        {"name": "up", "interface": ["up1"], "addresses": ["10.8.3.4"]},
    ]
    refuse_shared(parse_declaration("second", {"identities": identities}, Numbers(3000), number), {"main": MAIN_SET})


def test_a_record_is_remembered_way_by_way() -> None:
    assert remembered(None) == {}
    found = remembered(MAIN_SET)
    assert (found["inside"].table, found["inside"].device) == (2001, "vpn0")
    assert found["inside"].addresses == ("198.51.100.10",)
    assert (found["local"].table, found["local"].device) == (2000, None)
