# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of module endpoint: a change counts only if a new connection can be made after it."""

from __future__ import annotations

import shlex
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.connection import ConnectionBase
from ansible_collections.fleetvpn.routing.plugins.module_utils._controller import PLAY
from ansible_collections.fleetvpn.routing.plugins.module_utils._netns import is_this

LOCAL = ("local",)
SSH = ("ssh", "paramiko_ssh", "libssh")
PAUSE = 0.5  # seconds between two attempts to connect

Result = dict[str, t.Any]


class ActionModule(ActionBase):
    """See the documentation of the module."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        """Run the module; if it has changed something that is undone unless confirmed, connect anew and confirm."""
        result: Result = super().run(tmp, task_vars)
        play = str((task_vars or {}).get("ansible_play_name") or "")
        self._task.environment = [*(self._task.environment or []), {PLAY: play}]
        refused = self._refused()
        if refused is not None:
            return {**result, **refused}
        begun = time.monotonic()
        try:
            result.update(self._execute_module(module_name="fleetvpn.routing.endpoint", task_vars=task_vars))
        except AnsibleConnectionFailure as exc:
            raise AnsibleConnectionFailure(f"{exc}; {self._unknown()}") from None  # a cause would be said once more
        if "module_stdout" in result:  # it was killed, or could not be started: it has not said anything itself
            result["msg"] = f"{result['msg'].rstrip('.')}; {self._unknown()}"
        waiting = result.get("confirm") or {}
        if waiting.get("state") == "armed":
            result["warnings"] = [*result.get("warnings", []), *self._unseen(result)]
            result.update(self._confirm(waiting, begun + waiting["timeout"]))
        return result

    def _refused(self) -> Result | None:
        """A local connection proves nothing: there is no network in it."""
        if self._connection.transport not in LOCAL:
            return None
        here = is_this(self._task.args.get("netns"))
        if (self._stated("by") or ("reconnect" if here else "none")) != "reconnect":
            return None
        accepted = "probe, with an address and port that the host must reach, or none"
        return {
            "failed": True,
            "msg": f"confirm.by: 'reconnect' cannot be done by connection '{self._connection.transport}', which is no"
            f" way to this host; accepted: {accepted}",
            "error": "InvalidInput",
            "field": "confirm.by",
            "value": "reconnect",
            "accepted": accepted,
        }

    def _stated(self, key: str) -> t.Any:
        """What option C(confirm) says, if it is one."""
        confirm = self._task.args.get("confirm")
        return confirm.get(key) if isinstance(confirm, dict) else None

    def _unknown(self) -> str:
        """What to say where nobody knows how far the module came."""
        if self._stated("by") == "none":
            return "as confirm.by is none, nothing undoes what it may have changed"
        from ansible_collections.fleetvpn.routing.plugins.module_utils._confirm import PROGRAM, Terms
        from ansible_collections.fleetvpn.routing.plugins.module_utils._store import store_for

        netns = self._task.args.get("netns")
        program = store_for(False, netns).root.parent / PROGRAM
        command = ["python3", "-I", str(program), "confirm", *(["--netns", netns] if netns else [])]
        unless = " unless confirm.by is none there" if netns and not self._stated("by") else ""
        seconds = self._stated("timeout") or Terms().timeout
        return (
            f"what it may have changed on {self._host()} is armed{unless}: it will be undone in at most {seconds} s;"
            f" to keep it after all, disarm it by hand on that host in time: {shlex.join(command)}"
        )

    def _host(self) -> str:
        return str(self._task.delegate_to or self._play_context.remote_addr)

    def _unseen(self, result: Result) -> list[str]:
        """That the host did not see by which connection this task came: some ways to become root hide it."""
        asked = self._task.args.get("what_if") != "skip"
        if result.get("management") or not asked or self._connection.transport not in SSH:
            return []
        return ["the host does not see by which SSH connection it is managed, so whether that stays was not foreseen"]

    def _confirm(self, waiting: Result, until: float) -> Result:
        """Confirm by a new connection, tried as long as there is time."""
        command = shlex.join(waiting["command"])
        why = ""
        while True:
            try:
                self._reset()
                done = self._low_level_execute_command(command)
            except AnsibleError as exc:
                why = str(exc)
            else:
                if done["rc"] == 0:
                    return {"confirm": {**waiting, "state": "confirmed"}}
                # With a terminal the host's words come by stdout, and by stderr what ssh itself says.
                return self._failure(waiting, _last_line(done["stdout"] or done["stderr"]), until)
            if time.monotonic() + PAUSE > until:
                return self._failure(waiting, why, until)
            time.sleep(PAUSE)

    def _reset(self) -> None:
        """Leave nothing of the connection: a multiplexed one would go on where no new one can be made."""
        if type(self._connection).reset is ConnectionBase.reset:  # it says no more than that it is not implemented
            self._connection.close()
        else:
            self._connection.reset()

    def _failure(self, waiting: Result, why: str, until: float) -> Result:
        left = max(0, round(until - time.monotonic()))
        state = f"will be undone in {left} s" if left else "is being undone now"
        command = shlex.join(waiting["command"])
        return {
            "failed": True,
            "msg": f"the change on {self._host()} is armed, and a new connection could not confirm it ({why}):"
            f" it {state}; to keep it after all, disarm it by hand on that host in time: {command}",
            "error": "VerificationError",
            "field": "confirm",
            "value": waiting["token"],
            "accepted": "a change after which the controller can connect",
            "confirm": {**waiting, "state": "unconfirmed"},
        }


def _last_line(text: str) -> str:
    """The reason alone: at the end of the time the host takes its program away, perhaps while it starts."""
    return (text.strip().splitlines() or [""])[-1]
