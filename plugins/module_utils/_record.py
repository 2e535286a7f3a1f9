# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What is written down of a set, as a value and as JSON data."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import typing as t

from ._model import fields
from ._model.guard import Chain, Guard, NamedSet
from ._model.operation import LinkGroup, Operation, OwnLink, Sysctl, Target
from ._model.route import Nexthop, Route
from ._model.rule import Rule

_FORMAT = 1  # of the file; a reader refuses what it does not know


@dataclasses.dataclass(frozen=True)
class Record:
    """One set: what was declared, and what came of it. All of it is plain JSON data."""

    declaration: dict[str, t.Any] = dataclasses.field(default_factory=dict)  # as the user gave it, normalised
    objects: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)  # rules, routes, guard, see objects_from
    groups: dict[str, int] = dataclasses.field(default_factory=dict)  # device: its group before us
    links: list[str] = dataclasses.field(default_factory=list)  # devices of our own
    sysctls: dict[str, str] = dataclasses.field(default_factory=dict)  # path below /proc/sys/net: its value before us
    tables: dict[str, int] = dataclasses.field(default_factory=dict)  # identity or device: table number
    names: dict[str, int] = dataclasses.field(default_factory=dict)  # names given to tables
    identities: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)  # as last found
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)
    meta: dict[str, t.Any] = dataclasses.field(default_factory=dict)  # when, and by whom it was declared
    # Of this reading, not of the file: the current file was unreadable and this is an older generation.
    fallback: bool = dataclasses.field(default=False, compare=False)


def end_of(declaration: t.Mapping[str, t.Any]) -> datetime.datetime | None:
    """When a set ends by itself, if it does. Raises InvalidInput."""
    stated = declaration.get("expires")
    return None if stated is None else fields.moment(stated, "expires")


def has_ended(declaration: t.Mapping[str, t.Any]) -> bool:
    """Whether that is over."""
    end = end_of(declaration)
    return end is not None and end <= fields.now()


def objects_from(
    rules: t.Iterable[Rule], routes: t.Iterable[Route], guard: Guard | None = None
) -> list[dict[str, t.Any]]:
    """What a record keeps of objects: their fields, without those that have their default, and their kind."""
    found: list[tuple[str, Rule | Route | Guard]] = [("rule", each) for each in rules]
    found += [("route", each) for each in routes]
    found += [("guard", guard)] if guard else []
    return sorted(({"kind": kind, **_plain(each)} for kind, each in found), key=json.dumps)


def objects_of(record: Record) -> tuple[set[Rule], set[Route]]:
    """The rules and routes of a record as values again."""
    rules = {Rule(**_arguments(each)) for each in record.objects if each["kind"] == "rule"}
    return rules, {_route(each) for each in record.objects if each["kind"] == "route"}


def guard_of(record: Record) -> Guard | None:
    """The egress guard of a record."""
    return next((_guard(each) for each in record.objects if each["kind"] == "guard"), None)


def _plain(value: Target) -> dict[str, t.Any]:
    found = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: _as_json(stated) for field, stated in found if stated != field.default}


def _as_json(value: object) -> object:
    """As it comes back from a file."""
    if isinstance(value, (tuple, list)):
        return [_as_json(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def _arguments(stored: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """JSON has no tuples."""
    return {key: tuple(each) if isinstance(each, list) else each for key, each in stored.items() if key != "kind"}


def _route(stored: t.Mapping[str, t.Any]) -> Route:
    nexthops = tuple(Nexthop(**each) for each in stored.get("nexthops", ()))
    return Route(**{**_arguments(stored), "nexthops": nexthops})


def _guard(stored: t.Mapping[str, t.Any]) -> Guard:
    sets = tuple(NamedSet(**_arguments(each)) for each in stored.get("sets", ()))
    chains = tuple(Chain(**_arguments(each)) for each in stored.get("chains", ()))
    return Guard(**{**_arguments(stored), "sets": sets, "chains": chains})


def operations_from(operations: t.Iterable[Operation]) -> list[dict[str, t.Any]]:
    """Operations as plain data."""
    return [
        {"op": each.op, "target": _tagged(each.target), "before": each.before and _tagged(each.before)}
        for each in operations
    ]


def operations_of(stored: t.Iterable[t.Mapping[str, t.Any]]) -> list[Operation]:
    """The same as values again."""
    return [
        Operation(each["op"], _target(each["target"]), each["before"] and _target(each["before"])) for each in stored
    ]


def _tagged(target: Target) -> dict[str, t.Any]:
    return {"kind": Operation("set", target).kind, **_plain(target)}


def _target(stored: t.Mapping[str, t.Any]) -> Target:
    make: t.Callable[[t.Mapping[str, t.Any]], Target] = _TARGETS[stored["kind"]]
    return make(stored)


_TARGETS: dict[str, t.Callable[[t.Mapping[str, t.Any]], Target]] = {
    "guard": _guard,
    "route": _route,
    "group": lambda stored: LinkGroup(**_arguments(stored)),
    "link": lambda stored: OwnLink(**_arguments(stored)),
    "rule": lambda stored: Rule(**_arguments(stored)),
    "sysctl": lambda stored: Sysctl(**_arguments(stored)),
}


def to_json(record: Record) -> dict[str, t.Any]:
    return {"format": _FORMAT, **{name: getattr(record, name) for name in _stored_fields()}}


@functools.lru_cache(maxsize=32)
def parsed(content: bytes) -> Record | None:
    """The record that a file's content is; None when it is damaged. A run reads the same files several times."""
    try:
        return from_json(json.loads(content))
    except (ValueError, TypeError, KeyError):
        return None


def from_json(content: object) -> Record:
    if not isinstance(content, dict) or content.pop("format") != _FORMAT:
        raise ValueError("not a record")
    record = Record(**{name: content[name] for name in _stored_fields()})
    objects_of(record)
    guard_of(record)
    return record


def _stored_fields() -> list[str]:
    return [field.name for field in dataclasses.fields(Record) if field.name != "fallback"]
