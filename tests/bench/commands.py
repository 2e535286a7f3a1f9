# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same end state by module endpoint and by ansible.builtin.command, as playbooks without it are written."""

from __future__ import annotations

import pathlib
import typing as t

from tests.functional.onhost import TUNNEL
from tests.lab.host import Host

from .figures import Figure, Size
from .hosts import ENDPOINT, fleet
from .plays import Task, inventory, run
from .unchanged import ratios

_ABSENT: Task = {"fleetvpn.routing.endpoint": {"state": "absent", "confirm": {"by": "none"}}}
_STATE = "for family in -4 -6; do ip $family -N rule; ip $family -N route show table all; done; nft -s list ruleset"
_PROTOCOL = 151
_GUARD = "nft -s list table inet fleetvpn"
_UNDONE: Task = {
    "ansible.builtin.shell": f"""
        for family in -4 -6; do
            ip $family rule flush protocol {_PROTOCOL}
            ip $family route flush table all protocol {_PROTOCOL}
        done
        nft delete table inet fleetvpn
        ip link set dev {TUNNEL} group 0
    """
}


def first(directory: pathlib.Path, size: Size) -> list[Figure]:
    """Two identities in both families, on a host that has none of them."""
    with fleet(1) as hosts:
        inventory(directory / "inventory.yml", hosts)
        plan = run(directory, [[ENDPOINT]]).plays[0].results[0]["plan"]
        state, guard = _state(hosts[0]), hosts[0].shell(_GUARD)
        commands = [task for step in plan for task in as_commands(step, guard)]
        run(directory, [[_ABSENT], commands])
        if _state(hosts[0]) != state:
            raise RuntimeError("the commands do not come to what the module comes to")
        run(directory, [[_UNDONE]])
        whole = run(directory, [[ENDPOINT], [_ABSENT], commands, [_UNDONE]] * (size.rounds + 1))
        measured = whole.of(0, 4), whole.of(2, 4)
    if not all(ran.changed for part in measured for ran in part):
        raise RuntimeError("what was to be applied was there already")
    what = "endpoint, first apply of two identities, both families"
    return [Figure("first", what, f"{len(commands)} tasks of ansible.builtin.command", ratios(*measured), 1 / 8)]


def _state(host: Host) -> list[str]:
    return sorted(host.shell(_STATE).splitlines())


def as_commands(step: t.Mapping[str, t.Any], guard: str) -> list[Task]:
    """A look, and the change if it is not there: for one step of a plan. What is a file only has no command."""
    family, text = f"-{(step['family'] or '')[-1:]}", str(step["text"])
    if step["kind"] == "rule":
        priority, _colon, rest = text.partition(":\t")
        return _if_missing(
            f"ip {family} rule show pref {priority}",
            f"ip {family} rule add pref {priority} {rest} protocol {_PROTOCOL}",
        )
    if step["kind"] == "route":
        destination, table = text.split(maxsplit=1)[0], text.split()[text.split().index("table") + 1]
        # A plan leaves out what is the kernel's default; for some routes ip has another one.
        scope = "" if family == "-6" or " scope " in text else " scope global"
        return _if_missing(
            f"ip {family} route show table {table} exact {destination}",
            f"ip {family} route add {text}{scope} protocol {_PROTOCOL}",
        )
    if step["kind"] == "guard":
        return _if_missing(_GUARD, "nft -f -", guard)
    return [_command(f"ip link set {text}")] if step["kind"] == "group" else []


def _if_missing(look: str, change: str, text: str = "") -> list[Task]:
    found = {"register": "found", "changed_when": False, "failed_when": False}
    return [{**_command(look), **found}, {**_command(change, text), "when": "found.stdout == ''"}]


def _command(line: str, text: str = "") -> Task:
    return {"ansible.builtin.command": {"cmd": line, **({"stdin": text} if text else {})}}
