# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Imported ahead of the rest: what Ansible sent is not compiled again where the host has its bytecode.

To compile the sources takes longer than all else that a run does which changes nothing. The program on the host is made
of the same ones, with their bytecode. That names the hash of its source (PEP 552), and Python compares: what is not of
the very same source is compiled as ever. So what runs is what was sent.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import stat
import sys
import typing as t
import zipfile
import zipimport

if t.TYPE_CHECKING:
    import types

PROGRAM = "/usr/local/sbin/fleetvpn-endpoint"
_PACKAGE = __name__.rpartition(".")[0]


class Loader(importlib.abc.SourceLoader):
    """One module: its source from where Ansible put it, its bytecode from the program."""

    def __init__(self, sources: zipimport.zipimporter, file: str, bytecode: bytes) -> None:
        self._sources, self._file, self._bytecode = sources, file, bytecode

    def get_filename(self, fullname: str) -> str:
        """Where the source is."""
        return self._file

    def get_data(self, path: str) -> bytes:
        """What is among the sources, or the bytecode where a path is that of some."""
        return self._bytecode if path.endswith(".pyc") else self._sources.get_data(path)

    def path_stats(self, path: str) -> t.Mapping[str, t.Any]:
        """Python asks for bytecode only where there is a date; it is the hash that decides."""
        return {"mtime": 0}


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that the program has, and leaves all others to the finders after it."""

    def __init__(self, sources: zipimport.zipimporter, program: zipfile.ZipFile) -> None:
        self._sources, self._program = sources, program

    def close(self) -> None:
        """Imports are as ever again."""
        sys.meta_path.remove(self)
        self._program.close()

    def find_spec(
        self,
        fullname: str,
        path: t.Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Where a module is."""
        if path is None or not fullname.startswith(f"{_PACKAGE}."):
            return None
        place = f"{next(iter(path))}/{fullname.rpartition('.')[2]}"
        for ending, within in (("/__init__.py", [place]), (".py", None)):
            try:
                bytecode = self._program.read(f"{fullname.replace('.', '/')}{ending}c")
            except (KeyError, OSError, zipfile.BadZipFile):
                continue
            loader = Loader(self._sources, f"{place}{ending}", bytecode)
            return importlib.util.spec_from_file_location(
                fullname, f"{place}{ending}", loader=loader, submodule_search_locations=within
            )
        return None


def use(program: str) -> Finder | None:
    """Imports use the bytecode in C(program) from now on; nothing if that is none, or Ansible sent no archive."""
    loader: t.Any = __spec__.loader
    if not isinstance(loader, zipimport.zipimporter):
        return None
    try:
        if not _is_trusted(os.stat(program)):
            return None
        finder = Finder(loader, zipfile.ZipFile(program))
    except (OSError, zipfile.BadZipFile):
        return None
    sys.meta_path.insert(0, finder)
    return finder


def _is_trusted(found: os.stat_result) -> bool:
    """Nobody may have written it who may not do what this module may."""
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


FINDER = use(PROGRAM)
