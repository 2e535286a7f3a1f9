# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text format of Prometheus, as strict as its grammar."""

from __future__ import annotations

import re

# https://prometheus.io/docs/instrumenting/exposition_formats/
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
COMMENT = re.compile(rf"# (HELP|TYPE) ({NAME}) (.+)")
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9]+)")


def parsed(text: str) -> dict[str, int]:
    """Samples by name and labels, if the text is what a scraper accepts."""
    assert text.endswith("\n")
    typed: list[str] = []
    found: dict[str, int] = {}
    for line in text.splitlines():
        comment, sample = COMMENT.fullmatch(line), SAMPLE.fullmatch(line)
        assert comment or sample, line
        if comment and comment[1] == "TYPE":
            assert comment[3] in ("gauge", "counter")
            assert comment[2] not in typed, "a family stands together"
            typed.append(comment[2])
        if sample:
            assert sample[1] == typed[-1]
            key = line.rpartition(" ")[0]
            assert key not in found
            found[key] = int(sample[3])
    return found
