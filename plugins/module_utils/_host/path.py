# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The kernel's answer for one flow, both lookups, with the names of the recorded identities."""

from __future__ import annotations

import typing as t

from .._names import resolve_table
from .._path_options import parse_flow
from .._paths import UNCHANGED_FIELDS, answer_all
from .sets import Kept, known_identities

if t.TYPE_CHECKING:
    from .._kernel import Kernel

Entry = dict[str, t.Any]


def ask_path(kernel: Kernel, sets: t.Sequence[Kept], flow: t.Mapping[str, t.Any]) -> list[Entry]:
    """One entry for each source that C(flow) (options of a path) stands for. Raises InvalidInput."""
    identities = known_identities(kernel, sets)
    stated = {key: value for key, value in flow.items() if value is not None}
    return answer_all(kernel, [parse_flow(stated, "path", identities, resolve_table)], identities)


def as_text(entry: Entry) -> str:
    """One line, and a second one where a socket that is not connected gets another answer."""
    if entry["type"] is None:
        return f"{entry['flow']}: {', '.join(entry['differs'])}\n"
    whose = f" (source of {entry['identity']})" if entry["identity"] else ""
    lines = [f"{entry['flow']}: {_answer(entry)}{whose}"]
    other = entry["unconnected"]
    if other is not None and any(other[key] != entry[key] for key in UNCHANGED_FIELDS):
        lines.append(f"{entry['flow']}: {_answer(other)} (not connected)")
    return "".join(f"{line}\n" for line in lines)


def _answer(found: t.Mapping[str, t.Any]) -> str:
    words = [found["type"]] if found["type"] != "unicast" else []
    named = (("via", "gateway"), ("dev", "dev"), ("src", "src"), ("table", "table"))
    return " ".join([*words, *(f"{word} {found[key]}" for word, key in named if found[key] is not None)])
