# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The command line of fleetvpn-endpoint."""

from __future__ import annotations

import argparse
import functools
import json
import re
import shlex
import sys
import typing as t

from .._confirm import Terms
from .._controller import author, named
from .._errors import InvalidInput, NotPermitted, RoutingError
from .._kernel import open_kernel
from .._request import ENFORCE, WHAT_IF
from .._surroundings import Host
from .._suspension import resume, suspend, suspension
from .._version import VERSION
from . import generations as older
from . import hook, metrics
from . import path as paths
from . import status as states
from .apply import Applied, apply_sets
from .due import arrange
from .history import Repair
from .notes import EVERY_SET, RESUMED, SUSPENDED, accept, note
from .sets import Kept, kept_sets
from .watch import watch
from .window import add_commands, command

FLOW_OPTIONS = ("iif", "oif", "fwmark", "tos", "uid", "ipproto", "sport", "dport")


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Run it. Exit status 1: an error (one line on stderr), or a host that is not as declared. 2: wrong usage."""
    given = _parser().parse_args(arguments)
    run: t.Callable[[argparse.Namespace], int] = given.command
    try:
        return run(given)
    except RoutingError as exc:
        _complain(exc.line())
        return 1


def _apply(given: argparse.Namespace) -> int:
    return bring(given.netns, given.set)


def bring(netns: str | None, only: str | None = None) -> int:
    """Apply, say what came of it, and see to what ends later; the exit status. Raises RoutingError."""
    with open_kernel(netns) as kernel:
        found = apply_sets(kernel, netns, only)
    arrange(netns)
    for applied in found:
        (_complain if applied.result is None else _say)(applied.line())
        for line in applied.remarks():
            _complain(line)
    paused = suspension(netns)
    if paused is not None:
        _say(f"this host is {paused.line()}")
    return 1 if any(applied.result is None or applied.result.proof.wrong() for applied in found) else 0


def _suspend(given: argparse.Namespace) -> int:
    seconds = None if given.period is None else _seconds(given.period)
    with Host(None, given.netns).lock():
        made = suspend(given.netns, named(author()), seconds)
        note(given.netns, Repair(EVERY_SET, SUSPENDED, made.line().partition(" ")[2]))
    return bring(given.netns)


def _resume(given: argparse.Namespace) -> int:
    with Host(None, given.netns).lock():
        if suspension(given.netns) is not None:
            resume(given.netns)
            note(given.netns, Repair(EVERY_SET, RESUMED, f"by {named(author())}"))
    return bring(given.netns)


def _seconds(text: str) -> int:
    """Of a period as `90m`. Raises InvalidInput."""
    found = re.fullmatch(r"([0-9]{1,4})([smhd])", text)
    if found is None or not int(found[1]):
        accepted = "1 to 9999 with s, m, h or d behind it, as 2h"
        raise InvalidInput("is no time", field="for", value=text, accepted=accepted)
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _hook(given: argparse.Namespace) -> int:
    """A client's hook: whatever goes wrong is said in the log, for a failing hook would end the VPN."""
    hook.log(hook.describe(given.client))
    try:
        with open_kernel(given.netns) as kernel:
            found = apply_sets(kernel, given.netns)
    except RoutingError as exc:
        hook.log([exc.line()])
        return 0
    hook.log(line for applied in found for line in (applied.line(), *applied.remarks()))
    return 0


def _status(given: argparse.Namespace) -> int:
    if given.generations:
        entries = older.generations(given.netns)
        sys.stdout.write(_json(entries) if given.json else older.as_table(entries))
        return 0
    if given.monitoring:
        return _check(given.netns)
    with open_kernel(given.netns) as kernel:
        found = states.read_status(kernel, given.netns)
    if given.prometheus:
        sys.stdout.write(metrics.as_metrics(found))
        return 0
    table = states.history_table if given.history else states.as_table
    sys.stdout.write(_json(found) if given.json else table(found))
    return 0 if found["ok"] else 1


def _check(netns: str | None) -> int:
    """As a monitoring plugin, which has no other way to say what went wrong than its line and status."""
    try:
        with open_kernel(netns) as kernel:
            level, line = metrics.as_check(states.read_status(kernel, netns))
    except RoutingError as exc:
        level, line = metrics.check_line(metrics.UNKNOWN, exc.line())
    sys.stdout.write(line)
    return level


def _rollback(given: argparse.Namespace) -> int:
    terms = Terms() if given.timeout is None else Terms.of({"timeout": given.timeout})
    with open_kernel(given.netns) as kernel:
        done = older.roll_back(kernel, given.netns, given.set, given.generation, terms, given.what_if)
    if done.command is None:
        accept(given.netns, given.set)
        arrange(given.netns)
    applied = Applied(done.kept, done.result, None)
    for line in applied.remarks():
        _complain(line)
    told = {"generation": done.number, "changed": done.result.changed, "command": done.command}
    waits = "" if done.command is None else f"; undone in {given.timeout} s without: {shlex.join(done.command)}"
    text = f"{applied.line()}; as generation {done.number} was{waits}\n"
    sys.stdout.write(_json(told) if given.json else text)
    return 0


def _path(given: argparse.Namespace) -> int:
    flow = {"to": given.to, "from": given.source, **{name: getattr(given, name) for name in FLOW_OPTIONS}}
    with open_kernel(given.netns) as kernel:
        found = paths.ask_path(kernel, _sets(given.netns), flow, explain=given.explain)
    sys.stdout.write(_json(found) if given.json else "".join(map(paths.as_text, found)))
    return 0 if all(entry["type"] is not None for entry in found) else 1


def _sets(netns: str | None) -> list[Kept]:
    """The sets as far as this user may know them: a path can be asked for without, then no identity has a name."""
    try:
        found = kept_sets(netns)
    except NotPermitted as exc:
        _complain(exc.line())
        return []
    for kept in found:
        if kept.error is not None:
            _complain(kept.error.line())
    return found


def _watch(given: argparse.Namespace) -> int:
    with open_kernel(given.netns) as kernel:
        watch(kernel, given.netns, _say)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _complain(line: str) -> None:
    sys.stderr.write(f"fleetvpn-endpoint: {line}\n")


def _json(found: object) -> str:
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleetvpn-endpoint",
        description="Keeps the identities of this host apart: what comes from an address leaves by its own way.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fleetvpn-endpoint {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    apply = command(commands, "apply", _apply, "bring the kernel to what the recorded sets say")
    apply.add_argument("--set", metavar="NAME", help="this set alone")
    _status_options(command(commands, "status", _status, "show how the sets stand; exit status 1 if not as declared"))
    _rollback_options(command(commands, "rollback", _rollback, "declare anew what an earlier generation of a set was"))
    _path_options(command(commands, "path", _path, "ask the kernel for the path of a flow, as sockets get it"))
    called = command(commands, "hook", _hook, "what a VPN client's hook calls: log what it says, and apply")
    called.add_argument(
        "client", choices=sorted(hook.CLIENTS), help="the client whose variables are in the environment"
    )
    add_commands(functools.partial(command, commands))
    paused = command(commands, "suspend", _suspend, "take everything out of the kernel, and keep it out")
    paused.add_argument("--for", dest="period", metavar="TIME", help="as 2h; until `resume` if left out")
    command(commands, "resume", _resume, "end a suspension, and apply")
    command(commands, "watch", _watch, "apply now, and again whenever something changes that matters")
    return parser


def _status_options(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--prometheus", action="store_true", help="as metrics, for a textfile collector")
    form.add_argument("--monitoring", action="store_true", help="one line; exit status 0 ok, 1 warning, 2 critical")
    parser.add_argument("--history", action="store_true", help="what was put right, suspended or refused, and when")
    parser.add_argument("--generations", action="store_true", help="what each set was before, and by whom")


def _rollback_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generation", metavar="N", type=int, nargs="?", help="the last that differs if left out")
    parser.add_argument("--set", metavar="NAME", default="main", help="of this set instead of main")
    parser.add_argument("--timeout", metavar="SECONDS", type=int, help="undo it then unless `confirm` is called")
    parser.add_argument("--what-if", choices=WHAT_IF, default=ENFORCE, help="as in the module; of what would go wrong")
    parser.add_argument("--json", action="store_true", help="for programs")


def _path_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("to", metavar="TO", help="destination address")
    parser.add_argument("--from", dest="source", metavar="ADDRESS|IDENTITY", help="source")
    for name in FLOW_OPTIONS:
        parser.add_argument(f"--{name}", help="as `ip route get` takes it")
    parser.add_argument("--explain", action="store_true", help="every rule that was asked, and what came of it")
    parser.add_argument("--json", action="store_true", help="for programs")


if __name__ == "__main__":
    raise SystemExit(main())
