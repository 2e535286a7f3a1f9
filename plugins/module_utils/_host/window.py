# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Commands confirm, restore and wake: how a change that waits for its confirmation ends, and what else ends in time.

They have to be quick, so they do without most of what the other commands import.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import sys
import time
import typing as t

from .._confirm import confirm, restore, waiting
from .._errors import RoutingError, VerificationError
from .._kernel import open_kernel
from .._model import fields
from .._record import end_of
from .._store import store_for
from .._surroundings import Host
from . import hook, install


def main() -> int:
    """One of them, as `fleetvpn-endpoint` takes it. Exit status 1: an error, one line on stderr."""
    parser = argparse.ArgumentParser(prog="fleetvpn-endpoint", allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    add_commands(lambda name, run, text: command(commands, name, run, text))
    given = parser.parse_args()
    try:
        return int(given.command(given))
    except RoutingError as exc:
        sys.stderr.write(f"fleetvpn-endpoint: {exc.line()}\n")
        return 1


def command(
    commands: t.Any, name: str, run: t.Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """A command of the program."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("--netns", metavar="NAME", help="a network namespace instead of this host")
    parser.set_defaults(command=run)
    return parser


def add_commands(add: t.Callable[[str, t.Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]) -> None:
    """All of this file."""
    confirmed = add("confirm", _confirm, "confirm the change that waits, so that it is not undone")
    confirmed.add_argument("token", metavar="TOKEN", nargs="?", help="that of the change; any that waits if left out")
    restored = add("restore", _restore, "undo a change as soon as its time is up without confirmation")
    restored.add_argument("token", metavar="TOKEN", help="that of the change")
    woken = add("wake", _wake, "apply as soon as something ends, such as a suspension")
    woken.add_argument("moment", metavar="TIME", help="when that is")


def _confirm(given: argparse.Namespace) -> int:
    host = Host(None, given.netns)
    with host.lock():
        armed = waiting(host, given.token)
        confirm(host, armed)
        if given.netns is None:
            install.look(wanted=bool(store_for(True, None).names())).carry_out()
        due, notes = _due(host), _notes() if host.notes.exists() else None
        host.window.close()  # and with it the file that this program is
        if armed.absent:
            host.tidy()
    if notes is not None:
        notes.accept(given.netns, armed.name)
    if due is not None:
        due.arrange(given.netns)
    sys.stdout.write(f"{armed.name}: the change by {armed.holder} is confirmed\n")
    return 0


def _due(host: Host) -> t.Any:
    """What sees to sets that end by themselves; nothing if there are none, for it is slow to import."""
    records = [record for store in host.stores for record in store.read_all().values()]
    ending = any(end_of(record.declaration) for record in records)
    return importlib.import_module(".due", __package__) if ending else None


def _notes() -> t.Any:
    """What remembers what was refused; slow to import, and to be imported while the file of this program is there."""
    return importlib.import_module(".notes", __package__)


def _restore(given: argparse.Namespace) -> int:
    """What the dead-man's switch runs: wait until the time is up, and undo the change if it still waits."""
    notes = _notes()
    while (armed := Host(None, given.netns).window.read()) and armed.token == given.token and not armed.expired:
        time.sleep(armed.left)
    with open_kernel(given.netns) as kernel:
        host = Host(kernel, given.netns)
        with host.lock():
            armed = host.window.read()
            if armed is None or armed.token != given.token:
                return 0
            left = restore(kernel, host, armed)
            hook.log([f"the change of set {armed.name} by {armed.holder} was not confirmed and is undone", *left])
            if left:  # rare, and slow to import
                importlib.import_module(".apply", __package__).converge_sets(kernel, given.netns)
            if given.netns is None and not store_for(True, None).names():
                install.look(wanted=False).carry_out()
            host.tidy()
    notes.refuse(given.netns, armed.name, VerificationError("the change was not confirmed and is undone"))
    return 0


def _wake(given: argparse.Namespace) -> int:
    """What is started for the moment when something ends: wait until then if it is early, and apply."""
    moment = fields.moment(given.moment, "time")
    while (left := (moment - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) > 0:
        time.sleep(left)
    return int(importlib.import_module(".cli", __package__).bring(given.netns))
