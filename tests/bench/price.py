# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What safety costs: a change that is foreseen, proven and confirmed, against the same change made blindly."""

from __future__ import annotations

import pathlib
import typing as t

from tests.lab.host import Host

from .figures import Figure, Size
from .hosts import IDENTITIES, fleet
from .plays import Task, inventory, run
from .processes import endpoint

SAFE: dict[str, t.Any] = {"confirm": {"by": "reconnect"}}
BLIND: dict[str, t.Any] = {"confirm": {"by": "none"}, "what_if": "skip"}
# No option leaves the proof out, so that its time is taken inside of the module's process.
_PROOF = "/run/fvt-proof"
_TIMING = f"""
import time
from ansible_collections.fleetvpn.routing.plugins.module_utils._work import Work

def timed(work, verify=Work._verify):
    begun = time.perf_counter()
    found = verify(work)
    open("{_PROOF}", "w").write(str(time.perf_counter() - begun))
    return found

Work._verify = timed
"""


def price(directory: pathlib.Path, size: Size) -> list[Figure]:
    """Each way there and back, so that each time the same is changed. The way to this host is as good as none."""
    with fleet(1) as (host,):
        inventory(directory / "inventory.yml", [host])
        tasks = [_task(params, mtu) for params in (BLIND, SAFE) for mtu in (1400, 1380)]
        whole = run(directory, [[task] for task in tasks] * (size.rounds + 1))
        blind, safe = ([*whole.of(at, 4), *whole.of(at + 1, 4)] for at in (0, 2))
        proofs = [_proof(host, mtu) for _round in range(size.rounds) for mtu in (1400, 1380)]
    if not all(ran.changed for ran in (*blind, *safe)):
        raise RuntimeError("what was to be changed was so already")
    added = tuple(b.seconds - a.seconds for a, b in zip(blind, safe, strict=True))
    every = tuple(a + b for a, b in zip(added, proofs, strict=True))
    what = "a change of two identities, both families"
    return [
        Figure("price", f"{what}: what-if, proof, confirmation", "none of them", every, 0.35, "s"),
        Figure("price_proof", f"{what}: of that the proof", "-", tuple(proofs), unit="s"),
    ]


def _task(params: dict[str, t.Any], mtu: int) -> Task:
    return {"name": "change", "fleetvpn.routing.endpoint": {**params, "identities": _identities(mtu)}}


def _identities(mtu: int) -> list[dict[str, t.Any]]:
    return [IDENTITIES[0], {**IDENTITIES[1], "mtu": mtu}]


def _proof(host: Host, mtu: int) -> float:
    """The seconds that the proof takes, as part of a change."""
    endpoint(host, changed=True, before=_TIMING, identities=_identities(mtu), **BLIND)
    return float(host.read(_PROOF))
