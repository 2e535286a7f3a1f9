# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nobody confirms is undone by timers of systemd: the routing, and the restart of a VPN that it was for."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time
import typing as t

import pytest

from extensions.molecule.shared.network import Network, state
from tests.lab.host import Host

ARMED = "/run/fleetvpn/armed.json"
WINDOW = 20  # seconds, of which a busy machine may need some between two hosts
CHANGE = {
    "endpoint_rules": [{"priority": 900, "from": "10.77.0.0/16", "table": "900"}],
    "endpoint_confirm": {"timeout": WINDOW},
}
# A declared path that is none, so that the declaration after the restart fails.
WRONG = {"endpoint_paths": [{"from": "inside", "to": "203.0.113.10", "expect": {"identity": "outside"}}]}
LASTS = 60  # seconds that a restart which is not kept lasts here
UNDO = "fleetvpn-restart-undo-*"
RESTARTED = {
    "ipsec": (("fvt-split", "fvt-full"), "/etc/strongswan.d/fleetvpn.conf", "strongswan.service"),
    "wireguard": (("fvt-full",), "/etc/systemd/system/wg-quick@wg0.service.d/fleetvpn.conf", "wg-quick@wg0.service"),
}


def test_a_killed_controller(network: Network, begin: t.Callable[..., subprocess.Popen[str]]) -> None:
    hosts = [network.host(client) for client in network.clients]
    before = [state(host) for host in hosts]
    controller = begin(CHANGE)
    wait(lambda: all(is_there(host, ARMED) for host in hosts), 60)
    for pid in (controller.pid, *descendants(controller.pid)):
        os.kill(pid, signal.SIGKILL)
    controller.communicate()
    assert all(timers(host, "fleetvpn-endpoint-restore-*") for host in hosts)
    wait(lambda: not any(is_there(host, ARMED) for host in hosts), WINDOW + 10)
    assert [state(host) for host in hosts] == before
    assert not any(timers(host, "fleetvpn-endpoint-restore-*") for host in hosts)


def test_a_restart_whose_declaration_fails(
    network: Network, begin: t.Callable[..., subprocess.Popen[str]], playbook: t.Callable[..., str]
) -> None:
    """The VPN is put back and started once more; another run, that succeeds, keeps it."""
    if network.clients[0].kind not in RESTARTED:
        pytest.skip("no role restarts this VPN")
    names, path, unit = RESTARTED[network.clients[0].kind]
    hosts = [network.host(client) for client in network.clients if client.name in names]
    wanted = [host.read(path) for host in hosts]
    for host in hosts:
        host.run(["sh", "-ec", f"systemctl stop {unit}; rm {path}; systemctl daemon-reload; systemctl start {unit}"])
    network.wait_for_tunnels()
    try:
        controller = begin({**WRONG, "__endpoint_undo_after": LASTS}, "--limit", ",".join(names))
        wait(lambda: all(timers(host, UNDO) for host in hosts), 120)
        assert [host.read(path) for host in hosts] == wanted
        output, _none = controller.communicate()
        assert controller.returncode, output
        wait(lambda: not any(is_there(host, path) for host in hosts), LASTS + 30)
        gone = time.monotonic()
        wait(lambda: all(started(host, unit) > gone - 5 for host in hosts), 30)
        assert not any(timers(host, UNDO) for host in hosts)
    finally:
        playbook("--limit", ",".join(names))
        network.wait_for_tunnels()
    assert [host.read(path) for host in hosts] == wanted
    assert not any(timers(host, UNDO) for host in hosts)
    assert not any(host.run(["sh", "-c", f"ls {path}?*"], check=False).stdout for host in hosts)


@pytest.fixture
def begin() -> t.Iterator[t.Callable[..., subprocess.Popen[str]]]:
    """Start the playbook with variables; what is left of it is killed."""
    begun: list[subprocess.Popen[str]] = []

    def start(variables: dict[str, t.Any], *options: str) -> subprocess.Popen[str]:
        site = str(pathlib.Path(__file__).parents[2] / "converge.yml")
        inventory, extra = os.environ["FLEETVPN_INVENTORY"], json.dumps(variables)
        command = ["ansible-playbook", "-i", inventory, site, "-e", extra, *options]
        made = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        begun.append(made)
        return made

    yield start
    for one in begun:
        one.kill()
        one.wait()


def descendants(pid: int) -> list[int]:
    """The workers of a controller are in sessions of their own."""
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    children = [int(child) for child in text.split()]
    return [each for child in children for each in (child, *descendants(child))]


def is_there(host: Host, path: str) -> bool:
    return host.run(["test", "-e", path], check=False).returncode == 0


def timers(host: Host, pattern: str) -> list[str]:
    return host.run(["systemctl", "list-units", "--no-legend", "--plain", f"{pattern}.timer"]).stdout.splitlines()


def started(host: Host, unit: str) -> float:
    """When, in seconds of the monotonic clock, which containers have in common with the machine."""
    show = ["systemctl", "show", "--value", "--property", "ActiveEnterTimestampMonotonic", unit]
    return int(host.run(show).stdout) / 1e6


def wait(true: t.Callable[[], bool], seconds: float) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
