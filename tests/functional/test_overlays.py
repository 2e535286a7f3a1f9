# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real tinc and Nebula: declared by name, followed by the watch through restarts, and taken back.

The tests of a class are the steps of one story and run in their order.
"""

from __future__ import annotations

import os
import time
import typing as t

import pytest

from tests.functional.onhost import declare, provide_pyroute2
from tests.functional.test_endtoend import routing, ways
from tests.functional.watching import killed_and_back, renumbered
from tests.lab import Client, Lab
from tests.lab import addresses as plan
from tests.lab.senders import no_leak

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

POOLS = {"tinc0": plan.TINC_POOL, "nebula0": plan.NEBULA_POOL[:1]}
MANAGERS = {"tinc0": "tinc", "nebula0": "nebula"}


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    """Every use of tinc, and Nebula, which is IPv4 only inside and writes the routes that it can use itself."""
    with Lab() as lab:
        for mode in ("split", "full", "identity"):
            lab.client(f"t{mode}", "tinc", mode=mode)
        lab.client("nsplit", "nebula", mode="split", families=(4,))
        lab.serve(lab.outside, lab.corporate, lab.router, lab.gateway, *lab.lan(0))
        for client in lab.clients:
            provide_pyroute2(client.host)
        lab.start()
        yield lab


def ensure(client: Client, **options: t.Any) -> dict[str, t.Any]:
    """Nothing is said of a device."""
    inside = {"tunnel": {"type": "overlay", "connection": client.tunnel.connection}, "required": True}
    pools = POOLS[client.tunnel.device]
    identities = [{"name": "outside", "interface": "auto"}, {"name": "inside", **inside, "pools": pools}]
    found = declare(client.host, **({"identities": identities} if "state" not in options else {}), **options)
    assert "msg" not in found, found["msg"]
    return found


def wrong(lab: Lab, client: Client, timeout: float = 1) -> list[str]:
    """Which replies went astray."""
    return [str(row) for row in lab.survey([client], timeout=timeout) if not row.right]


def routes(client: Client) -> list[str]:
    """All rules and routes, and the groups of devices, without what each new device brings."""
    new = ("fe80", "ff00", f": {client.tunnel.device}: ")
    return sorted(line for line in routing(client) if not any(text in line for text in new))


class Before(t.NamedTuple):
    """A host before the collection came."""

    inside: tuple[str, ...]
    routes: list[str]
    unbound: dict[str, object]


@pytest.mark.parametrize("name", ["tsplit", "tfull", "tidentity", "nsplit"], scope="class")
class TestStory:
    """From replies that go astray to a removed set."""

    before: t.ClassVar[dict[str, Before]] = {}

    @pytest.fixture
    def client(self, lab: Lab, name: str) -> Client:
        return next(client for client in lab.clients if client.name == name)

    def test_before_replies_go_astray(self, lab: Lab, client: Client) -> None:
        assert wrong(lab, client)
        self.before[client.name] = Before(client.inside, routes(client), ways(lab, client))

    def test_its_device_is_found_by_its_connection(self, lab: Lab, client: Client) -> None:
        found = ensure(client)
        (tunnel,) = found["tunnels"]
        device = client.tunnel.device
        assert (tunnel["manager"], tunnel["interface"], tunnel["needs"]) == (MANAGERS[device], device, [])
        assert [entry["verdict"] for entry in found["identities"]] == ["proven"] * 2
        assert wrong(lab, client) == []

    def test_unbound_traffic_goes_where_it_went(self, lab: Lab, client: Client) -> None:
        assert ways(lab, client) == self.before[client.name].unbound

    def test_a_second_run_changes_nothing(self, client: Client) -> None:
        assert not ensure(client)["changed"]

    def test_a_restart_with_another_address_is_followed_and_leaks_nothing(self, lab: Lab, client: Client) -> None:
        renumbered(client)
        assert wrong(lab, client) == []

    def test_a_killed_daemon_leaks_nothing_and_is_followed_when_it_comes_back(self, lab: Lab, client: Client) -> None:
        killed_and_back(client)
        assert wrong(lab, client) == []
        assert not ensure(client)["changed"]

    def test_without_the_backstop_a_killed_daemon_leaks(self, client: Client) -> None:
        for family in ("-4", "-6"):
            found = client.host.ip_json(family, "rule", "list")
            stops = [rule["priority"] for rule in found if rule.get("action") == "unreachable"]
            client.host.run(["ip", family, "-batch", "-"], stdin="".join(f"rule del pref {stop}\n" for stop in stops))
        # Whatever else would stop it.
        client.host.run(["nft", "flush", "ruleset"])
        with pytest.raises(AssertionError, match=client.inside[0]):
            self.kill(client)
        client.up()
        ensure(client)

    @staticmethod
    def kill(client: Client) -> None:
        with no_leak(client.host, *client.inside):
            client.tunnel.kill()
            time.sleep(0.2)

    def test_removal_leaves_nothing(self, client: Client) -> None:
        ensure(client, state="absent")
        left = client.host.shell("find /etc /usr/local /run -name '*fleetvpn*' -not -path '/usr/local/lib/*'")
        assert [path for path in left.split() if path not in ("/run/fleetvpn", "/run/fleetvpn/lock")] == []
        client.renumber(self.before[client.name].inside)
        assert routes(client) == self.before[client.name].routes
