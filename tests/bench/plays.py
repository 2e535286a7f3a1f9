# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real playbooks on hosts of the lab, with the time that each play took."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import subprocess
import sys
import typing as t

from tests.functional.onhost import REPOSITORY
from tests.lab.host import Host

PYTHON = "/usr/bin/python3"  # the hosts' own
Task = dict[str, t.Any]
PING: Task = {"name": "ping", "ansible.builtin.ping": None}


@dataclasses.dataclass(frozen=True)
class Ran:
    """A play: the time from the start of its first task to the end of its last one, and what each host said to it."""

    seconds: float
    results: tuple[dict[str, t.Any], ...]

    @property
    def changed(self) -> bool:
        """Whether any task changed anything."""
        return any(result.get("changed") for result in self.results)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole run."""

    plays: tuple[Ran, ...]
    seconds: float
    kilobytes: int  # of the largest process of the controller

    def of(self, number: int, every: int) -> tuple[Ran, ...]:
        """The plays at a place of a repeated list, without those of its first round: that one fills caches."""
        return self.plays[number::every][1:]


def inventory(path: pathlib.Path, hosts: t.Sequence[Host]) -> None:
    """Hosts that Ansible enters by the lab's connection."""
    reached = {host.name: {"ansible_lab_pid": host.pid} for host in hosts}
    common = {
        "ansible_connection": "lab",
        "ansible_python_interpreter": PYTHON,
        "ansible_remote_tmp": "/run/root/.ansible/tmp",
    }
    path.write_text(json.dumps({"all": {"hosts": reached, "vars": common}}))


def run(directory: pathlib.Path, plays: t.Sequence[t.Sequence[Task]], *, forks: int = 5) -> Whole:
    """Run plays of these tasks on all hosts of C(directory)/inventory.yml.

    Raises RuntimeError if a task failed: a time of something that did not happen is worth nothing.
    """
    site = [{"hosts": "all", "gather_facts": False, "tasks": list(tasks)} for tasks in plays]
    (directory / "site.yml").write_text(json.dumps(site))
    command = [pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.yml", "site.yml"]
    with (directory / "said").open("w+") as said, (directory / "errors").open("w+") as errors:
        begun = datetime.datetime.now(datetime.timezone.utc)
        process = subprocess.Popen(
            [*command, "--forks", str(forks)], cwd=directory, env=_environment(directory), stdout=said, stderr=errors
        )
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = (datetime.datetime.now(datetime.timezone.utc) - begun).total_seconds()
        said.seek(0)
        errors.seek(0)
        text = said.read()
        if process.returncode:
            raise RuntimeError(text + errors.read())
    return Whole(tuple(_ran(play) for play in json.loads(text)["plays"]), took, usage.ru_maxrss)


def _environment(directory: pathlib.Path) -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build" / "collections"),
        "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
    }


def _ran(play: dict[str, t.Any]) -> Ran:
    starts = [_time(task, "start") for task in play["tasks"]]
    ends = [_time(task, "end") for task in play["tasks"] if "end" in task["task"]["duration"]]
    results = tuple(result for task in play["tasks"] for result in task["hosts"].values())
    return Ran((max(ends) - min(starts)).total_seconds(), results)


def _time(task: dict[str, t.Any], end: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(task["task"]["duration"][end].rstrip("Z"))
