# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look up every word that people read, code left out: in hunspell's British dictionary, and in tests/spelling.txt.

Exits with 1 if neither has a word, or if that list has one that is not needed or not in its place.
"""

from __future__ import annotations

import re
import subprocess
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "tests" / "spelling.txt"
TEXTS = ("*.md", "docs/*.md", "docs/docsite/rst/*.rst", "roles/*/README.md", "tests/lab/README.md")
# What is no prose, in its order; a link keeps its text.
_MARKDOWN = (r"(?s:<!--.*?-->)", r"(?s:^```.*?^```$)", r"`[^`]*`", r"\]\([^)]*\)", r"https?://\S+")
_RST = (
    r"^\.\.\n(?:  .*\n)+",
    r"^\.\. code-block::.*\n(?:\n|   .*\n)+",
    r"^ *\.\. .*\n(?: +:.*\n)*",
    r"(?s:``.*?``)",
    r":ref:`[^`<]*`",
    r"<[^<>`]*>`_*",
    r":ref:`",
    r"https?://\S+",
)


def words(text: str, suffix: str) -> set[str]:
    """The words of a text. Names with digits, dots or slashes are none, nor is what has no small letter."""
    for pattern in _RST if suffix == ".rst" else _MARKDOWN:
        text = re.sub(pattern, " ", text, flags=re.MULTILINE)
    parts = (part.strip("()[]{}<>|*`,;:.!?\"'…") for piece in text.split() for part in re.split(r"[-/]", piece))
    plain = (re.sub("'s$", "", part) for part in parts)
    return {word for word in plain if re.fullmatch(r"[^\W\d_]+(?:'[^\W\d_]+)?", word) and not word.isupper()}


def unknown(found: t.Collection[str]) -> set[str]:
    """Those that hunspell does not know."""
    done = subprocess.run(
        ["hunspell", "-i", "utf-8", "-d", "en_GB", "-l"],
        input="\n".join(sorted(found)),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def own() -> list[str]:
    """The words of the list, as they stand there."""
    return [line for line in LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def complaints(listed: t.Sequence[str], strange: t.Mapping[str, t.Collection[str]]) -> t.Iterator[str]:
    """A line for each word that is wrong, with the texts that have it, and for each that need not be in the list."""
    if list(listed) != sorted(set(listed), key=lambda word: (word.lower(), word)):
        yield f"{LIST.relative_to(ROOT)}: not sorted, or a word stands there twice"
    needed = set()
    for word, texts in strange.items():
        entry = word if word in listed else word[0].lower() + word[1:]
        needed.add(entry)
        if entry not in listed:
            yield f"{word}: {', '.join(texts)}"
    for word in listed:
        if word not in needed:
            yield f"{LIST.relative_to(ROOT)}: {word} is not needed"


def main() -> int:
    """Check all texts."""
    texts = sorted(path for pattern in TEXTS for path in ROOT.glob(pattern))
    found = {path: words(path.read_text(encoding="utf-8"), path.suffix) for path in texts}
    strange = {
        word: [str(path.relative_to(ROOT)) for path in texts if word in found[path]]
        for word in sorted(unknown(set().union(*found.values())))
    }
    lines = list(complaints(own(), strange))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
