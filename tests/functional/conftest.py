# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throw-away network namespaces, and hosts in such. The names of namespaces carry the process that made them, so that
what a killed run left behind is known and removed at the start of the next.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import re
import shutil
import subprocess
import typing as t

import pytest

from tests.functional.onhost import INSIDE, connect, declare, hosts
from tests.lab import Host

NAMESPACES = pathlib.Path("/run/netns")
SETS = pathlib.Path("/run/fleetvpn/netns")  # of namespaces, by their names
_NAME = re.compile(r"fvt-(\d+)-\d+")
_COUNTER = itertools.count()


def ip(*arguments: str, lines: t.Iterable[str] = ()) -> str:
    """ip(8); with C(lines) as a batch."""
    batch = "".join(f"{line}\n" for line in lines)
    command = ["ip", *arguments, *(["-batch", "-"] if batch else [])]
    done = subprocess.run(command, input=batch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _no_stale_namespaces() -> None:
    if os.geteuid() != 0:
        return
    for name in os.listdir(NAMESPACES) if NAMESPACES.is_dir() else ():
        found = _NAME.fullmatch(name)
        if found and not pathlib.Path("/proc", found.group(1)).exists():
            ip("netns", "del", name)
    for sets in SETS.glob("fvt-*"):
        if not (NAMESPACES / sets.name).exists():
            shutil.rmtree(sets, ignore_errors=True)


@pytest.fixture
def netns() -> t.Iterator[str]:
    """The name of an empty namespace with lo up."""
    if os.geteuid() != 0:
        pytest.fail("functional tests need root: they make network namespaces")
    name = f"fvt-{os.getpid()}-{next(_COUNTER)}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "del", name)


@pytest.fixture
def make() -> t.Iterator[t.Callable[[str], Host]]:
    """Makes hosts by name, each with an uplink."""
    with hosts() as maker:
        yield maker


@pytest.fixture
def host(make: t.Callable[[str], Host]) -> Host:
    """A host with one set and the VPN up."""
    host = make("h")
    connect(host, INSIDE)
    declare(host)
    return host
