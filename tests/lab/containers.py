# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers as hosts of the lab, so that its captures, probes and responders can be used on them."""

from __future__ import annotations

import pathlib
import subprocess

from .host import Host


def container(name: str) -> Host:
    """A running container of podman. A restart makes another host of it. Raises CalledProcessError."""
    command = ["podman", "inspect", "--format", "{{.State.Pid}}", name]
    pid = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return Host(name=name, pid=pid, namespace="", root=pathlib.Path(f"/proc/{pid}/root"))
