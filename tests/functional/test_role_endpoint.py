# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role endpoint on hosts with real VPNs, from a bare host to a removed set, with the play that users write.

The tests of a class are the steps of one story and run in their order.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import typing as t
import venv
import zipfile

import pytest

from tests.functional.onhost import PROGRAM
from tests.functional.playbooks import ansible_playbook
from tests.lab import Answer, Client, Lab, Probe
from tests.lab import addresses as plan

pytestmark = pytest.mark.controller

REPOSITORY = pathlib.Path(__file__).parents[2]
SITE = """
- name: Correct routing on every VPN endpoint
  hosts: vpn_endpoints
  gather_facts: false
  roles:
    - fleetvpn.routing.endpoint
"""
GROUP_VARS = {
    "all": {"endpoint_identities": [{"name": "outside", "interface": "auto"}], "endpoint_pyroute2_source": "wheel"},
    "wireguard": {
        "endpoint_group_identities": [
            {"name": "inside", "tunnel": {"type": "wireguard", "manager": "wg-quick", "connection": "wg0"}}
        ]
    },
    "openvpn": {
        "endpoint_group_identities": [
            {
                "name": "inside",
                "tunnel": {"type": "openvpn", "connection": "{{ lab_connection }}"},
                "interface": "{{ lab_device }}",
            }
        ]
    },
    "openconnect": {
        "endpoint_group_identities": [
            {
                "name": "inside",
                "tunnel": {"type": "openconnect", "connection": "{{ lab_connection }}"},
                "interface": "{{ lab_device }}",
            }
        ]
    },
    "ppp": {
        "endpoint_group_identities": [
            {"name": "inside", "tunnel": {"type": "ppp", "connection": "{{ lab_connection }}"}}
        ]
    },
}


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a playbook run said."""

    status: int
    text: str

    def recap(self, host: str) -> dict[str, int]:
        """The host's line of the recap."""
        line = re.search(rf"^{host} +:(.*)$", self.text, re.MULTILINE)
        assert line is not None, self.text
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line.group(1))}

    def failure(self, host: str) -> dict[str, t.Any]:
        """The result of the task that failed."""
        found = re.search(
            rf"^fatal: \[{host}\]: FAILED! => (\{{.*?^\}}|\{{.*?\}}$)", self.text, re.MULTILINE | re.DOTALL
        )
        assert found is not None, self.text
        return t.cast("dict[str, t.Any]", json.loads(found.group(1)))


@dataclasses.dataclass(frozen=True)
class Controller:
    """A directory with site.yml, an inventory and group_vars, from which ansible-playbook is run."""

    directory: pathlib.Path
    everything: list[str] = dataclasses.field(default_factory=list)

    def play(self, *arguments: str, **variables: object) -> Ran:
        """Run site.yml as loudly as can be; what it says is kept for the search for keys."""
        status, text = ansible_playbook(self.directory, "site.yml", "--diff", "-vvv", *arguments, **variables)
        self.everything.append(text)
        return Ran(status, text)


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    """A client of each kind, and a full WireGuard client; what lies below /usr/local is each one's own.

    That last one has a container, and a strict reverse path filter, as some distributions set it.
    """
    if os.geteuid() != 0:
        pytest.fail("functional tests need root: they make network namespaces")
    with Lab() as lab:
        for name, kind, mode in (
            ("split", "wireguard", "split"),
            ("ovpn", "openvpn", "full"),
            ("oconn", "openconnect", "full"),
            ("ppp", "ppp", "split"),
            ("full", "wireguard", "full"),
        ):
            client = lab.client(name, kind, mode=mode, container=name == "full", rp_filter=int(name == "full"))
            client.host.run(["mount", "-t", "tmpfs", "tmpfs", "/usr/local"])
        lab.start()
        yield lab


@pytest.fixture(scope="module")
def controller(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """The hosts' Python has no pyroute2; the wheel that is handed over is made of the one that runs this test."""
    directory = tmp_path_factory.mktemp("controller")
    venv.create(directory / "python", symlinks=True)
    lab.inventory(directory / "inventory.yml", python=str(directory / "python" / "bin" / "python"))
    (directory / "site.yml").write_text(SITE)
    (directory / "group_vars").mkdir()
    wheel = make_wheel(directory)
    for group, variables in GROUP_VARS.items():
        content = {**variables, "endpoint_pyroute2_wheel": str(wheel)} if group == "all" else variables
        (directory / "group_vars" / f"{group}.yml").write_text(json.dumps(content))
    return Controller(directory)


def make_wheel(directory: pathlib.Path) -> pathlib.Path:
    """A wheel of the installed pyroute2."""
    distribution = importlib.metadata.distribution("pyroute2")
    path = directory / f"pyroute2-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in distribution.files or ():
            if file.suffix != ".pyc" and not str(file).startswith(".."):
                archive.write(str(file.locate()), str(file))
    return path


def routing(client: Client) -> str:
    """All rules and routes of a host."""
    commands = [f"ip -{family} {what}" for family in (4, 6) for what in ("rule", "route show table all")]
    text = client.host.run(["sh", "-c", "; ".join(commands)]).stdout
    return re.sub(r" (expires|metric 0)\S* ?\S*", "", text)


def files(client: Client) -> list[str]:
    """What is on a host below the directories that the collection may write to."""
    found = client.host.run(
        ["sh", "-c", "find /usr/local /etc/fleetvpn /etc/systemd /etc/iproute2 /etc/vpnc /etc/ppp 2>&1 || true"]
    ).stdout
    return [line for line in found.splitlines() if "fleetvpn" in line and "No such file" not in line]


def by_name(lab: Lab, name: str) -> Client:
    return next(client for client in lab.clients if client.name == name)


WORKING = ("split", "ovpn", "oconn", "ppp")
HOOKS = {
    "oconn": {"/etc/vpnc/connect.d/fleetvpn": "644", "/etc/vpnc/post-connect.d/fleetvpn": "644"},
    "ppp": {"/etc/ppp/ip-pre-up.d/fleetvpn": "755", "/etc/ppp/ip-up.d/fleetvpn": "755"},
}


class TestStory:
    """From a bare host to a removed set."""

    before: t.ClassVar[dict[str, str]] = {}

    def test_replies_are_lost_without_the_role(self, lab: Lab) -> None:
        self.before.update({client.name: routing(client) for client in lab.clients})
        assert not all(row.arrived for row in lab.survey())

    def test_check_mode_on_a_bare_host_announces_and_does_nothing(self, lab: Lab, controller: Controller) -> None:
        ran = controller.play("--check", "--limit", ",".join(WORKING))
        assert ran.status == 0, ran.text
        assert "what would change in the kernel is unknown until then" in ran.text
        for name in WORKING:
            assert ran.recap(name)["changed"] > 0
            assert files(by_name(lab, name)) == []
            assert routing(by_name(lab, name)) == self.before[name]

    def test_the_first_run_installs_pyroute2_and_puts_every_reply_on_its_way(
        self, lab: Lab, controller: Controller
    ) -> None:
        ran = controller.play("--limit", ",".join(WORKING))
        assert ran.status == 0, ran.text
        wrong = [row for row in lab.survey() if row.client in WORKING and not row.arrived]
        assert wrong == []

    @pytest.mark.parametrize("name", HOOKS)
    def test_the_hooks_of_clients_that_can_wait_are_roots_alone(self, lab: Lab, name: str) -> None:
        told = by_name(lab, name).host.shell("stat -c '%n %U:%G %a' /etc/vpnc/*.d/fleetvpn /etc/ppp/*.d/fleetvpn || :")
        assert told.splitlines() == [f"{path} root:root {mode}" for path, mode in HOOKS[name].items()]

    def test_a_second_run_is_one_task_and_changes_nothing(self, controller: Controller) -> None:
        ran = controller.play("--limit", ",".join(WORKING))
        assert ran.status == 0, ran.text
        for name in WORKING:
            # The other one is Ansible's own, on the controller: it holds the variables against the argument specs.
            assert {key: ran.recap(name)[key] for key in ("ok", "changed", "failed")} == {
                "ok": 2,
                "changed": 0,
                "failed": 0,
            }

    @pytest.mark.parametrize("stage", ["declare", "install", "tunnels", "services", "pull"])
    def test_every_stage_begins_with_the_declaration(self, lab: Lab, controller: Controller, stage: str) -> None:
        by_name(lab, "split").host.run(["ip", "rule", "flush", "protocol", "151"])
        ran = controller.play("--limit", "split", "--tags", f"endpoint_{stage}")
        assert (ran.status, ran.recap("split")["changed"]) == (0, 1), ran.text

    def test_a_host_without_systemd_is_told_so(self, lab: Lab, controller: Controller) -> None:
        assert any("This host has no systemd" in text for text in controller.everything)

    def test_a_mistake_of_the_user_reaches_the_user_unchanged(self, lab: Lab, controller: Controller) -> None:
        now = routing(by_name(lab, "split"))
        mistake = {"name": "inside", "pools": ["10.8.0.1/16"]}
        ran = controller.play("--limit", "split", endpoint_host_identities=[mistake])
        failure = ran.failure("split")
        assert (failure["error"], failure["value"]) == ("InvalidInput", "10.8.0.1/16")
        assert failure["field"].endswith("pools")
        assert failure["accepted"] == "10.8.0.0/16"
        assert ran.recap("split")["rescued"] == 0
        assert routing(by_name(lab, "split")) == now

    def test_a_level_that_is_no_list_of_identities_is_refused_in_one_line(self, controller: Controller) -> None:
        ran = controller.play("--limit", "split", endpoint_host_identities=[{"name": "a"}, {"name": "a"}])
        assert "third list, entry 1: 'a' is there twice; accepted: one of each name" in ran.text
        assert ran.status != 0

    def test_a_full_tunnel_of_wg_quick_is_refused_where_no_unit_can_start_it(
        self, lab: Lab, controller: Controller
    ) -> None:
        ran = controller.play("--limit", "full")
        assert ran.status != 0
        assert "there is no systemd" in ran.failure("full")["msg"]
        assert routing(by_name(lab, "full")) == self.before["full"]

    def test_removal_leaves_pyroute2_and_nothing_else(self, lab: Lab, controller: Controller) -> None:
        # Somebody's own, which calls our hook, as the guide advises.
        by_name(lab, "ppp").host.write("/etc/ppp/ip-up.local", f"#!/bin/sh\nmine\n{PROGRAM} hook ppp\n", 0o755)
        ran = controller.play("--limit", ",".join(WORKING), endpoint_state="absent")
        assert ran.status == 0, ran.text
        for name in WORKING:
            assert routing(by_name(lab, name)) == self.before[name]
            left = [path for path in files(by_name(lab, name)) if "site-packages" not in path]
            assert left == ["/usr/local/lib/fleetvpn"]
        assert by_name(lab, "oconn").host.run(["test", "-e", "/etc/vpnc"], check=False).returncode == 1
        assert "mine" in by_name(lab, "ppp").host.read("/etc/ppp/ip-up.local")

    def test_removal_can_be_repeated(self, controller: Controller) -> None:
        ran = controller.play("--limit", ",".join(WORKING), endpoint_state="absent")
        assert ran.status == 0, ran.text
        assert [ran.recap(name)["changed"] for name in WORKING] == [0] * len(WORKING)

    def test_no_private_key_was_ever_said_or_written(self, lab: Lab, controller: Controller) -> None:
        said = "\n".join(controller.everything)
        for client in lab.clients:
            found = client.host.run(
                ["sh", "-c", "cat /etc/wireguard/*.conf /etc/openvpn/*/* /etc/openvpn/* 2>/dev/null; true"]
            )
            keys = re.findall(r"PrivateKey = (\S+)|-----BEGIN[A-Z ]*PRIVATE KEY-----\n(\S+)", found.stdout)
            secrets = {key for pair in keys for key in pair if key}
            assert bool(secrets) == (client.tunnel.kind in ("wireguard", "openvpn")), client.name
            for secret in secrets:
                assert secret not in said


class TestFullTunnelOfWgQuick:
    """The derived file, as the unit's drop-in uses it, against what wg-quick does by itself. It needs no systemd."""

    before: t.ClassVar[dict[str, t.Any]] = {}

    def test_by_itself_everything_unbound_enters_the_tunnel_and_the_container_is_cut_off(self, lab: Lab) -> None:
        full = by_name(lab, "full")
        lab.serve(lab.outside, full.host)
        self.before["unbound"] = unbound(lab, full)
        self.before["forwarded"] = forwarded(lab, full)
        assert self.before["unbound"] == [(True, source) for source in full.inside for _proto in ("tcp", "udp")]
        assert self.before["forwarded"] == {"wg0"}
        assert not any(to_inside(lab, full))
        full.down()
        self.before["down"] = full.host.run(["sh", "-c", "ip rule; ip -6 rule; nft list ruleset"]).stdout

    @pytest.mark.parametrize("order", ["tunnel first", "endpoint first"])
    def test_with_the_derived_file_unbound_traffic_goes_where_it_went(
        self, lab: Lab, controller: Controller, order: str
    ) -> None:
        full = by_name(lab, "full")
        if order == "tunnel first":
            self.start(lab, full)
            assert unbound(lab, full) == self.before["unbound"]
            full.host.write("/etc/systemd/system/wg-quick@wg0.service.d/fleetvpn.conf", "")
            ran = controller.play("--limit", "full")
            assert ran.status == 0, ran.text
        else:
            self.stop(full)
            self.start(lab, full)
            # The device is a new one; the watch would do it.
            assert controller.play("--limit", "full").status == 0
        assert unbound(lab, full) == self.before["unbound"]
        assert forwarded(lab, full) == self.before["forwarded"]

    def test_every_reply_finds_its_way_and_the_container_reaches_the_inside_address(self, lab: Lab) -> None:
        full = by_name(lab, "full")
        assert [row for row in lab.survey() if row.client == "full" and not row.arrived] == []
        assert all(to_inside(lab, full))

    def test_what_the_derived_file_added_goes_away_with_the_tunnel(self, lab: Lab, controller: Controller) -> None:
        full = by_name(lab, "full")
        self.stop(full)
        full.host.run(["rm", "-r", "/etc/systemd/system/wg-quick@wg0.service.d"])
        assert controller.play("--limit", "full", endpoint_state="absent", endpoint_group_identities=[]).status == 0
        assert full.host.run(["sh", "-c", "ip rule; ip -6 rule; nft list ruleset"]).stdout == self.before["down"]

    def test_wg_quick_takes_down_by_its_own_file_what_the_derived_one_added(self, lab: Lab) -> None:
        full = by_name(lab, "full")
        self.start(lab, full)
        full.down()
        assert full.host.run(["sh", "-c", "ip rule; ip -6 rule; nft list ruleset"]).stdout == self.before["down"]

    @staticmethod
    def start(lab: Lab, client: Client) -> None:
        """As the drop-in does."""
        program = REPOSITORY / "roles" / "vpn_wireguard" / "files" / "wg_quick_derive.py"
        client.host.run(["/usr/bin/python3", "-I", str(program), "wg0"])
        client.host.run(["wg-quick", "up", "/run/fleetvpn/wg-quick/wg0.conf"])
        client.tunnel.finish()

    @staticmethod
    def stop(client: Client) -> None:
        """As the drop-in does."""
        client.host.run(["wg-quick", "down", "/run/fleetvpn/wg-quick/wg0.conf"])


def unbound(lab: Lab, client: Client) -> list[tuple[bool, str]]:
    """Whether somebody outside answers sockets that chose no source, and with which source he saw them."""
    answers = lab.probes([Probe(client.host, to, proto) for to in plan.OUTSIDE_HOST for proto in ("tcp", "udp")])
    return [(answer.ok, answer.seen) for answer in answers]


def forwarded(lab: Lab, client: Client) -> set[str]:
    """The devices by which what the container sends outside leaves its host."""
    assert client.container is not None
    with lab.capture(client.host) as capture:
        lab.probes([Probe(client.container, to, "udp", timeout=0.3) for to in plan.OUTSIDE_HOST])
        found: set[str] = set().union(*(capture.left_by(destination=to) for to in plan.OUTSIDE_HOST))
        return found


def to_inside(lab: Lab, client: Client) -> list[Answer]:
    """Whether the container reaches the inside addresses of its host."""
    assert client.container is not None
    return lab.probes(
        [Probe(client.container, to, proto, timeout=1) for to in client.inside for proto in ("tcp", "icmp")]
    )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The wheel whose hash the role states."""
    directory = tmp_path_factory.mktemp("wheels")
    stated = REPOSITORY / "roles" / "endpoint" / "files" / "pyroute2.txt"
    options = ["--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(directory)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, "-r", str(stated)], check=True)
    return directory


class TestPyroute2FromAnIndex:
    """Into the directory of the role, by pip and with hashes. A directory of wheels stands in for the index."""

    INDEXED = SITE.replace(
        "  roles:", "  environment: {PIP_NO_INDEX: '1', PIP_FIND_LINKS: '{{ lab_wheels }}'}\n  roles:"
    )

    def play(self, lab: Lab, controller: Controller, wheels: pathlib.Path) -> Ran:
        """On a host that has none, with a Python that has pip."""
        by_name(lab, "split").host.shell("rm -rf /usr/local/lib/fleetvpn")
        python = controller.directory / "piped"
        venv.create(python, symlinks=True, with_pip=True)
        (controller.directory / "indexed.yml").write_text(self.INDEXED)
        variables = {
            "ansible_python_interpreter": str(python / "bin" / "python"),
            "endpoint_pyroute2_source": "pip",
            "lab_wheels": str(wheels),
        }
        return Ran(*ansible_playbook(controller.directory, "indexed.yml", "--limit", "split", **variables))

    def test_what_has_another_hash_is_refused(
        self, lab: Lab, controller: Controller, wheels: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        (wheel,) = wheels.iterdir()
        (tmp_path / wheel.name).write_bytes(wheel.read_bytes() + b"\0")
        before = routing(by_name(lab, "split"))
        ran = self.play(lab, controller, tmp_path)
        assert ran.status != 0
        assert "DO NOT MATCH THE HASHES" in ran.text
        assert routing(by_name(lab, "split")) == before

    def test_what_has_the_stated_one_is_installed_and_used(
        self, lab: Lab, controller: Controller, wheels: pathlib.Path
    ) -> None:
        ran = self.play(lab, controller, wheels)
        assert ran.status == 0, ran.text
        assert [row for row in lab.survey() if row.client == "split" and not row.arrived] == []
        assert any("site-packages/pyroute2-" in path for path in files(by_name(lab, "split")))
