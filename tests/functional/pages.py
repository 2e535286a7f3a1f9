# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guides show, to be done as they say: pieces of code in their order, and the files among them."""

from __future__ import annotations

import pathlib
import re
import textwrap
import typing as t

_REPOSITORY = pathlib.Path(__file__).parents[2]
GUIDES = _REPOSITORY / "docs" / "docsite" / "rst"
_BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)
_README_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/]+\.(?:yml|cfg|ini))\n")


def blocks(guide: str, heading: str = "") -> t.Iterator[tuple[str, str]]:
    """The pieces of code of a guide, or of one part of it, each with its language."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    if heading:
        _title, *parts = re.split(r"^(.+)\n-+$", text, flags=re.MULTILINE)
        text = dict(zip(parts[::2], parts[1::2], strict=True))[heading]
    for kind, block in _BLOCK.findall(text):
        yield kind, textwrap.dedent(block)


def readme_blocks() -> list[tuple[str, str]]:
    """The same of the README."""
    return _README_BLOCK.findall((_REPOSITORY / "README.md").read_text(encoding="utf-8"))


def file_of(text: str) -> str:
    """The path that the first line of a piece of code gives, if it is a file."""
    found = _FILE.match(text)
    return found[1] if found else ""


def files(guide: str) -> dict[str, str]:
    """The files that a guide shows, by their paths."""
    return {path: text for _kind, text in blocks(guide) if (path := file_of(text))}


def write(guide: str, directory: pathlib.Path) -> None:
    """Put those files where a controller has them."""
    for path, text in files(guide).items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")


def commands(text: str) -> t.Iterator[tuple[str, list[str]]]:
    """The commands of a piece of console, each with the lines that it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.strip().splitlines()
        yield command, shown
