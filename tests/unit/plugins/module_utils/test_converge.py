# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves behind when a step after the change fails: the state of before."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._confirm import Window
from ansible_collections.fleetvpn.routing.plugins.module_utils._converge import Request, converge
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import NotPermitted, VerificationError
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.fields import table_id
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._store import Store
from ansible_collections.fleetvpn.routing.plugins.module_utils._work import ROUNDS

from tests.fakes.kernel import MemoryKernel

PARAMS = {"identities": [{"name": "inside", "interface": ["vpn0"], "gateway": ["none"]}]}


class Surroundings:
    """A host whose name files cannot be written."""

    def __init__(self, root: Path, *, writable: bool) -> None:
        self.store = Store(root / "sets.d", owner=root.stat().st_uid)
        self.stores = [self.store]
        self.window = Window(root, None, owner=self.store.owner)
        self._writable = writable

    def table(self, value: object, field: str) -> int:
        return table_id(value, field)

    def named_tables(self) -> dict[str, int]:
        return {}

    def refuse_contradiction(self, wanted: t.Sequence[tuple[str, int]]) -> None:
        pass

    def misnamed_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> list[str]:
        return [f"+{number} {name}" for name, number in wanted.items() if name not in before]

    def name_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> None:
        if not self._writable:
            raise NotPermitted("cannot write names")

    def clients_told(self, _record: object, _name: str) -> list[dict[str, t.Any]]:
        return []

    def tunnels(self, declaration: object) -> dict[str, str]:
        return {}

    def gateways(self) -> dict[str, tuple[str, ...]]:
        return {}


@pytest.fixture
def kernel() -> MemoryKernel:
    memory = MemoryKernel()
    memory.link("vpn0", kind="tun", arptype=65534)
    memory.address("vpn0", "198.51.100.10/32")
    return memory


def test_what_cannot_be_written_down_is_undone(kernel: MemoryKernel, tmp_path: Path) -> None:
    before = (kernel.rules(4), kernel.routes(4, protocol=151), kernel.links())
    host = Surroundings(tmp_path, writable=False)
    with pytest.raises(NotPermitted):
        converge(kernel, host, Request("main", PARAMS))
    assert (kernel.rules(4), kernel.routes(4, protocol=151), kernel.links()) == before
    assert host.store.names() == []


def test_the_same_on_a_host_that_can_be_written(kernel: MemoryKernel, tmp_path: Path) -> None:
    host = Surroundings(tmp_path, writable=True)
    assert converge(kernel, host, Request("main", PARAMS)).changed
    assert host.store.names() == ["main"]
    assert not converge(kernel, host, Request("main", PARAMS)).changed


class Disturbed(MemoryKernel):
    """Somebody adds a rule of our block behind the first few changes."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times
        self._added = 0

    def apply(self, operations: t.Sequence[Operation]) -> None:
        super().apply(operations)
        if self._left:
            self._left -= 1
            self._added += 1
            super().apply([Operation("add", Rule(4, 2900 + self._added, action="nop", protocol=151))])

    def injected(self) -> list[Rule]:
        return [rule for rule in self.rules(4) if 2900 < rule.priority <= 2900 + self._added]


def disturbed(times: int) -> Disturbed:
    memory = Disturbed(times)
    memory.link("vpn0", kind="tun", arptype=65534)
    memory.address("vpn0", "198.51.100.10/32")
    return memory


@pytest.mark.parametrize("times", [1, 4])
def test_what_comes_while_it_is_applied_is_removed_too(tmp_path: Path, times: int) -> None:
    kernel = disturbed(times)
    host = Surroundings(tmp_path, writable=True)
    assert converge(kernel, host, Request("main", PARAMS)).changed
    assert kernel.injected() == []
    assert converge(kernel, host, Request("main", PARAMS)).plan.empty


def test_what_always_comes_back_is_not_outlasted_and_all_is_undone(tmp_path: Path) -> None:
    kernel = disturbed(ROUNDS)
    before = (kernel.rules(4), kernel.rules(6), kernel.routes(4), kernel.routes(6), kernel.links(), kernel.guards)
    host = Surroundings(tmp_path, writable=True)
    with pytest.raises(VerificationError, match="does not keep what was applied, first of it: 2905:"):
        converge(kernel, host, Request("main", PARAMS))
    theirs = kernel.injected()
    assert [rule.priority for rule in theirs] == [2901, 2902, 2903, 2904, 2905]  # what was removed is back, too
    kernel.apply([Operation("remove", rule) for rule in theirs])
    assert (
        kernel.rules(4),
        kernel.rules(6),
        kernel.routes(4),
        kernel.routes(6),
        kernel.links(),
        kernel.guards,
    ) == before
    assert host.store.names() == []
