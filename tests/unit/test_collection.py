# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The metadata of the collection agrees with what the collection holds."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

# Top-level names that the artefact holds; anything else is named by build_ignore.
ARTEFACT = {
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "LICENSES",
    "README.md",
    "REUSE.toml",
    "changelogs",
    "docs",
    "galaxy.yml",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}


def read_yaml(path: str | Path) -> t.Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def module_names() -> list[str]:
    return sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


def test_action_group_holds_every_module_and_nothing_else() -> None:
    assert sorted(read_yaml("meta/runtime.yml")["action_groups"]["routing"]) == module_names()


@pytest.mark.parametrize("name", module_names())
def test_module_says_that_it_is_in_the_action_group(name: str) -> None:
    """In its own documentation or in a fragment that it extends."""
    text = (ROOT / f"plugins/modules/{name}.py").read_text(encoding="utf-8")
    documentation = yaml.safe_load(text.split('DOCUMENTATION = r"""', 1)[1].split('"""', 1)[0])
    fragments = [part for part in documentation.get("extends_documentation_fragment", []) if "_attributes" in part]
    assert "action_group" in documentation.get("attributes", {}) or fragments


def test_build_ignore_leaves_what_users_need() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    top_level = {line.split("/", 1)[0] for line in tracked.splitlines()}
    ignored = read_yaml("galaxy.yml")["build_ignore"]
    kept = {name for name in top_level if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)}
    assert kept <= ARTEFACT


def test_no_sanity_error_is_ignored() -> None:
    assert list((ROOT / "tests/sanity").glob("ignore*")) == []


def test_galaxy_accepts_the_tags() -> None:
    """At most twenty, and one of those that certification asks for."""
    tags = read_yaml("galaxy.yml")["tags"]
    assert len(tags) <= 20
    assert {"networking", "linux", "security"} <= set(tags)


class TestWorkflows:
    """What continuous integration and nox run is there, and a change meets what CONTRIBUTING says."""

    WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_what_is_used_of_others_is_one_commit(self, path: Path) -> None:
        """A tag can be moved to something else."""
        used = [step["uses"] for job in read_yaml(path)["jobs"].values() for step in job["steps"] if "uses" in step]
        assert used
        assert [name for name in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []

    def test_targets_exist(self) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        there = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
        assert {*self.targets(), *self.targets("schedule")} <= there
        nox = (ROOT / "noxfile.py").read_text(encoding="utf-8")
        sessions = re.search(r"^SESSIONS = (\{.*?^\})", nox, re.MULTILINE | re.DOTALL)
        assert sessions
        assert {target for targets in ast.literal_eval(sessions[1]).values() for target in targets} <= there

    def test_a_change_meets_every_ansible_core_and_a_week_everything(self) -> None:
        assert {"test", "matrix-controllers", "matrix-sanity"} <= set(self.targets())
        assert set(self.targets("schedule")) == {"test", "test-matrix", "test-long", "links"}

    def targets(self, event: str = "") -> list[str]:
        """At an event that is named in the expression; else at every other."""
        matrix = read_yaml(".github/workflows/test.yml")["jobs"]["make"]["strategy"]["matrix"]["target"]
        found = re.fullmatch(r"\$\{\{ fromJSON\(github.event_name == 'schedule' && '(.*?)' \|\| '(.*?)'\) \}\}", matrix)
        assert found
        return t.cast("list[str]", json.loads(found[1] if event == "schedule" else found[2]))
