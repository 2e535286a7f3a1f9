# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other end of holders_main.py: starts it, asks it for hosts, ends it."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys

from .host import Host
from .runs import Run

_PROGRAM = pathlib.Path(__file__).with_name("holders_main.py")


class Holders:
    """Makes hosts. All end with `close`, or with this process."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._hosts: list[Host] = []
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def make(self, name: str, *, private: bool = True) -> Host:
        """A new host. Without `private` it shares this machine's files: enough for a router or a container."""
        host = Host(name, 0, self._run.namespace(name), self._run.directory / name, private)
        self._hosts.append(host)
        self.boot(host)
        return host

    def boot(self, host: Host) -> None:
        """Give a host its namespaces. What it wrote to disk before is there; /run is empty."""
        shutil.rmtree(host.root / "run", ignore_errors=True)
        answer = self._ask({"name": host.name, "root": str(host.root), "private": host.private})
        if "error" in answer:
            raise OSError(answer["error"])
        host.pid = int(answer["pid"])
        self._run.name_namespace(host.name, host.pid)

    def halt(self, host: Host) -> None:
        """End a host's processes, without notice, and its namespaces."""
        self._ask({"end": host.pid})
        host.reap()
        self._run.forget_namespace(host.name)

    def _ask(self, request: dict[str, object]) -> dict[str, str]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise OSError(f"{_PROGRAM.name} ended with {self._process.wait()}")
        result: dict[str, str] = json.loads(answer)
        return result

    def close(self) -> None:
        """End all hosts and all that runs in them, and wait until they are gone."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        for host in self._hosts:
            host.reap()
