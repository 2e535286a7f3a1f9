# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits for its confirmation, as a value; and operations as data and back."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _confirm
from ansible_collections.fleetvpn.routing.plugins.module_utils._confirm import Terms, Window
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict, InvalidInput, KernelError
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.guard import (
    ACCEPT,
    MARK,
    Chain,
    Guard,
    NamedSet,
    device,
    matching,
    rule,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import (
    LinkGroup,
    Operation,
    OwnLink,
    Sysctl,
    Target,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Nexthop, Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._netns import is_this
from ansible_collections.fleetvpn.routing.plugins.module_utils._record import operations_from, operations_of
from ansible_collections.fleetvpn.routing.plugins.module_utils._store import Store

from tests.fakes.kernel import MemoryKernel

RULE = Rule(4, 2300, table=2000, src="198.51.100.10/32", iif="lo", uidrange=(1, 2), protocol=151)
ROUTE = Route(6, "::/0", table=2000, metric=1024, nexthops=(Nexthop("fe80::1", "wg0"), Nexthop(dev="wg1")))
GUARD = Guard(
    "fleetvpn",
    (NamedSet.addresses("inside4", 4, ["198.51.100.10", "10.9.0.0/16"]), NamedSet.devices("egress", ["wg0", "wg*"])),
    (Chain("leaving", (rule(matching("oifname", device("wg*")), ACCEPT),), "postrouting", 300), Chain(MARK)),
    ("counter odd",),
)
OPERATIONS = [
    Operation("remove", RULE),
    Operation("replace", ROUTE, dataclasses.replace(ROUTE, metric=7, nexthops=(), dev="wg0")),
    Operation("set", LinkGroup("wg0", 0), LinkGroup("wg0", 151)),
    Operation("replace", GUARD, dataclasses.replace(GUARD, sets=(), strange=())),
    Operation("set", Sysctl("ipv4/conf/up0/rp_filter", "0"), Sysctl("ipv4/conf/up0/rp_filter", "1")),
    Operation("remove", OwnLink("fleetvpn0")),
    Operation("set", OwnLink("fleetvpn0", up=False), OwnLink("fleetvpn0")),
]


def test_operations_come_back_as_they_were() -> None:
    found = operations_of(operations_from(OPERATIONS))
    assert found == OPERATIONS
    assert [each.target.protocol for each in found if isinstance(each.target, (Rule, Route))] == [151, 0]
    assert {type(each.target) for each in found} == set(t.get_args(Target))


@pytest.mark.parametrize(
    ("params", "connected", "by"),
    [
        ({}, True, "reconnect"),
        ({}, False, "none"),
        ({"by": "reconnect"}, False, "reconnect"),
        ({"by": "none"}, True, "none"),
    ],
)
def test_where_nobody_is_connected_nothing_is_confirmed_unless_asked(
    params: dict[str, t.Any], connected: bool, by: str
) -> None:
    assert Terms.of({"timeout": 30, "address": None, **params}, connected=connected).by == by


@pytest.mark.parametrize(
    ("netns", "this"), [(None, True), ("/proc/self/ns/net", True), ("/proc/self/ns/mnt", False), ("no such", False)]
)
def test_a_namespace_is_that_of_the_connection_by_what_it_is(netns: str | None, this: bool) -> None:
    assert is_this(netns) == this


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"timeout": 0}, "confirm.timeout"),
        ({"timeout": 3601}, "confirm.timeout"),
        ({"by": "probe"}, "confirm.address"),
        ({"by": "probe", "address": "192.0.2.1"}, "confirm.port"),
        ({"by": "probe", "address": "example.com", "port": 22}, "confirm.address"),
        ({"by": "probe", "address": "192.0.2.1", "port": 65536}, "confirm.port"),
    ],
)
def test_what_cannot_be_is_refused(params: dict[str, t.Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Terms.of(params)
    assert caught.value.field == field


def armed(**changed: t.Any) -> _confirm.Armed:
    made = _confirm.new(
        "main", Store(pathlib.Path("/nonexistent")), Terms("reconnect", 30), "root", absent=False, names={}
    )
    return dataclasses.replace(made, **changed)


def test_its_time_passes_and_a_boot_ends_it() -> None:
    assert 29 < armed().left <= 30
    assert not armed().expired
    assert armed(boot="another").expired
    assert armed(deadline=_confirm._now() - 1).expired
    assert armed().line() == "the change of set main by root is undone in 30 s unless confirmed"
    same = "the change of set main by root is undone 30 s after it was made unless confirmed"
    assert armed().line(counting=False) == same


def test_a_file_that_somebody_else_may_have_written_is_not_believed(tmp_path: pathlib.Path) -> None:
    window = Window(tmp_path, None, owner=os.getuid())
    window._write(armed())
    assert window.read() == armed(**{key: getattr(window.read(), key) for key in ("token", "deadline")})
    (tmp_path / "armed.json").chmod(0o644)
    with pytest.raises(Conflict, match="is not to be trusted"):
        window.read()
    (tmp_path / "armed.json").chmod(0o600)
    (tmp_path / "armed.json").write_text("{")
    with pytest.raises(Conflict, match="is damaged"):
        window.read()


class Stubborn(MemoryKernel):
    """A kernel that refuses one operation."""

    def apply(self, operations: t.Sequence[Operation]) -> None:
        if Operation("add", RULE) in operations:
            raise KernelError("no", errno=1, operation="add")
        super().apply(operations)


def test_what_can_be_taken_back_is_although_something_cannot() -> None:
    kernel = Stubborn()
    other = dataclasses.replace(RULE, priority=2301)
    left = _confirm.take_back(kernel, [Operation("add", RULE), Operation("add", other)])
    assert left == ["the kernel refused 'add': no"]
    assert other in kernel.rules(4)
    assert RULE not in kernel.rules(4)
