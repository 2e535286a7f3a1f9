# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: what it builds is there, its probes and captures tell the truth, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import typing as t

import pytest

from tests.lab import Client, Lab, Probe
from tests.lab import addresses as plan
from tests.lab.capture import Capture
from tests.lab.runs import ROOT, leftovers
from tests.lab.senders import no_leak
from tests.lab.survey import table
from tests.lab.tunnel import wait_for

REPOSITORY = pathlib.Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[Lab]:
    """Six clients before the collection is applied. Tests that change one, change one that no other test looks at."""
    with Lab.fleet(6) as lab:
        lab.serve(lab.router, lab.outside, lab.gateway, lab.corporate)
        yield lab


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    """A lab to which tests add the clients that they need."""
    with Lab() as lab:
        yield lab


def by_name(lab: Lab, name: str) -> Client:
    return next(client for client in lab.clients if client.name == name)


class TestTopology:
    @pytest.mark.parametrize("proto", ["icmp", "tcp", "udp"])
    @pytest.mark.parametrize("family", [0, 1])
    def test_unbound_traffic_reaches_all(self, fleet: Lab, proto: str, family: int) -> None:
        client = by_name(fleet, "c4")
        targets = {"out": plan.OUTSIDE_HOST, "corp": plan.CORPORATE_HOST}
        for name, addresses in targets.items():
            answer = fleet.probe(client.host, addresses[family], proto)
            assert answer
            assert answer.name in ("", name)

    def test_the_source_tells_the_way(self, fleet: Lab) -> None:
        client = by_name(fleet, "c4")
        assert fleet.probe(client.host, plan.OUTSIDE_HOST[0], "tcp").seen == client.outside[0]
        assert fleet.probe(client.host, plan.CORPORATE_HOST[0], "tcp").seen == client.inside[0]

    def test_the_anycast_address_tells_the_way(self, fleet: Lab) -> None:
        client = by_name(fleet, "c4")
        client.host.route(f"{plan.ANYCAST[0]}/32", dev=client.tunnel.device)
        assert fleet.probe(client.host, plan.ANYCAST[0], "udp").name == "gw"
        assert fleet.probe(client.host, plan.ANYCAST[1], "udp").name == "inet"

    def test_second_router_and_neighbour(self, fleet: Lab) -> None:
        second, neighbour = fleet.lan(0)
        fleet.serve(second, neighbour)
        client = by_name(fleet, "c4")
        for addresses, name in ((plan.SIDE_HOST, "r2-0"), (plan.in_lan(0, 200), "nbr0")):
            assert [fleet.probe(client.host, address, "tcp").name for address in addresses] == [name, name]

    def test_container_and_its_client(self, fleet: Lab) -> None:
        client = by_name(fleet, "c0")
        assert client.container is not None
        fleet.serve(client.container, client.host)
        assert [fleet.probe(client.host, address, "tcp").name for address in plan.CONTAINER] == ["c0-c", "c0-c"]
        assert [fleet.probe(client.container, address, "tcp").name for address in plan.BRIDGE] == ["c0", "c0"]

    def test_cloud_host_has_a_gateway_outside_its_prefix(self, fleet: Lab) -> None:
        client = by_name(fleet, "c3")
        [address] = client.host.ip_json("-4", "addr", "show", "dev", "up0")
        assert [info["prefixlen"] for info in address["addr_info"]] == [32]
        assert fleet.probe(client.host, plan.OUTSIDE_HOST[0])
        assert fleet.probe(client.host, plan.OUTSIDE_HOST[1])
        client.host.run(["ip", "route", "del", plan.CLOUD_GATEWAY[0], "dev", "up0"])
        refused = client.host.run(["ip", "route", "add", "10.9.9.9", "via", plan.CLOUD_GATEWAY[0]], check=False)
        client.host.route(f"{plan.CLOUD_GATEWAY[0]}/32", dev="up0", scope=253)
        assert refused.returncode != 0

    def test_ipv6_only_inside(self, fleet: Lab) -> None:
        client = by_name(fleet, "c2")
        assert [":" in address for address in client.inside] == [True]
        addresses = client.host.ip_json("-4", "addr", "show", "dev", "wg0")
        assert not [entry for entry in addresses if entry.get("addr_info")]


class TestBefore:
    """Without policy routing the replies go astray: the problem that this project is about."""

    def test_survey(self, fleet: Lab) -> None:
        rows = [row for row in fleet.survey() if row.client in ("c0", "c2", "c3", "c5")]
        astray = [row for row in rows if not row.right]
        # Client 2 has no inside IPv4 address, so nothing takes its outside one into the tunnel.
        right = {(row.client, row.question, row.family) for row in rows if row.right}
        assert right == {("c2", "corporate -> O", 4)}
        assert not [row for row in astray if row.arrived]
        assert "reply by up0 instead of wg0, lost" in table(rows)
        assert {tuple(row.left_by) for row in astray if row.question == "Internet -> I"} == {("up0",)}
        assert {tuple(row.left_by) for row in astray if row.question == "corporate -> O"} == {("wg0",), ("tun0",)}

    @pytest.mark.parametrize("name", ["c4", "c1"])
    def test_five_commands_cure_one_client(self, fleet: Lab, name: str) -> None:
        client = by_name(fleet, name)
        for family in (0, 1):
            client.host.shell(five_commands(client, family))
        rows = [row for row in fleet.survey() if row.client == name]
        assert len(rows) == 12
        assert [row for row in rows if not row.right] == []


def five_commands(client: Client, family: int) -> str:
    """The cure of one host, by hand, in one family."""
    gateway = plan.in_lan(0, 1)[family]
    ip = f"ip -{'46'[family]}"
    return f"""
        {ip} route add default dev {client.tunnel.device} table 10
        {ip} route add default via {gateway} dev up0 table 11
        {ip} rule add priority 5000 from {client.inside[family]} iif lo lookup 10
        {ip} rule add priority 5001 from {client.outside[family]} iif lo lookup 11
        {ip} route flush cache
    """


class TestProbesAndCaptures:
    def test_direction_and_device(self, fleet: Lab) -> None:
        client = by_name(fleet, "c5")
        with fleet.capture(client.host) as seen:
            assert fleet.probe(client.host, plan.CORPORATE_HOST[0], "tcp")
        assert seen.left_by(source=client.inside[0], proto="tcp") == {"tun0"}
        assert seen.arrived_by(destination=client.inside[0], proto="tcp") == {"tun0"}
        assert seen.left_by(destination=client.inside[0]) == set()
        assert seen.left_by(source=client.outside[0], destination=plan.GATEWAY[0]) == {"up0"}

    @pytest.mark.parametrize("connected", [True, False])
    @pytest.mark.parametrize("family", [0, 1])
    def test_bound_source(self, fleet: Lab, connected: bool, family: int) -> None:
        client = by_name(fleet, "c5")
        _second, neighbour = fleet.lan(0)
        fleet.serve(neighbour)
        target = plan.in_lan(0, 200)[family]
        own = {"source": client.inside[family], "connected": connected}
        assert fleet.probe(client.host, target, "udp", connected=connected).seen == client.outside[family]
        assert fleet.probe(client.host, target, "udp", **own).seen == client.inside[family]

    @pytest.mark.parametrize("proto", ["icmp", "tcp", "udp"])
    def test_bound_device(self, fleet: Lab, proto: str) -> None:
        client = by_name(fleet, "c5")
        with fleet.capture(client.host) as seen:
            fleet.probe(client.host, plan.CORPORATE_HOST[1], proto, dev="up0", timeout=0.3)
        assert seen.left_by(destination=plan.CORPORATE_HOST[1]) == {"up0"}

    def test_a_capture_that_missed_packets_says_so(self, fleet: Lab) -> None:
        client = by_name(fleet, "c5")
        with Capture(client.host, buffer=1) as seen:
            for _packet in range(20):
                fleet.probe(client.host, plan.OUTSIDE_HOST[0])
            with pytest.raises(AssertionError, match="the capture missed"):
                seen.packets()

    def test_errors_have_names(self, fleet: Lab) -> None:
        client = by_name(fleet, "c5")
        assert fleet.probe(client.host, plan.OUTSIDE_HOST[0], "tcp", port=9).error == "ECONNREFUSED"
        assert fleet.probe(client.host, "198.18.0.99", "udp", timeout=0.2).error == "TIMEOUT"

    def test_conversation_stays_open(self, fleet: Lab) -> None:
        client = by_name(fleet, "c5")
        talk = fleet.conversation(client.host, plan.OUTSIDE_HOST[1])
        assert talk.ask().name == "out"
        client.host.run(["ip", "-6", "rule", "add", "priority", "1", "to", plan.OUTSIDE_HOST[1], "unreachable"])
        assert not talk.ask()
        client.host.run(["ip", "-6", "rule", "del", "priority", "1"])
        talk.close()

    def test_many_at_once(self, fleet: Lab) -> None:
        probes = [Probe(client.host, plan.OUTSIDE_HOST[0], "tcp") for client in fleet.clients for _time in range(20)]
        assert {answer.error for answer in fleet.probes(probes)} == {""}


class TestLeaks:
    def test_are_seen_on_the_uplinks_that_are_there_and_on_no_others(self, lab: Lab) -> None:
        client = lab.client("leaky", "standin", families=(4,))
        client.up()
        with pytest.raises(AssertionError, match=r"leaky: \d+: "), no_leak(client.host, *client.inside):
            time.sleep(0.3)
        client.host.shell("ip link set up0 name enp0")
        with pytest.raises(AssertionError, match=r"leaky has no \['up0'\]"), no_leak(client.host, *client.inside):
            pass
        with (
            pytest.raises(AssertionError, match=r"leaky: \d+: "),
            no_leak(client.host, *client.inside, devices=("enp0", "vpn0")),
        ):
            time.sleep(0.3)


class TestModes:
    @pytest.mark.parametrize("kind", ["wireguard", "openvpn", "openconnect", "ppp"])
    @pytest.mark.parametrize(("mode", "unbound"), [("full", "tunnel"), ("identity", "uplink")])
    def test_where_unbound_traffic_goes(self, kind: str, mode: str, unbound: str) -> None:
        with Lab() as lab:
            client = lab.client("one", kind, mode=mode)
            client.up()
            lab.serve(lab.outside, lab.corporate)
            own = client.inside if unbound == "tunnel" else client.outside
            for targets in (plan.OUTSIDE_HOST, plan.CORPORATE_HOST):
                assert [lab.probe(client.host, address, "tcp").seen for address in targets] == list(own)

    @pytest.mark.parametrize("kind", ["wireguard", "openvpn", "openconnect", "ppp"])
    def test_down_up_and_killed(self, kind: str) -> None:
        with Lab() as lab:
            client = lab.client("one", kind)
            client.up()
            client.down()
            assert not client.host.has_device(client.tunnel.device)
            client.up()
            assert lab.probe(client.host, plan.CORPORATE_HOST[0])
            client.tunnel.kill()
            assert not client.host.has_device(client.tunnel.device)

    def test_ipv6_only_openvpn(self) -> None:
        with Lab() as lab:
            client = lab.client("one", "openvpn", families=(6,))
            client.up()
            assert lab.probe(client.host, plan.CORPORATE_HOST[1])
            assert [entry for entry in client.host.ip_json("-4", "addr", "show", "dev", "tun0") if entry] == []

    @pytest.mark.parametrize("kind", ["wireguard", "openvpn", "openconnect", "ppp", "standin"])
    def test_renumbered(self, kind: str) -> None:
        with Lab() as lab:
            client = lab.client("one", kind)
            client.up()
            old = client.inside
            client.renumber([plan.shifted(address, 5) for address in old])
            lab.serve(lab.corporate)
            seen = [lab.probe(client.host, address, "tcp").seen for address in plan.CORPORATE_HOST]
            assert seen == list(client.inside)
            assert not any(client.host.owns(address) for address in old)

    def test_wg_quick_that_routes_by_allowed_ips(self) -> None:
        with Lab() as lab:
            client = lab.client("one", mode="auto")
            client.up()
            assert all(lab.probe(client.host, address) for address in plan.CORPORATE_HOST)
            routes = client.host.ip_json("route", "show", "dev", "wg0")
            assert [route["dst"] for route in routes] == [plan.CORPORATE[0]]

    def test_standin_goes_astray_and_is_cured_like_a_real_tunnel(self) -> None:
        with Lab() as lab:
            client = lab.client("one", "standin")
            client.up()
            assert [row for row in lab.survey() if row.right] == []
            for family in (0, 1):
                client.host.shell(five_commands(client, family))
            assert [row for row in lab.survey() if not row.right] == []


class TestReboot:
    @pytest.mark.parametrize("kind", ["wireguard", "openvpn", "openconnect", "ppp", "standin"])
    def test_files_stay_and_the_rest_does_not(self, lab: Lab, kind: str) -> None:
        client = lab.client(f"boot-{kind[-4:]}", kind, container=True)
        client.up()
        lab.serve(client.host)
        client.host.write("/etc/fvt-x", "kept")
        client.host.write("/run/fvt-x", "lost")
        client.host.run(["ip", "rule", "add", "priority", "7", "lookup", "7"])
        links: list[str] = []
        lab.reboot(client, first=lambda host: links.extend(link["ifname"] for link in host.ip_json("link")))
        assert links == ["lo"]
        assert client.host.read("/etc/fvt-x") == "kept"
        assert client.host.run(["test", "-e", "/run/fvt-x"], check=False).returncode == 1
        assert [rule["priority"] for rule in client.host.ip_json("rule")] == [0, 32766, 32767]
        client.up()
        lab.serve(client.host)
        assert all(lab.probe(client.host, address) for address in plan.OUTSIDE_HOST + plan.CORPORATE_HOST)
        assert client.container is not None
        assert lab.probe(client.container, plan.BRIDGE[1], "tcp").name == client.name


class TestClientsDevices:
    """What a client may have besides one uplink and one tunnel."""

    def test_pod_on_a_device_without_address(self, lab: Lab) -> None:
        client = lab.client("podded", "standin", pod=True)
        assert client.pod is not None
        lab.serve(client.pod, client.host)
        assert [lab.probe(client.host, address, "tcp").name for address in plan.POD] == ["podded-p"] * 2
        assert [lab.probe(client.pod, address, "tcp").name for address in client.outside] == ["podded"] * 2
        assert not [entry for entry in client.host.ip_json("-4", "addr", "show", "dev", "cali0") if entry]

    @pytest.mark.parametrize("number", [0, 1])
    def test_second_uplink(self, lab: Lab, number: int) -> None:
        client = lab.client(f"docked{number}", "standin")
        own = lab.second_uplink(client, number)
        _second, neighbour = lab.lan(number)
        lab.serve(neighbour)
        for address, target in zip(own, plan.in_lan(number, 200), strict=True):
            assert lab.probe(client.host, target, "tcp", source=address, dev="up1").seen == address

    def test_strict_reverse_path_filter(self, lab: Lab) -> None:
        client = lab.client("strict", "standin", rp_filter=1)
        assert client.host.shell("cat /proc/sys/net/ipv4/conf/up0/rp_filter").strip() == "1"
        client.up()
        with lab.capture(client.host) as seen:
            assert not lab.probe(lab.outside, client.inside[0], timeout=0.3)
        assert seen.arrived_by(destination=client.inside[0]) == {"vpn0"}
        assert seen.left_by(source=client.inside[0]) == set()

    def test_arp_is_seen_when_asked_for(self, lab: Lab) -> None:
        client = lab.client("asking", "standin")
        missing = plan.in_lan(0, 199)[0]
        with lab.capture(client.host) as seen:
            lab.probe(client.host, missing, timeout=0.2)
        assert seen.left_by(destination=missing, proto="arp") == {"up0"}
        assert seen.left_by(destination=missing) == set()


class TestPrivateFiles:
    def test_etc_run_and_usr_local_are_the_hosts_own(self, fleet: Lab) -> None:
        one, other = by_name(fleet, "c0").host, by_name(fleet, "c5").host
        for path in ("/etc/fvt-x", "/run/fvt-x", "/usr/local/sbin/fvt-x", "/var/lib/fvt-x"):
            one.write(path, "mine", 0o600)
            assert one.read(path) == "mine"
            assert other.run(["test", "-e", path], check=False).returncode == 1
            assert not os.path.exists(path)

    def test_processes_of_other_hosts_are_not_seen(self, fleet: Lab) -> None:
        assert len(by_name(fleet, "c0").host.pids("wireguard-go")) == 1
        assert by_name(fleet, "c0").host.pids("openvpn") == []


class TestEnd:
    def test_close_removes_everything(self) -> None:
        lab = Lab.fleet(2)
        run, pids = lab.run_id, [host.pid for host in lab.hosts.values()]
        assert len(leftovers(run)) == len(pids) + 1
        lab.close()
        assert leftovers(run) == []
        assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []

    def test_a_killed_run_is_removed_by_the_next_and_a_living_one_is_not(self) -> None:
        with Lab() as living:
            run = killed_run()
            assert leftovers(run)
            with Lab():
                assert leftovers(run) == []
                assert leftovers(living.run_id)
                assert living.probe(living.outside, plan.CORPORATE_HOST[0])

    def test_processes_that_outlive_a_killed_run_are_ended(self) -> None:
        run = killed_run(leaving=("sleep", "60"))
        with Lab():
            assert leftovers(run) == []

    def test_hosts_end_with_the_program_that_holds_them(self) -> None:
        with Lab.fleet(2) as lab:
            pids = [host.pid for host in lab.hosts.values()]
            lab._holders._process.kill()
            wait_for(lambda: not any(is_alive(pid) for pid in pids), "all hosts ended")

    def test_sigterm_cleans_up_at_once(self) -> None:
        process, run = start_run()
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
        assert leftovers(run) == []

    def test_this_machines_own_routing_is_untouched(self) -> None:
        before = own_state()
        with Lab.fleet(2):
            assert own_state() == before
        assert own_state() == before


def is_alive(pid: int) -> bool:
    """A dead process may wait for this machine's init to reap it."""
    try:
        return ") Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def own_state() -> list[str]:
    commands = (["rule"], ["-6", "rule"], ["route", "show", "table", "all"], ["-6", "route", "show", "table", "all"])
    listed = (subprocess.run(["ip", *words], capture_output=True, text=True, check=True) for words in commands)
    return [done.stdout for done in listed]


def start_run() -> tuple[subprocess.Popen[str], str]:
    """A run in a process of its own, tunnels up."""
    program = """
import time
from tests.lab import Lab
with Lab.fleet(2) as lab:
    print(lab.run_id, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


def killed_run(leaving: t.Sequence[str] = ()) -> str:
    """The name of a run that was killed a moment ago; none of its processes is left, but one if so wanted."""
    process, run = start_run()
    left = subprocess.Popen(["ip", "netns", "exec", f"fvt-{run}-inet", *leaving]) if leaving else None
    process.kill()
    process.wait()
    if left is not None:
        # The next run may well be one of another test that is running now.
        wait_for(lambda: left.poll() is not None or processes_of(run) == [str(left.pid)], "only one process is left")
        threading.Thread(target=left.wait).start()
        return run
    wait_for(lambda: processes_of(run) == [], "no process left")
    return run


def processes_of(run: str) -> list[str]:
    names = [pathlib.Path(path).name for path in leftovers(run) if path.startswith("/run/netns")]
    listed = (
        subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False) for name in names
    )
    return [pid for done in listed for pid in done.stdout.split()]


class TestAnsible:
    """The connection plugin, by ansible itself."""

    def ansible(self, lab: Lab, where: pathlib.Path, *arguments: str, pipelining: bool) -> str:
        inventory = lab.inventory(where / "inventory.yml")
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "adhoc", "-i", str(inventory), *arguments],
            env={
                **os.environ,
                "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests/plugins/connection"),
                "ANSIBLE_PIPELINING": str(pipelining),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_HOME": str(where / "home"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @pytest.mark.parametrize("pipelining", [True, False])
    def test_every_client_answers(self, fleet: Lab, tmp_path: pathlib.Path, pipelining: bool) -> None:
        pytest.importorskip("ansible", reason="ansible-core is not in this environment")
        out = self.ansible(fleet, tmp_path, "vpn_endpoints", "-m", "ping", pipelining=pipelining)
        assert out.count("SUCCESS") == 6

    def test_files_go_in_and_out(self, fleet: Lab, tmp_path: pathlib.Path) -> None:
        pytest.importorskip("ansible", reason="ansible-core is not in this environment")
        (tmp_path / "x").write_bytes(bytes(range(256)) * 1000)
        copied = "/etc/fvt-copied"
        for module, files in (
            ("copy", f"src={tmp_path}/x dest={copied}"),
            ("fetch", f"src={copied} dest={tmp_path}/y flat=true"),
        ):
            self.ansible(fleet, tmp_path, "c0", "-m", module, "-a", files, pipelining=True)
        assert (tmp_path / "y").read_bytes() == (tmp_path / "x").read_bytes()
        assert not os.path.exists(copied)

    def test_groups(self, fleet: Lab, tmp_path: pathlib.Path) -> None:
        groups = json.loads(fleet.inventory(tmp_path / "i.yml").read_text())["vpn_endpoints"]["children"]
        assert {name: sorted(group["hosts"]) for name, group in groups.items()} == {
            "wireguard": ["c0", "c2", "c4"],
            "openvpn": ["c1", "c3", "c5"],
        }


def test_root_is_removed_with_the_run() -> None:
    with Lab() as lab:
        assert (ROOT / lab.run_id).is_dir()
    assert not (ROOT / lab.run_id).exists()
