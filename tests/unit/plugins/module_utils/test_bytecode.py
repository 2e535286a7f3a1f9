# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytecode from the program on the host: used for the very same source, and for nothing else."""

from __future__ import annotations

import importlib.util
import io
import json
import pathlib
import re
import subprocess
import sys
import typing as t
import zipfile

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _bytecode
from ansible_collections.fleetvpn.routing.plugins.module_utils._host import install, program

UTILS = pathlib.Path(program.__file__).parents[1]
FOLDER = program.PACKAGE.replace(".", "/")
ERRORS = f"{FOLDER}/_errors.py"
# Imports what a run imports, and says which of our modules were compiled for it.
SCRIPT = f"""
import sys
sys.path.insert(0, sys.argv[1])
from {program.PACKAGE} import _bytecode
compiled = []
finder = _bytecode.use(sys.argv[2])
as_ever = _bytecode.Loader.source_to_code
def source_to_code(self, data, path):
    compiled.append(path.partition("module_utils/")[2])
    return as_ever(self, data, path)
_bytecode.Loader.source_to_code = source_to_code
from {program.PACKAGE} import _converge, _errors
from {program.PACKAGE}._host import program
import json
print(json.dumps({{
    "used": finder is not None,
    "compiled": compiled,
    "added": getattr(_errors, "ADDED", None),
    "file": _errors.__file__,
    "size": len(program.build()),
}}))
"""


@pytest.fixture(scope="module")
def made() -> bytes:
    """A program as it is on a host."""
    return program.compiled(program.build())


@pytest.fixture
def sent(tmp_path: pathlib.Path) -> pathlib.Path:
    """The sources as Ansible sends them: in an archive, and compressed."""
    path = tmp_path / "sent.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        folders = FOLDER.split("/")
        for count in range(len(folders)):
            archive.writestr("/".join([*folders[: count + 1], "__init__.py"]), "")
        for file in sorted(UTILS.rglob("*.py")):
            archive.write(file, f"{FOLDER}/{file.relative_to(UTILS)}")
    return path


def run(sent: pathlib.Path, at: pathlib.Path) -> dict[str, t.Any]:
    argv = [sys.executable, "-I", "-c", SCRIPT, str(sent), str(at)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: dict[str, t.Any] = json.loads(done.stdout)
    return found


def changed(archive: bytes, change: t.Callable[[str, bytes], bytes]) -> bytes:
    """A program in which something is different."""
    target = io.BytesIO()
    target.write(program.SHEBANG)
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target.getvalue()


def put(path: pathlib.Path, content: bytes, mode: int = 0o755) -> pathlib.Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_what_is_the_same_is_not_compiled(sent: pathlib.Path, made: bytes, tmp_path: pathlib.Path) -> None:
    found = run(sent, put(tmp_path / "program", made))
    assert found["used"]
    assert found["compiled"] == []
    assert found["file"] == f"{sent}/{ERRORS}", "what an error message names"


def test_every_module_imports_it_ahead_of_the_rest() -> None:
    files = [*(UTILS.parent / "modules").glob("*.py"), UTILS / "_ansible.py"]
    for file in files:
        ours = [
            name for name in re.findall(r"^from (\S+) import", file.read_text(), re.MULTILINE) if "._" in f".{name}"
        ]
        first = next(name.rpartition(".")[2] for name in ours if not name.startswith("__"))
        assert first == ("_bytecode" if file.name == "_ansible.py" else "_ansible"), file


def test_the_program_is_looked_for_where_it_is_installed() -> None:
    """It is imported ahead of all else, so it has the path to itself."""
    assert pathlib.PurePath("/") / install.PROGRAM == pathlib.PurePath(_bytecode.PROGRAM)


def test_the_program_is_built_of_what_was_sent(sent: pathlib.Path, made: bytes, tmp_path: pathlib.Path) -> None:
    assert run(sent, put(tmp_path / "program", made))["size"] == len(program.build())


def test_what_was_sent_runs_where_the_program_has_another_source(
    sent: pathlib.Path, made: bytes, tmp_path: pathlib.Path
) -> None:
    with zipfile.ZipFile(io.BytesIO(program.build())) as archive:
        other = archive.read(ERRORS) + b"\nADDED = 'not what was sent'\n"
    old = program.compiled(changed(program.build(), lambda name, text: other if name == ERRORS else text))
    found = run(sent, put(tmp_path / "program", old))
    assert found["compiled"] == ["_errors.py"]
    assert found["added"] is None


def test_the_bytecode_of_another_python_is_left_alone(sent: pathlib.Path, made: bytes, tmp_path: pathlib.Path) -> None:
    magic = len(importlib.util.MAGIC_NUMBER)
    other = changed(made, lambda name, data: b"\0" * magic + data[magic:] if name.endswith(".pyc") else data)
    found = run(sent, put(tmp_path / "program", other))
    assert "_errors.py" in found["compiled"]


@pytest.mark.parametrize("content", [None, b"", b"#!/bin/sh\n", b"PK\x03\x04 and then nothing"])
def test_without_a_program_all_is_as_ever(sent: pathlib.Path, content: bytes | None, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program"
    if content is not None:
        put(path, content)
    assert not run(sent, path)["used"]


def test_a_damaged_one_is_compiled(sent: pathlib.Path, made: bytes, tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        code = archive.read(f"{ERRORS}c")
    at = made.index(code) + len(code) // 2
    found = run(sent, put(tmp_path / "program", made[:at] + bytes([made[at] ^ 0xFF]) + made[at + 1 :]))
    assert found["used"]


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_what_others_may_write_is_not_trusted(
    sent: pathlib.Path, made: bytes, mode: int, tmp_path: pathlib.Path
) -> None:
    assert not run(sent, put(tmp_path / "program", made, mode))["used"]


def test_a_program_runs_on_its_bytecode(made: bytes, tmp_path: pathlib.Path) -> None:
    """Which holds for the source that is beside it, or is passed over."""
    argv = [sys.executable, "-I", "-vv", put(tmp_path / "program", made), "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if f"{ERRORS}c" in line]
    assert lines, "Python looked for it"
    assert not any("bad" in line or "stale" in line for line in lines)
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        names = set(archive.namelist())
    assert {f"{name}c" for name in names if name.endswith(".py")} == {name for name in names if name.endswith(".pyc")}


def test_a_program_is_made_of_its_sources_whatever_its_bytecode(made: bytes) -> None:
    built = program.build()
    longer = program.compiled(changed(built, lambda _, text: text + b"#"))
    assert program.is_made_of(made, built)
    assert not program.is_made_of(longer, built), "other sources"
    assert not program.is_made_of(built, built), "no bytecode"


@pytest.mark.parametrize("at", [len(program.SHEBANG) + 100, -100_000, -1000, -1])
def test_a_damaged_program_is_none(made: bytes, at: int) -> None:
    damaged = bytearray(made)
    damaged[at] ^= 1
    assert not program.is_made_of(bytes(damaged), program.build())
    assert not program.is_made_of(made[:-1], program.build())
