# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that change nothing, over a fleet, in units of ansible.builtin.ping on the same hosts."""

from __future__ import annotations

import pathlib
import typing as t

from tests.lab.host import Host

from .figures import Figure, Size
from .hosts import ENDPOINT, IDENTITIES, fleet
from .plays import PING, Ran, Task, inventory, run


def unchanged(directory: pathlib.Path, size: Size) -> list[Figure]:
    """Module and role against ping."""
    with fleet(size.hosts) as hosts:
        inventory(directory / "inventory.yml", hosts)
        module = against_ping(directory, [ENDPOINT], size.rounds, size.forks)
    with fleet(size.hosts) as hosts:
        inventory(directory / "inventory.yml", [_with_wireguard(host) for host in hosts])
        role = against_ping(directory, [ROLE], size.rounds, size.forks)
    ping = f"ansible.builtin.ping, {size.hosts} hosts"
    return [
        Figure("endpoint", "endpoint, nothing to change", ping, module, 1.4),
        Figure("role", "role endpoint with WireGuard, nothing to change", ping, role, 2.5),
    ]


def thousand(directory: pathlib.Path, size: Size) -> list[Figure]:
    """A large fleet on this one machine, hosts and controller together: the first run, and one that changes nothing."""
    figures = []
    with fleet(size.many_hosts) as hosts:
        inventory(directory / "inventory.yml", hosts)
        for key, what in (("first_run", "first run"), ("second_run", "nothing to change")):
            whole = run(directory, [[ENDPOINT]], forks=size.forks)
            if whole.plays[0].changed is not (key == "first_run") or len(whole.plays[0].results) != size.many_hosts:
                raise RuntimeError(f"{what}: not what was to be measured")
            text = f"endpoint, {size.many_hosts} hosts, {what}"
            figures += [
                Figure(f"fleet_{key}", f"{text}: whole run", "-", (whole.seconds,), unit="s"),
                Figure(f"fleet_{key}_memory", f"{text}: controller", "-", (whole.kilobytes / 1024,), unit="MB"),
            ]
    return figures


def against_ping(directory: pathlib.Path, tasks: t.Sequence[Task], rounds: int, forks: int = 5) -> tuple[float, ...]:
    """What tasks cost that change nothing, in pings. Raises RuntimeError if they did change something."""
    plays = run(directory, [[PING], tasks] * (rounds + 1), forks=forks)
    pings, measured = plays.of(0, 2), plays.of(1, 2)
    if any(ran.changed for ran in measured):
        raise RuntimeError("a task that was to change nothing did")
    return ratios(measured, pings)


def ratios(one: t.Sequence[Ran], other: t.Sequence[Ran]) -> tuple[float, ...]:
    """Round by round."""
    return tuple(a.seconds / b.seconds for a, b in zip(one, other, strict=True))


ROLE: Task = {
    "name": "role",
    "ansible.builtin.import_role": {"name": "fleetvpn.routing.endpoint"},
    "vars": {
        "endpoint_identities": [
            IDENTITIES[0],
            {"name": "inside", "tunnel": {"type": "wireguard", "manager": "wg-quick", "connection": "fvtvpn0"}},
        ],
        "endpoint_confirm": {"by": "none"},
    },
}
_CONNECTION = """
[Interface]
PrivateKey = YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
Address = 10.9.0.5/32, 2001:db8:9::5/128
Table = off
"""


def _with_wireguard(host: Host) -> Host:
    """Its tunnel device has the name of a connection of wg-quick."""
    host.write("/etc/wireguard/fvtvpn0.conf", _CONNECTION, 0o600)
    return host
