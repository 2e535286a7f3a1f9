# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""One rule, one route, one table name: what the modules of these names do.

Each is first worked out as a Change, a value with what would be done; check mode is not carrying it out.
"""

from __future__ import annotations

import dataclasses
import platform
import typing as t

from ._errors import Conflict, VerificationError
from ._model.fields import RESERVED_TABLES
from ._model.operation import Operation
from ._model.route import Route
from ._model.rule import Rule, refuse_unsupported
from ._model.table import Table, table_name
from ._names import Names, edit, edited, refuse_contradiction
from ._plan import Plan
from ._reach import Reach
from ._refuse import refuse_lost_goto
from ._worker import Result

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._worker import Context

# Somebody who puts back what we remove, or the other way round, is not outlasted.
ROUNDS = 5

Steps = list[Operation]


@dataclasses.dataclass(frozen=True)
class Change:
    """What would be done, how it looks before and after, and how to do it."""

    plan: t.Sequence[t.Mapping[str, t.Any]]
    before: str
    after: str
    header: str
    carry_out: t.Callable[[], None]
    warnings: tuple[str, ...] = ()


def ensure_rule(context: Context) -> Result:
    """The work of module C(rule)."""
    names = Names.read(root=context.root, netns=context.netns)
    rule = Rule.from_params(context.params, tables=names.table)
    refuse_unsupported(rule, platform.release())
    present = _wanted(context)
    with context.open_kernel() as kernel:
        rules = kernel.rules(rule.family)
        if present:
            refuse_lost_goto(rule, {(found.family, found.priority) for found in rules})
        change = _kernel_change(
            kernel,
            read=lambda: [found for found in kernel.rules(rule.family) if _same(found, rule)],
            steps=lambda found: rule_steps(rule, found, present=present),
            header=f"ip -{rule.family} -N rule show",
            warnings=_twins(rule, rules),
        )
        return _finish(context, change)


def ensure_route(context: Context) -> Result:
    """The work of module C(route)."""
    names = Names.read(root=context.root, netns=context.netns)
    route = Route.from_params(context.params, tables=names.table)
    present = _wanted(context)
    with context.open_kernel() as kernel:
        if present:
            route = Reach(kernel).completed(route)
        change = _kernel_change(
            kernel,
            read=lambda: [found for found in kernel.routes(route.family, table=route.table) if found.key == route.key],
            steps=lambda found: route_steps(route, found, present=present),
            header=f"ip -{route.family} -N route show table {route.table}",
        )
        return _finish(context, change)


def ensure_table(context: Context) -> Result:
    """The work of module C(table)."""
    names = Names.read(root=context.root, netns=context.netns)
    change = _naming(names, context.params) if _wanted(context) else _unnaming(names, context.params)
    return _finish(context, change)


def _wanted(context: Context) -> bool:
    return bool(context.params["state"] == "present")


def _finish(context: Context, change: Change) -> Result:
    if change.plan and not context.check_mode:
        change.carry_out()
    return Result(
        changed=bool(change.plan),
        plan=change.plan,
        before=change.before,
        after=change.after,
        header=change.header,
        warnings=change.warnings,
    )


T = t.TypeVar("T", Rule, Route)


def _kernel_change(
    kernel: Kernel,
    *,
    read: t.Callable[[], list[T]],
    steps: t.Callable[[t.Sequence[T]], Steps],
    header: str,
    warnings: tuple[str, ...] = (),
) -> Change:
    found = read()
    first = steps(found)
    return Change(
        plan=Plan(tuple(first)).as_result(),
        before=_lines(found),
        after=_lines(_applied(found, first)),
        header=header,
        carry_out=lambda: _carry_out(kernel, first, lambda: steps(read())),
        warnings=warnings,
    )


def _carry_out(kernel: Kernel, first: Steps, remaining: t.Callable[[], Steps]) -> None:
    """Apply, and again what a fresh dump still asks for (a removal uncovers the next duplicate)."""
    pending = first
    for _round in range(ROUNDS):
        kernel.apply(pending)
        pending = remaining()
        if not pending:
            return
    kernel.apply([operation.inverse() for operation in reversed(first)])
    raise VerificationError(
        f"the kernel does not keep '{pending[0].target.text()}': it lacks an option, or somebody else changes the same;"
        " what was done is undone",
        field=pending[0].kind,
    )


def _applied(found: t.Sequence[T], steps: Steps) -> list[t.Any]:
    """What is there after the steps, for the diff."""
    after: list[t.Any] = list(found)
    for step in steps:
        if step.op == "add":
            after.append(step.target)
            continue
        old = t.cast("Rule | Route", step.before or step.target)
        at = next(at for at, each in enumerate(after) if (each, each.protocol) == (old, old.protocol))
        after[at : at + 1] = [step.target] if step.op == "replace" else []
    return after


def _lines(found: t.Iterable[Rule] | t.Iterable[Route]) -> str:
    return "".join(f"{each.text()} proto {each.protocol}\n" for each in found)


def _same(found: Rule, rule: Rule) -> bool:
    return found == rule and found.protocol == rule.protocol


def rule_steps(rule: Rule, found: t.Sequence[Rule], *, present: bool) -> Steps:
    """What makes the kernel hold C(rule) once, or not at all. C(found) are its equals of the same protocol. Pure."""
    if present and not found:
        return [Operation("add", rule)]
    return [Operation("remove", rule)] * (len(found) - (1 if present else 0))


def _twins(rule: Rule, rules: t.Iterable[Rule]) -> tuple[str, ...]:
    owners = sorted({found.protocol for found in rules if found == rule} - {rule.protocol})
    text = rule.text().replace("\t", " ")
    return tuple(f"an equal rule of protocol {owner} is left alone: {text}" for owner in owners)


def route_steps(route: Route, found: t.Sequence[Route], *, present: bool) -> Steps:
    """What makes the kernel hold C(route), or nothing of ours under its key. C(found) has that key. Pure.

    Raises Conflict where the key is somebody else's: IPv4 would overwrite the other route, IPv6 might join the two to
    one multipath route.
    """
    ours = [other for other in found if other.protocol == route.protocol]
    if not present:
        return [Operation("remove", other) for other in ours]
    keep = next((other for other in ours if other == route), None)
    if keep is None:
        _refuse_foreign(route, found)
    surplus = list(ours)
    first: Steps = []
    if keep is None and ours:
        first = [Operation("replace", route, surplus.pop(0))]
    elif keep is None:
        first = [Operation("add", route)]
    else:
        surplus.remove(keep)
    return first + [Operation("remove", other) for other in surplus]


def _refuse_foreign(route: Route, found: t.Sequence[Route]) -> None:
    foreign = next((other for other in found if other.protocol != route.protocol), None)
    if foreign is not None:
        raise Conflict(
            f"is taken by a route of protocol {foreign.protocol}, {foreign.text()!r}, which is not overwritten",
            field="dst",
            value=route.dst,
            accepted="another metric or table, or that route removed by its owner",
        )


def _naming(names: Names, params: t.Mapping[str, t.Any]) -> Change:
    table = Table.from_params(params)
    _refuse_taken(names, table)
    named = {entry.id for entry in names.entries if entry.name == table.name}
    add = {} if named == {table.id} or RESERVED_TABLES.get(table.name) == table.id else {table.id: table.name}
    op = "replace" if named else "add"
    return _file_change(
        names, add, (), [{"op": op, "kind": "table", "family": None, "text": table.text()}] if add else []
    )


def _refuse_taken(names: Names, table: Table) -> None:
    refuse_contradiction(names, table.name, table.id)
    for entry in names.entries:
        if entry.id == table.id and entry.name != table.name:
            accepted = f"name {entry.name}, or another id"
            raise Conflict(f"is named {entry.name} in {entry.path}", field="id", value=table.id, accepted=accepted)


def _unnaming(names: Names, params: t.Mapping[str, t.Any]) -> Change:
    name = table_name(params["name"], "name")
    number = params.get("id")
    found = [entry for entry in names.entries if entry.name == name and number in (None, entry.id)]
    plan = [
        {"op": "remove", "kind": "table", "family": None, "text": Table(entry.name, entry.id).text()}
        for entry in found
        if entry.ours
    ]
    warnings = tuple(f"table {name} is named in {entry.path}, which is left alone" for entry in found if not entry.ours)
    return _file_change(names, {}, [name] if plan else [], plan, warnings)


def _file_change(
    names: Names,
    add: t.Mapping[int, str],
    remove: t.Sequence[str],
    plan: t.Sequence[t.Mapping[str, t.Any]],
    warnings: tuple[str, ...] = (),
) -> Change:
    before = names.own_text()
    return Change(
        plan=plan,
        before=before,
        after=edited(before, add=add, remove=remove),
        header=str(names.path),
        carry_out=lambda: _write_names(names, add, remove),
        warnings=warnings,
    )


def _write_names(names: Names, add: t.Mapping[int, str], remove: t.Sequence[str]) -> None:
    edit(names, add=add, remove=remove)
