# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch: what clients do without a word, followed within a moment, and nothing done when nothing happens."""

from __future__ import annotations

import os
import re
import signal
import time
import typing as t

import pytest

from tests.functional.onhost import (
    INSIDE,
    INSIDE6,
    PROGRAM,
    SECOND,
    SECOND6,
    SETS,
    TUNNEL,
    UPLINK,
    connect,
    declare,
    disconnect,
    eventually,
    program,
    reboot,
    rules,
    rules_from,
    status,
    way,
)
from tests.functional.watching import SOON, Watch, batch
from tests.lab import Host

pytestmark = [pytest.mark.alone, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

WHOLE = ["lookup 2000", "lookup 2002", "unreachable"]


class TestFollows:
    def test_a_changed_address(self, host: Host) -> None:
        batch(host, f"addr add {INSIDE6}/128 dev {TUNNEL} nodad", family=6)
        watch = Watch(host)
        batch(host, f"addr add {SECOND6}/128 dev {TUNNEL} nodad", f"addr del {INSIDE6}/128 dev {TUNNEL}", family=6)
        batch(host, f"addr add {SECOND}/32 dev {TUNNEL}", f"addr del {INSIDE}/32 dev {TUNNEL}")
        assert eventually(lambda: way(host, SECOND) == way(host, SECOND6) == TUNNEL) < SOON
        assert rules_from(host, SECOND) == rules_from(host, SECOND6) == WHOLE
        eventually(lambda: status(host)["state"] == "proven")
        assert watch.end()[-1].endswith(f"inside proven ({TUNNEL}, {SECOND}, {SECOND6})")

    def test_a_second_address(self, host: Host) -> None:
        watch = Watch(host)
        host.run(["ip", "addr", "add", f"{SECOND}/32", "dev", TUNNEL])
        assert eventually(lambda: way(host, SECOND) == TUNNEL) < SOON
        assert way(host, INSIDE) == TUNNEL
        [line] = watch.end()
        assert re.fullmatch(rf"main: \d+ changes; .*inside proven \({TUNNEL}, {INSIDE}, {SECOND}\)", line)

    def test_a_device_that_goes_and_comes_back(self, host: Host) -> None:
        foreign = "from 203.0.113.77 lookup 77 proto 99"
        host.run(["ip", "rule", "add", "pref", "2305", *foreign.split()])
        before = [line.split(" [")[0] for line in rules(host)]
        watch = Watch(host)
        disconnect(host)
        eventually(watch.is_waiting)
        eventually(lambda: status(host)["state"] == "pending")
        assert way(host, INSIDE) == "none"
        assert rules_from(host, INSIDE) == WHOLE
        connect(host, INSIDE)
        assert eventually(lambda: way(host, INSIDE) == TUNNEL) < SOON
        eventually(lambda: status(host)["state"] == "proven")
        assert [line.split(" [")[0] for line in rules(host)] == before
        assert any(foreign in line for line in before)
        watch.end()

    def test_the_vpn_that_comes_after_a_boot(self, make: t.Callable[[str], Host], host: Host) -> None:
        after = make("after")
        reboot(host, after)
        assert program(after, "apply").returncode == 0
        assert rules_from(after, INSIDE) == WHOLE
        assert way(after, INSIDE) == "none"
        watch = Watch(after)
        connect(after, INSIDE)
        took = eventually(lambda: way(after, INSIDE) == TUNNEL)
        print(f"proven {took * 1000:.0f} ms after the VPN came up")
        assert took < SOON
        assert status(after)["state"] == "proven"
        watch.end()

    def test_sets_that_change_while_it_runs(self, host: Host) -> None:
        watch = Watch(host)
        other = {"name": "third", "interface": "fvtvpn1", "gateway": "none", "addresses": ["10.8.0.1"]}
        declare(host, set="second", identities=[other])
        declare(host, state="absent")
        host.run(["ip", "link", "add", "fvtvpn1", "type", "veth", "peer", "name", "fvtpeer2"])
        host.run(["ip", "link", "set", "fvtpeer2", "up"])
        host.run(["ip", "link", "set", "fvtvpn1", "up"])
        host.run(["ip", "addr", "add", "10.8.0.1/32", "dev", "fvtvpn1"])
        assert eventually(lambda: way(host, "10.8.0.1") == "fvtvpn1") < SOON
        assert rules_from(host, INSIDE) == []
        assert all(line.startswith("second: ") for line in watch.end())


class TestIsQuiet:
    def test_without_events(self, host: Host) -> None:
        watch = Watch(host)
        # The kernel itself has late news of new devices, some seconds after a second of silence.
        eventually(lambda: watch.sleeps_for(3), 20)
        assert watch.end() == []

    @pytest.mark.long
    def test_for_a_minute_without_events(self, host: Host) -> None:
        watch = Watch(host)
        eventually(lambda: watch.sleeps_for(3), 20)
        assert watch.sleeps_for(60)
        watch.end()

    def test_after_its_own_changes(self, host: Host) -> None:
        watch = Watch(host)
        # A new tunnel device gets our group: a change that is an event itself.
        disconnect(host)
        connect(host, INSIDE)
        eventually(lambda: way(host, INSIDE) == TUNNEL)
        eventually(lambda: watch.sleeps_for(1), 8)  # the kernel's own duplicate address detection goes on for a while
        watch.end()

    def test_under_a_storm(self, host: Host) -> None:
        watch = Watch(host)
        lines = [f"addr {what} 10.7.0.{n}/32 dev {UPLINK}" for n in range(1, 200) for what in ("add", "del")]
        for _burst in range(5):
            host.run(["ip", "-batch", "-"], stdin="\n".join(lines))
        host.run(["ip", "addr", "add", f"{SECOND}/32", "dev", TUNNEL])
        assert eventually(lambda: way(host, SECOND) == TUNNEL) < 2 * SOON
        watch.end()

    def test_about_what_stays_wrong(self, host: Host) -> None:
        watch = Watch(host)
        host.shell(f"chmod 0666 {SETS}/main.json")
        for _event in range(3):
            host.run(["ip", "link", "set", UPLINK, "down"])
            host.run(["ip", "link", "set", UPLINK, "up"])
            time.sleep(0.4)
        [line] = watch.end()
        assert "is not to be trusted" in line

    def test_in_memory(self, host: Host) -> None:
        watch = Watch(host)
        for number in range(20):
            host.run(["ip", "addr", "add", f"10.7.0.{number}/32", "dev", TUNNEL])
            time.sleep(0.05)
        eventually(lambda: way(host, "10.7.0.19") == TUNNEL)
        print(f"{watch.field('VmHWM')} kB at most")
        assert watch.field("VmHWM") < 45 * 1024
        watch.end()


class TestEnds:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_on_a_signal_and_leaves_everything(self, host: Host, number: int) -> None:
        before = rules(host)
        watch = Watch(host)
        host.run(["kill", f"-{int(number)}", str(watch.pid)])
        assert watch.process.wait(timeout=5) == 0
        assert rules(host) == before

    def test_while_a_module_holds_the_lock(self, host: Host) -> None:
        watch = Watch(host)
        holder = host.popen(["flock", "/run/fleetvpn/lock", "sleep", "1"])
        time.sleep(0.3)
        host.run(["ip", "addr", "add", f"{SECOND}/32", "dev", TUNNEL])
        time.sleep(0.3)
        assert rules_from(host, SECOND) == []
        holder.wait(timeout=5)
        eventually(lambda: way(host, SECOND) == TUNNEL)
        watch.end()

    def test_it_tells_systemd_when_the_first_round_is_done(self, host: Host) -> None:
        script = (
            "import os, socket, subprocess\n"
            "sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "sock.bind('/run/fvt-notify'); sock.settimeout(10)\n"
            f"child = subprocess.Popen(['{PROGRAM}', 'watch'], env=dict(os.environ, NOTIFY_SOCKET='/run/fvt-notify'))\n"
            "print(sock.recv(100).decode()); child.terminate(); print(child.wait())\n"
        )
        assert host.run(["/usr/bin/python3", "-c", script]).stdout.split() == ["READY=1", "0"]
