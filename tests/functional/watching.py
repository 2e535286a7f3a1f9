# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running watch as its tests see it: what it says, what it costs, whether it sleeps."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
import typing as t

from tests.functional.onhost import PROGRAM, eventually, status
from tests.lab import Client, Host
from tests.lab import addresses as plan
from tests.lab.senders import no_leak

# Seconds that the issue allows from an event to a proven path; here with two processors that others use as well.
SOON = 1.0
DAEMON = 5.0  # from the end of a VPN daemon's restart, on a busy machine
STARTED = 60.0


class Watch:
    """A running watch."""

    def __init__(self, host: Host, *, under: t.Sequence[str] = ()) -> None:
        self.host = host
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the watch
        self.process = host.popen([*under, PROGRAM, "watch"], stdout=self._said, stderr=subprocess.STDOUT, text=True)
        eventually(lambda: bool(host.pids("fleetvpn-endpoi")), STARTED)
        self.pid = host.pids("fleetvpn-endpoi")[0]
        eventually(self.is_waiting, STARTED)

    def is_waiting(self) -> bool:
        """It sleeps in poll, with nothing left to read."""
        return "poll" in self._proc("wchan")

    def sleeps_for(self, seconds: float) -> bool:
        """Whether it is not woken even once."""
        before = self.field("voluntary_ctxt_switches")
        time.sleep(seconds)
        return self.field("voluntary_ctxt_switches") == before

    def field(self, name: str) -> int:
        """A number of /proc/PID/status."""
        return int(self.text(name))

    def text(self, name: str) -> str:
        """A line of /proc/PID/status, to its first blank."""
        found = re.search(rf"^{name}:\s+(\S+)", self._proc("status"), re.MULTILINE)
        assert found
        return found[1]

    def cpu(self) -> float:
        """Seconds of processor time that it has taken."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def lost(self) -> int:
        """Events that did not fit into the buffers of its sockets."""
        lines = [line.split() for line in self.host.read("/proc/net/netlink").splitlines()[1:]]
        return sum(int(fields[8]) for fields in lines if int(fields[3], 16))

    def lines(self) -> list[str]:
        """What it has said so far."""
        self._said.seek(0)
        return self._said.read().splitlines()

    @contextlib.contextmanager
    def frozen(self) -> t.Iterator[None]:
        """It sees what happens meanwhile only afterwards, as one."""
        self.host.run(["kill", "-STOP", str(self.pid)])
        yield
        self.host.run(["kill", "-CONT", str(self.pid)])
        self.process.send_signal(signal.SIGCONT)  # nsenter stops with what it started, and would wait for ever

    def end(self) -> list[str]:
        """Ask it to end; what it had said."""
        self.host.run(["kill", "-TERM", str(self.pid)])
        self.process.wait(timeout=10)
        return self.lines()

    def _proc(self, name: str) -> str:
        return self.host.read(f"/proc/{self.pid}/{name}")


def batch(host: Host, *lines: str, family: int = 4) -> None:
    """Lines of ip(8)."""
    host.run(["ip", f"-{family}", "-batch", "-"], stdin="\n".join(lines))


def cable(one: Host, device: str, other: Host, peer: str) -> None:
    """A cable between two hosts, both ends up."""
    end = {"ifname": peer, "net_ns_pid": other.pid}
    one.batch().add("link", "add", ifname=device, kind="veth", peer=end).send()
    one.up(device)
    other.up(peer)


def renumbered(client: Client) -> None:
    """Its VPN gives it other addresses: the watch follows, and nothing leaks meanwhile."""
    watch = Watch(client.host)
    old, fresh = client.inside, [plan.shifted(address, 50) for address in client.inside]
    with no_leak(client.host, *old, *fresh):
        client.renumber(fresh)
        eventually(lambda: status(client.host)["state"] == "proven", DAEMON)
    assert any(fresh[0] in line for line in watch.end())


def killed_and_back(client: Client) -> None:
    """Its VPN daemon dies and is started again: the watch follows, and nothing leaks meanwhile."""
    watch = Watch(client.host)
    with no_leak(client.host, *client.inside):
        client.tunnel.kill()
        eventually(lambda: status(client.host)["state"] == "pending", DAEMON)
        client.up()
        eventually(lambda: status(client.host)["state"] == "proven", DAEMON)
    watch.end()
