# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that is not confirmed is undone, whoever dies meanwhile; one that is confirmed stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t

import pytest

from tests.functional import onhost
from tests.functional.onhost import INSIDE, declare, eventually, files, hosts, networking, program, reboot, seen
from tests.functional.watching import Watch
from tests.lab import Client, Host, Lab
from tests.lab import addresses as plan
from tests.lab.responder import PORT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

ARMED = "/run/fleetvpn/armed.json"
LOCK = "/run/fleetvpn/lock"
WAITING = "/run/fleetvpn/fleetvpn-endpoint"
SECONDS = 4
ENOUGH = 10  # to confirm on a busy machine
SHORT: dict[str, t.Any] = {"confirm": {"by": "reconnect", "timeout": SECONDS}}
LONG: dict[str, t.Any] = {"confirm": {"by": "reconnect", "timeout": 600}}
MORE = [{**onhost.IDENTITIES[0], "name": "outside"}, {**onhost.IDENTITIES[1], "pools": ["10.9.0.0/16"]}]
# Of every kind of operation, those on the guard, sysctls and devices of our own too.
ALL: dict[str, t.Any] = {
    "identities": MORE,
    "unbound": "inside",
    "unbound_backstop": True,
    "sysctls": ["rp_filter"],
}


@pytest.fixture
def host() -> t.Iterator[Host]:
    with hosts() as make:
        made = make("h")
        onhost.connect(made, INSIDE)
        yield made


def state(host: Host) -> list[str]:
    """Everything that a change may touch."""
    # What the kernel adds by itself, some time after a device came up, is left out.
    return [line for line in [*networking(host), *files(host)] if "ff00::/8" not in line and "fe80" not in line]


def waiting(host: Host) -> dict[str, t.Any]:
    found: dict[str, t.Any] = json.loads(host.read(ARMED))
    return found


def is_locked(host: Host) -> bool:
    """Whether somebody changes the host now."""
    return host.run(["flock", "--nonblock", LOCK, "true"], check=False).returncode == 1


def waits(host: Host) -> bool:
    return seen(host, ARMED).exists()


def undone(host: Host, before: list[str], within: float) -> None:
    eventually(lambda: not waits(host) and not seen(host, WAITING).exists(), within)
    host.run(["flock", LOCK, "true"], check=False)
    assert state(host) == before


class TestUnconfirmed:
    def test_a_first_change_is_undone_to_the_letter(self, host: Host) -> None:
        before = state(host)
        made = declare(host, **SHORT)
        assert made["confirm"]["state"] == "armed"
        assert state(host) != before
        assert not seen(host, f"{onhost.SETS}/main.json").exists()
        undone(host, before, SECONDS + 10)
        assert not seen(host, "/run/fleetvpn").exists()

    def test_a_later_change_leads_back_to_the_earlier_one(self, host: Host) -> None:
        host.run(["ip", "address", "add", "2001:db8:2::10/64", "dev", onhost.UPLINK, "nodad"])
        assert declare(host)["confirm"] == {"state": None}
        before = state(host)
        made = declare(host, **ALL, **SHORT)
        assert {(step["op"], step["kind"]) for step in made["plan"]} >= {
            ("add", "link"),
            ("add", "rule"),
            ("replace", "guard"),
            ("set", "sysctl"),
        }
        assert state(host) != before
        undone(host, before, SECONDS + 10)

    def test_so_does_a_removal(self, host: Host) -> None:
        declare(host)
        before = state(host)
        declare(host, identities=None, state="absent", **SHORT)
        assert onhost.rules_from(host, INSIDE) == []
        undone(host, before, SECONDS + 10)

    def test_a_boot_leads_back_to_it_too(self, host: Host) -> None:
        with hosts() as make:
            declare(host)
            declare(host, identities=MORE, **LONG)
            assert "10.9.0.0/16" in host.shell("ip rule show")
            after = make("after")
            reboot(host, after)
            onhost.connect(after, INSIDE)
            assert program(after, "apply").returncode == 0
            assert onhost.rules_from(after, INSIDE)
            assert "10.9.0.0/16" not in after.shell("ip rule show")


class TestConfirmed:
    def test_a_change_stays(self, host: Host) -> None:
        made = declare(host, confirm={"by": "reconnect", "timeout": ENOUGH})
        changed = host.shell("ip -N rule show")
        host.run(made["confirm"]["command"])
        assert not waits(host)
        assert not seen(host, WAITING).exists()
        assert host.shell(f"ls {onhost.PROGRAM} {onhost.SETS}/main.json /etc/iproute2/rt_tables.d/fleetvpn.conf")
        time.sleep(ENOUGH)
        assert host.shell("ip -N rule show") == changed
        assert not declare(host)["changed"]

    def test_what_waited_for_the_time_to_pass_is_gone(self, host: Host) -> None:
        made = declare(host, **LONG)
        pid = waiting(host)["switch"].split()[-1]
        assert host.run(["kill", "-0", pid], check=False).returncode == 0
        host.run(made["confirm"]["command"])
        eventually(lambda: host.run(["ps", "-o", "stat=", "-p", pid], check=False).stdout.strip() in ("", "Z"))

    def test_a_removal_leaves_nothing(self, host: Host) -> None:
        before = state(host)
        declare(host)
        made = declare(host, identities=None, state="absent", **LONG)
        host.run(made["confirm"]["command"])
        assert state(host) == before
        assert not seen(host, "/run/fleetvpn").exists()

    def test_by_hand_without_a_token(self, host: Host) -> None:
        declare(host, **LONG)
        assert "is confirmed" in host.run([waiting_python(host), "-I", WAITING, "confirm"]).stdout

    def test_a_confirmation_that_comes_too_late_is_refused(self, host: Host) -> None:
        before = state(host)
        made = declare(host, confirm={"by": "reconnect", "timeout": 1})
        time.sleep(1.1)
        done = host.run(made["confirm"]["command"], check=False)
        assert done.returncode != 0
        undone(host, before, 10)

    def test_that_of_another_change_is_refused(self, host: Host) -> None:
        declare(host, **LONG)
        done = host.run([waiting_python(host), "-I", WAITING, "confirm", "0123456789abcdef"], check=False)
        assert (done.returncode, waits(host)) == (1, True)
        assert "does not wait for a confirmation" in done.stderr

    def test_nothing_changed_nothing_armed(self, host: Host) -> None:
        declare(host)
        assert declare(host, **SHORT)["confirm"] == {"state": None}
        assert not waits(host)


def waiting_python(host: Host) -> str:
    """The interpreter of the module, which has pyroute2."""
    return sys.executable


class TestKilled:
    def test_what_waits_is_killed_and_the_next_run_undoes(self, host: Host) -> None:
        declare(host)
        before = state(host)
        declare(host, identities=MORE, confirm={"by": "reconnect", "timeout": 1})
        host.run(["kill", "-9", waiting(host)["switch"].split()[-1]])
        time.sleep(1.1)
        assert waits(host)
        assert program(host, "apply").returncode == 0
        undone(host, before, 1)

    def test_a_module_run_undoes_it_too(self, host: Host) -> None:
        declare(host)
        before = state(host)
        declare(host, identities=MORE, confirm={"by": "reconnect", "timeout": 1})
        host.run(["kill", "-9", waiting(host)["switch"].split()[-1]])
        time.sleep(1.1)
        declare(host)
        undone(host, before, 1)

    def test_killed_between_confirming_and_clearing_up_it_is_confirmed(self, host: Host) -> None:
        declare(host, confirm={"by": "reconnect", "timeout": 3})
        changed = host.shell("ip -N rule show")
        host.run(["mv", f"{onhost.SETS}/main.pending", f"{onhost.SETS}/main.json"])
        eventually(lambda: not waits(host), 15)
        assert host.shell("ip -N rule show") == changed

    @pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
    def test_the_module_is_killed_and_what_waits_undoes(self, host: Host, delay: float) -> None:
        declare(host)
        before = state(host)
        module = host.popen(
            [sys.executable, "-c", onhost.MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={"PYTHONPATH": str(onhost.COLLECTIONS), "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        with module.stdin:
            module.stdin.write(json.dumps({"identities": MORE, "confirm": {"by": "reconnect", "timeout": 3}}).encode())
        eventually(lambda: waits(host), 60)
        time.sleep(delay)
        os.killpg(module.pid, signal.SIGKILL)  # with nsenter, which waits for it
        module.wait()
        if '"switch": ""' in host.read(ARMED):  # so early that nothing was started yet
            time.sleep(3)
            program(host, "apply")
        undone(host, before, 20)


class TestFailedWrite:
    def test_what_cannot_be_written_down_is_undone(self, host: Host) -> None:
        """The records are on a file system that takes nothing any more within the window, and for good."""
        host.shell("mkdir -p /etc/fleetvpn && mount -t tmpfs -o size=64k none /etc/fleetvpn")
        declare(host)
        before = state(host)
        made = declare(host, identities=MORE, confirm={"by": "reconnect", "timeout": ENOUGH})
        host.run(["mount", "-o", "remount,ro", "/etc/fleetvpn"])
        done = host.run(made["confirm"]["command"], check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        eventually(lambda: not waits(host), ENOUGH + 10)
        host.run(["flock", LOCK, "true"], check=False)
        pending = f"{onhost.SETS}/main.pending"  # which could not be removed
        assert [line for line in state(host) if not line.endswith(pending)] == before
        host.run(["mount", "-o", "remount,rw", "/etc/fleetvpn"])
        assert not declare(host).get("failed")
        assert not seen(host, pending).exists()


class TestWatch:
    def test_it_holds_to_the_new_state_and_then_to_the_earlier_one(self, host: Host) -> None:
        declare(host)
        before = state(host)
        watching = host.popen([onhost.PROGRAM, "watch"])
        try:
            declare(host, identities=MORE, confirm={"by": "reconnect", "timeout": 8})
            host.run(["ip", "rule", "del", "from", "10.9.0.0/16", "iif", "lo", "type", "unreachable"])
            host.run(["ip", "addr", "add", f"{onhost.SECOND}/32", "dev", onhost.TUNNEL])
            eventually(lambda: "unreachable" in onhost.rules_from(host, "10.9.0.0/16"), 5)
            eventually(lambda: onhost.rules_from(host, onhost.SECOND) != [], 5)
            host.run(["ip", "addr", "del", f"{onhost.SECOND}/32", "dev", onhost.TUNNEL])
            eventually(lambda: not waits(host), 15)
            eventually(lambda: "10.9.0.0/16" not in host.shell("ip rule show"), 5)
            host.run(["ip", "addr", "add", "10.8.0.1/32", "dev", onhost.UPLINK])
            host.run(["ip", "addr", "del", "10.8.0.1/32", "dev", onhost.UPLINK])
            time.sleep(1)
            assert "10.9.0.0/16" not in host.shell("ip rule show")
            assert [line for line in before if INSIDE in line and "lookup" in line] == [
                line for line in state(host) if INSIDE in line and "lookup" in line
            ]
        finally:
            watching.send_signal(signal.SIGTERM)

    def test_the_watch_says_once_that_it_waits(self, host: Host) -> None:
        declare(host)
        watch = Watch(host)
        declare(host, identities=MORE, **LONG)
        for number in range(3):
            host.run(["ip", "addr", "add", f"10.7.0.{number}/32", "dev", onhost.TUNNEL])
            time.sleep(1)  # the seconds that are left are fewer
        assert len([line for line in watch.end() if "unless confirmed" in line]) == 1


class TestTwo:
    def test_the_second_is_told_who_holds_the_host_and_for_how_long(self, host: Host) -> None:
        declare(host, env={"USER": "alice"}, **LONG)
        failed = declare(host, env={"USER": "bob"}, identities=MORE)
        assert failed["failed"]
        assert "the change of set main by alice is undone in " in failed["msg"]
        assert " s unless confirmed" in failed["msg"]
        assert "\n" not in failed["msg"]

    def test_so_it_is_while_the_first_still_probes(self, host: Host) -> None:
        probe = {"by": "probe", "timeout": 60, "address": "198.51.100.99", "port": 8080}
        first = {"identities": onhost.IDENTITIES, "confirm": probe}
        command = [sys.executable, "-c", onhost.MODULE]
        env = {"PYTHONPATH": str(onhost.COLLECTIONS), "PYTHONDONTWRITEBYTECODE": "1", "USER": "alice"}
        prober = host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env, text=True)
        assert prober.stdin
        prober.stdin.write(json.dumps(first))
        prober.stdin.close()
        eventually(lambda: waits(host), 30)
        assert is_locked(host)
        failed = declare(host, env={"USER": "bob"}, identities=MORE)
        assert "the change of set main by alice is undone in " in failed["msg"]
        assert is_locked(host)  # nobody waited for the first one
        assert prober.poll() is None

    def test_one_with_nothing_to_change_is_not_refused(self, host: Host) -> None:
        third = {"identities": None, "set": "other", "rules": [{"priority": 900, "from": "10.3.0.0/16", "table": "77"}]}
        declare(host, **third)
        declare(host, **LONG)
        assert not declare(host, **third).get("failed", False)
        assert declare(host, **{**third, "rules": []}).get("failed", False)

    def test_one_with_nothing_to_change_waits_for_no_other(self, host: Host) -> None:
        declare(host)
        holder = host.popen(["flock", LOCK, "sleep", "600"])
        eventually(lambda: is_locked(host))
        assert not declare(host)["changed"]
        assert holder.poll() is None
        assert is_locked(host)
        with pytest.raises(subprocess.TimeoutExpired):
            host.run([onhost.PROGRAM, "apply"], timeout=2)


class TestProbe:
    def test_what_answers_confirms(self, host: Host) -> None:
        with host.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.bind((onhost.OUTSIDE, 8080))
            server.listen()
            probe = {"by": "probe", "timeout": 20, "address": onhost.OUTSIDE, "port": 8080}
            made = declare(host, confirm=probe, keep_paths=[{"to": onhost.OUTSIDE}])
            assert made["confirm"] == {"state": None}, made
            assert not waits(host)
            assert not declare(host)["changed"]

    def test_what_does_not_answer_undoes_at_once(self, host: Host) -> None:
        before = state(host)
        probe = {"by": "probe", "timeout": 2, "address": onhost.OUTSIDE, "port": 8080}
        failed = declare(host, confirm=probe)
        assert failed["field"] == "confirm.address"
        assert state(host) == before
        assert not waits(host)

    def test_it_needs_an_address_and_a_port(self, host: Host) -> None:
        assert declare(host, confirm={"by": "probe", "port": 1})["field"] == "confirm.address"
        assert declare(host, confirm={"by": "probe", "address": "192.0.2.1"})["field"] == "confirm.port"


class TestProbeByPaths:
    """From a host with a tunnel, to one that is far away by either way."""

    FAR = plan.CORPORATE_HOST[0]
    IDENTITIES: t.ClassVar[list[dict[str, t.Any]]] = [
        {"name": "outside", "interface": "auto"},
        {"name": "inside", "interface": "vpn0", "gateway": "none"},
    ]
    CHANGED: t.ClassVar[list[dict[str, t.Any]]] = [IDENTITIES[0], {**IDENTITIES[1], "pools": ["10.9.0.0/16"]}]
    KEPT: t.ClassVar[list[dict[str, t.Any]]] = [
        {"to": FAR, "from": "inside"},
        {"to": FAR, "from": "outside", "oif": "up0", "fwmark": "7"},
    ]

    @pytest.fixture
    def lab(self) -> t.Iterator[Lab]:
        with Lab() as lab:
            lab.serve(lab.corporate)
            yield lab

    def client(self, lab: Lab) -> Client:
        client = lab.client("c", "standin")
        onhost.provide_pyroute2(client.host)
        client.up()
        declare(client.host, identities=self.IDENTITIES)
        client.host.shell(
            "nft 'add table ip seen; add chain ip seen out { type filter hook output priority 0; };"
            f" add rule ip seen out ip saddr {client.outside[0]} tcp dport {PORT} mark 7 counter'"
        )
        return client

    def change(self, client: Client, seconds: int) -> dict[str, t.Any]:
        confirm = {"by": "probe", "timeout": seconds, "address": self.FAR, "port": PORT}
        return declare(client.host, identities=self.CHANGED, confirm=confirm, keep_paths=self.KEPT)

    def test_each_is_tried_with_its_source_device_and_mark(self, lab: Lab) -> None:
        client = self.client(lab)
        with lab.capture(lab.corporate) as arrived, lab.capture(client.host) as left:
            made = self.change(client, 20)
        assert (made["changed"], made["confirm"]) == (True, {"state": None})
        inside, outside = client.inside[0], client.outside[0]
        assert {each.source for each in arrived.packets(outgoing=False, dport=PORT)} == {inside, outside}
        assert left.left_by(source=inside, dport=PORT) == {"vpn0"}
        assert left.left_by(source=outside, dport=PORT) == {"up0"}
        assert "counter packets 0 " not in client.host.shell("nft list table ip seen")

    def test_one_that_is_dead_undoes_the_change_and_is_named(self, lab: Lab) -> None:
        client = self.client(lab)
        before = state(client.host)
        lab.gateway.run(["ip", "route", "replace", "blackhole", f"{client.inside[0]}/32"])
        failed = self.change(client, 4)
        assert failed["field"] == "confirm.address"
        assert f"port {PORT} cannot be reached from {client.inside[0]}: " in failed["msg"]
        assert state(client.host) == before
        assert not waits(client.host)


def test_a_path_to_keep_that_changes_undoes_the_change(host: Host) -> None:
    before = state(host)
    failed = declare(host, keep_paths=[{"to": onhost.FAR, "from": INSIDE}])
    assert (failed["field"], state(host)) == ("paths", before)
    assert "dev: fvtup0 before, fvtvpn0 now" in failed["msg"]
