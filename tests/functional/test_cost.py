# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task costs that changes nothing, in units of ansible.builtin.ping on the same host in the same run."""

from __future__ import annotations

import os
import pathlib
import statistics
import typing as t

import pytest

from tests.bench.plays import PING, PYTHON, Ran, Task, run
from tests.functional.onhost import provide_pyroute2
from tests.lab import Lab

pytestmark = [pytest.mark.alone, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

AT_MOST = 2.0  # 1.6 were measured
AT_MOST_CONFIRMED = 3.0  # one of them for the round trip
TIMES = 20
CHANGES = 5
IDENTITIES = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "interface": "vpn0", "gateway": "none"},
]
ENDPOINT: Task = {"name": "endpoint", "fleetvpn.routing.endpoint": {"identities": IDENTITIES}}


def quick(plays: t.Sequence[Ran]) -> float:
    """What else the machine does only adds to a time; the quicker quarter has least of it."""
    return statistics.quantiles((ran.seconds for ran in plays), n=4)[0]


def test_a_task_that_changes_nothing_costs_at_most_two_pings(tmp_path: pathlib.Path) -> None:
    with Lab() as lab:
        client = lab.client("one", "standin", container=True)
        provide_pyroute2(client.host)
        client.up()
        lab.inventory(tmp_path / "inventory.yml", python=PYTHON)
        told = run(tmp_path, [[PING], [ENDPOINT]] * (TIMES + 1))
    pings, endpoints = told.of(0, 2), told.of(1, 2)
    assert not any(ran.changed for ran in endpoints)
    ratios = [endpoint.seconds / ping.seconds for ping, endpoint in zip(pings, endpoints, strict=True)]
    ratio = statistics.median(ratios)  # of two that were run in turn, so that both met the same machine
    print(f"ping: {quick(pings) * 1000:.0f} ms, endpoint: {quick(endpoints) * 1000:.0f} ms, ratio: {ratio:.2f}")
    assert ratio <= AT_MOST


def test_what_a_confirmation_adds_to_a_change(tmp_path: pathlib.Path) -> None:
    """A file to write, something to start, and one round trip in which little is imported."""
    declared = [[*IDENTITIES[:1], {**IDENTITIES[1], "mtu": mtu}] for mtu in (1400, 1380)]
    tasks = [
        {"name": by, "fleetvpn.routing.endpoint": {"identities": identities, "confirm": {"by": by}}}
        for by in ("none", "reconnect")
        for identities in declared
    ]
    with Lab() as lab:
        client = lab.client("one", "standin")
        provide_pyroute2(client.host)
        client.up()
        lab.inventory(tmp_path / "inventory.yml", python=PYTHON)
        told = run(tmp_path, [[PING], *([task] for task in tasks)] * (CHANGES + 1))
    kinds = {"none": [*told.of(1, 5), *told.of(2, 5)], "reconnect": [*told.of(3, 5), *told.of(4, 5)]}
    assert all(ran.changed for kind in kinds.values() for ran in kind)
    took = {kind: quick(ran) for kind, ran in {"ping": told.of(0, 5), **kinds}.items()}
    added = took["reconnect"] - took["none"]
    print({kind: f"{value * 1000:.0f} ms" for kind, value in took.items()}, f"added: {added * 1000:.0f} ms")
    assert added / took["ping"] <= AT_MOST_CONFIRMED
