# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""galaxy-importer takes our artefact without a warning, and would not take a broken one.

The importer lives in an environment of its own (`make import-check` makes it).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import typing as t
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORTER = ROOT / "build/galaxy-importer/bin"
MINIMUM = (0, 4, 44)


def copy_tree(target: Path) -> None:
    """Copy what git knows, and what is new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def build(source: Path, target: Path) -> Path:
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    command = [str(galaxy), "collection", "build", str(source), "--output-path", str(target)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (artefact,) = target.glob("fleetvpn-routing-*.tar.gz")
    return artefact


def reproducible(artefact: Path) -> Path:
    """The artefact as `make release` leaves it."""
    tool = ROOT / "tests" / "tools" / "reproducible.py"
    subprocess.run([sys.executable, str(tool), str(artefact), "1700000000"], check=True)
    return artefact


def run_importer(artefact: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment["PATH"] = f"{IMPORTER}:{environment['PATH']}"
    environment["ANSIBLE_HOME"] = str(scratch / "ansible")
    environment["GALAXY_IMPORTER_ANSIBLE_LOCAL_TMP"] = str(scratch / "tmp")
    command = [str(IMPORTER / "python"), "-m", "galaxy_importer.main", str(artefact)]
    return subprocess.run(command, check=False, cwd=scratch, env=environment, capture_output=True, text=True)


def complaints(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the importer finds wrong: it gives most of it as warnings and ends well all the same."""
    lines = [line for line in result.stdout.splitlines() if line.startswith(("WARNING", "ERROR"))]
    if result.returncode != 0 and not lines:
        return [f"exit {result.returncode}: {result.stderr}"]
    return lines


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def unknown_licence(tree: Path) -> None:
    edit(tree / "galaxy.yml", "- GPL-3.0-or-later", "- Nobody-knows-1.0")


def tag_that_is_no_tag(tree: Path) -> None:
    edit(tree / "galaxy.yml", "- networking", "- Networking & more")


def unreadable_bound(tree: Path) -> None:
    edit(tree / "meta/runtime.yml", '">=2.18.0"', '"two point eighteen"')


def module_without_documentation(tree: Path) -> None:
    (tree / "plugins/modules").mkdir(parents=True, exist_ok=True)
    (tree / "plugins/modules/broken.py").write_text("DOCUMENTATION = '{'\n", encoding="utf-8")


def role_without_readme(tree: Path) -> None:
    tasks = tree / "roles/broken/tasks"
    tasks.mkdir(parents=True)
    (tasks / "main.yml").write_text("---\n", encoding="utf-8")


def playbook_that_does_not_lint(tree: Path) -> None:
    (tree / "playbooks").mkdir(exist_ok=True)
    (tree / "playbooks/broken.yml").write_text("---\n- hosts: all\n  tasks: [{shell: reboot}]\n", encoding="utf-8")


# What is broken, and what the importer says of it and of nothing else.
BROKEN_TREES = {
    unknown_licence: "valid SPDX license identifiers",
    tag_that_is_no_tag: "'tag' has invalid format",
    unreadable_bound: "'requires_ansible' is not a valid requirement",
    module_without_documentation: "Error running ansible-doc",
    role_without_readme: "No role readme found",
    playbook_that_does_not_lint: "playbooks/broken.yml",
}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of the environment, which is about to be released; otherwise that of the tree."""
    if "FLEETVPN_ARTEFACT" in os.environ:
        return Path(os.environ["FLEETVPN_ARTEFACT"])
    tree = tmp_path_factory.mktemp("tree")
    copy_tree(tree)
    return reproducible(build(tree, tmp_path_factory.mktemp("artefact")))


def test_importer_is_one_that_looks() -> None:
    """Version 0.1.1, which pip falls back to beside other tools, accepts anything."""
    command = [str(IMPORTER / "python"), "-c", "import galaxy_importer; print(galaxy_importer.__version__)"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert tuple(int(part) for part in re.findall(r"\d+", version)[:3]) >= MINIMUM


def test_artefact_is_accepted_without_a_warning(artefact: Path, tmp_path: Path) -> None:
    result = run_importer(artefact, tmp_path)
    assert complaints(result) == []
    assert "Importer processing completed successfully" in result.stdout


def test_artefact_holds_nothing_of_the_workshop(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        top_level = {name.split("/", 1)[0] for name in archive.getnames()}
    assert not top_level & {".ci", ".git", "Makefile", "bench", "build", "demo", "extensions", "tests"}


def test_artefact_holds_no_screenshot_and_is_small(artefact: Path) -> None:
    """Galaxy takes 20 MB; ours is text."""
    with tarfile.open(artefact) as archive:
        kinds = {Path(info.name).suffix for info in archive if info.isfile()}
    shown = {"", ".css", ".html", ".j2", ".js", ".md", ".rst", ".svg", ".txt"}
    assert kinds <= shown | {".conf", ".json", ".py", ".sh", ".toml", ".yaml", ".yml"}
    assert artefact.stat().st_size < 1_000_000


def test_artefact_is_the_same_bytes_wherever_it_was_built(tmp_path: Path) -> None:
    """Built from two copies of the tree, whose files the file system lists in another order and by another time."""
    built = []
    for number, reverse in enumerate((False, True)):
        tree, target = tmp_path / f"tree{number}", tmp_path / f"built{number}"
        for directory in (tree, tree / "docs", tree / "meta"):
            directory.mkdir(parents=True)
        for name in sorted(("README.md", "galaxy.yml", "docs/on-host.md", "meta/runtime.yml"), reverse=reverse):
            shutil.copy(ROOT / name, tree / name)
        built.append(reproducible(build(tree, target)).read_bytes())
    assert built[0] == built[1]


@pytest.mark.parametrize("breakage", BROKEN_TREES, ids=lambda breakage: breakage.__name__)
def test_broken_tree_is_refused(breakage: t.Callable[[Path], None], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    copy_tree(tree)
    # A whole role takes the linter seconds, and the importer stops at its first complaint about one.
    shutil.rmtree(tree / "roles", ignore_errors=True)
    breakage(tree)
    said = complaints(run_importer(build(tree, tmp_path), tmp_path))
    assert any(BROKEN_TREES[breakage] in line for line in said), said


def test_file_changed_after_the_build_is_refused(artefact: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "--extract", "--file", str(artefact), "--directory", str(unpacked)], check=True)
    edit(unpacked / "meta/runtime.yml", "routing:", "changed:")
    changed = tmp_path / artefact.name
    with tarfile.open(changed, "w:gz") as archive:
        archive.add(unpacked, arcname="")
    result = run_importer(changed, tmp_path)
    assert result.returncode != 0
    assert "runtime.yml" in complaints(result)[0]
