# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What module endpoint does: its options become a request, and what came of it a result."""

from __future__ import annotations

import pathlib
import typing as t

from ._confirm import Armed, Terms, make_way, overdue
from ._controller import author
from ._converge import Request, converge, prepare
from ._converge import Result as Found
from ._endpoint_spec import DECLARATION
from ._errors import InvalidInput, RoutingError
from ._host import due, install, notes, program
from ._model import fields
from ._model.guard import FAMILY, Guard
from ._model.operation import with_owner
from ._netns import is_this
from ._record import end_of, guard_of, has_ended
from ._store import check_name, store_for
from ._surroundings import Host
from ._suspension import refuse_suspended
from ._worker import Result

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._model.operation import Target
    from ._worker import Context


ARMED = "armed"  # a change that waits for its confirmation


def ensure_endpoint(context: Context) -> Result:
    """The work of module C(endpoint). What it refuses is remembered on the host until something is accepted."""
    name = context.params["set"]
    check_name(name)
    try:
        result = _ensure(context)
    except RoutingError as exc:
        if not context.check_mode:
            notes.refuse(context.netns, name, exc)
        raise
    # What waits for its confirmation is accepted by that.
    if not context.check_mode and result.values["confirm"]["state"] is None:
        notes.accept(context.netns, name)
    return result


def _ensure(context: Context) -> Result:
    refuse_suspended(context.netns)
    _refuse_endless(context.params)
    request = _request(context)
    with context.open_kernel() as kernel:
        host = _host(context, kernel)
        work = prepare(kernel, host, request)
        files = None if context.netns else _installation(context, request)
        if context.check_mode or (work.idle and not (files and files.plan)):
            return as_result(work.run(), host, files, request)
        overdue(host)
        with host.lock():
            refuse_suspended(context.netns)
            make_way(kernel, host)
            host = _host(context, kernel)  # what it had read may have changed meanwhile
            found = converge(kernel, host, request)
            if found.armed is None:
                complete(host, files, absent=request.absent)
    if found.armed is None:
        due.arrange(context.netns)
    return as_result(found, host, files, request)


def _refuse_endless(params: t.Mapping[str, t.Any]) -> None:
    """What ends a set in time is the program on the host. Raises InvalidInput."""
    if end_of(params) is not None and (params["netns"] is not None or not persistent(params)):
        raise InvalidInput(
            "would be ended by nobody",
            field="expires",
            value=params["expires"],
            accepted="a persistent set of the host itself",
        )


def _host(context: Context, kernel: Kernel) -> Host:
    return Host(kernel, context.netns, persistent=persistent(context.params), build=program.build)


def _request(context: Context) -> Request:
    params = context.params
    return Request(
        name=params["set"],
        params=declared(params),
        paths=params["paths"] or [],
        keep_paths=params["keep_paths"] or [],
        absent=params["state"] == "absent" or has_ended(params),
        prune=params["prune"],
        adopt=params["adopt"],
        dry_run=context.check_mode,
        what_if=params["what_if"],
        terms=Terms.of(params["confirm"] or {}, connected=is_this(context.netns)),
        meta={**author(), "declared": fields.now().isoformat(), "prune": params["prune"]},
    )


def complete(host: Host, files: install.Installation | None, *, absent: bool) -> None:
    """What comes after the set is written down, or gone."""
    if files is not None:
        files.carry_out()
    if absent:
        host.tidy()


def _installation(context: Context, request: Request) -> install.Installation:
    """The program is there as long as a persistent set is, after this run."""
    others = set(store_for(True, None).names()) - {request.name}
    kept = persistent(context.params) and not request.absent
    return install.look(wanted=kept or bool(others), root=pathlib.Path(context.root))


def persistent(params: t.Mapping[str, t.Any]) -> bool:
    """A network namespace does not survive a boot, so its sets do not either unless told so."""
    stated = params["persistent"]
    return params["netns"] is None if stated is None else bool(stated)


def declared(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The part of the options that says what is wanted, without what was left out."""
    return {key: _given(params[key]) for key in DECLARATION if params[key] is not None}


def _given(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_given(item) for item in value]
    return value


def as_result(found: Found, host: Host, files: install.Installation | None, request: Request) -> Result:
    """The result as the module returns it."""
    named = [{"op": _op(line), "kind": "table", "family": None, "text": line[1:]} for line in found.names]
    installed = files.plan if files else []
    steps = [*found.plan.as_result(), *named, *installed]
    displaced = [*_displaced(found), *(step["text"] for step in installed if step["op"] in ("remove", "replace"))]
    added = (step["text"] for step in (*named, *installed) if step["op"] in ("add", "replace"))
    incoming = [*_incoming(found), *added]
    return Result(
        changed=found.changed or bool(installed),
        plan=steps,
        before="".join(f"{line}\n" for line in displaced),
        after="".join(f"{line}\n" for line in incoming),
        header="policy routing",
        warnings=[
            *([f"set {request.name} has ended at {request.params['expires']}"] if has_ended(request.params) else []),
            *found.warnings,
            *(line for client in host.clients for line in client.remarks),
            *(files.warnings if files else ()),
        ],
        values={
            "paths": [{"planned": None, "unjudged": None, **path} for path in (*found.proof.paths, *found.paths)],
            "management": found.management,
            "connections": list(found.connections),
            "identities": list(found.proof.identities),
            "numbers": found.record.numbers,
            "tunnels": host.clients_told(found.record, request.name),
            "guard": _guard_result(found),
            "program": files.as_result() if files else None,
            "confirm": _waiting(found.armed, host),
        },
    )


def _waiting(armed: Armed | None, host: Host) -> dict[str, t.Any]:
    """How a change is to be confirmed that is undone otherwise."""
    if armed is None:
        return {"state": None}
    command = host.window.command("confirm", armed.token)
    return {"state": ARMED, "token": armed.token, "timeout": armed.timeout, "command": command}


def _op(line: str) -> str:
    return "add" if line.startswith("+") else "remove"


def _guard_result(found: Found) -> dict[str, str | None]:
    """How the egress guard stands, or would after this run."""
    guard = guard_of(found.record)
    state = "absent" if guard is None else "present"
    if found.unguarded is not None:
        state = "missing" if found.unguarded.value is None else "unsupported"
    return {"state": state, "table": None if guard is None else f"{FAMILY} {guard.table}"}


def _displaced(found: Found) -> t.Iterator[str]:
    """What goes: removed objects, and what replaced and moved ones were before."""
    for operation in found.plan.operations:
        gone = operation.displaced()
        if gone is not None:
            yield from _lines(gone, foreign=operation.adopted)
    yield from (line[1:] for line in found.names if line.startswith("-"))


def _incoming(found: Found) -> t.Iterator[str]:
    """What comes."""
    for operation in found.plan.operations:
        if operation.op != "remove":
            yield from _lines(operation.target)


def _lines(target: Target, *, foreign: bool = False) -> list[str]:
    """An object as a diff shows it; one that is taken over with its protocol, which tells it from ours."""
    if isinstance(target, Guard):
        return target.lines()
    return [with_owner(target) if foreign else target.text()]
