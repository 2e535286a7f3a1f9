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
from .._paths import UNCHANGED_FIELDS, answer_all, path_text
from .._walks import as_lines, walks
from .sets import Kept, known_identities

if t.TYPE_CHECKING:
    from .._kernel import Kernel

Entry = dict[str, t.Any]


def ask_path(
    kernel: Kernel, sets: t.Sequence[Kept], flow: t.Mapping[str, t.Any], *, explain: bool = False
) -> list[Entry]:
    """One entry for each source that C(flow) (options of a path) stands for. Raises InvalidInput."""
    identities = known_identities(kernel, sets)
    stated = {key: value for key, value in flow.items() if value is not None}
    spec = parse_flow(stated, "path", identities, resolve_table)
    return answer_all(kernel, [spec], identities, walks if explain else None)


def as_text(entry: Entry) -> str:
    """One line, a second one where a socket that is not connected gets another answer, and the walks if asked for."""
    if entry["type"] is None:
        return f"{entry['flow']}: {', '.join(entry['differs'])}\n"
    whose = f" (source of {entry['identity']})" if entry["identity"] else ""
    lines = [f"{entry['flow']}: {path_text(entry)}{whose}"]
    other = entry["unconnected"]
    if other is not None and any(other[key] != entry[key] for key in UNCHANGED_FIELDS):
        lines.append(f"{entry['flow']}: {path_text(other)} (not connected)")
    lines += [line for walk in entry.get("walk", ()) for line in as_lines(walk)]
    return "".join(f"{line}\n" for line in lines)
