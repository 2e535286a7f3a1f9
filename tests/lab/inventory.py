# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory by which Ansible reaches the clients: connection plugin tests/plugins/connection/lab.py."""

from __future__ import annotations

import json
import pathlib
import typing as t

from .tunnel import Client


def write_inventory(path: pathlib.Path, clients: t.Sequence[Client], python: str) -> pathlib.Path:
    """Write it, as YAML in its JSON form."""
    groups: dict[str, dict[str, dict[str, t.Any]]] = {kind: {"hosts": {}} for kind in ("wireguard", "openvpn")}
    for client in clients:
        groups.setdefault(client.tunnel.kind, {"hosts": {}})["hosts"][client.name] = _variables(client, python)
    path.write_text(json.dumps({"vpn_endpoints": {"children": groups}}, indent=2) + "\n", encoding="utf-8")
    return path


def _variables(client: Client, python: str) -> dict[str, t.Any]:
    return {
        # It is root already: a play's `become` needs no sudo on this machine.
        "ansible_become": False,
        "ansible_connection": "lab",
        "ansible_lab_host": client.name,
        "ansible_lab_pid": client.host.pid,
        "ansible_python_interpreter": python,
        "ansible_remote_tmp": "/run/root/.ansible/tmp",
        "lab_connection": client.tunnel.connection,
        "lab_device": client.tunnel.device,
        "lab_inside": list(client.inside),
        "lab_outside": list(client.outside),
    }
