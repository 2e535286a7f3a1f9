# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rule, one route, one name: what is planned, that check mode says it, and that a second run has nothing to do."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _single
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import (
    Conflict,
    InvalidInput,
    NotSupported,
    VerificationError,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._worker import Context, Result

from tests.fakes.kernel import MemoryKernel

OURS, FOREIGN = 152, 77


@pytest.fixture
def kernel() -> MemoryKernel:
    made = MemoryKernel()
    made.link("eth0")
    made.address("eth0", "192.0.2.10/24")
    made.address("eth0", "2001:db8::10/64")
    made.link("wg0", arptype=65534)
    return made


class Work(t.NamedTuple):
    """A module's work on one host, to be done with one set of options or another."""

    worker: t.Callable[[Context], Result]
    kernel: MemoryKernel
    root: pathlib.Path

    def __call__(self, check: bool = False, **params: t.Any) -> Result:
        whole = {"state": "present", "protocol": OURS, **{name.rstrip("_"): value for name, value in params.items()}}
        opened = functools.partial(contextlib.nullcontext, self.kernel)
        return self.worker(Context(whole, opened, check_mode=check, diff=True, root=str(self.root)))


@pytest.fixture
def rule(kernel: MemoryKernel, tmp_path: pathlib.Path) -> Work:
    return Work(_single.ensure_rule, kernel, tmp_path)


@pytest.fixture
def route(kernel: MemoryKernel, tmp_path: pathlib.Path) -> Work:
    return Work(_single.ensure_route, kernel, tmp_path)


@pytest.fixture
def table(kernel: MemoryKernel, tmp_path: pathlib.Path) -> Work:
    return Work(_single.ensure_table, kernel, tmp_path)


def test_rule_comes_once_and_goes(rule: Work) -> None:
    params = {"priority": 1500, "from_": "192.0.2.10", "table": 1500}
    announced = rule(check=True, **params)
    assert rule.kernel.applied == []
    made = rule(**params)
    assert made == announced
    assert made.as_result(diff=True) == {
        "changed": True,
        "plan": [{"op": "add", "kind": "rule", "family": "ipv4", "text": "1500:\tfrom 192.0.2.10 lookup 1500"}],
        "diff": {
            "before": "",
            "after": "1500:\tfrom 192.0.2.10 lookup 1500 proto 152\n",
            "before_header": "ip -4 -N rule show",
            "after_header": "ip -4 -N rule show",
        },
    }
    assert rule(**params).as_result(diff=False) == {"changed": False, "plan": []}
    assert rule(state="absent", **params).after == ""
    assert not rule(state="absent", **params).changed


WANTED = Rule(4, 1500, table=1500, src="192.0.2.10/32", protocol=OURS)


@pytest.mark.parametrize(
    ("copies", "present", "steps"),
    [(0, True, ["add"]), (1, True, []), (3, True, ["remove"] * 2), (0, False, []), (2, False, ["remove"] * 2)],
)
def test_copies_of_a_rule(copies: int, present: bool, steps: list[str]) -> None:
    assert [step.op for step in _single.rule_steps(WANTED, [WANTED] * copies, present=present)] == steps


@pytest.mark.parametrize("state", ["present", "absent"])
def test_foreign_twin_of_a_rule_stays_and_is_named(rule: Work, state: str) -> None:
    twin = dataclasses.replace(WANTED, protocol=FOREIGN)
    rule.kernel.apply([Operation("add", twin)])
    done = rule(state=state, priority=1500, from_="192.0.2.10", table=1500)
    assert done.changed == (state == "present")
    assert "protocol 77" in done.warnings[0]
    assert FOREIGN in [found.protocol for found in rule.kernel.rules(4) if found == twin]


def test_goto_needs_a_rule_there(rule: Work) -> None:
    params = {"priority": 1500, "family": "ipv4", "action": "goto", "goto": 1600}
    with pytest.raises(InvalidInput, match="leads to no rule"):
        rule(**params)
    assert not rule(state="absent", **params).changed
    rule(priority=1600, family="ipv4", action="nop")
    assert rule(**params).changed


def test_dscp_is_refused_by_an_old_kernel_before_it_is_opened(rule: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.release", lambda: "6.1.0-31-amd64")
    with pytest.raises(NotSupported):
        rule(priority=1500, family="ipv4", dscp=46, table=1500)


def test_a_name_of_a_table_is_resolved_by_the_files(rule: Work, route: Work, table: Work) -> None:
    with pytest.raises(InvalidInput, match="name of no table"):
        rule(priority=1500, from_="192.0.2.10", table="inside")
    table(name="inside", id=2000)
    assert rule(priority=1500, from_="192.0.2.10", table="inside").plan[0]["text"].endswith("lookup 2000")
    assert "table 2000" in route(dst="10.0.0.0/8", dev="wg0", table="inside").plan[0]["text"]


class Forgetful(MemoryKernel):
    """A kernel that drops an attribute in silence, as old ones do with what they do not know."""

    def apply(self, operations: t.Sequence[Operation]) -> None:
        super().apply([Operation(one.op, dataclasses.replace(one.target, iif=None)) for one in operations])


def test_what_the_kernel_does_not_keep_is_undone_and_reported(tmp_path: pathlib.Path) -> None:
    work = Work(_single.ensure_rule, Forgetful(), tmp_path)
    before = work.kernel.rules(4)
    with pytest.raises(VerificationError, match="does not keep"):
        work(priority=1500, from_="192.0.2.10", iif="lo", table=1500)
    assert work.kernel.rules(4) == before


def test_route_comes_changes_in_place_and_goes(route: Work) -> None:
    params = {"dst": "10.0.0.0/8", "table": 1500}
    steps = []
    for change in ({"dev": "wg0"}, {"dev": "wg0", "mtu": 1400}, {"gateway": "192.0.2.1"}, {"type": "unreachable"}):
        announced = route(check=True, **params, **change)
        done = route(**params, **change)
        assert done == announced
        assert not route(**params, **change).changed
        steps += [step["op"] for step in done.plan]
    assert steps == ["add", "replace", "replace", "replace"]
    assert route(state="absent", **params).changed
    assert not route(state="absent", **params).changed


OLD = Route(4, "10.0.0.0/8", 1500, dev="wg0", scope=253, protocol=OURS)
NEW = dataclasses.replace(OLD, mtu=1400)
THEIRS = dataclasses.replace(OLD, protocol=FOREIGN)


@pytest.mark.parametrize(
    ("found", "present", "steps"),
    [
        ([], True, [Operation("add", NEW)]),
        ([NEW], True, []),
        ([OLD], True, [Operation("replace", NEW, OLD)]),
        ([OLD, NEW], True, [Operation("remove", OLD)]),
        ([OLD, OLD], True, [Operation("replace", NEW, OLD), Operation("remove", OLD)]),
        ([NEW, THEIRS], True, []),
        ([OLD, THEIRS], False, [Operation("remove", OLD)]),
        ([THEIRS], False, []),
    ],
)
def test_steps_of_a_route(found: list[Route], present: bool, steps: list[Operation]) -> None:
    assert _single.route_steps(NEW, found, present=present) == steps


@pytest.mark.parametrize("found", [[THEIRS], [OLD, THEIRS], [dataclasses.replace(NEW, protocol=FOREIGN)]])
def test_a_key_that_is_taken_is_a_conflict(found: list[Route]) -> None:
    with pytest.raises(Conflict, match="protocol 77") as caught:
        _single.route_steps(NEW, found, present=True)
    assert caught.value.field == "dst"


IMPOSSIBLE: dict[str, tuple[dict[str, t.Any], str]] = {
    "device": ({"dev": "eth9"}, "dev"),
    "device of a next hop": ({"nexthops": [{"dev": "eth0"}, {"dev": "eth9"}]}, "nexthops[1].dev"),
    "gateway elsewhere": ({"gateway": "203.0.113.1"}, "gateway"),
    "gateway by another device": ({"gateway": "192.0.2.1", "dev": "wg0"}, "gateway"),
    "gateway of a next hop": ({"nexthops": [{"dev": "eth0"}, {"gateway": "203.0.113.1"}]}, "nexthops[1].gateway"),
    "own address as gateway": ({"gateway": "192.0.2.10"}, "gateway"),
    "source": ({"dev": "wg0", "src": "192.0.2.11"}, "src"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_route_is_refused_by_option(route: Work, name: str) -> None:
    params, field = IMPOSSIBLE[name]
    with pytest.raises(InvalidInput) as caught:
        route(check=True, dst="10.0.0.0/8", **params)
    assert caught.value.field == field
    assert caught.value.accepted
    assert route.kernel.applied == []


@pytest.mark.parametrize(
    "params",
    [
        {"gateway": "203.0.113.1", "dev": "wg0", "onlink": True},
        {"gateway": "192.0.2.1"},
        {"gateway": "fe80::1", "dev": "wg0", "family": "ipv4"},
        {"gateway": "2001:db8::1"},
        {"dev": "wg0", "src": "192.0.2.10"},
        {"dev": "wg0", "src": "127.0.0.1"},
    ],
)
def test_possible_route_is_taken(route: Work, params: dict[str, t.Any]) -> None:
    assert route(check=True, dst="10.0.0.0/8", **params).changed


def test_gateway_may_be_reached_by_the_table_itself(route: Work) -> None:
    route(dst="203.0.113.1", dev="wg0", table=1500)
    assert route(check=True, dst="10.0.0.0/8", gateway="203.0.113.1", table=1500).changed
    with pytest.raises(InvalidInput):
        route(check=True, dst="10.0.0.0/8", gateway="203.0.113.1", table=1501)


def test_a_gateway_is_not_looked_for_behind_the_default_that_it_replaces(route: Work) -> None:
    route(dst="0.0.0.0/0", dev="wg0", table=1500)
    text = route(dst="0.0.0.0/0", gateway="192.0.2.1", table=1500).plan[0]["text"]
    assert text == "default via 192.0.2.1 dev eth0 table 1500"


def test_a_default_by_a_device_makes_a_gateway_reachable_only_where_the_device_is_named(route: Work) -> None:
    route(dst="0.0.0.0/0", dev="wg0", table=1500)
    assert route(check=True, dst="10.0.0.0/8", gateway="203.0.113.1", dev="wg0", table=1500).changed
    with pytest.raises(InvalidInput):
        route(check=True, dst="10.0.0.0/8", gateway="203.0.113.1", table=1500)


def test_of_two_equal_prefixes_the_tables_own_counts(route: Work) -> None:
    route(dst="192.0.2.0/24", dev="wg0", table=100)
    assert "dev wg0" in route(check=True, dst="10.0.0.0/8", gateway="192.0.2.1", table=100).plan[0]["text"]


def test_name_comes_moves_and_goes(table: Work, tmp_path: pathlib.Path) -> None:
    own = tmp_path / "etc/iproute2/rt_tables.d/fleetvpn.conf"
    steps = []
    for params in ({"id": 2000}, {"id": 2001}, {"state": "absent"}):
        announced = table(check=True, name="inside", **params)
        before = own.read_text() if own.exists() else ""
        done = table(name="inside", **params)
        assert (done, done.before) == (announced, before)
        assert done.after == (own.read_text() if own.exists() else "")
        assert not table(name="inside", **params).changed
        steps += [(step["op"], step["text"]) for step in done.plan]
    assert steps == [("add", "2000\tinside"), ("replace", "2001\tinside"), ("remove", "2001\tinside")]


def named_by_others(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "etc/iproute2/rt_tables.d/others.conf"
    path.parent.mkdir(parents=True)
    path.write_text("2000 theirs\n")


@pytest.mark.parametrize(
    ("params", "field"), [({"name": "theirs", "id": 2001}, "name"), ({"name": "inside", "id": 2000}, "id")]
)
def test_names_of_others_are_not_contradicted(
    table: Work, tmp_path: pathlib.Path, params: dict[str, t.Any], field: str
) -> None:
    named_by_others(tmp_path)
    with pytest.raises(Conflict, match=r"others\.conf") as caught:
        table(**params)
    assert caught.value.field == field


def test_names_of_others_are_good_enough_and_stay(table: Work, tmp_path: pathlib.Path) -> None:
    named_by_others(tmp_path)
    assert not table(name="theirs", id=2000).changed
    left = table(name="theirs", state="absent")
    assert not left.changed
    assert "others.conf" in left.warnings[0]


def test_name_of_another_table_stays(table: Work) -> None:
    table(name="inside", id=2000)
    assert not table(name="inside", id=2001, state="absent").changed
    assert table(name="inside", id=2000, state="absent").changed


def test_main_has_its_name_already(table: Work) -> None:
    assert not table(name="main", id=254).changed
