# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What is set on things that are not ours, device groups and sysctls: what it was before, and what is put back."""

from __future__ import annotations

import typing as t

from ._model.operation import LinkGroup, Sysctl
from ._plan import Desired
from ._recipe.facts import Facts
from ._recipe.sysctls import VALUES
from ._record import Record


def groups_before(record: Record | None, desired: Desired, facts: Facts, ours: int) -> dict[str, int]:
    """The group that each device had before it came into ours."""
    known = record.groups if record else {}
    found = {link.name: 0 if link.group == ours else link.group for link in facts.links}
    return {entry.name: known.get(entry.name, found[entry.name]) for entry in desired.groups}


def restored_groups(record: Record | None, desired: Desired, facts: Facts, ours: int) -> tuple[LinkGroup, ...]:
    """Devices that we moved into our group and no longer need there."""
    kept = {entry.name for entry in desired.groups}
    before = record.groups if record else {}
    grouped = {link.name for link in facts.links if link.group == ours}
    return tuple(LinkGroup(name, old) for name, old in sorted(before.items()) if name in grouped - kept)


def sysctls_before(record: Record | None, others: t.Iterable[Record], desired: Desired, facts: Facts) -> dict[str, str]:
    """The value that each sysctl had before the first set changed it."""
    known: dict[str, str] = {}
    for each in (*others, *([record] if record else [])):
        known.update(each.sysctls)
    return {entry.name: known.get(entry.name, facts.sysctl(entry.name) or "") for entry in desired.sysctls}


def loosened_sysctls(
    record: Record | None, others: t.Iterable[Record], desired: Desired, facts: Facts
) -> tuple[Sysctl, ...]:
    """Sysctls that we changed, that nobody asks for any more, and that still are as we left them."""
    kept = {entry.name for entry in desired.sysctls} | {name for other in others for name in other.sysctls}
    before = record.sysctls if record else {}
    return tuple(
        Sysctl(name, old)
        for name, old in sorted(before.items())
        if name not in kept and facts.sysctl(name) == _ours(name)
    )


def _ours(name: str) -> str | None:
    """What we set a sysctl to."""
    leaf = name.rpartition("/")[2]
    return next((v for pairs in VALUES.values() for path, v in pairs if path.rpartition("/")[2] == leaf), None)
