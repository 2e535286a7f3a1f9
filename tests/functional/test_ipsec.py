# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""strongSwan with ESP in user space: the role tells charon of the endpoint, and the endpoint follows charon.

The tests of a class are the steps of one story and run in their order.
"""

from __future__ import annotations

import json
import os
import re
import typing as t
import venv

import pytest

from tests.functional.onhost import declare
from tests.functional.test_endtoend import routing, ways
from tests.functional.test_role_endpoint import SITE, Controller, make_wheel
from tests.functional.watching import killed_and_back, renumbered
from tests.lab import Client, Lab
from tests.lab import addresses as plan
from tests.lab.standin import Standin
from tests.lab.strongswan import MARK, swanctl

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

DROP_IN = "/etc/strongswan.d/fleetvpn.conf"
OUTSIDE = {"name": "outside", "interface": "auto"}
INSIDE = {"name": "inside", "tunnel": {"type": "ipsec", "connection": "corp"}, "pools": list(plan.IPSEC_POOL)}
# What only a rule ahead of strongSwan's gives.
PATHS = [{"from": "outside", "to": to, "expect": {"identity": "outside"}} for to in plan.CORPORATE_HOST]


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    """Selectors for the corporate network, and for everything; what lies below /usr/local is each one's own."""
    with Lab() as lab:
        for mode in ("split", "full"):
            client = lab.client(mode, "ipsec", mode=mode)
            client.host.run(["mount", "-t", "tmpfs", "tmpfs", "/usr/local"])
        lab.serve(lab.outside, lab.corporate, lab.router, lab.gateway, *lab.lan(0))
        lab.start()
        yield lab


@pytest.fixture(scope="module")
def controller(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """The hosts' Python has no pyroute2."""
    directory = tmp_path_factory.mktemp("controller")
    venv.create(directory / "python", symlinks=True)
    lab.inventory(directory / "inventory.yml", python=str(directory / "python" / "bin" / "python"))
    (directory / "site.yml").write_text(SITE)
    (directory / "group_vars").mkdir()
    (directory / "host_vars").mkdir()
    variables = {
        "endpoint_identities": [OUTSIDE, INSIDE],
        "endpoint_pyroute2_source": "wheel",
        "endpoint_pyroute2_wheel": str(make_wheel(directory)),
    }
    (directory / "group_vars" / "all.yml").write_text(json.dumps(variables))
    marked = {"endpoint_host_identities": [{"name": "inside", "outer": {"fwmark": f"{MARK:#x}"}}]}
    (directory / "host_vars" / "full.yml").write_text(json.dumps(marked))
    return Controller(directory)


def wrong(lab: Lab, client: Client) -> list[str]:
    """Which replies went astray."""
    return [str(row) for row in lab.survey([client], timeout=1) if not row.right]


def routes(client: Client) -> list[str]:
    """All rules and routes, and the groups of devices, without what each new device brings."""
    new = ("fe80", "ff00", f": {client.tunnel.device}: ")
    return sorted(line for line in routing(client) if not any(text in line for text in new))


class Before(t.NamedTuple):
    """A host before the collection came."""

    inside: tuple[str, ...]
    routes: list[str]
    unbound: dict[str, object]


@pytest.mark.parametrize("name", ["split", "full"], scope="class")
class TestStory:
    """From a table of strongSwan's that comes first to one that comes second, and back."""

    before: t.ClassVar[dict[str, Before]] = {}

    @pytest.fixture
    def client(self, lab: Lab, name: str) -> Client:
        return next(client for client in lab.clients if client.name == name)

    def test_before_strongswans_table_takes_what_the_outside_address_answers(self, lab: Lab, client: Client) -> None:
        assert {row.question for row in lab.survey([client], timeout=1) if not row.arrived} == {"corporate -> O"}
        self.before[client.name] = Before(client.inside, routes(client), ways(lab, client))

    def test_check_mode_announces_the_file_and_writes_nothing(self, client: Client, controller: Controller) -> None:
        controller.play("--limit", client.name, endpoint_state="absent")  # pyroute2, and nothing else
        ran = controller.play("--check", "--limit", client.name, endpoint_paths=PATHS)
        assert ran.status == 0, ran.text
        assert "routing_table_prio = 3220" in ran.text
        assert "what would change in the kernel is unknown until then" in ran.text
        assert client.host.run(["test", "-e", DROP_IN], check=False).returncode == 1
        assert routes(client) == self.before[client.name].routes

    def test_a_path_that_only_a_restart_can_mend_is_said(self, client: Client, controller: Controller) -> None:
        """The role has done its part; charon is not restarted unasked, and nothing is left half done."""
        ran = controller.play("--limit", client.name, endpoint_paths=PATHS)
        failure = ran.failure(client.name)
        assert failure["error"] == "VerificationError"
        assert "lets it stand behind ours from its next start" in failure["msg"]
        assert "ignore_routing_tables = 2000 2001 2002" in client.host.read(DROP_IN)
        found = client.host.run(["stat", "-c", "%U:%G %a", DROP_IN]).stdout
        assert found == "root:root 644\n"
        assert routes(client) == self.before[client.name].routes

    def test_after_its_restart_every_reply_is_right(self, lab: Lab, client: Client, controller: Controller) -> None:
        client.down()
        client.up()
        ran = controller.play("--limit", client.name, endpoint_paths=PATHS)
        assert ran.status == 0, ran.text
        assert "foreign rule ahead of ours" not in ran.text
        assert wrong(lab, client) == []
        [tunnel] = declare(client.host, identities=[OUTSIDE, INSIDE], check=True)["tunnels"]
        assert (tunnel["manager"], tunnel["needs"]) == ("strongswan", [])

    def test_a_second_run_is_one_task_and_changes_nothing(self, client: Client, controller: Controller) -> None:
        ran = controller.play("--limit", client.name, endpoint_paths=PATHS)
        assert {key: ran.recap(client.name)[key] for key in ("ok", "changed")} == {"ok": 2, "changed": 0}, ran.text

    def test_unbound_traffic_goes_where_it_went(self, lab: Lab, client: Client) -> None:
        assert ways(lab, client) == self.before[client.name].unbound

    def test_another_address_from_a_second_pool_is_followed_and_leaks_nothing(self, lab: Lab, client: Client) -> None:
        renumbered(client)
        assert wrong(lab, client) == []

    def test_a_killed_daemon_leaks_nothing_and_is_followed_when_it_comes_back(self, lab: Lab, client: Client) -> None:
        killed_and_back(client)
        assert wrong(lab, client) == []

    def test_removal_leaves_nothing(self, client: Client, controller: Controller) -> None:
        ran = controller.play("--limit", client.name, endpoint_state="absent")
        assert ran.status == 0, ran.text
        left = client.host.shell("find /etc /usr/local /run -name '*fleetvpn*' -not -path '/usr/local/lib/*'")
        assert [path for path in left.split() if path not in ("/run/fleetvpn", "/run/fleetvpn/lock")] == []
        client.down()
        client.up()
        client.renumber(self.before[client.name].inside)
        assert routes(client) == self.before[client.name].routes

    def test_a_value_that_is_set_elsewhere_is_not_overruled(self, client: Client, controller: Controller) -> None:
        client.host.write("/etc/strongswan.d/mine.conf", "charon {\n    ignore_routing_tables = 77\n}\n")
        ran = controller.play("--limit", client.name)
        assert ran.status != 0
        assert re.search("/etc/strongswan.d/mine.conf: .* is set there already", ran.failure(client.name)["msg"])
        client.host.run(["rm", "/etc/strongswan.d/mine.conf"])
        controller.play("--limit", client.name, endpoint_state="absent")


class TestAnotherTunnel:
    """charon looks into all tables by itself: the default of another tunnel's table is no worse to it than main's."""

    @pytest.fixture
    def client(self) -> t.Iterator[Client]:
        with Lab() as lab:
            client = lab.client("two", "ipsec", mode="split")
            client.host.run(["mount", "-t", "tmpfs", "tmpfs", "/usr/local"])
            other = Standin(client.host, lab.gateway, plan.inside(plan.OTHER_POOL, 0), "identity")
            other.begin()
            # As DHCP clients write it.
            client.host.shell("ip route del default; ip route add default via 198.19.0.1 dev up0 metric 100")
            yield client

    @pytest.mark.parametrize("told", [False, True])
    def test_is_left_out_once_charon_is_told(self, client: Client, told: bool) -> None:
        other = {"name": "other", "interface": "vpn0", "gateway": "none"}
        # Its table is the first one, so that of equals charon meets it first.
        found = declare(client.host, identities=[other, OUTSIDE, INSIDE])
        assert "msg" not in found, found["msg"]
        if told:
            settings = found["tunnels"][0]["settings"]
            lines = "".join(f"    {key} = {value}\n" for key, value in settings.items())
            client.host.write(DROP_IN, f"charon {{\n{lines}}}\n")
        client.up()
        sas = swanctl(client.host, "--list-sas", "--raw")
        spoken_from = set(re.findall(r"local-host=(\S+)", sas))
        assert spoken_from == {client.outside[0] if told else plan.inside(plan.OTHER_POOL, 0)[0]}
