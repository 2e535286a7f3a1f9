# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several authors on one host: two sets, and single tasks of rule and route beside them."""

from __future__ import annotations

import functools
import os
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _single
from ansible_collections.fleetvpn.routing.plugins.module_utils._argspec import ROUTE, RULE
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._worker import Context

from tests.functional.endpoints import (
    IDENTITIES,
    INSIDE,
    OUTSIDE,
    TUNNEL,
    UPLINK,
    device,
    ensure,
    files,
    namespace,
    state,
)
from tests.functional.onhost import SETS, declare, hosts, rules, seen

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

OTHER = "10.20.0.5"
RUNTIME = "/run/fleetvpn/sets.d"
FIRST: dict[str, t.Any] = {
    "identities": [IDENTITIES[0], {**IDENTITIES[1], "pools": ["10.8.0.0/16"], "destinations": ["10.88.0.0/16"]}],
    "rules": [{"priority": 1800, "from": "10.99.0.0/24", "table": "900"}],
    "routes": [{"dst": "10.99.0.0/16", "dev": "up0", "table": "900"}],
}
SECOND: dict[str, t.Any] = {
    "set": "second",
    "identities": [{"name": "third", "interface": ["vpn1"], "gateway": ["none"], "destinations": ["10.89.0.0/16"]}],
    "rules": [{"priority": 1801, "from": "10.98.0.0/24", "table": "901"}],
    "routes": [{"dst": "10.98.0.0/16", "dev": "up0", "table": "901"}],
}


@pytest.fixture
def netns() -> t.Iterator[str]:
    with namespace(*UPLINK, *TUNNEL, *device("vpn1", f"{OTHER}/32")) as name:
        yield name


def task(netns: str, kind: str, **params: t.Any) -> None:
    """One task of module rule or route."""
    spec = {"rule": RULE, "route": ROUTE}[kind]
    whole = {key: option.get("default") for key, option in spec.items()}
    context = Context(
        {**whole, "protocol": 152, "state": "present", **params}, functools.partial(open_kernel, netns), diff=True
    )
    assert {"rule": _single.ensure_rule, "route": _single.ensure_route}[kind](context).changed


def of_block(lines: t.Sequence[str], base: int) -> list[str]:
    """The rules at the priorities of one set's block."""
    return [line for line in lines if line.partition(":")[0] in map(str, range(base, base + 1000))]


def test_each_has_a_block_of_its_own(netns: str) -> None:
    one, two = ensure(netns, **FIRST), ensure(netns, **SECOND)
    assert [found.values["numbers"]["priority_base"] for found in (one, two)] == [2000, 3000]
    lines = state(netns)
    assert any(f"from {OTHER} " in line for line in of_block(lines, 3000))
    assert not any(f"from {OTHER} " in line for line in of_block(lines, 2000))
    assert not any(f"from {INSIDE} " in line for line in of_block(lines, 3000))
    assert files(netns) == ["sets.d/main.json", "sets.d/second.json"]


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_neither_prunes_the_other(netns: str, order: tuple[dict[str, t.Any], dict[str, t.Any]]) -> None:
    for wanted in order:
        ensure(netns, **wanted)
    both = state(netns)
    for wanted in order:
        again = ensure(netns, **wanted)
        assert (again.changed, again.plan) == (False, [])
    assert state(netns) == both


@pytest.mark.parametrize(("stays", "goes"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_removal_of_one_leaves_the_other_to_the_letter(
    netns: str, stays: dict[str, t.Any], goes: dict[str, t.Any]
) -> None:
    before = state(netns)
    ensure(netns, **stays)
    alone = state(netns)
    ensure(netns, **goes)
    ensure(netns, state="absent", set=goes.get("set", "main"))
    assert state(netns) == alone
    ensure(netns, state="absent", set=stays.get("set", "main"))
    assert state(netns) == before
    assert files(netns) == []


GREEDY: dict[str, t.Any] = {"name": "greedy", "interface": ["vpn1"], "gateway": ["none"], "addresses": ["10.20.0.9"]}


def claim(rule: int | None = None, route: dict[str, t.Any] | None = None, **identity: t.Any) -> dict[str, t.Any]:
    """What another set asks for."""
    rules = [] if rule is None else [{"priority": rule, "to": "10.1.0.0/16", "table": "905"}]
    routes = [] if route is None else [{"dev": "up0", **route}]
    return {"identities": [{**GREEDY, **identity}], "rules": rules, "routes": routes}


CLAIMS: dict[str, tuple[str, dict[str, t.Any]]] = {
    "address": ("addresses", claim(addresses=[INSIDE])),
    "address that is found": ("addresses", {"identities": [{"name": "greedy", "interface": ["up0"]}]}),
    "address in a pool": ("addresses", claim(addresses=["10.8.3.4"])),
    "pool around an address": ("pools", claim(pools=["198.51.100.0/24"])),
    "pool": ("pools", claim(pools=["10.8.0.0/16"])),
    "part of a pool": ("pools", claim(pools=["10.8.3.0/24"])),
    "more than a pool": ("pools", claim(pools=["10.0.0.0/8"])),
    "table of an identity": ("table", claim(table="2001")),
    "table of routes": ("table", claim(table="900")),
    "table for its routes": ("routes", claim(route={"dst": "10.1.0.0/16", "table": "2001"})),
    "table of other routes": ("routes", claim(route={"dst": "10.1.0.0/16", "table": "900"})),
    "route in main": ("routes", claim(route={"dst": "10.88.0.0/16", "metric": 151})),
    "destination": ("destinations", claim(addresses=[OTHER], destinations=["10.88.0.0/16"])),
    "priority of a rule": ("rules", claim(rule=1800)),
    "priority in the block": ("rules", claim(rule=2700)),
    "block": ("numbers.priority_base", {**claim(), "numbers": {"priority_base": 2000}}),
    "part of the block": ("numbers.priority_base", {**claim(), "numbers": {"priority_base": 2999}}),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_one_has_is_refused_to_the_other(netns: str, name: str) -> None:
    field, wanted = CLAIMS[name]
    ensure(netns, **FIRST)
    before = state(netns), files(netns)
    with pytest.raises(Conflict, match="set main") as caught:
        ensure(netns, set="second", **wanted)
    assert caught.value.field == field
    assert caught.value.accepted
    assert (state(netns), files(netns)) == before


def test_what_a_killed_run_of_one_began_is_refused_to_the_other(netns: str) -> None:
    ensure(netns, **FIRST)
    store = "/run/fleetvpn/netns/" + netns + "/sets.d"
    os.rename(f"{store}/main.json", f"{store}/main.pending")
    with pytest.raises(Conflict, match="set main"):
        ensure(netns, set="second", identities=[{**GREEDY, "addresses": [INSIDE]}])


def test_single_tasks_stay(netns: str) -> None:
    task(netns, "rule", priority=2301, **{"from": INSIDE, "iif": "lo", "table": "2002"})
    task(netns, "rule", priority=2500, **{"from": "10.97.0.0/24", "table": "2001"})
    task(netns, "route", dst="10.97.0.0/16", dev="up0", table="2002")
    task(netns, "route", dst="10.96.0.0/16", dev="up0")
    before = state(netns)
    ensure(netns, **FIRST)
    ensure(netns, **FIRST)
    ensure(netns, **{**FIRST, "identities": IDENTITIES[:1], "rules": [], "routes": []})
    assert [line for line in state(netns, without="151") if " proto 152" in f"{line} "] == [
        line for line in before if " proto 152" in f"{line} "
    ]
    ensure(netns, state="absent")
    assert state(netns) == before


def test_single_tasks_are_free_to_act_beside_a_set(netns: str) -> None:
    ensure(netns, **FIRST)
    before = state(netns)
    task(netns, "rule", priority=2301, **{"from": INSIDE, "iif": "lo", "table": "2001"})
    assert ensure(netns, **FIRST).plan == []
    task(netns, "rule", priority=2301, state="absent", **{"from": INSIDE, "iif": "lo", "table": "2001"})
    assert state(netns) == before


def test_a_pool_takes_no_address_of_another_set(netns: str) -> None:
    ensure(netns, **SECOND)
    before = state(netns), files(netns)
    greedy = {**IDENTITIES[1], "pools": ["10.0.0.0/8"]}
    with pytest.raises(Conflict, match="set second") as caught:
        ensure(netns, identities=[IDENTITIES[0], greedy])
    assert caught.value.field == "pools"
    assert (state(netns), files(netns)) == before


@pytest.mark.parametrize("persistent", [True, False])
def test_a_set_moves_between_persistent_and_not(persistent: bool) -> None:
    with hosts() as make:
        host = make("h")
        declare(host, persistent=persistent)
        kept = rules(host)
        announced = declare(host, persistent=not persistent, check=True)
        moved = declare(host, persistent=not persistent)
        assert announced["changed"]
        assert moved["changed"]
        assert moved["plan"] == announced["plan"]
        assert all(step["kind"] == "file" for step in moved["plan"])
        assert rules(host) == kept
        places = {path: seen(host, path).exists() for path in (f"{SETS}/main.json", f"{RUNTIME}/main.json")}
        assert places == {f"{SETS}/main.json": not persistent, f"{RUNTIME}/main.json": persistent}
        assert not declare(host, persistent=not persistent)["changed"]
        assert not [path for path in seen(host, SETS).rglob("*.json") if persistent]
        declare(host, state="absent", persistent=persistent)
        assert not any(seen(host, path).exists() for path in places)
        assert OUTSIDE not in str(rules(host))
