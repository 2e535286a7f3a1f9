# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What module endpoint_info tells: what is owned, foreign or in conflict, and the verdict of each identity."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

from ._audit import MAIN, View, audit
from ._converge import Request, converge
from ._converge import Result as Found
from ._daemons import find_daemons
from ._errors import InvalidInput, RoutingError
from ._host import notes
from ._model.fields import KERNEL
from ._names import Names
from ._read import FAMILIES
from ._record import Record, objects_of
from ._store import Store, all_stores
from ._surroundings import Host
from ._suspension import as_result
from ._worker import Result

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._model.route import Route
    from ._model.rule import Rule
    from ._worker import Context

Entry = dict[str, t.Any]


def tell(context: Context) -> Result:
    """The work of module C(endpoint_info)."""
    with context.open_kernel() as kernel:
        records = _chosen(context)
        sets = [_tell_set(kernel, context.netns, name, store, record) for name, (store, record) in records.items()]
        rules = [rule for family in FAMILIES for rule in kernel.rules(family)]
        owned = {record.numbers.get("protocol") for _store, record in records.values()}
        tables = {number for _store, record in records.values() for number in record.tables.values()}
        main = [route for family in FAMILIES for route in kernel.routes(family, table=MAIN)]
        view = View(
            rules,
            main,
            kernel.addresses(),
            [record for _store, record in records.values()],
            Names.read(root=context.root, netns=context.netns),
            # A namespace has neither files nor programs of its own that could be told from the host's.
            find_daemons(pathlib.Path(context.root)) if context.netns is None else (),
        )
        routes = [route for table in sorted(tables) for f in FAMILIES for route in kernel.routes(f, table=table)]
        objects: list[Rule | Route] = [*rules, *routes]
        return Result(
            values={
                "suspended": as_result(context.netns),
                "sets": sets,
                "identities": [{**each, "set": entry["name"]} for entry in sets for each in entry["identities"]],
                "paths": [path for entry in sets for path in entry.pop("paths")],
                "owned": _listed(each for each in objects if each.protocol in owned),
                "foreign": _listed(each for each in objects if each.protocol not in {*owned, KERNEL}),
                "proposal": None
                if any(store.names() for store in all_stores(context.netns))
                else _proposed(context, kernel),
                "findings": [finding.as_result() for finding in audit(view)],
                "conflicts": _conflicts(rules, routes, [record for _store, record in records.values()], owned),
                "refused": _refused(context.netns, context.params["set"]),
                "repairs": _repairs(context.netns, context.params["set"]),
            }
        )


def _repairs(netns: str | None, wanted: str | None) -> list[Entry]:
    """What the watch had to put right since the boot, and what somebody did, also to all sets at once."""
    asked = (wanted, notes.EVERY_SET)
    return [dataclasses.asdict(each) for each in notes.told(netns) if wanted is None or each.set in asked]


def _refused(netns: str | None, wanted: str | None) -> list[Entry]:
    """What was asked for last and is not there."""
    return [
        {"set": each.set, "reason": each.object, "last": each.last, "times": each.times}
        for each in notes.refusals(netns)
        if wanted in (None, each.set)
    ]


def _proposed(context: Context, kernel: Kernel) -> Entry:
    """What a host without a set could declare."""
    from ._discover import look  # of the few that ask for it
    from ._proposal import propose

    return propose(look(kernel, context.netns, pathlib.Path(context.root))).as_result()


def _chosen(context: Context) -> dict[str, tuple[Store, Record]]:
    """The sets that were asked for, each with the place where it is kept."""
    wanted = context.params["set"]
    found = {n: (store, record) for store in all_stores(context.netns) for n, record in store.read_all().items()}
    if wanted is None:
        return found
    if wanted not in found:
        raise InvalidInput("is no set of this host", field="set", value=wanted, accepted=", ".join(found) or "none yet")
    return {wanted: found[wanted]}


def _tell_set(kernel: Kernel, netns: str | None, name: str, store: Store, record: Record) -> Entry:
    host = Host(kernel, netns, persistent=store.root == all_stores(netns)[0].root)
    told: Entry = {"name": name, "numbers": record.numbers, "meta": record.meta, "fallback": record.fallback}
    try:
        found = converge(kernel, host, Request(name=name, params=record.declaration, dry_run=True))
    except RoutingError as exc:
        return {**told, "state": "wrong", "error": exc.line(), "identities": record.identities, "plan": [], "paths": []}
    return {**told, **_state(found)}


def _state(found: Found) -> Entry:
    identities = list(found.proof.identities)
    verdicts = {entry["verdict"] for entry in identities}
    order = ("wrong", "pending", "proven")
    settled = next((verdict for verdict in order if verdict in verdicts), "proven")
    return {
        "state": "drifted" if found.plan.operations else settled,
        "error": None,
        "identities": identities,
        "plan": found.plan.as_result(),
        "paths": list(found.proof.paths),
    }


def _listed(objects: t.Iterable[Rule | Route]) -> list[Entry]:
    return [{"family": f"ipv{o.family}", "protocol": o.protocol, "text": o.text()} for o in objects]


def _conflicts(
    rules: t.Sequence[Rule], routes: t.Sequence[Route], records: t.Sequence[Record], owned: t.Container[int | None]
) -> list[Entry]:
    """Foreign objects that are in the way, each with what it does there."""
    ours = [objects_of(record) for record in records]
    first = min((record.numbers["priority_base"] for record in records), default=0)
    twins = {rule for own, _routes in ours for rule in own}
    keys = {route.key for _rules, own in ours for route in own}
    found: list[tuple[str, Rule | Route]] = []
    for rule in rules:
        if rule.protocol in owned or rule.protocol == KERNEL:
            continue
        if rule in twins:
            found.append(("twin", rule))
        elif rule.priority < first:
            found.append(("ahead", rule))
    found += [("occupied", route) for route in routes if route.protocol not in owned and route.key in keys]
    return [{"kind": kind, **_listed([each])[0]} for kind, each in found]
