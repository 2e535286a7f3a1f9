# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guides, followed on the host that they describe: each declaration is made, each command shows what they say."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import re
import shlex
import typing as t

import pytest
import yaml

from tests.functional import onhost, pages
from tests.lab.host import Host

OMITTED = "..."
# A stand-in for WireGuard: like the real device it gets no link-local address.
UPLINK = """
link set lo up
link add eth0 type veth peer name fvtpeer0
link set fvtpeer0 up
link set eth0 up
addr add 192.0.2.10/24 dev eth0
addr add 2001:db8:2::10/64 dev eth0 nodad
route add default via 192.0.2.1 dev eth0
route add default via 2001:db8:2::1 dev eth0
link add br0 type bridge
link add fvtc0 type veth peer name fvtc1
link set fvtc1 up
link set fvtc0 master br0 up
link set br0 up
addr add 172.20.0.1/24 dev br0
"""
TUNNEL = """
link add wg0 type veth peer name fvtpeer1
link set fvtpeer1 up
link set wg0 addrgenmode none
link set wg0 arp off
link set wg0 up
addr add 198.51.100.10/32 dev wg0
addr add 2001:db8:51::10/128 dev wg0
route add 10.0.0.0/8 dev wg0
"""
DOCKER = """
link add docker0 type bridge
link set docker0 up
addr add 172.17.0.1/16 dev docker0
rule add pref 1000 fwmark 0x1 unreachable
"""


@dataclasses.dataclass(frozen=True)
class Step:
    """A declaration to make, or a command with what it prints, each line's words."""

    declaration: dict[str, t.Any] | None
    command: list[str]
    shown: list[list[str]]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Host]:
    monkeypatch.setattr(onhost, "_UPLINK", UPLINK)
    with onhost.hosts() as make:
        yield make("guide")


def steps(guide: str) -> t.Iterator[Step]:
    for kind, body in pages.blocks(guide):
        if kind == "yaml" and body.startswith("- name:"):
            yield Step(yaml.safe_load(body)[0]["fleetvpn.routing.endpoint"], [], [])
        elif kind == "console":
            for command, shown in pages.commands(body):
                yield Step(None, shlex.split(command), [line.split() for line in shown])


def disagreement(step: Step, printed: str) -> list[list[str]]:
    """The lines of the guide that were not printed, in this order; all lines if others were, and none is left out."""
    found = [line.split() for line in printed.splitlines()]
    if [OMITTED] not in step.shown:
        return [] if step.shown == found else step.shown
    rest = iter(found)
    return [line for line in step.shown if line != [OMITTED] and line not in rest]


def check(host: Host, step: Step) -> None:
    done = host.run(step.command, check=False)
    assert disagreement(step, done.stdout + done.stderr) == [], done.stdout + done.stderr


def test_the_guide_shows_what_the_host_shows(host: Host) -> None:
    host.run(["ip", "-batch", "-"], stdin=TUNNEL)
    followed = list(steps("guide_how_it_works.rst"))
    assert [bool(step.declaration) for step in followed].count(True) == 5
    for step in followed:
        if step.declaration is not None:
            result = onhost.declare(host, **step.declaration)
            assert not result.get("failed"), result["msg"]
        else:
            check(host, step)


def test_the_symptoms_are_as_described(host: Host) -> None:
    """A tunnel that is away; a rule ahead of the block, and the block moved; rules that somebody deletes."""
    ahead, moved, *pending = steps("guide_troubleshooting.rst")
    described = (pages.GUIDES / "guide_troubleshooting.rst").read_text(encoding="utf-8")
    first = next(step.declaration for step in steps("guide_how_it_works.rst") if step.declaration)
    onhost.declare(host, **first)
    for step in pending:
        check(host, step)
    host.run(["ip", "-batch", "-"], stdin=TUNNEL)
    host.run(["ip", "rule", "add", "pref", "1500", "from", "all", "lookup", "main"])
    check(host, ahead)
    failed = onhost.declare(host, **first)
    assert failed["failed"]
    (line,) = (line for line in failed["msg"].split("; ") if line.startswith("inside: 192.0.2.1"))
    assert line in " ".join(described.split())
    assert failed["msg"].endswith("; foreign rule ahead of ours: 1500: from all lookup 254")
    assert moved.declaration
    assert not onhost.declare(host, **moved.declaration).get("failed")
    host.run(["ip", "rule", "flush", "protocol", "151"])
    assert onhost.status(host)["state"] == "drifted"
    assert onhost.program(host, "apply").returncode == 0
    assert onhost.status(host)["state"] == "proven"


def examples(module: str) -> list[dict[str, t.Any]]:
    """The tasks of its EXAMPLES."""
    found = importlib.import_module(f"ansible_collections.fleetvpn.routing.plugins.modules.{module}").EXAMPLES
    return t.cast("list[dict[str, t.Any]]", yaml.safe_load(found))


def test_the_examples_of_the_single_modules_run_one_after_the_other(host: Host, tmp_path: pathlib.Path) -> None:
    """The name of the table stands as long as the rules need it. Each makes or removes what it says."""
    host.run(["ip", "-batch", "-"], stdin=f"{TUNNEL}route del 10.0.0.0/8\n")
    named, *gone = examples("table")
    tasks = [named, *examples("rule"), *examples("route"), *gone]
    done = onhost.play(host, *tasks, directory=tmp_path)
    assert f"ok={len(tasks)} changed={len(tasks)} " in re.sub(" +", " ", done.stdout), done.stdout + done.stderr


def test_the_examples_of_what_only_reads_run(host: Host, tmp_path: pathlib.Path) -> None:
    """On the host of the guide, with Docker's network and a rule that stops what is marked."""
    host.run(["ip", "-batch", "-"], stdin=TUNNEL + DOCKER)
    host.shell("sysctl -qw net.ipv4.ip_forward=1")
    first = next(step.declaration for step in steps("guide_how_it_works.rst") if step.declaration)
    assert not onhost.declare(host, **first).get("failed")
    tasks = [*examples("path_check"), *examples("endpoint_info")]
    done = onhost.play(host, *tasks, directory=tmp_path)
    assert f"ok={len(tasks)} changed=0 " in re.sub(" +", " ", done.stdout), done.stdout + done.stderr


def test_a_full_tunnel_of_wg_quick_is_refused_in_these_words(host: Host) -> None:
    host.shell("mkdir -p /etc/wireguard")
    host.write("/etc/wireguard/wg0.conf", "[Peer]\nAllowedIPs = 0.0.0.0/0\n", 0o600)
    first = next(step.declaration for step in steps("guide_how_it_works.rst") if step.declaration)
    described = " ".join((pages.GUIDES / "guide_troubleshooting.rst").read_text(encoding="utf-8").split())
    assert onhost.declare(host, **first)["msg"].partition(": ")[2] in described
