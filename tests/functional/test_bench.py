# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each benchmark in small: it runs, and it measures what it says. How fast things are is for C(make bench)."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from tests.bench.__main__ import GROUPS, main
from tests.bench.hosts import ENDPOINT, fleet
from tests.bench.plays import PING, inventory, run
from tests.bench.unchanged import against_ping

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


# A hundred and fifty tasks of Ansible take a minute.
SLOW = ("first",)


@pytest.mark.parametrize("group", [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in GROUPS])
def test_runs_and_writes_its_figures(group: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    assert main([group, "--quick", "--results", str(results)]) == 0
    figures = json.loads(results.read_text())["figures"]
    assert all(figure["values"] for figure in figures)
    assert len(capsys.readouterr().out.splitlines()) == len({figure["key"] for figure in figures}) > 0


def test_a_task_that_fails_is_not_measured(tmp_path: pathlib.Path) -> None:
    with fleet(1) as hosts:
        inventory(tmp_path / "inventory.yml", hosts)
        with pytest.raises(RuntimeError, match="no such"):
            run(tmp_path, [[PING], [{"ansible.builtin.fail": {"msg": "no such thing"}}]])


def test_a_task_that_changes_something_is_no_unchanged_one(tmp_path: pathlib.Path) -> None:
    gone = {"fleetvpn.routing.endpoint": {"state": "absent", "confirm": {"by": "none"}}}
    with fleet(1) as hosts:
        inventory(tmp_path / "inventory.yml", hosts)
        with pytest.raises(RuntimeError, match="nothing did"):
            against_ping(tmp_path, [ENDPOINT, gone], 1)
