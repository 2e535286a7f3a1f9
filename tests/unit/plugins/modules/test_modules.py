# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole modules, from the arguments that Ansible hands over to the result that it gets back."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import typing as t

import pytest
import yaml
from ansible_collections.fleetvpn.routing.plugins.module_utils import _ansible
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import KernelError, MissingDependency
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_answers import failure
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_socket import Refused

from tests.fakes.kernel import MemoryKernel
from tests.module_args import patch_module_args

Result = dict[str, t.Any]
Run = t.Callable[..., Result]


@pytest.fixture
def kernel() -> MemoryKernel:
    made = MemoryKernel()
    made.link("wg0", arptype=65534)
    return made


@pytest.fixture
def run(kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module with options; the result is what it wrote."""

    def whole(module_name: str, /, **params: t.Any) -> Result:
        module = importlib.import_module(f"ansible_collections.fleetvpn.routing.plugins.modules.{module_name}")
        with patch_module_args({key.rstrip("_"): value for key, value in params.items()}), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    monkeypatch.setattr(_ansible, "open_kernel", lambda netns: contextlib.nullcontext(kernel))
    # A module runs where no controller is; other tests of this process import it, and warnings would go to its display.
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False, raising=False)
    return whole


def test_rule_from_arguments_to_result(run: Run) -> None:
    params = {"priority": 1500, "from_": "198.51.100.10", "iif": "lo", "table": 1500, "not_": False}
    announced = run("rule", _ansible_check_mode=True, **params)
    made = run("rule", **params)
    assert made["changed"] is announced["changed"] is True
    assert made["plan"] == announced["plan"]
    assert "diff" not in made
    again = run("rule", _ansible_diff=True, **params)
    assert again["changed"] is False
    assert (
        again["diff"]["before"] == again["diff"]["after"] == "1500:\tfrom 198.51.100.10 iif lo lookup 1500 proto 152\n"
    )


def test_route_from_arguments_to_result(run: Run) -> None:
    made = run("route", dst="default", family="ipv6", dev="wg0", table=1500, _ansible_diff=True)
    assert made["plan"] == [
        {
            "op": "add",
            "kind": "route",
            "family": "ipv6",
            "text": "default dev wg0 table 1500 metric 1024 pref medium",
        }
    ]
    assert made["diff"]["before"] == ""


def test_table_announces_without_writing(run: Run) -> None:
    made = run("table", name="inside-of-a-test", id=2999, _ansible_check_mode=True)
    assert made["changed"] is True
    assert made["plan"] == [{"op": "add", "kind": "table", "family": None, "text": "2999\tinside-of-a-test"}]


def test_mistake_is_one_line_with_field_value_and_what_is_accepted(run: Run) -> None:
    failed = run("rule", priority=1500, from_="198.51.100.10/24", table=1500)
    assert failed["failed"] is True
    assert failed["field"] == "from"
    assert failed["value"] == "198.51.100.10/24"
    assert failed["accepted"] == "198.51.100.0/24"
    assert failed["msg"] == "from: '198.51.100.10/24' has host bits set; accepted: 198.51.100.0/24"


@pytest.mark.parametrize(
    "error", [MissingDependency("pyroute2 is needed"), KernelError("no memory", errno=12, operation="add rule")]
)
def test_what_goes_wrong_below_is_a_clean_failure(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(netns: str | None) -> t.NoReturn:
        raise error

    monkeypatch.setattr(_ansible, "open_kernel", fail)
    failed = run("rule", priority=1500, from_="198.51.100.10", table=1500)
    assert failed["failed"] is True
    assert failed["error"] == type(error).__name__


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("rule", {"priority": 1500, "from_": "198.51.100.10", "table": 1500}),
        ("endpoint", {"netns": "unit", "what_if": "skip", "identities": [{"name": "outside", "interface": "wg0"}]}),
        ("endpoint_info", {"netns": "unit"}),
    ],
)
def test_a_kernel_without_policy_routing_is_refused_in_one_line(
    run: Run, kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch, name: str, params: dict[str, t.Any]
) -> None:
    """It answers a dump of rules as for a family that it does not have."""

    def rules(family: int) -> t.NoReturn:
        raise failure(Refused(errno.EOPNOTSUPP, "Operation not supported"), "RTM_GETRULE")

    monkeypatch.setattr(kernel, "rules", rules)
    failed = run(name, **params)
    assert (failed["failed"], failed["error"], failed["field"]) == (True, "NotSupported", "kernel")
    assert failed["msg"].count("\n") == 0
    assert kernel.applied == []


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("rule", {"priority": 1500, "from_": "198.51.100.10", "table": 1500}),
        ("route", {"dst": "203.0.113.0/24", "dev": "wg0", "table": 1500}),
        ("table", {"name": "inside-of-a-test", "id": 2999, "_ansible_check_mode": True}),
    ],
)
def test_the_result_has_what_is_documented_and_nothing_else(run: Run, name: str, params: dict[str, t.Any]) -> None:
    made = run(name, **params)
    module = importlib.import_module(f"ansible_collections.fleetvpn.routing.plugins.modules.{name}")
    documented = yaml.safe_load(module.RETURN)
    assert set(made) - {"changed", "invocation", "warnings"} == set(documented)
    assert all(set(step) == set(documented["plan"]["contains"]) for step in made["plan"])


def test_warnings_reach_the_user(run: Run) -> None:
    run("rule", priority=1500, from_="198.51.100.10", table=1500, protocol=77)
    made = run("rule", priority=1500, from_="198.51.100.10", table=1500)
    assert any("protocol 77" in str(warning) for warning in made["warnings"])
