# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures, prints a table, writes bench/results.json. Names as arguments: only these groups."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import tempfile
import typing as t

from tests.functional.onhost import REPOSITORY

from . import commands, kernel, many, price, processes, unchanged
from .figures import QUICK, Figure, Size

RESULTS = REPOSITORY / "bench" / "results.json"
GROUPS: dict[str, t.Callable[[pathlib.Path, Size], list[Figure]]] = {
    "unchanged": unchanged.unchanged,
    "first": commands.first,
    "price": price.price,
    "crowded": processes.crowded,
    "own": processes.own,
    "on_host": processes.on_host,
    "many": many.many,
    "watch": kernel.watch,
    "lookups": kernel.lookups,
    "packets": kernel.packets,
    "thousand": unchanged.thousand,
}


def main(arguments: t.Sequence[str] | None = None) -> int:
    """The exit status is 0 if every aim is met that was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--quick", action="store_true", help="few hosts and rounds: shows that it works, not how fast")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="where the JSON goes")
    given = parser.parse_args(arguments)
    if not set(given.groups) <= set(GROUPS):
        parser.error(f"a group is one of {', '.join(GROUPS)}")
    size = QUICK if given.quick else Size()
    figures = [figure for name in given.groups or GROUPS for figure in measured(name, size)]
    write(given.results, size, figures)
    return 0 if given.quick or all(figure.met is not False for figure in figures) else 1


def measured(name: str, size: Size) -> list[Figure]:
    """The figures of a group, printed as soon as they are there."""
    with tempfile.TemporaryDirectory(prefix="fvt-bench-") as directory:
        figures = GROUPS[name](pathlib.Path(directory), size)
    for figure in figures:
        print(line(figure), flush=True)
    return figures


def line(figure: Figure) -> str:
    """One line of the table."""
    lower, upper = figure.spread
    aim = "" if figure.aim is None else f"at most {figure.aim:g}: {'met' if figure.met else 'NOT MET'}"
    numbers = f"{figure.median:8.2f} {figure.unit:2} ({lower:.2f} to {upper:.2f})"
    return f"{figure.what + ' / ' + figure.against:90} {numbers:34} {aim}"


def write(path: pathlib.Path, size: Size, figures: t.Sequence[Figure]) -> None:
    """All of it, with what it was measured on."""
    machine = {"kernel": platform.release(), "python": platform.python_version(), "processors": os.cpu_count()}
    found = {
        "machine": machine,
        "size": dataclasses.asdict(size),
        "figures": [figure.as_result() for figure in figures],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
