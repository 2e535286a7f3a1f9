# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Joining the levels of identities (all hosts, group, host) by name."""

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible.errors import AnsibleFilterError

Identity = dict[str, t.Any]
ORDINALS = ("first", "second", "third")


def join_identities(*levels: object) -> list[Identity]:
    """One list out of several: a later identity of the same name changes single keys of the earlier one.

    The order is that of the first mention. A key that a later level sets to null is dropped, so that the module's
    default holds again. The lists that come in are left as they are.
    """
    joined: dict[str, Identity] = {}
    for index, level in enumerate(levels):
        for name, identity in _named(level, _ordinal(index)).items():
            joined[name] = {**joined.get(name, {}), **identity}
    return [{key: value for key, value in identity.items() if value is not None} for identity in joined.values()]


def _named(level: object, which: str) -> dict[str, c.Mapping[str, t.Any]]:
    """The identities of one level by name, in their order."""
    named: dict[str, c.Mapping[str, t.Any]] = {}
    for index, identity in enumerate(_entries(level, which)):
        name = _name(identity, f"{which} list, entry {index}")
        if name in named:
            raise AnsibleFilterError(
                f"{which} list, entry {index}: {name!r} is there twice; accepted: one of each name"
            )
        named[name] = t.cast("c.Mapping[str, t.Any]", identity)
    return named


def _entries(level: object, which: str) -> c.Sequence[object]:
    if level is None:
        return ()
    if isinstance(level, str) or not isinstance(level, c.Sequence):
        raise AnsibleFilterError(f"{which} list: a {_kind(level)} is no list of identities; accepted: a list")
    return level


def _name(identity: object, where: str) -> str:
    """The name, which the levels are joined by. The value is not shown: it may be anything that stood there."""
    if not isinstance(identity, c.Mapping):
        raise AnsibleFilterError(f"{where}: a {_kind(identity)} is no identity; accepted: a dictionary with a name")
    name = identity.get("name")
    if not isinstance(name, str) or not name:
        raise AnsibleFilterError(f"{where}: has no name; accepted: a dictionary with a name")
    return name


def _ordinal(index: int) -> str:
    return ORDINALS[index] if index < len(ORDINALS) else f"number {index + 1}"


def _kind(value: object) -> str:
    """The type as Ansible's documentation calls it, also for its own subclasses of str, int and so on."""
    kinds = (
        (bool, "boolean"),
        (str, "string"),
        ((int, float), "number"),
        (c.Mapping, "dictionary"),
        (c.Sequence, "list"),
    )
    return next((word for kind, word in kinds if isinstance(value, t.cast("t.Any", kind))), type(value).__name__)


class FilterModule:
    """The filters of this file, as Ansible asks for them."""

    def filters(self) -> dict[str, t.Callable[..., object]]:
        """Name to function."""
        return {"join_identities": join_identities}
