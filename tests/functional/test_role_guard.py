# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role endpoint on a host without nft, which it installs. The tests of the class are one story.

The program is hidden by a mount, and a package manager of the play's own takes the mount away.
"""

from __future__ import annotations

import json
import os
import typing as t

import pytest

from tests.functional.onhost import provide_pyroute2
from tests.functional.test_role_endpoint import SITE, Controller, Ran
from tests.lab import Client, Lab

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

NFT = "/usr/sbin/nft"
PACKAGE_MANAGER = f"""
import os, subprocess
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({{"name": {{"type": "str"}}, "state": {{"type": "str"}}}}, supports_check_mode=True)
missing = not os.access("{NFT}", os.X_OK)
assert module.params["name"] == "nftables" and module.params["state"] == "present"
if missing and not module.check_mode:
    subprocess.run(["umount", "{NFT}"], check=True)
module.exit_json(changed=missing)
"""
IDENTITIES = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "interface": "vpn0", "gateway": "none"},
]


@pytest.fixture(scope="module")
def client() -> t.Iterator[Client]:
    with Lab() as lab:
        made = lab.client("bare", "standin")
        provide_pyroute2(made.host)
        made.host.run(["mount", "--bind", "/dev/null", NFT])
        made.up()
        yield made


@pytest.fixture(scope="module")
def controller(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    directory = tmp_path_factory.mktemp("controller")
    (directory / "library").mkdir()
    (directory / "library" / "fvt_packages.py").write_text(PACKAGE_MANAGER)
    (directory / "site.yml").write_text(SITE.replace("vpn_endpoints", "all"))
    (directory / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"bare": _variables(client)}}}))
    return Controller(directory)


def _variables(client: Client) -> dict[str, t.Any]:
    return {
        "ansible_connection": "lab",
        "ansible_lab_pid": client.host.pid,
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_package_use": "ansible.legacy.fvt_packages",
        "endpoint_identities": IDENTITIES,
    }


def tables(client: Client) -> str:
    return client.host.run(["nft", "list", "tables"]).stdout


def declared(ran: Ran) -> int:
    return ran.text.count("TASK [fleetvpn.routing.endpoint : Bring the declaration into the kernel]")


class TestStory:
    def test_check_mode_says_what_would_come(self, controller: Controller) -> None:
        ran = controller.play("--check")
        assert ran.status == 0, ran.text
        assert "nftables would be installed, and the egress guard loaded" in ran.text

    @pytest.mark.parametrize("options", [{"endpoint_strict_egress": "any"}, {"endpoint_strict_ingress": True}])
    def test_check_mode_also_where_the_module_refuses(self, controller: Controller, options: dict[str, t.Any]) -> None:
        ran = controller.play("--check", **options)
        assert ran.status == 0, ran.text
        assert "nftables would be installed, and the egress guard loaded" in ran.text

    def test_the_first_run_installs_it_and_loads_the_guard(self, controller: Controller, client: Client) -> None:
        ran = controller.play(endpoint_strict_egress="any", endpoint_strict_ingress=True)
        assert ran.status == 0, ran.text
        assert declared(ran) == 2
        assert tables(client) == "table inet fleetvpn\n"

    def test_the_second_run_is_one_task(self, controller: Controller) -> None:
        ran = controller.play(endpoint_strict_egress="any", endpoint_strict_ingress=True)
        recap = ran.recap("bare")
        assert (recap["changed"], declared(ran)) == (0, 1)

    def test_yaml_truth_values_are_taken(self, controller: Controller, client: Client) -> None:
        for value, left in ((True, "table inet fleetvpn\n"), (False, "")):
            ran = controller.play(endpoint_strict_egress=value)
            assert ran.status == 0, ran.text
            assert tables(client) == left

    def test_removal_leaves_no_table(self, controller: Controller, client: Client) -> None:
        controller.play()
        assert tables(client) == "table inet fleetvpn\n"
        assert controller.play(endpoint_state="absent").status == 0
        assert tables(client) == ""
