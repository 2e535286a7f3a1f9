# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab for a module, and a fresh endpoint for each test: that is cheaper than putting one back in order."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest

from tests.functional.recipe.hosts import Endpoint
from tests.lab import Client, Lab
from tests.lab import addresses as plan

STATE = pathlib.Path("/run/fleetvpn/netns")


class Make(t.Protocol):
    """Makes an endpoint; the options are those of Lab.client."""

    def __call__(self, **options: t.Any) -> Endpoint:
        """A new one, its tunnel up."""


@pytest.fixture(scope="module")
def shared_lab() -> t.Iterator[Lab]:
    """The Internet, a corporate network, two LANs with a second router and a neighbour each.

    One for each module: a LAN has room for less than two hundred endpoints.
    """
    if os.geteuid() != 0:
        pytest.fail("functional tests need root: they make network namespaces")
    with Lab() as lab:
        lab.lan(0)
        lab.lan(1)
        lab.serve(*lab.hosts.values())
        yield lab


@pytest.fixture
def make(shared_lab: Lab) -> t.Iterator[Make]:
    """Makes endpoints with a stand-in for a tunnel, a container and a pod, unless told otherwise."""
    made: list[Endpoint] = []

    def endpoint(*, start: bool = True, **options: t.Any) -> Endpoint:
        chosen = {"kind": "standin", "container": True, "pod": True, **options}
        client = shared_lab.client(f"h{len(shared_lab.clients)}", **chosen)
        if start:
            client.up()
            _refuse_foreign_sources(shared_lab, client)
        shared_lab.serve(*(host for host in (client.host, client.container, client.pod) if host))
        made.append(Endpoint(shared_lab, client))
        return made[-1]

    yield endpoint
    for each in made:
        kept = STATE / each.host.namespace
        if kept.exists():
            shutil.rmtree(kept)


def _refuse_foreign_sources(lab: Lab, client: Client) -> None:
    """As WireGuard's AllowedIPs do: out of a client's tunnel come its inside addresses and nothing else."""
    if client.tunnel.kind == "standin":
        for prefix in (*plan.lan(0), *plan.lan(1), "172.20.0.0/16", "fd00::/8"):
            family = "-6" if ":" in prefix else "-4"
            lab.gateway.run(["ip", family, "rule", "add", "from", prefix, "iif", f"s-{client.name}", "blackhole"])


@pytest.fixture
def endpoint(make: Make) -> Endpoint:
    """The usual one: split tunnel, dual stack, container and pod."""
    return make()
