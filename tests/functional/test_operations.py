# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator does on a host in an incident, with the program alone: suspend, resume, go back.

And what ends by itself.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._version import VERSION

from tests.functional import pages, playbooks
from tests.functional.onhost import (
    FAR,
    IDENTITIES,
    INSIDE,
    SETS,
    TUNNEL,
    UPLINK,
    connect,
    declare,
    eventually,
    play,
    program,
    reboot,
    rules,
    seen,
    status,
    way,
)
from tests.functional.watching import Watch
from tests.lab import Host
from tests.unit.plugins.module_utils.exposition import parsed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

DISABLED = "/etc/fleetvpn/disabled"
NOTES = "/etc/fleetvpn/notes.json"
# Everything that is ever changed on a host: rules, routes, device groups, sysctls, a device of our own, the guard.
FIRST: dict[str, t.Any] = {
    "identities": [IDENTITIES[0], {**IDENTITIES[1], "destinations": ["10.77.0.0/16"]}],
    "unbound": "inside",
    "unbound_backstop": True,
    "sysctls": ["rp_filter"],
}
SECOND: dict[str, t.Any] = {
    "set": "second",
    "identities": [{"name": "third", "interface": "fvtvpn1", "gateway": "none", "addresses": ["10.8.0.1"]}],
    "sysctls": ["rp_filter"],
}
# The kernel adds routes for link-local addresses when it has seen that nobody else has them.
_STATE = """
for family in -4 -6; do ip -N $family rule; ip -N $family route show table all | grep -v fe80: ; done
ip -N -o link | sed 's/^[0-9-]*: //; s/state [^ ]*//; s/link.*//'
nft -s list ruleset
grep -r . /proc/sys/net/ipv4/conf/*/rp_filter /etc/iproute2
"""


@pytest.fixture
def host(make: t.Callable[[str], Host]) -> Host:
    """A host with its VPN up, no reverse-path filter, and nothing of ours."""
    host = make("h")
    connect(host, INSIDE)
    host.shell(f"echo 0 >/proc/sys/net/ipv4/conf/{UPLINK}/rp_filter")
    return host


def state(host: Host) -> list[str]:
    """All that a host is, as far as routing is concerned."""
    return sorted(host.shell(_STATE).splitlines())


def differs(host: Host, before: list[str]) -> list[str]:
    """What is not as it was."""
    now = state(host)
    return [f"-{line}" for line in before if line not in now] + [f"+{line}" for line in now if line not in before]


def ours(host: Host) -> list[str]:
    """Our rules."""
    return [line for line in rules(host) if "proto 151" in line]


class TestSuspended:
    def test_is_the_host_to_the_letter_and_comes_back_to_the_letter(self, host: Host) -> None:
        before = state(host)
        declare(host, **FIRST)
        declare(host, **SECOND)
        with_us = state(host)
        assert f"/proc/sys/net/ipv4/conf/{UPLINK}/rp_filter:1" in with_us
        records = {name: seen(host, f"{SETS}/{name}.json").read_bytes() for name in ("main", "second")}
        done = program(host, "suspend")
        assert (done.returncode, differs(host, before)) == (0, []), done.stderr
        assert "main: suspended, " in done.stdout
        assert "this host is suspended by " in done.stdout
        assert {name: seen(host, f"{SETS}/{name}.json").read_bytes() for name in records} == records
        found = status(host)
        assert (found["state"], found["ok"]) == ("suspended", False)
        assert "this host is suspended" in program(host, "status").stdout
        assert program(host, "resume").returncode == 0
        assert differs(host, with_us) == []
        assert status(host)["state"] == "pending"  # as before: the second set's device is not there
        told = program(host, "status", "--history").stdout
        assert [line.split(": ")[1].split(" ")[0] for line in told.splitlines()] == ["resumed", "suspended"]

    def test_stays_so_over_a_boot_an_apply_and_a_play(self, host: Host, make: t.Callable[[str], Host]) -> None:
        declare(host)
        assert program(host, "suspend").returncode == 0
        after = make("after")
        connect(after, INSIDE)
        reboot(host, after)
        done = program(after, "apply")
        assert (done.returncode, ours(after)) == (0, [])
        assert "main: is suspended, and so nothing of it is in the kernel" in done.stderr
        assert [entry["done"] for entry in status(after)["history"]] == ["suspended"]
        for wanted in ({}, {"check": True}, {"state": "absent"}):
            refused = declare(after, **wanted)
            assert refused.get("failed")
            assert (refused["field"], refused["value"]) == ("suspended", DISABLED)
            assert "fleetvpn-endpoint resume" in refused["accepted"]
        assert program(after, "resume").returncode == 0
        assert way(after, INSIDE) == TUNNEL
        assert {step["kind"] for step in declare(after)["plan"]} == {"file"}  # a boot brings no units along here
        done_by_then = [entry["done"] for entry in status(after)["history"]]
        assert done_by_then == ["accepted", "resumed", "refused", "suspended"]

    def test_is_in_the_history_and_in_the_report(self, host: Host, tmp_path: pathlib.Path) -> None:
        before = state(host)
        declare(host)
        assert program(host, "suspend").returncode == 0
        assert differs(host, before) == []
        (paused,) = report(host, tmp_path)["hosts"]
        assert (paused["state"], len(paused["reasons"])) == ("drifted", 1)
        assert paused["reasons"][0].startswith("suspended by ")
        assert program(host, "resume").returncode == 0
        (resumed,) = report(host, tmp_path)["hosts"]
        assert resumed["state"] == "proven"
        done = [each["done"] for each in resumed["repairs"]]
        assert done == ["resumed", "suspended"]
        assert done == [each["done"] for each in status(host)["history"]]
        page = (tmp_path / "fleet-report.html").read_text()
        assert all(each["object"].split()[1] in page for each in resumed["repairs"])

    def test_can_be_done_with_touch_and_rm(self, host: Host) -> None:
        declare(host)
        host.shell(f"touch {DISABLED}")
        assert "suspended until it is resumed" in program(host, "apply").stdout
        assert ours(host) == []
        host.shell(f"rm {DISABLED}")
        assert program(host, "apply").returncode == 0
        assert way(host, INSIDE) == TUNNEL
        assert status(host)["history"] == []

    def test_can_be_done_without_the_program(self, host: Host) -> None:
        """As the guide says."""
        declare(host)
        host.shell(f"touch {DISABLED}")
        shown = "".join(
            text for _kind, text in pages.blocks("guide_incident.rst", "If the program itself does not run")
        )
        commands = [line for line, _said in pages.commands(shown) if line.startswith(("ip ", "nft delete "))]
        assert len(commands) == 3
        for command in commands:
            host.shell(command)
        assert ours(host) == []
        assert "fleetvpn" not in host.run(["nft", "list", "tables"]).stdout
        assert program(host, "apply").returncode == 0
        assert program(host, "resume").returncode == 0
        assert way(host, INSIDE) == TUNNEL

    def test_is_left_alone_by_the_watch(self, host: Host) -> None:
        declare(host)
        watch = Watch(host)
        assert program(host, "suspend").returncode == 0
        host.run(["ip", "addr", "add", "10.9.0.6/32", "dev", TUNNEL])
        eventually(lambda: any("is suspended" in line for line in watch.lines()))
        eventually(watch.is_waiting)
        assert ours(host) == []
        assert program(host, "resume").returncode == 0
        assert way(host, "10.9.0.6") == TUNNEL
        watch.end()
        kinds = {entry["done"] for entry in status(host)["history"]}
        assert kinds == {"suspended", "resumed"}

    def test_ends_by_itself(self, host: Host, make: t.Callable[[str], Host]) -> None:
        declare(host)
        done = program(host, "suspend", "--for", "3s")
        assert (done.returncode, ours(host)) == (0, []), done.stderr
        after = make("after")
        connect(after, INSIDE)
        reboot(host, after)
        assert program(after, "apply").returncode == 0
        for each in (host, after):
            eventually(lambda each=each: way(each, INSIDE) == TUNNEL, 60)  # type: ignore[misc]
            assert not seen(each, DISABLED).exists()
            eventually(lambda each=each: not seen(each, "/run/fleetvpn/due.json").exists())  # type: ignore[misc]
        assert "at 20" in program(host, "status", "--history").stdout

    def test_early_leaves_no_process_behind(self, host: Host) -> None:
        declare(host)
        program(host, "suspend", "--for", "2h")
        handle = json.loads(seen(host, "/run/fleetvpn/due.json").read_text())["handle"]
        assert handle.startswith("process ")
        program(host, "resume")
        assert not seen(host, "/run/fleetvpn/due.json").exists()
        eventually(lambda: "wake" not in host.shell("cat /proc/[0-9]*/cmdline 2>/dev/null || true"))

    @pytest.mark.parametrize("period", ["2", "0h", "2 h", "-1h", "99999h"])
    def test_for_a_time_that_is_none_is_refused(self, host: Host, period: str) -> None:
        declare(host)
        before = state(host)
        done = program(host, "suspend", f"--for={period}")
        assert done.stderr == (
            f"fleetvpn-endpoint: for: '{period}' is no time; accepted: 1 to 9999 with s, m, h or d behind it, as 2h\n"
        )
        assert (done.returncode, differs(host, before)) == (1, [])

    def test_undoes_a_change_that_waits(self, host: Host) -> None:
        before = state(host)
        waiting = declare(host, confirm={"by": "reconnect", "timeout": 60})
        assert waiting["confirm"]["state"] == "armed"
        assert program(host, "--version").returncode != 0  # it is not installed before the confirmation
        command = [*waiting["confirm"]["command"][:3], "suspend"]
        assert host.run(command, check=False).returncode == 0
        assert differs(host, before) == []
        assert host.run(["ip", "route", "get", FAR], check=False).returncode == 0


class TestMonitored:
    def test_has_a_status_for_each_state_of_the_host(self, host: Host) -> None:
        declare(host)
        assert monitored(host) == (0, "OK - 2 identities, 1 sets | proven=2 pending=0 wrong=0")
        program(host, "suspend")
        assert monitored(host)[0] == 1
        program(host, "resume")
        host.run(["ip", "rule", "del", "pref", ours(host)[0].partition(":")[0]])
        level, line = monitored(host)
        assert (level, line.partition(" | ")[0]) == (2, "CRITICAL - main drifted")
        host.shell(f"rm {SETS}/*.json")
        assert monitored(host) == (3, "UNKNOWN - no sets")

    def test_has_metrics_that_a_scraper_takes(self, host: Host) -> None:
        declare(host, **FIRST)
        found = parsed(program(host, "status", "--prometheus").stdout)
        assert found[f'fleetvpn_info{{version="{VERSION}"}}'] == found["fleetvpn_ok"] == 1
        assert found['fleetvpn_set_state{set="main",state="proven"}'] == 1
        assert found['fleetvpn_identity_verdict{set="main",identity="inside",verdict="proven"}'] == 1
        assert time.time() - found['fleetvpn_set_changed_timestamp_seconds{set="main"}'] < 600


def monitored(host: Host) -> tuple[int, str]:
    """What the program tells a monitoring agent."""
    done = program(host, "status", "--monitoring")
    return done.returncode, done.stdout.removeprefix("FLEETVPN ").rstrip("\n")


POOLED: dict[str, t.Any] = {"identities": [IDENTITIES[0], {**IDENTITIES[1], "pools": ["10.9.0.0/16"]}]}


def generations(host: Host) -> list[dict[str, t.Any]]:
    """As the program lists them."""
    found: list[dict[str, t.Any]] = json.loads(program(host, "status", "--generations", "--json").stdout)
    return found


class TestGenerations:
    def test_say_who_declared_what_when_and_in_which_play(self, host: Host, tmp_path: pathlib.Path) -> None:
        declare(host)
        task = {"fleetvpn.routing.endpoint": {**POOLED, "confirm": {"by": "none"}}}
        done = play(host, task, directory=tmp_path)
        assert done.returncode == 0, done.stdout
        declared = generations(host)[0]["when"]
        host.run(["ip", "addr", "add", "10.9.0.6/32", "dev", TUNNEL])
        program(host, "apply")
        now, *_same, first = generations(host)
        assert (now["current"], now["play"], now["version"], now["when"]) == (True, "all", VERSION, declared)
        assert (first["generation"], first["current"], first["play"]) == (1, False, "")
        assert len(now["digest"]) == 64
        shown = program(host, "status", "--generations").stdout.splitlines()
        assert shown[0].split() == ["set", "generation", "when", "user", "controller", "play", "version"]
        assert "(current)" in shown[1]

    def test_can_be_returned_to(self, host: Host) -> None:
        declare(host)
        first = state(host)
        declare(host, **POOLED)
        second = state(host)
        done = program(host, "rollback")
        assert (done.returncode, differs(host, first)) == (0, []), done.stderr
        assert done.stdout.endswith("; as generation 1 was\n")
        assert not declare(host)["changed"]
        assert program(host, "rollback").stdout.endswith("; as generation 2 was\n")
        assert differs(host, second) == []
        assert program(host, "rollback", "1").returncode == 0
        assert differs(host, first) == []
        again = json.loads(program(host, "rollback", "1", "--json").stdout)
        assert again == {"generation": 1, "changed": False, "command": None}
        refused = program(host, "rollback", "77")
        assert refused.returncode == 1
        line = "fleetvpn-endpoint: generation: 77 is no generation of set main that can be read; accepted: 1, 2, 3"
        assert refused.stderr.startswith(line)
        program(host, "suspend")
        assert "is suspended" in program(host, "rollback", "2").stderr
        assert ours(host) == []

    def test_that_would_go_wrong_by_now_are_refused_unless_said_otherwise(self, host: Host) -> None:
        silent = [{**IDENTITIES[0], "gateway": "198.51.100.77"}, IDENTITIES[1]]
        declare(host, identities=silent, what_if="skip")
        then = state(host)
        declare(host)
        now = state(host)
        refused = program(host, "rollback", "1")
        assert (refused.returncode, differs(host, now)) == (1, [])
        assert "198.51.100.77" in refused.stderr
        done = program(host, "rollback", "1", "--what-if", "report")
        assert (done.returncode, differs(host, then)) == (0, [])
        assert "198.51.100.77" in done.stderr

    def test_without_a_confirmation_do_not_stay(self, host: Host) -> None:
        declare(host)
        declare(host, **POOLED)
        now = state(host)
        done = json.loads(program(host, "rollback", "--timeout", "3", "--json").stdout)
        assert differs(host, now)
        assert done["command"][3] == "confirm"
        eventually(lambda: not differs(host, now), 60)
        assert [entry["generation"] for entry in generations(host)] == [2, 1]

    def test_of_a_fleet(self, host: Host, tmp_path: pathlib.Path) -> None:
        declare(host)
        first = state(host)
        declare(host, **POOLED)
        now = state(host)
        exit_status, text = roll_back(host, tmp_path, "--check", rollback_generation=1)
        assert (exit_status, differs(host, now)) == (0, []), text
        for _time in range(2):
            exit_status, text = roll_back(host, tmp_path, rollback_generation=1)
            assert exit_status == 0, text
            assert differs(host, first) == []
        assert "changed=0" in text
        assert not seen(host, "/run/fleetvpn/armed.json").exists()


class TestRefused:
    """A host that refused a change remembers it, and nothing else has become of it."""

    BAD: t.ClassVar[dict[str, t.Any]] = {"paths": [{"from": INSIDE, "to": FAR, "expect": {"dev": UPLINK}}]}

    def test_is_told_until_something_is_accepted_also_after_a_boot(
        self, host: Host, make: t.Callable[[str], Host], tmp_path: pathlib.Path
    ) -> None:
        declare(host)
        before = state(host)
        assert declare(host, **POOLED, **self.BAD, check=True)["failed"]
        assert not seen(host, NOTES).exists()
        why = declare(host, **POOLED, **self.BAD)["msg"]
        assert (differs(host, before), seen(host, NOTES).stat().st_mode & 0o777) == ([], 0o600)
        assert f"main: refused {why}" in program(host, "status", "--history").stdout
        after = make("after")
        connect(after, INSIDE)
        reboot(host, after)
        assert program(after, "apply").returncode == 0
        (found,) = report(after, tmp_path)["hosts"]
        assert (found["state"], found["reasons"][0].endswith(why)) == ("wrong", True)
        declare(after, **POOLED)
        (found,) = report(after, tmp_path)["hosts"]
        assert (found["state"], found["reasons"]) == ("proven", [])
        declare(after, state="absent")
        assert not seen(after, NOTES).exists()

    def test_a_change_that_nobody_confirmed_is_one(self, host: Host) -> None:
        declare(host)
        declare(host, **POOLED, confirm={"by": "reconnect", "timeout": 2})
        eventually(lambda: any("was not confirmed" in entry["object"] for entry in status(host)["history"]), 30)
        armed = declare(host, **POOLED, confirm={"by": "reconnect", "timeout": 60})["confirm"]
        assert [entry["done"] for entry in status(host)["history"]] == ["refused"]
        host.run(armed["command"])
        assert [entry["done"] for entry in status(host)["history"]] == ["accepted", "refused"]


def report(host: Host, directory: pathlib.Path) -> dict[str, t.Any]:
    """What playbook report says, for programs; the page is beside it."""
    inventory(host, directory)
    status_, text = playbooks.play(directory, "report")
    assert status_ == 0, text
    found: dict[str, t.Any] = json.loads((directory / "fleet-report.json").read_text())
    return found


def roll_back(host: Host, directory: pathlib.Path, *arguments: str, **variables: t.Any) -> tuple[int, str]:
    """The playbook."""
    inventory(host, directory)
    return playbooks.play(directory, "rollback", *arguments, **variables)


def inventory(host: Host, directory: pathlib.Path) -> None:
    """Of this one host."""
    variables = {
        "ansible_connection": "lab",
        "ansible_lab_pid": host.pid,
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_become_method": "ansible.builtin.su",
    }
    (directory / "inventory.yml").write_text(json.dumps({"vpn_endpoints": {"hosts": {"h": variables}}}))


def soon(seconds: float) -> str:
    """A point in time as an author may write it, in a zone that is not the host's."""
    zone = datetime.timezone(datetime.timedelta(hours=3))
    return (datetime.datetime.now(zone) + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")


class TestExpires:
    def test_the_host_ends_the_set_by_itself(self, host: Host, make: t.Callable[[str], Host]) -> None:
        """One that was not booted meanwhile, one that was, and one that was off."""
        declare(host)
        alone = rules(host)
        end = soon(30)
        found = declare(host, **{**SECOND, "expires": end})
        assert found["changed"], found
        assert rules(host) != alone
        assert f"second: ends at {end}" in program(host, "status").stdout
        booted, off = make("booted"), make("off")
        for each in (booted, off):
            connect(each, INSIDE)
            reboot(host, each)
        assert program(booted, "apply").returncode == 0
        eventually(lambda: rules(host) == alone, 120)
        eventually(lambda: not seen(host, f"{SETS}/second.json").exists())
        eventually(lambda: rules(booted) == alone, 120)
        done = program(off, "apply")
        assert done.stdout.startswith("second: ended, ")
        assert rules(off) == alone
        assert program(host, "status", "--history").stdout.endswith(f"second: ended at {end}\n")
        eventually(lambda: not seen(host, "/run/fleetvpn/due.json").exists())
        assert status(host)["state"] == "proven"

    def test_a_task_that_comes_too_late_says_so(self, host: Host) -> None:
        declare(host)
        alone = rules(host)
        late = declare(host, **{**SECOND, "expires": soon(-60)})
        assert (late["changed"], rules(host)) == (False, alone)
        assert "set second has ended at" in str(late["warnings"])
        declare(host, **SECOND)
        announced = declare(host, check=True, **{**SECOND, "expires": soon(-60)})
        gone = declare(host, **{**SECOND, "expires": soon(-60)})
        assert gone["changed"]
        assert gone["plan"] == announced["plan"]
        assert rules(host) == alone

    @pytest.mark.parametrize(
        ("params", "line"),
        [
            ({"expires": "2099-01-01"}, "expires: '2099-01-01' is no point in time; accepted: a date and a time with"),
            ({"expires": "2099-01-01T00:00:00"}, "is no point in time"),
            ({"expires": soon(60), "persistent": False}, "would be ended by nobody; accepted: a persistent set"),
        ],
    )
    def test_what_nobody_could_end_is_refused(self, host: Host, params: dict[str, t.Any], line: str) -> None:
        found = declare(host, **params)
        assert found.get("failed")
        assert line in found["msg"]
        assert ours(host) == []

    def test_a_change_that_waits_is_confirmed_or_undone_first(self, host: Host) -> None:
        end = time.time() + 40
        waiting = declare(host, confirm={"by": "reconnect", "timeout": 200}, expires=soon(40))
        assert waiting["confirm"]["state"] == "armed", waiting
        time.sleep(max(0.0, end + 1 - time.time()))
        assert ours(host)
        assert host.run(waiting["confirm"]["command"], check=False).returncode == 0
        eventually(lambda: ours(host) == [], 60)
