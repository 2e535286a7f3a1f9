# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as a process of its own on a host, with its time and memory; on hosts that hold much."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import typing as t

from tests.functional.onhost import COLLECTIONS, GATEWAY, MODULE, PRIVATE, PROGRAM
from tests.lab.host import ENVIRONMENT, Host

from .figures import Figure, Size, in_turn
from .hosts import IDENTITIES, fleet, foreign
from .plays import PYTHON

_MEGABYTE = 1024  # in kilobytes
# What wait4 tells of the memory of a child begins with that of the process that it was forked from.
_PEAK = "/run/fvt-peak"
_BYTECODE = "/run/fvt-bytecode"
_TELLING = f"""
import atexit, shutil
atexit.register(shutil.copyfile, "/proc/self/status", "{_PEAK}")
"""


@dataclasses.dataclass(frozen=True)
class Spent:
    """How long a process ran, and what it said."""

    seconds: float
    output: str


def spent(host: Host, argv: t.Sequence[str], text: str = "", **environment: str) -> Spent:
    """Run a command on a host. Raises RuntimeError if it fails."""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as said:
        given.write(text)
        given.seek(0)
        begun = time.perf_counter()
        process = subprocess.Popen(
            host.enter(argv), env={**ENVIRONMENT, **environment}, stdin=given, stdout=said, stderr=said
        )
        process.wait()
        took = time.perf_counter() - begun
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise RuntimeError(f"{host.name}: {' '.join(argv)}: {output}")
    return Spent(took, output)


def endpoint(host: Host, *, changed: bool, before: str = "", **params: t.Any) -> Spent:
    """Module endpoint, C(before) first. Raises RuntimeError if it fails, or says another C(changed) than that."""
    arguments = {"identities": IDENTITIES, "confirm": {"by": "none"}, **params}
    argv = [sys.executable, "-c", _TELLING + before + MODULE]
    # With bytecode, as a run has it from the program on the host.
    found = spent(host, argv, json.dumps(arguments), PYTHONPATH=str(COLLECTIONS), PYTHONPYCACHEPREFIX=_BYTECODE)
    if json.loads(found.output)["changed"] is not changed:
        raise RuntimeError(f"{host.name}: it should say changed={changed}: {found.output[:2000]}")
    return found


def unchanged(host: Host, **params: t.Any) -> float:
    """The seconds of a run that changes nothing."""
    return endpoint(host, changed=False, **params).seconds


def peak(host: Host) -> float:
    """The most memory that the last module on a host had at a time, in megabytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", host.read(_PEAK), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{host.name}: the module did not tell")
    return int(found[1]) / _MEGABYTE


def crowded(_directory: pathlib.Path, size: Size) -> list[Figure]:
    """Beside a full Internet table and many rules of others."""
    with fleet(2) as (full, empty):
        foreign(full, size.routes, size.rules)
        for host in (full, empty):
            endpoint(host, changed=True)
        one, other = (functools.partial(unchanged, host) for host in (full, empty))
        times = in_turn(one, other, size.rounds)
        more = peak(full) - peak(empty)
    what = f"endpoint with {size.routes} foreign routes and {size.rules} foreign rules"
    return [
        Figure("crowded_time", what, "none", times, 1.15),
        Figure("crowded_memory", what + ", more memory than", "none", (more,), 5.0, "MB"),
    ]


def own(_directory: pathlib.Path, size: Size) -> list[Figure]:
    """With many rules and routes of our own."""
    with fleet(2) as (large, small):
        measured = [(large, stated(size.own)), (small, stated(4))]
        for host, params in measured:
            endpoint(host, changed=True, **params)
        one, other = (functools.partial(unchanged, host, **params) for host, params in measured)
        values = in_turn(one, other, size.rounds)
    what = f"endpoint with {size.own} rules and {size.own} routes of our own, nothing to change"
    return [Figure("own", what, "the same with 4 and 4", values, 1.3)]


def stated(count: int) -> dict[str, t.Any]:
    """Rules and routes, so many of each."""
    return {
        "rules": [
            {"priority": 10_000 + n, "from": f"10.{20 + (n >> 8)}.{n & 255}.0/24", "table": 900} for n in range(count)
        ],
        "routes": [
            {"dst": f"10.{60 + (n >> 8)}.{n & 255}.0/24", "gateway": GATEWAY, "table": 900} for n in range(count)
        ],
    }


def on_host(_directory: pathlib.Path, size: Size) -> list[Figure]:
    """The installed program, without a controller."""
    with fleet(1) as (host,):
        endpoint(host, changed=True)
        if "main: no changes" not in spent(host, [PROGRAM, "apply"]).output:
            raise RuntimeError("there was something left to apply")
        loading = [PYTHON, "-I", "-c", f"import sys; sys.path.insert(0, {PRIVATE!r}); import pyroute2"]
        one, other = (functools.partial(_took, host, argv) for argv in ([PROGRAM, "apply"], loading))
        values = in_turn(one, other, size.rounds)
    return [
        Figure("on_host", "fleetvpn-endpoint apply, nothing to change", "python3 -c 'import pyroute2'", values, 1.5)
    ]


def _took(host: Host, argv: t.Sequence[str]) -> float:
    return spent(host, argv).seconds
