# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The work of module path_check: ask for every path, and fail naming all that differ."""

from __future__ import annotations

import ipaddress
import pathlib
import typing as t

from ._errors import NotPermitted, VerificationError
from ._model.path import IdentityPaths
from ._names import Names
from ._paths import answer_all, failing, parse_flow, present
from ._record import Record
from ._store import PERSISTENT_ROOT, RUNTIME_ROOT, all_stores
from ._walks import walks
from ._worker import Context, Result

Entry = t.Mapping[str, t.Any]


def check_paths(context: Context) -> Result:
    """Ask the kernel for all paths. Raises VerificationError, with every path, when any is not as expected."""
    entries: list[Entry] = context.params["paths"]
    records = _records(context, entries)
    known = identities_of(records)
    tables = Names.read(root=context.root, netns=context.netns).table
    specs = [parse_flow(entry, f"paths[{index}]", known, tables) for index, entry in enumerate(entries)]
    with context.open_kernel() as kernel:
        links = kernel.links()
        identities = [present(identity, links) for identity in known]
        answers = answer_all(kernel, specs, identities, walks if context.params.get("explain") else None)
    refuse_differing(answers, identities)
    return Result(values={"paths": answers}, warnings=_warnings(records))


def refuse_differing(answers: t.Sequence[Entry], identities: t.Sequence[IdentityPaths]) -> None:
    """One line with every path that differs. Raises VerificationError."""
    found = failing(answers, identities)
    if found:
        told = "; ".join(f"{each['flow']} ({', '.join(each['differs'])})" for each in found)
        count = f"{len(found)} of {len(answers)} paths {'is' if len(found) == 1 else 'are'} not as expected"
        raise VerificationError(f"{count}: {told}", field="paths", paths=answers)


def identities_of(records: t.Mapping[str, Record]) -> list[IdentityPaths]:
    """The identities of all sets as last found. One with several egresses has an entry for each in its record."""
    found: dict[str, IdentityPaths] = {}
    for record in records.values():
        required = {each.get("name") for each in record.declaration.get("identities") or () if each.get("required")}
        for entry in record.identities:
            name = entry["name"]
            known = found.get(name, IdentityPaths(name, required=name in required))
            found[name] = _extended(known, entry)
    return list(found.values())


def _extended(known: IdentityPaths, entry: Entry) -> IdentityPaths:
    """With a further egress."""
    return IdentityPaths(
        known.name,
        _united(known.addresses, entry.get("addresses")),
        _united(known.devices, [entry.get("interface")]),
        _united(known.tables, [entry.get("table")]),
        _united(known.gateways, entry.get("gateways")),
        known.required,
    )


def _united(known: tuple[t.Any, ...], more: t.Iterable[t.Any] | None) -> tuple[t.Any, ...]:
    return tuple(dict.fromkeys([*known, *(each for each in more or () if each is not None)]))


def _records(context: Context, entries: t.Sequence[Entry]) -> dict[str, Record]:
    """The sets of this host. They are root's; others do without, unless an identity is asked for by name."""
    root = pathlib.Path(context.root)
    persistent, runtime = (root / each.relative_to("/") for each in (PERSISTENT_ROOT, RUNTIME_ROOT))
    stores = all_stores(context.netns, persistent_root=persistent, runtime_root=runtime)
    try:
        return {name: record for store in stores for name, record in store.read_all().items()}
    except NotPermitted:
        if any(_names_an_identity(entry) for entry in entries):
            raise
        return {}


def _names_an_identity(entry: Entry) -> bool:
    expect = entry.get("expect")
    if isinstance(expect, t.Mapping) and expect.get("identity") is not None:
        return True
    if entry.get("from") is None:
        return False
    try:
        ipaddress.ip_address(entry["from"])
    except ValueError:
        return True
    return False


def _warnings(records: t.Mapping[str, Record]) -> list[str]:
    return [
        f"the record of set {name} is unreadable; its last readable generation was used instead"
        for name, record in records.items()
        if record.fallback
    ]
