# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible into a host of the lab: nsenter into the namespaces of its holder."""

from __future__ import annotations

import subprocess
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

DOCUMENTATION = r"""
name: lab
author: fleetvpn.routing contributors
short_description: Run tasks in a host of the test lab
description:
  - Enters the network, mount, pid and uts namespaces of a process with C(nsenter), as root. Both the controller and
    the lab must run on this machine.
options:
  host:
    description: The host's name in the lab.
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_lab_host
  pid:
    description: The process whose namespaces are entered.
    type: int
    required: true
    vars:
      - name: ansible_lab_pid
"""

display = Display()
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/run/root",
    "LANG": "C.UTF-8",
}


class Connection(ConnectionBase):
    """See DOCUMENTATION."""

    transport = "lab"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a command line by the host's shell."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        display.vvv(f"EXEC {cmd}", host=self.get_option("host"))
        return self._run(["/bin/sh", "-c", cmd], in_data or b"")

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file into the host."""
        super().put_file(in_path, out_path)
        try:
            with open(to_bytes(in_path), "rb") as source:
                data = source.read()
        except FileNotFoundError as error:
            raise AnsibleFileNotFound(f"no such file: {in_path}") from error
        self._checked(["/bin/sh", "-c", 'cat >"$1"', "sh", out_path], data)

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file out of the host."""
        super().fetch_file(in_path, out_path)
        data = self._checked(["cat", in_path], b"")
        with open(to_bytes(out_path), "wb") as target:
            target.write(data)

    def close(self) -> None:
        """Nothing is held."""
        self._connected = False

    def _checked(self, argv: list[str], data: bytes) -> bytes:
        code, output, errors = self._run(argv, data)
        if code:
            raise AnsibleConnectionFailure(f"{self.get_option('host')}: {argv[0]}: {to_text(errors)}")
        return output

    def _run(self, argv: list[str], data: bytes) -> tuple[int, bytes, bytes]:
        command = ["nsenter", "-t", str(self.get_option("pid")), "-n", "-m", "-p", "-u", "--", *argv]
        started: subprocess.Popen[t.Any] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        output, errors = started.communicate(data)
        if errors.startswith(b"nsenter: "):
            raise AnsibleConnectionFailure(f"{self.get_option('host')}: {to_text(errors)}")
        return started.returncode, output, errors
