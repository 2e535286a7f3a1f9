# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the tables of variables in the README of each role from its argument specs.

role_readme.py            write
role_readme.py --check    exit with 1 if a README is not current, and name it
"""

from __future__ import annotations

import argparse
import re
import sys
import typing as t
from pathlib import Path

import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
BEGIN = "<!-- variables: begin, written by tests/tools/role_readme.py -->"
END = "<!-- variables: end -->"
# Ansible's semantic markup: M(name), P(name#type), O(option=value), V(value), C(code), I(text).
MARKUP = re.compile(r"\b([MPOVCI])\(((?:[^()]|\([^()]*\))*)\)")

Options = t.Mapping[str, t.Mapping[str, t.Any]]


def with_tables(readme: str, options: Options) -> str:
    """The README with the part between the two marks written anew. Raises ValueError if a mark is missing."""
    before, begin, rest = readme.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"lacks {BEGIN if not begin else END}")
    return f"{before}{BEGIN}\n\n{tables(options)}\n{END}{after}"


def tables(options: Options) -> str:
    """One table of the role's variables, and one for each kind of entry, in the order of the argument specs."""
    parts = [_table(options)]
    parts += [f"### Keys of {title}\n\n{_table(nested)}" for title, nested in _nested(options)]
    return "\n".join(parts)


def plain(markup: str) -> str:
    """Markdown instead of Ansible's markup."""

    def replace(match: re.Match[str]) -> str:
        kind, content = match.groups()
        return f"*{content}*" if kind == "I" else f"`{content.partition('#')[0] if kind == 'P' else content}`"

    return MARKUP.sub(replace, markup)


def options_of(role: Path) -> Options:
    """The options of a role's main entry point."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    return t.cast("Options", specs["argument_specs"]["main"].get("options", {}))


def _nested(options: Options, above: str = "") -> list[tuple[str, Options]]:
    """The options below options; where several variables take the same keys, they share one table."""
    found: list[tuple[list[str], Options]] = []
    for name, option in options.items():
        below = option.get("options")
        if not below:
            continue
        same = [names for names, others in found if others == below]
        if same:
            same[0].append(f"`{above}{name}`")
        else:
            found.append(([f"`{above}{name}`"], below))
    result: list[tuple[str, Options]] = []
    for names, below in found:
        result += [(", ".join(names), below), *_nested(below, f"{names[0].strip('`')}.")]
    return result


def _table(options: Options) -> str:
    rows = ["| name | type | default | meaning |", "| --- | --- | --- | --- |"]
    rows += [
        f"| `{name}` | {_type(option)} | {_default(option)} | {_meaning(option)} |" for name, option in options.items()
    ]
    return "\n".join(rows) + "\n"


def _type(option: t.Mapping[str, t.Any]) -> str:
    kind = str(option.get("type", "str"))
    return f"{kind} of {option['elements']}" if "elements" in option else kind


def _default(option: t.Mapping[str, t.Any]) -> str:
    if option.get("required"):
        return "required"
    return (
        ""
        if "default" not in option
        else f"`{yaml.safe_dump(option['default'], default_flow_style=True).split(chr(10))[0]}`"
    )


def _meaning(option: t.Mapping[str, t.Any]) -> str:
    description = option["description"]
    sentences = [description] if isinstance(description, str) else list(description)
    if option.get("choices"):
        sentences.append("One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + ".")
    return plain(" ".join(sentences)).replace("|", "\\|").replace("\n", " ")


def main(arguments: t.Sequence[str]) -> int:
    """Write or check the README of every role."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    stale = []
    for role in sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml")):
        readme = role / "README.md"
        old = readme.read_text(encoding="utf-8")
        new = with_tables(old, options_of(role))
        if new != old:
            stale.append(readme)
            if not check:
                readme.write_text(new, encoding="utf-8")
    for readme in stale:
        sys.stdout.write(f"{readme}: {'is not current' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
