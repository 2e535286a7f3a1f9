# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program's file: complete, free of Ansible, the same every time; and what installing would change."""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import typing as t
import zipfile

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import NotPermitted
from ansible_collections.fleetvpn.routing.plugins.module_utils._host import install, program, units
from ansible_collections.fleetvpn.routing.plugins.module_utils._version import VERSION

PROGRAM = "usr/local/sbin/fleetvpn-endpoint"
UNIT = f"etc/systemd/system/{units.WATCH}"


def imported(name: str) -> t.Iterator[str]:
    """The modules of our package that a module imports, wherever in it; as Ansible looks for what it has to send."""
    spec = importlib.util.find_spec(f"{program.PACKAGE}.{name}")
    assert spec
    assert spec.origin
    parts = name.split(".")
    package = parts if spec.submodule_search_locations else parts[:-1]
    for node in ast.walk(ast.parse(pathlib.Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            found = [".".join([*base, *more]) for more in ([], *([alias.name] for alias in node.names))]
            yield from (each for each in found if each and is_module(each))


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"{program.PACKAGE}.{name}") is not None
    except ModuleNotFoundError:
        return False


def closure(name: str) -> set[str]:
    found: set[str] = set()
    waiting = {name}
    while waiting:
        each = waiting.pop()
        found.add(each)
        parents = {each.rpartition(".")[0]} - {""}
        waiting |= ({*imported(each)} | parents) - found
    return found


class TestFile:
    def test_it_has_what_the_command_line_imports_and_nothing_else(self) -> None:
        assert set(program.MODULES) == closure("_host.cli")

    def test_ansible_sends_all_of_it_with_module_endpoint(self) -> None:
        assert set(program.MODULES) <= closure("_endpoint")

    def test_it_needs_no_ansible(self) -> None:
        with zipfile.ZipFile(io.BytesIO(program.build())) as archive:
            texts = {name: archive.read(name).decode() for name in archive.namelist()}
        importing = {
            name
            for name, text in texts.items()
            for node in ast.walk(ast.parse(text))
            if any(each == "ansible" or each.startswith("ansible.") for each in _names(node))
        }
        assert importing == set()

    def test_it_is_the_same_every_time(self) -> None:
        assert program.build() == program.build()

    def test_it_does_not_depend_on_the_clock_or_the_mask(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = program.build()
        monkeypatch.setattr("time.time", lambda: 2e9)
        old = os.umask(0o777)
        try:
            assert program.build() == before
        finally:
            os.umask(old)

    def test_it_is_the_same_from_an_archive(self, tmp_path: pathlib.Path) -> None:
        """As from what Ansible packs, and there compressed."""
        again = tmp_path / "again.zip"
        ours = zipfile.ZipFile(io.BytesIO(program.build()))
        with ours, zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as theirs:
            for name in ours.namelist():
                theirs.writestr(name, ours.read(name))
        script = (
            f"import sys; sys.path.insert(0, {str(again)!r})\n"
            f"from {program.PACKAGE}._host import program\n"
            "sys.stdout.buffer.write(program.build())"
        )
        done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=True)
        assert done.stdout == program.build()

    def test_it_says_its_version(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "program"
        path.write_bytes(program.build())
        done = subprocess.run([sys.executable, "-I", path, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"fleetvpn-endpoint {VERSION}\n"
        assert program.version_of(path.read_bytes()) == program.as_numbers(VERSION)

    @pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"PK\x03\x04 and then nothing"])
    def test_something_else_has_no_version(self, content: bytes) -> None:
        assert program.version_of(content) is None

    def test_versions_are_numbers(self) -> None:
        assert program.as_numbers("1.10.0") > program.as_numbers("1.9.1")


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A root directory that was booted with systemd."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return tmp_path


def ops(found: install.Installation) -> dict[str, str]:
    return {pathlib.Path(step["text"]).name: step["op"] for step in found.plan}


class TestInstallation:
    def test_looking_changes_nothing(self, root: pathlib.Path) -> None:
        found = install.look(wanted=True, root=root)
        assert ops(found) == {"fleetvpn-endpoint": "add", units.BOOT: "add", units.WATCH: "add"}
        assert not (root / "usr").exists()

    def test_a_second_one_finds_nothing_to_do(self, root: pathlib.Path) -> None:
        install.look(wanted=True, root=root).carry_out()
        assert install.look(wanted=True, root=root).plan == []

    @pytest.mark.parametrize("name", [PROGRAM, UNIT])
    @pytest.mark.parametrize("damage", ["content", "mode", "symlink"])
    def test_what_somebody_changed_is_replaced(self, root: pathlib.Path, name: str, damage: str) -> None:
        install.look(wanted=True, root=root).carry_out()
        path = root / name
        if damage == "content":
            path.write_bytes(path.read_bytes()[:-1])
        elif damage == "mode":
            path.chmod(0o777)
        else:
            path.rename(root / "elsewhere")
            path.symlink_to(root / "elsewhere")
        found = install.look(wanted=True, root=root)
        assert ops(found) == {path.name: "replace"}
        found.carry_out()
        assert install.look(wanted=True, root=root).plan == []
        assert path.is_file()
        assert not path.is_symlink()

    def test_no_temporary_file_is_left(self, root: pathlib.Path) -> None:
        install.look(wanted=True, root=root).carry_out()
        assert [path.name for path in (root / PROGRAM).parent.iterdir()] == ["fleetvpn-endpoint"]

    def test_without_systemd_no_unit_is_written(self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        found = install.look(wanted=True, root=tmp_path)
        assert ops(found) == {"fleetvpn-endpoint": "add"}
        assert found.as_result()["systemd"] is False

    def test_the_watch_is_active_if_it_is_enabled_and_runs(self, root: pathlib.Path) -> None:
        install.look(wanted=True, root=root).carry_out()
        runs = root / "run/systemd/units" / f"invocation:{units.WATCH}"
        enabled = root / "etc/systemd/system/multi-user.target.wants" / units.WATCH
        for link in (runs, enabled):
            assert install.look(wanted=True, root=root).as_result()["watch_active"] is False
            link.parent.mkdir()
            link.symlink_to("whatever")
        assert install.look(wanted=True, root=root).as_result()["watch_active"] is True

    def test_it_tells_whether_networkd_was_told(self, root: pathlib.Path) -> None:
        assert install.look(wanted=True, root=root).as_result()["networkd_dropin"] is False
        told = root / "etc/systemd/networkd.conf.d/fleetvpn.conf"
        told.parent.mkdir(parents=True)
        told.write_text("[Network]\n")
        assert install.look(wanted=True, root=root).as_result()["networkd_dropin"] is True

    def test_it_goes_as_it_came(self, root: pathlib.Path) -> None:
        install.look(wanted=True, root=root).carry_out()
        link = root / "etc/systemd/system/sysinit.target.wants" / units.BOOT
        link.parent.mkdir()
        link.symlink_to(f"/etc/systemd/system/{units.BOOT}")
        (root / "etc/fleetvpn/sets.d/generations").mkdir(parents=True)
        install.look(wanted=False, root=root).carry_out()
        assert list(root.rglob("*fleetvpn*")) == []
        assert install.look(wanted=False, root=root).plan == []

    def test_what_others_put_beside_the_sets_stays(self, root: pathlib.Path) -> None:
        kept = root / "etc/fleetvpn/notes"
        kept.parent.mkdir(parents=True)
        kept.write_text("mine")
        install.look(wanted=False, root=root).carry_out()
        assert kept.read_text() == "mine"

    @pytest.mark.parametrize(
        ("lines", "told"),
        [
            ('ID=debian\nVERSION_ID="12"\n', None),
            ("# of sid\nID=debian\n", None),
            ("ID=debian\nVERSION_ID='10'\n", "debian 10"),
            ('PRETTY_NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n', "ubuntu 24.04"),
            ("no lines of any use", "a platform that does not say its name"),
            (None, "a platform that does not say its name"),
        ],
    )
    def test_where_nothing_is_tested_one_line_says_so_once(
        self, root: pathlib.Path, lines: str | None, told: str | None
    ) -> None:
        if lines is not None:
            (root / "usr/lib").mkdir(parents=True)
            (root / "usr/lib/os-release").write_text(lines)
        found = install.look(wanted=True, root=root)
        assert [line.partition(", ")[0] for line in found.warnings] == ([f"this host is {told}"] if told else [])
        found.carry_out()
        assert install.look(wanted=True, root=root).warnings == ()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_it_takes_privilege(self, root: pathlib.Path) -> None:
        root.chmod(0o500)
        with pytest.raises(NotPermitted):
            install.look(wanted=True, root=root).carry_out()


class TestBootUnit:
    """What systemd is told of its order; that it understands it is asked in tests/functional/test_host.py."""

    @pytest.fixture
    def told(self) -> dict[str, list[str]]:
        lines = [line.partition("=") for line in units.unit_texts("x")[units.BOOT].splitlines() if line[:1].isalpha()]
        return {key: value.split() for key, _equals, value in lines}

    def test_comes_before_any_network(self, told: dict[str, list[str]]) -> None:
        assert {"network-pre.target", "network.target", "network-online.target"} <= set(told["Before"])
        # Nobody else may want it, and then it is no order.
        assert told["Wants"] == ["network-pre.target"]
        assert told["WantedBy"] == ["sysinit.target"]
        assert told["DefaultDependencies"] == ["no"]

    def test_comes_after_what_flushes_the_ruleset(self, told: dict[str, list[str]]) -> None:
        assert "nftables.service" in told["After"]
