# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules endpoint and endpoint_info as a whole, from arguments to result, on a kernel in memory."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import pathlib
import typing as t

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.fleetvpn.routing.plugins.module_utils import _ansible
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint_spec import ENDPOINT
from ansible_collections.fleetvpn.routing.plugins.module_utils._host import history
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._store import Store, all_stores, store_for
from ansible_collections.fleetvpn.routing.plugins.module_utils._validate import foresee

from tests.fakes.kernel import MemoryKernel
from tests.module_args import patch_module_args

Result = dict[str, t.Any]
Run = t.Callable[..., Result]
MODULES = "ansible_collections.fleetvpn.routing.plugins.modules"
INSIDE, OUTSIDE, GATEWAY = "198.51.100.10", "192.0.2.10", "192.0.2.1"
IDENTITIES: list[dict[str, t.Any]] = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "interface": "vpn0", "gateway": "none", "pools": ["198.51.100.0/24"]},
]
FOREIGN = Rule(4, 1500, src="10.77.0.0/16", table=77, protocol=77)


@pytest.fixture
def kernel() -> MemoryKernel:
    made = MemoryKernel()
    made.link("up0")
    made.link("vpn0", arptype=65534)
    made.address("up0", f"{OUTSIDE}/24")
    made.address("vpn0", f"{INSIDE}/32")
    made.apply([Operation("add", Route(4, "0.0.0.0/0", gateway=GATEWAY, dev="up0", protocol=16))])
    made.apply([Operation("add", FOREIGN)])
    made.applied.clear()
    return made


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """Where the sets of namespaces are kept, for a test that need not be root."""
    for function, name, value in (
        (store_for, "runtime_root", tmp_path),
        (all_stores, "runtime_root", tmp_path),
        (Store.__init__, "owner", os.geteuid()),
    ):
        monkeypatch.setitem(function.__kwdefaults__, name, value)
    return tmp_path / "netns" / "unit" / "sets.d"


@pytest.fixture
def run(
    kernel: MemoryKernel, stores: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run a module in a namespace; the result is what it wrote."""

    def whole(name: str = "endpoint", /, **params: t.Any) -> Result:
        module = importlib.import_module(f"{MODULES}.{name}")
        # The kernel of these tests cannot be copied into another namespace.
        skipped = {"what_if": "skip"} if name == "endpoint" else {}
        with patch_module_args({"netns": "unit", **skipped, **params}), pytest.raises(SystemExit):
            module.main()
        found: Result = json.loads(capsys.readouterr().out)
        return found

    monkeypatch.setattr(_ansible, "open_kernel", lambda netns: contextlib.nullcontext(kernel))
    # A module runs where no controller is; other tests of this process import it, and warnings would go to its display.
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False, raising=False)
    return whole


def documented(name: str = "endpoint") -> dict[str, t.Any]:
    """RETURN of a module."""
    found: dict[str, t.Any] = yaml.safe_load(importlib.import_module(f"{MODULES}.{name}").RETURN)
    return found


def shape(name: str, value: t.Any, contains: t.Mapping[str, t.Any]) -> list[str]:
    """Where a value has keys that are not documented."""
    entries = value if isinstance(value, list) else [value]
    return [f"{name}.{key}" for entry in entries if isinstance(entry, dict) for key in entry if key not in contains]


class TestResult:
    def test_has_what_is_documented_and_nothing_else(self, run: Run) -> None:
        made = run(identities=IDENTITIES, paths=[{"from": INSIDE, "to": "203.0.113.1"}])
        values = documented()
        assert set(made) - {"invocation", "warnings"} - set(values) == {"changed"}
        assert set(values) <= set(made)
        extra = [
            k
            for name, value in values.items()
            if "contains" in value
            for k in shape(name, made[name], value["contains"])
        ]
        assert extra == []
        assert {step["op"] for step in made["plan"]} == {"add", "set"}
        assert {step["kind"] for step in made["plan"]} == {"guard", "rule", "route", "group"}

    def test_shows_every_identity(self, run: Run) -> None:
        made = run(identities=IDENTITIES)
        outside, inside = made["identities"]
        assert outside == {
            "key": "outside",
            "name": "outside",
            "interface": "up0",
            "addresses": [OUTSIDE],
            "pools": [],
            "gateways": [GATEWAY],
            "table": 2001,
            "priority": 2201,
            "verdict": "proven",
        }
        assert (inside["interface"], inside["addresses"], inside["verdict"]) == ("vpn0", [INSIDE], "proven")
        assert made["numbers"] == {"priority_base": 2000, "table_base": 2000, "protocol": 151, "group": 151}
        assert (made["tunnels"], made["program"]) == ([], None)
        assert {(path["from"], path["dev"]) for path in made["paths"]} == {(OUTSIDE, "up0"), (INSIDE, "vpn0")}

    def test_of_a_tunnel_names_its_client(self, run: Run) -> None:
        tunnel = {"name": "inside", "tunnel": {"type": "wireguard", "connection": "vpn0"}}
        made = run(identities=[IDENTITIES[0], tunnel])
        assert made["tunnels"] == [
            {
                "identity": "inside",
                "type": "wireguard",
                "manager": None,
                "connection": "vpn0",
                "interface": "vpn0",
                "needs": [],
                "settings": {},
                "hooks": [],
            }
        ]

    def test_answers_a_stated_path_with_what_it_was(self, run: Run) -> None:
        made = run(identities=IDENTITIES, paths=[{"from": "inside", "to": "203.0.113.1", "expect": {"dev": "vpn0"}}])
        stated = made["paths"][-1]
        assert (stated["dev"], stated["before"]["dev"], stated["verdict"]) == ("vpn0", "up0", "proven")

    def test_has_a_diff_as_iproute2_writes_it(self, run: Run) -> None:
        made = run(identities=IDENTITIES, _ansible_diff=True)
        assert made["diff"]["before"] == "dev vpn0 group 0\n"
        lines = made["diff"]["after"].splitlines()
        guard = lines[: lines.index("}") + 1]
        assert guard[0] == "table inet fleetvpn {"
        assert "\t\tip saddr @address_inside4 goto address_inside" in guard
        assert [made["plan"][0]["text"], *lines[len(guard) :]] == [step["text"] for step in made["plan"]]
        assert f"2300:\tfrom {INSIDE} iif lo lookup 2000" in lines
        assert "diff" not in run(identities=IDENTITIES)

    def test_warns_of_what_is_ahead(self, run: Run) -> None:
        warnings = run(identities=IDENTITIES)["warnings"]
        assert any("foreign rule ahead of ours" in str(warning) for warning in warnings)


class TestCheckMode:
    def test_announces_what_is_done(self, run: Run, kernel: MemoryKernel, stores: pathlib.Path) -> None:
        before = {family: kernel.rules(family) for family in (4, 6)}
        announced = run(identities=IDENTITIES, _ansible_check_mode=True, _ansible_diff=True)
        assert kernel.applied == []
        assert not stores.exists()
        assert {entry["verdict"] for entry in announced["identities"]} == {None}
        made = run(identities=IDENTITIES, _ansible_diff=True)
        assert announced["changed"] is made["changed"] is True
        assert (announced["plan"], announced["diff"]) == (made["plan"], made["diff"])
        assert {family: kernel.rules(family) for family in (4, 6)} != before

    def test_of_a_second_run_and_the_run_find_nothing(self, run: Run, kernel: MemoryKernel) -> None:
        run(identities=IDENTITIES)
        kernel.applied.clear()
        for check in (True, False):
            again = run(identities=IDENTITIES, _ansible_check_mode=check)
            assert (again["changed"], again["plan"]) == (False, [])
            assert {entry["verdict"] for entry in again["identities"]} == {"proven"}
        assert kernel.applied == []

    def test_announces_removal(self, run: Run, kernel: MemoryKernel, stores: pathlib.Path) -> None:
        before = ([kernel.rules(family) for family in (4, 6)], [kernel.routes(family) for family in (4, 6)])
        links = kernel.links()
        run(identities=IDENTITIES)
        announced = run(state="absent", _ansible_check_mode=True)
        gone = run(state="absent")
        assert announced["plan"] == gone["plan"]
        assert {step["op"] for step in gone["plan"]} == {"remove", "set"}
        assert ([kernel.rules(family) for family in (4, 6)], [kernel.routes(family) for family in (4, 6)]) == before
        assert kernel.links() == links
        assert list(stores.glob("*.json")) == []
        assert not run(state="absent")["changed"]


class TestPrune:
    def test_takes_away_what_nobody_asks_for(self, run: Run) -> None:
        run(identities=IDENTITIES)
        gone = run(identities=IDENTITIES[:1])
        assert any(f"from {INSIDE} " in step["text"] for step in gone["plan"] if step["op"] == "remove")

    def test_is_not_done_when_told_so_and_can_be_made_up_for(self, run: Run) -> None:
        run(identities=IDENTITIES)
        assert all(step["op"] != "remove" for step in run(identities=IDENTITIES[:1], prune=False)["plan"])
        assert not run(identities=IDENTITIES[:1], prune=False)["changed"]
        late = run(identities=IDENTITIES[:1])
        assert any(f"from {INSIDE} " in step["text"] for step in late["plan"] if step["op"] == "remove")


class TestFailure:
    def test_is_one_line_with_field_value_and_what_is_accepted(self, run: Run, kernel: MemoryKernel) -> None:
        failed = run(identities=[{"name": "keep", "interface": "vpn0"}])
        assert failed["failed"] is True
        assert (failed["error"], failed["field"], failed["value"]) == ("InvalidInput", "identities[0].name", "keep")
        assert failed["accepted"]
        assert failed["msg"].startswith("identities[0].name: 'keep' is a reserved name; accepted: ")
        assert "\n" not in failed["msg"]
        assert kernel.applied == []

    def test_of_a_stated_path_shows_it_and_takes_the_change_back(
        self, run: Run, kernel: MemoryKernel, stores: pathlib.Path
    ) -> None:
        before = kernel.rules(4), kernel.routes(4), kernel.links()
        failed = run(identities=IDENTITIES, paths=[{"from": INSIDE, "to": "203.0.113.1", "expect": {"dev": "up0"}}])
        assert (failed["error"], failed["field"]) == ("VerificationError", "paths")
        wrong = [path for path in failed["paths"] if path["verdict"] == "wrong"]
        assert [path["differs"] for path in wrong] == [["dev: up0 expected, vpn0 found"]]
        assert (kernel.rules(4), kernel.routes(4), kernel.links()) == before
        assert list(stores.glob("*")) == []

    def test_of_the_kernel_names_the_operation(self, run: Run, kernel: MemoryKernel) -> None:
        failed = run(identities=IDENTITIES, routes=[{"dst": "10.1.0.0/16", "nexthop_id": 77, "table": "900"}])
        assert (failed["error"], failed["errno"]) == ("KernelError", 22)
        assert "10.1.0.0/16" in failed["operation"]
        assert kernel.rules(4)[1:2] == [FOREIGN]


class TestInfo:
    def test_has_what_is_documented(self, run: Run) -> None:
        run(identities=IDENTITIES)
        told = run("endpoint_info")
        values = documented("endpoint_info")
        assert set(values) <= set(told)
        assert told["changed"] is False
        assert told["suspended"] is None
        (only,) = told["sets"]
        assert (only["name"], only["state"], only["plan"]) == ("main", "proven", [])
        assert {entry["verdict"] for entry in told["identities"]} == {"proven"}
        assert [entry["text"] for entry in told["foreign"]] == [FOREIGN.text()]
        assert [entry["kind"] for entry in told["conflicts"]] == ["ahead"]

    def test_shows_drift(self, run: Run, kernel: MemoryKernel) -> None:
        run(identities=IDENTITIES)
        lost = next(rule for rule in kernel.rules(4) if rule.priority == 2302)
        kernel.apply([Operation("remove", lost)])
        (only,) = run("endpoint_info")["sets"]
        assert only["state"] == "drifted"
        assert [step["text"] for step in only["plan"]] == [lost.text()]

    def test_of_an_unknown_set_is_refused(self, run: Run) -> None:
        failed = run("endpoint_info", set="second")
        assert (failed["field"], failed["value"], failed["accepted"]) == ("set", "second", "none yet")

    def test_of_a_host_without_sets(self, run: Run) -> None:
        told = run("endpoint_info")
        assert (told["sets"], told["identities"], told["owned"]) == ([], [], [])

    def test_tells_what_was_put_right(self, run: Run, stores: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "OWNER", os.geteuid())
        run(identities=IDENTITIES)
        lost, other = (history.Repair(name, history.PUT_BACK, "rule ipv4 2302:") for name in ("main", "second"))
        for done in ([lost], [lost, other]):
            history.History(stores.parent / "history.json").add(done)
        told = run("endpoint_info")["repairs"]
        assert [(each["set"], each["times"]) for each in told] == [("second", 1), ("main", 2)]
        assert [each["set"] for each in run("endpoint_info", set="main")["repairs"]] == ["main"]

    def test_tells_what_was_refused_until_something_is_accepted(
        self, run: Run, stores: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "OWNER", os.geteuid())
        run(identities=IDENTITIES)
        bad = [*IDENTITIES, {"name": "gone", "interface": "nothing0", "required": True}]
        run(identities=bad, _ansible_check_mode=True)
        run(identities=[{"name": "outside", "interface": "auto", "table": 99999999999}])  # no host is to blame
        assert run("endpoint_info")["refused"] == []
        for _time in range(2):
            run(identities=bad)
        (only,) = run("endpoint_info")["refused"]
        assert (only["set"], only["times"]) == ("main", 2)
        assert "gone is required and pending" in only["reason"]
        assert set(only) == set(documented("endpoint_info")["refused"]["contains"])
        assert run("endpoint_info", set="main")["refused"] == [only]
        run(identities=IDENTITIES, _ansible_check_mode=True)
        assert run("endpoint_info")["refused"] == [only]
        assert not run(identities=IDENTITIES)["changed"]
        told = run("endpoint_info")
        assert (told["refused"], [each["done"] for each in told["repairs"]]) == ([], ["accepted", "refused"])
        run(state="absent")
        assert not stores.parent.exists()

    def test_a_refusal_that_cannot_be_remembered_is_said_all_the_same(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_path: pathlib.Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(history, "sync", broken)
        refused = run(identities=[{"name": "outside", "interface": "nothing0", "required": True}])
        assert refused["error"] == "VerificationError"

    def test_of_a_host_whose_first_set_was_refused(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "OWNER", os.geteuid())
        run(identities=[{"name": "outside", "interface": "nothing0", "required": True}])
        told = run("endpoint_info")
        assert (told["sets"], len(told["refused"])) == ([], 1)
        run(state="absent")
        assert run("endpoint_info")["refused"] == []


class TestForesee:
    """The plan that is made without a host is the one that module endpoint announces on a host that has nothing."""

    @pytest.fixture
    def kernel(self) -> MemoryKernel:
        return MemoryKernel()

    @pytest.mark.parametrize(
        "options",
        [
            {"identities": IDENTITIES},
            {"identities": [{"name": "inside", "pools": ["10.9.0.0/16", "2001:db8:9::/48"], "gateway": ["none"]}]},
            {"rules": [{"family": "ipv4", "priority": 1500, "table": "77"}], "numbers": {"priority_base": 5000}},
            {"identities": IDENTITIES, "state": "absent"},
        ],
    )
    def test_says_what_the_module_announces(self, run: Run, options: dict[str, t.Any]) -> None:
        announced = run(**options, _ansible_check_mode=True)["plan"]
        validated = ArgumentSpecValidator(ENDPOINT).validate(options).validated_parameters
        assert [step for step in foresee(validated) if step["kind"] != "table"] == announced
        assert bool(announced) is ("state" not in options)
