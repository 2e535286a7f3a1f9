# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller says of a change that it could not confirm."""

from __future__ import annotations

import types
import typing as t

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.fleetvpn.routing.plugins.action.endpoint import ActionModule

TOKEN = "0123456789abcdef"
BY_HAND = "disarm it by hand on that host in time: "
COMMAND = "python3 -I /run/fleetvpn/fleetvpn-endpoint confirm"
WAITING = {"state": "armed", "timeout": 1, "token": TOKEN, "command": [*COMMAND.split(), TOKEN]}
KILLED = {"failed": True, "msg": "Module failed.", "module_stdout": "", "module_stderr": "Killed", "rc": 137}


class Connection:
    """One that can be reset."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.resets = 0
        self._shell = types.SimpleNamespace(tmpdir="/tmp")

    def reset(self) -> None:
        self.resets += 1


class Action(ActionModule):
    """The plugin, with the host's answers given beforehand. An error is raised."""

    def __init__(self, made: t.Any, *confirmed: t.Any, transport: str = "ssh", **args: t.Any) -> None:
        task = types.SimpleNamespace(
            args=args, environment=None, delegate_to=None, async_val=0, check_mode=False, action="endpoint"
        )
        connection, context = Connection(transport), types.SimpleNamespace(remote_addr="192.0.2.10")
        super().__init__(task, connection, context, loader=None, templar=None, shared_loader_obj=None)
        self._made, self._confirmed = made, iter(confirmed)

    def _execute_module(self, **_given: t.Any) -> dict[str, t.Any]:
        return dict(answer(self._made))

    def _low_level_execute_command(self, _command: str) -> dict[str, t.Any]:
        return dict(answer(next(self._confirmed)))


def answer(given: t.Any) -> t.Any:
    if isinstance(given, Exception):
        raise given
    return given


def test_a_new_connection_confirms_after_some_that_failed() -> None:
    waiting = {**WAITING, "timeout": 30}
    action = Action({"changed": True, "confirm": waiting}, AnsibleConnectionFailure("refused"), {"rc": 0})
    assert action.run()["confirm"]["state"] == "confirmed"
    assert action._connection.resets == 2  # one for each try


@pytest.mark.parametrize("error", [AnsibleConnectionFailure("no route"), AnsibleError("no route")])
def test_without_a_new_connection_it_says_where_when_and_how(error: AnsibleError) -> None:
    result = Action({"changed": True, "confirm": WAITING}, error, error, error).run()
    assert (result["failed"], result["confirm"]["state"]) == (True, "unconfirmed")
    assert "the change on 192.0.2.10 is armed" in result["msg"]
    assert "(no route): it is being undone now" in result["msg"] or "it will be undone in 1 s" in result["msg"]
    assert result["msg"].endswith(f"{BY_HAND}{COMMAND} {TOKEN}")


def test_a_confirmation_that_fails_says_why() -> None:
    waiting = {**WAITING, "timeout": 30}
    result = Action({"confirm": waiting}, {"rc": 1, "stderr": "no space left\n", "stdout": ""}).run()
    assert "could not confirm it (no space left): it will be undone in 30 s" in result["msg"]
    assert result["msg"].endswith(f"{BY_HAND}{COMMAND} {TOKEN}")


def test_of_a_program_that_was_taken_away_while_it_started_the_last_line_is_enough() -> None:
    traceback = 'Traceback (most recent call last):\n  File "<frozen runpy>", line 198\nImportError: gone\n'
    result = Action({"confirm": {**WAITING, "timeout": 30}}, {"rc": 1, "stderr": traceback, "stdout": ""}).run()
    assert "could not confirm it (ImportError: gone): " in result["msg"]


def test_a_connection_that_is_lost_meanwhile_says_it_too() -> None:
    with pytest.raises(AnsibleConnectionFailure) as caught:
        Action(AnsibleConnectionFailure("closed"), confirm={"timeout": 45}).run()
    assert str(caught.value) == (
        "closed; what it may have changed on 192.0.2.10 is armed: it will be undone in at most 45 s;"
        f" to keep it after all, {BY_HAND}{COMMAND}"
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "on 192.0.2.10 is armed: it will be undone in at most 30 s"),
        ({"confirm": {"by": "probe"}}, "on 192.0.2.10 is armed: it will be undone in at most 30 s"),
        ({"confirm": {"by": "none"}}, "Module failed; as confirm.by is none, nothing undoes what it may have changed"),
        ({"netns": "blue"}, "is armed unless confirm.by is none there: it will be undone"),
        ({"netns": "blue"}, "/run/fleetvpn/netns/blue/fleetvpn-endpoint confirm --netns blue"),
    ],
)
def test_so_does_a_module_that_was_killed(args: dict[str, t.Any], said: str) -> None:
    result = Action(KILLED, **args).run()
    assert said in result["msg"]
    assert result["failed"]


def test_what_the_module_says_itself_is_left_alone() -> None:
    assert Action({"failed": True, "msg": "no", "error": "Conflict"}).run()["msg"] == "no"


@pytest.mark.parametrize(
    ("args", "refused"),
    [
        ({}, True),
        ({"netns": "/proc/self/ns/net"}, True),
        ({"netns": "no such"}, False),
        ({"netns": "no such", "confirm": {"by": "reconnect"}}, True),
        ({"confirm": {"by": "none"}}, False),
    ],
)
def test_a_local_connection_confirms_nothing(args: dict[str, t.Any], refused: bool) -> None:
    result = Action({"changed": False}, transport="local", **args).run()
    assert (result.get("field") == "confirm.by") == refused


@pytest.mark.parametrize(
    ("transport", "args", "management", "warned"),
    [
        ("ssh", {}, None, True),
        ("paramiko_ssh", {}, None, True),
        ("ssh", {}, {"flow": "from 192.0.2.10 to 192.0.2.1"}, False),
        ("ssh", {"what_if": "skip"}, None, False),
        ("podman", {}, None, False),
    ],
)
def test_an_ssh_connection_that_the_host_does_not_see_is_a_warning(
    transport: str, args: dict[str, t.Any], management: dict[str, t.Any] | None, warned: bool
) -> None:
    made = {"confirm": {**WAITING, "timeout": 30}, "management": management, "warnings": ["of the module"]}
    warnings = Action(made, {"rc": 0}, transport=transport, **args).run()["warnings"]
    assert warnings[0] == "of the module"
    assert ["does not see by which SSH connection" in text for text in warnings[1:]] == [True] * warned
