# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: an ordered difference with an inverse."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.guard import Chain, Guard
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import LinkGroup, Sysctl
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._plan import Current, Desired, Plan, make_plan
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.hosts import H, recipe

T_I = Route(4, "0.0.0.0/0", 2002, dev="vpn0", src="198.51.100.10", protocol=151)
MAIN_ROUTE = Route(4, "10.0.0.0/8", 254, dev="vpn0", scope=253, metric=151, protocol=151)


def steps(plan: Plan) -> list[tuple[str, str]]:
    return [(o.op, o.kind) for o in plan.operations]


def whole() -> Desired:
    return recipe(H, unbound="inside").desired


def held(desired: Desired) -> Current:
    return Current(desired.rules, desired.routes, (), desired.groups, guard=desired.guard)


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert make_plan(whole(), held(whole())).empty


def test_routes_then_groups_then_rules_then_what_draws_unbound_traffic() -> None:
    desired = Desired((Rule(4, 2300, table=2002),), (MAIN_ROUTE, T_I), (LinkGroup("vpn0", 151),))
    plan = make_plan(desired, Current(groups=(LinkGroup("vpn0", 0),)))
    assert [o.target for o in plan.operations] == [T_I, LinkGroup("vpn0", 151), Rule(4, 2300, table=2002), MAIN_ROUTE]


def test_sysctls_stand_between_the_rules_that_come_and_those_that_go() -> None:
    strict, loose = (Sysctl("ipv4/conf/up0/rp_filter", value) for value in ("1", "0"))
    coming = make_plan(Desired((Rule(4, 2300, table=2002),), sysctls=(strict,)), Current(sysctls=(loose,)))
    assert steps(coming) == [("add", "rule"), ("set", "sysctl")]
    going = make_plan(Desired(loosened=(loose,)), Current((Rule(4, 2300, table=2002),), sysctls=(strict,)))
    assert steps(going) == [("set", "sysctl"), ("remove", "rule")]
    assert [o.target for o in coming.inverse().operations][:1] == [loose]


def test_a_sysctl_of_a_device_with_a_dot_is_written_as_sysctl_takes_it() -> None:
    assert Sysctl("ipv4/conf/eth0.100/rp_filter", "1").text() == "net.ipv4.conf.eth0/100.rp_filter=1"


def test_a_route_by_a_gateway_comes_after_the_prefix_that_holds_it() -> None:
    plan = make_plan(Desired(routes=whole().routes), Current())
    gateways = [bool(o.target.gateway) for o in plan.operations if isinstance(o.target, Route)]
    assert gateways == sorted(gateways)


def test_a_route_is_replaced_within_its_key() -> None:
    other = Route(4, "0.0.0.0/0", 2002, dev="vpn1", protocol=151)
    (operation,) = make_plan(Desired(routes=(T_I,)), Current(routes=(other,))).operations
    assert (operation.op, operation.before, operation.inverse().target) == ("replace", other, other)


def test_of_several_ipv6_routes_of_one_key_one_is_kept() -> None:
    wanted = Route(6, "::/0", 2002, dev="vpn1", protocol=151)
    stale = Route(6, "::/0", 2002, dev="vpn0", protocol=151)
    assert make_plan(Desired(routes=(wanted,)), Current(routes=(stale, wanted))).as_result() == [
        {"op": "remove", "kind": "route", "family": "ipv6", "text": stale.text()}
    ]


def test_a_device_that_is_left_to_the_kernel_is_no_difference() -> None:
    wanted = Route(4, "10.0.0.0/8", 3000, gateway="192.0.2.1", protocol=151)
    held = Route(4, "10.0.0.0/8", 3000, gateway="192.0.2.1", dev="up0", protocol=151)
    assert make_plan(Desired(routes=(wanted,)), Current(routes=(held,))).empty


def test_a_metric_is_part_of_the_key() -> None:
    other = Route(4, "0.0.0.0/0", 2002, dev="vpn0", src="198.51.100.10", metric=7, protocol=151)
    assert steps(make_plan(Desired(routes=(T_I,)), Current(routes=(other,)))) == [("add", "route"), ("remove", "route")]


def test_somebody_elses_route_is_never_overwritten() -> None:
    foreign = Route(4, "0.0.0.0/0", 2002, dev="eth9", protocol=4)
    with pytest.raises(Conflict, match="belongs to protocol 4"):
        make_plan(Desired(routes=(T_I,)), Current(occupied=(foreign,)))


def test_second_copies_of_a_rule_are_removed() -> None:
    rule = Rule(4, 2300, table=2002)
    assert steps(make_plan(Desired((rule,)), Current((rule, rule, rule)))) == [("remove", "rule")] * 2


class TestLeaving:
    """Removing a whole set: what each step leaves behind must never be a way by the wrong device."""

    order = tuple(o.target for o in make_plan(Desired(), held(whole())).operations)
    rules = tuple(target for target in order if isinstance(target, Rule))

    def index(self, priority: int, family: int = 4) -> int:
        return [(r.priority, r.family) for r in self.rules].index((priority, family))

    def test_rules_leave_before_the_routes_they_look_up(self) -> None:
        kinds = [type(target) for target in self.order]
        assert kinds == sorted(kinds, key=[Rule, Route, Guard].index)

    def test_the_backstop_leaves_after_the_lookups(self) -> None:
        assert self.index(2300) < self.index(2301) < self.index(2302)

    def test_the_uplink_leaves_last_and_from_its_end(self) -> None:
        assert self.index(2302) < self.index(2202) < self.index(2201) < self.index(2200)

    def test_what_exempts_leaves_after_what_it_exempts_from(self) -> None:
        assert max(self.index(2992), self.index(2994)) < self.index(2984)

    def test_the_target_of_goto_leaves_last(self) -> None:
        assert {rule.action for rule in self.rules[-2:]} == {"nop"}


class TestGuard:
    """First in and last out, as a whole."""

    old, new = Guard("fleetvpn", chains=(Chain("a"),)), Guard("fleetvpn", chains=(Chain("b"),))

    def test_comes_before_everything(self) -> None:
        first, *rest = make_plan(whole(), Current()).operations
        assert (first.op, first.target) == ("add", whole().guard)
        assert "guard" not in {operation.kind for operation in rest}

    def test_leaves_after_everything(self) -> None:
        assert make_plan(Desired(), held(whole())).operations[-1].target == whole().guard

    def test_is_replaced_and_put_back(self) -> None:
        (operation,) = make_plan(Desired(guard=self.new), Current(guard=self.old)).operations
        assert (operation.op, operation.target, operation.before) == ("replace", self.new, self.old)
        assert operation.inverse().target == self.old

    def test_is_left_alone_if_it_is_as_wanted(self) -> None:
        assert make_plan(Desired(guard=self.new), Current(guard=self.new)).empty


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_the_inverse_takes_everything_back(wanted: set[int], present: set[int]) -> None:
    def entries(numbers: set[int]) -> tuple[tuple[Rule, ...], tuple[Route, ...]]:
        rules = tuple(Rule(4, 2000 + number, table=1) for number in sorted(numbers))
        return rules, tuple(Route(4, f"10.{number}.0.0/16", 2000, dev=f"d{number % 3}") for number in sorted(numbers))

    rules, routes = entries(wanted)
    plan = make_plan(Desired(rules, routes), Current(*entries(present)))
    state = {*entries(present)[0], *entries(present)[1]}
    for operation in (*plan.operations, *plan.inverse().operations):
        before = {operation.before} if operation.before else set()
        state = state - before - ({operation.target} if operation.op == "remove" else set())
        state |= set() if operation.op == "remove" else {operation.target}
    assert state == {*entries(present)[0], *entries(present)[1]}


class TestSecondLook:
    """Connected IPv6 sockets keep their path when a route appears, until a rule changes."""

    @staticmethod
    def without(family: int) -> Plan:
        desired = whole()
        kept = tuple(r for r in desired.routes if r.family != family or r.table == 254)
        return make_plan(desired, dataclasses.replace(held(desired), routes=kept))

    def test_a_rule_comes_and_goes_behind_the_routes(self) -> None:
        plan = self.without(6)
        come, go = plan.operations[-2:]
        assert [(o.op, o.kind) for o in (come, go)] == [("add", "rule"), ("remove", "rule")]
        assert come.target == go.target
        assert come.target not in whole().rules

    def test_ipv4_needs_none(self) -> None:
        assert {o.kind for o in self.without(4).operations} == {"route"}

    def test_nor_does_a_plan_that_changes_rules(self) -> None:
        rules = [o for o in make_plan(whole(), Current()).operations if isinstance(o.target, Rule)]
        assert {o.op for o in rules} == {"add"}


TWIN = dataclasses.replace(T_I, src=None, protocol=3)
OURS = Rule(4, 1500, src="198.51.100.10/32", table=100, protocol=151)


def test_a_rule_is_taken_over_behind_ours_and_a_route_in_its_place() -> None:
    theirs = dataclasses.replace(OURS, protocol=3)
    plan = make_plan(Desired((OURS,), (T_I,)), Current(twins=(theirs, TWIN)))
    assert [(o.op, o.target, o.before, o.adopted) for o in plan.operations] == [
        ("replace", T_I, TWIN, True),
        ("add", OURS, None, False),
        ("remove", theirs, None, True),
    ]
    assert [o.target.protocol for o in plan.inverse().operations if isinstance(o.target, (Rule, Route))] == [3, 151, 3]


def test_what_is_taken_over_is_told_from_ours_by_its_owner() -> None:
    plan = make_plan(Desired((OURS,)), Current((OURS,), twins=(dataclasses.replace(OURS, protocol=0),)))
    assert [step["text"] for step in plan.as_result()] == [f"{OURS.text()} proto 0"]
