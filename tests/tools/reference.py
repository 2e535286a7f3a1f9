# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the reference of the playbooks, from their first comments, and of the program on hosts, from its own help.

reference.py            write
reference.py --check    exit with 1 if a page is not current, and name it
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import re
import sys
import textwrap
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "docsite" / "rst"
BEGIN = ".. Written by tests/tools/reference.py from here on.\n"
_VARIABLE = re.compile(r"  +(\w+)  +(.*?)(?: \((.*)\))?")
_COMMAND = re.compile(r"^    (\w+) ", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Variable:
    """One variable of a playbook, with what it is unless it is given."""

    name: str
    meaning: str
    default: str | None


@dataclasses.dataclass(frozen=True)
class Playbook:
    """What the first comment of a playbook says."""

    name: str
    summary: str
    command: str
    variables: list[Variable]
    remarks: list[str]


def playbook(path: Path) -> Playbook:
    """Read the comment between the first mark of YAML and the first play."""
    comment = path.read_text(encoding="utf-8").partition("---\n")[2].partition("\n- ")[0]
    lines = [line.removeprefix("#") for line in comment.splitlines()]
    first, *paragraphs = [part.splitlines() for part in "\n".join(lines).split("\n\n")]
    summary, _space, command = first[0].strip().partition("  ")
    variables = [_variable(line) for part in paragraphs if part[0].startswith("   ") for line in part]
    remarks = [" ".join(line.strip() for line in part) for part in paragraphs if not part[0].startswith("   ")]
    return Playbook(path.stem, summary, command, variables, remarks)


def _variable(line: str) -> Variable:
    found = _VARIABLE.fullmatch(line)
    if found is None:
        raise ValueError(f"no name, meaning and default in parentheses: {line}")
    return Variable(found[1], found[2], found[3])


def playbooks() -> str:
    """A section for each of them."""
    return "".join(_section(playbook(path)) for path in sorted((ROOT / "playbooks").glob("*.yml")))


def _section(told: Playbook) -> str:
    rows = [
        f"   * - ``{each.name}``\n     - {_rst(each.meaning)}\n     - {_rst(each.default or 'none')}\n"
        for each in told.variables
    ]
    return (
        f"\n{told.name}\n{'-' * len(told.name)}\n\n{_rst(told.summary)}\n\n"
        f".. code-block:: console\n\n   $ {told.command}\n\n"
        ".. list-table::\n   :header-rows: 1\n   :widths: 25 50 25\n\n"
        f"   * - variable\n     - is\n     - unless given\n{''.join(rows)}\n"
    ) + "".join(f"{_filled(_rst(text))}\n" for text in told.remarks)


def _filled(text: str) -> str:
    """In lines as those of the other pages."""
    return textwrap.fill(text, 128, break_long_words=False, break_on_hyphens=False)


def _rst(text: str) -> str:
    return text.replace("`", "``")


def program() -> str:
    """A section for each of its commands."""
    return "".join(
        f"\n{name}\n{'-' * len(name)}\n\n.. code-block:: text\n\n{_indented(help_of(name))}" for name in commands()
    )


def commands() -> list[str]:
    """The names of the program's commands."""
    return _COMMAND.findall(help_of())


def help_of(*command: str) -> str:
    """What the program says to --help. As wide as a page, whatever terminal this is."""
    sys.path.insert(0, str(ROOT / "build" / "collections"))
    from ansible_collections.fleetvpn.routing.plugins.module_utils._host.cli import main as run

    os.environ["COLUMNS"] = "110"
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        run([*command, "--help"])
    return said.getvalue()


def _indented(text: str) -> str:
    return "".join(f"   {line}\n" if line else "\n" for line in text.splitlines())


def written(page: Path, content: str) -> str:
    """The page with what follows the mark written anew. Raises ValueError if that is missing."""
    before, begin, _old = page.read_text(encoding="utf-8").partition(BEGIN)
    if not begin:
        raise ValueError(f"{page} lacks {BEGIN}")
    return before + begin + content


def current() -> dict[Path, str]:
    """Both pages as they should be."""
    contents = {"reference_playbooks.rst": playbooks(), "reference_program.rst": program()}
    return {PAGES / name: written(PAGES / name, content) for name, content in contents.items()}


def main(arguments: t.Sequence[str]) -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    stale = {page: text for page, text in current().items() if text != page.read_text(encoding="utf-8")}
    for page, text in stale.items():
        if not check:
            page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{page}: {'is not current' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
