# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program on the host: installed by the module, run without Ansible, and mistrustful of its own files."""

from __future__ import annotations

import io
import json
import os
import pathlib
import typing as t
import zipfile

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._host import program as builder
from ansible_collections.fleetvpn.routing.plugins.module_utils._version import VERSION

from tests.functional.onhost import (
    BOOT_UNIT,
    FAR,
    IDENTITIES,
    INSIDE,
    OUTSIDE,
    PROGRAM,
    SECOND,
    SETS,
    TUNNEL,
    UPLINK,
    WATCH_UNIT,
    connect,
    declare,
    play,
    program,
    reboot,
    rules,
    rules_from,
    seen,
    status,
    way,
)
from tests.lab import Host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

OTHER_SET: dict[str, t.Any] = {
    "set": "second",
    "identities": [{"name": "third", "interface": "fvtvpn1", "gateway": "none", "addresses": ["10.8.0.1"]}],
}
FOREIGN = "rule add pref 1500 from 203.0.113.77 lookup 77"


@pytest.fixture
def host(make: t.Callable[[str], Host]) -> Host:
    return make("h")


def guard(host: Host) -> str:
    """Our table, as nft lists it without counters; empty without one."""
    done = host.run(["nft", "--stateless", "list", "table", "inet", "fleetvpn"], check=False)
    return done.stdout


def exists(host: Host, *paths: str) -> list[bool]:
    return [os.path.lexists(seen(host, path)) for path in paths]


class TestInstalled:
    @pytest.mark.controller
    def test_by_a_playbook_and_it_runs(self, host: Host, tmp_path: pathlib.Path) -> None:
        connect(host, INSIDE)
        task = {"fleetvpn.routing.endpoint": {"identities": IDENTITIES}}
        verify = {"ansible.builtin.command": {"argv": [PROGRAM, "status"]}, "changed_when": False}
        first, second = (play(host, task, verify, directory=tmp_path) for _time in range(2))
        assert "changed=1" in first.stdout, first.stdout + first.stderr
        assert "changed=0" in second.stdout, second.stdout + second.stderr
        # Made of what Ansible had packed, it is the same as made of the files of the repository.
        assert builder.is_made_of(seen(host, PROGRAM).read_bytes(), builder.build())
        assert program(host, "apply").stdout == (
            f"main: no changes; outside proven ({UPLINK}, {OUTSIDE}), inside proven ({TUNNEL}, {INSIDE})\n"
        )

    def test_with_its_units_as_check_mode_says(self, host: Host) -> None:
        announced = declare(host, check=True)
        assert not any(exists(host, PROGRAM, BOOT_UNIT, WATCH_UNIT))
        done = declare(host)
        files = [step["text"] for step in done["plan"] if step["kind"] == "file"]
        assert files == [PROGRAM, BOOT_UNIT, WATCH_UNIT]
        assert announced["plan"] == done["plan"]
        assert done["program"] == {
            "path": PROGRAM,
            "version": VERSION,
            "changed": True,
            "units_changed": True,
            "systemd": False,
            "boot_enabled": False,
            "watch_active": False,
            "networkd_dropin": False,
        }
        assert announced["program"] == done["program"]
        again = declare(host)
        assert not again["changed"]
        assert not again["program"]["changed"]
        assert seen(host, PROGRAM).stat().st_mode & 0o7777 == 0o755

    @pytest.mark.parametrize(
        ("found", "expected"),
        [("0.9.0", VERSION), ("1.0.0", VERSION), ("1.0.10", "1.0.10"), ("damaged", VERSION)],
    )
    def test_but_not_over_a_newer_one(self, host: Host, found: str, expected: str) -> None:
        seen(host, PROGRAM).write_bytes(b"#!/bin/sh\n" if found == "damaged" else _program_of_version(found))
        done = declare(host)
        assert done["program"]["version"] == expected
        replaced = builder.is_made_of(seen(host, PROGRAM).read_bytes(), builder.build())
        assert replaced == (expected == VERSION)
        assert ("newer" in str(done.get("warnings"))) == (expected != VERSION)

    def test_with_a_word_where_nothing_is_tested_and_once(self, host: Host) -> None:
        host.shell("rm /etc/os-release && printf 'ID=ubuntu\\nVERSION_ID=\"24.04\"\\n' >/etc/os-release")
        assert "this host is ubuntu 24.04, on which" in str(declare(host)["warnings"])
        assert "ubuntu" not in str(declare(host))

    def test_with_units_that_systemd_understands(self, host: Host) -> None:
        declare(host)
        done = host.run(["systemd-analyze", "verify", BOOT_UNIT, WATCH_UNIT], check=False)
        assert (done.returncode, "fleetvpn" in done.stderr) == (0, False), done.stderr

    def test_only_for_what_is_persistent(self, host: Host) -> None:
        declare(host, persistent=False)
        assert not any(exists(host, PROGRAM, BOOT_UNIT, WATCH_UNIT))

    def test_until_the_last_set_is_gone(self, host: Host) -> None:
        before = rules(host)
        declare(host)
        declare(host, **OTHER_SET)
        for target in ("sysinit.target.wants", "multi-user.target.wants"):
            host.shell(f"mkdir -p /etc/systemd/system/{target}")
        host.shell(f"ln -s {BOOT_UNIT} /etc/systemd/system/sysinit.target.wants/")
        host.shell(f"ln -s {WATCH_UNIT} /etc/systemd/system/multi-user.target.wants/")
        assert not declare(host, state="absent")["program"]["changed"]
        assert all(exists(host, PROGRAM, BOOT_UNIT, WATCH_UNIT))
        announced = declare(host, check=True, state="absent", set="second")
        gone = declare(host, state="absent", set="second")
        assert gone["plan"] == announced["plan"]
        assert gone["program"]["units_changed"]
        left = host.run(["find", "/etc/systemd", "/usr/local/sbin", "/etc/fleetvpn", "-name", "fleetvpn*"], check=False)
        assert left.stdout == ""
        assert rules(host) == before
        assert not declare(host, state="absent", set="second")["changed"]

    def test_isolated(self, host: Host) -> None:
        declare(host)
        host.shell("mkdir -p /tmp/.fvt && echo 'raise SystemExit(9)' >/run/argparse.py")
        done = host.run([PROGRAM, "--version"], env={"PYTHONPATH": "/run"}, check=False)
        assert (done.returncode, done.stdout) == (0, f"fleetvpn-endpoint {VERSION}\n")


def _program_of_version(version: str) -> bytes:
    """A program as a collection of that version would build it."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(builder.build())) as ours, zipfile.ZipFile(target, "w") as theirs:
        for name in ours.namelist():
            theirs.writestr(name, ours.read(name).replace(VERSION.encode(), version.encode()))
    return builder.SHEBANG + target.getvalue()


class TestSets:
    def test_share_nothing(self, host: Host) -> None:
        one, two = declare(host), declare(host, **OTHER_SET)
        assert (one["numbers"]["priority_base"], two["numbers"]["priority_base"]) == (2000, 3000)
        tables = [{entry["table"] for entry in found["identities"]} for found in (one, two)]
        assert not tables[0] & tables[1]

    @pytest.mark.parametrize(
        ("field", "claim"),
        [
            ("addresses", {"addresses": [OUTSIDE]}),
            ("addresses", {"interface": UPLINK}),
            ("table", {"addresses": ["10.8.0.1"], "table": "2001"}),
        ],
    )
    def test_are_refused_what_another_has(self, host: Host, field: str, claim: dict[str, t.Any]) -> None:
        declare(host)
        before = rules(host)
        found = declare(host, set="second", identities=[{"name": "greedy", "gateway": "none", **claim}])
        assert found.get("failed")
        assert found["field"] == field
        assert "main" in found["msg"]
        assert rules(host) == before

    @pytest.mark.parametrize(
        ("named", "field"),
        [({"name": "theirs", "id": 901}, "tables[0].name"), ({"name": "mine", "id": 1500}, "tables[0].id")],
    )
    def test_are_refused_names_that_somebody_else_gives(self, host: Host, named: dict[str, t.Any], field: str) -> None:
        host.shell("mkdir -p /etc/iproute2/rt_tables.d && echo 1500 theirs >/etc/iproute2/rt_tables.d/others.conf")
        for _time in ("at first", "with a set"):
            before = rules(host)
            found = declare(host, tables=[named])
            assert (found.get("failed"), found.get("field")) == (True, field), found
            assert "others.conf" in found["msg"]
            assert rules(host) == before
            assert not declare(host, tables=[{"name": "theirs", "id": 1500}]).get("failed")
        host.shell("echo 901 theirs >/etc/iproute2/rt_tables.d/others.conf")
        assert "no changes" in program(host, "apply").stdout

    def test_do_not_prune_each_other(self, host: Host) -> None:
        connect(host, INSIDE)
        host.run(["ip", *FOREIGN.split()])
        declare(host)
        declare(host, **OTHER_SET)
        both = rules(host)
        assert declare(host)["plan"] == declare(host, **OTHER_SET)["plan"] == []
        assert program(host, "apply").returncode == 0
        assert rules(host) == both
        assert any("203.0.113.77" in line for line in both)
        declare(host, state="absent", set="second")
        assert rules_from(host, "10.8.0.1") == []
        assert way(host, INSIDE) == TUNNEL
        assert [line for line in both if line.split(":")[0] < "3000"] == [
            line for line in rules(host) if line.split(":")[0] < "3000"
        ]

    def test_are_applied_one_by_one_on_request(self, host: Host) -> None:
        connect(host, INSIDE)
        declare(host)
        declare(host, **OTHER_SET)
        host.run(["ip", "rule", "del", "pref", "2301"])
        assert program(host, "apply", "--set", "second").stdout.startswith("second: no changes")
        assert program(host, "apply", "--set", "main").stdout.startswith("main: 1 change;")

    def test_that_prune_nothing_do_not_prune_here_either(self, host: Host) -> None:
        third = OTHER_SET["identities"][0]
        declare(host, identities=[*IDENTITIES, third])
        declare(host, prune=False)
        connect(host, INSIDE)
        assert program(host, "apply").returncode == 0
        assert len(rules_from(host, INSIDE)) == 3
        assert "unreachable" in rules_from(host, "10.8.0.1")


class TestStatus:
    def test_shows_drift_and_apply_mends_it(self, host: Host) -> None:
        connect(host, INSIDE)
        declare(host)
        good = program(host, "status")
        assert good.returncode == 0
        assert [line.split() for line in good.stdout.splitlines()][1:] == [
            ["main", "outside", "proven", UPLINK, OUTSIDE, "2001", "2201"],
            ["main", "inside", "proven", TUNNEL, INSIDE, "2002", "2301"],
        ]
        host.run(["ip", "rule", "del", "pref", "2301"])
        drifted = program(host, "status")
        assert drifted.returncode == 1
        assert f"main: would add rule 2301:\tfrom {INSIDE} iif lo lookup 2002" in drifted.stdout
        assert status(host)["state"] == "drifted"
        assert program(host, "apply").returncode == 0
        assert status(host)["state"] == "proven"

    def test_fails_for_what_is_required_and_pending(self, host: Host) -> None:
        declare(host)
        assert program(host, "status").returncode == 0
        declare(host, identities=[IDENTITIES[0], {**IDENTITIES[1], "required": True, "addresses": [INSIDE]}])
        connect(host, INSIDE)
        declare(host, identities=[IDENTITIES[0], {**IDENTITIES[1], "required": True, "addresses": [INSIDE]}])
        host.run(["ip", "addr", "del", f"{INSIDE}/32", "dev", TUNNEL])
        program(host, "apply")
        found = program(host, "status")
        assert found.returncode == 1
        assert "inside is required and pending" in found.stdout

    def test_without_any_set(self, host: Host) -> None:
        declare(host)
        host.shell(f"rm -r {SETS}")
        assert program(host, "status").stdout == "no sets\n"


class TestPath:
    def test_both_lookups(self, host: Host) -> None:
        connect(host, INSIDE)
        declare(host)
        assert program(host, "path", FAR, "--from", "inside").stdout == (
            f"{FAR} from {INSIDE}: dev {TUNNEL} src {INSIDE} table 2002 (source of inside)\n"
        )
        [found] = json.loads(program(host, "path", FAR, "--ipproto", "tcp", "--dport", "443", "--json").stdout)
        assert (found["dev"], found["table"], found["identity"]) == (UPLINK, 2001, "outside")


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["apply", "--set", "nix"], "set: 'nix' is no set of this host; accepted: main"),
            (["path", "nowhere"], "path.to: 'nowhere' is no IP address"),
            (["status", "--netns", "fvt-not"], "netns: 'fvt-not' is no network namespace"),
        ],
    )
    def test_take_one_line(self, host: Host, arguments: list[str], line: str) -> None:
        declare(host)
        done = program(host, *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith(f"fleetvpn-endpoint: {line}")
        assert done.stderr.count("\n") == 1

    def test_of_usage_have_their_own_status(self, host: Host) -> None:
        declare(host)
        assert program(host, "aply").returncode == 2

    @pytest.mark.parametrize("command", ["apply", "status", "watch"])
    def test_of_privilege(self, host: Host, command: str) -> None:
        declare(host)
        done = host.run(["setpriv", "--reuid", "65534", "--clear-groups", PROGRAM, command], check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


class TestHostileState:
    """What another user could have written is not believed, and stops nothing else."""

    @pytest.fixture
    def two(self, host: Host) -> Host:
        declare(host)
        declare(host, **OTHER_SET)
        return host

    @pytest.mark.parametrize(
        ("damage", "line"),
        [
            ("chmod 0666", "is not to be trusted: owner 0, mode 0666"),
            ("chown 65534", "is not to be trusted: owner 65534, mode 0600"),
            ("truncate -s 5", "is unreadable, and so is every older generation"),
        ],
    )
    def test_file(self, two: Host, damage: str, line: str) -> None:
        two.shell(f"{damage} {SETS}/main.json")
        two.run(["ip", "rule", "del", "pref", "3301"])
        whole = [each for each in rules(two) if each.split(":")[0] < "3000"]
        done = program(two, "apply")
        assert done.returncode == 1
        assert f"fleetvpn-endpoint: main: set: '{SETS}/main.json' {line}" in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout.startswith("second: 1 change;")
        assert [each for each in rules(two) if each.split(":")[0] < "3000"] == whole
        found = status(two)
        assert found["state"] == "unreadable"
        assert program(two, "status").returncode == 1

    def test_what_an_unreadable_set_has_in_the_kernel_stays(self, two: Host) -> None:
        connect(two, INSIDE)
        assert program(two, "apply").returncode == 0
        two.shell(f"chmod 0644 {SETS}/main.json")
        program(two, "apply")
        assert way(two, INSIDE) == TUNNEL

    def test_directory(self, two: Host) -> None:
        two.shell(f"chmod 0777 {SETS}")
        before = rules(two)
        done = program(two, "apply")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "mode 0777" in done.stderr
        assert rules(two) == before

    def test_a_generation_stands_in(self, host: Host) -> None:
        declare(host)
        connect(host, INSIDE)
        program(host, "apply")
        host.shell(f"echo '{{' >{SETS}/main.json")
        host.run(["ip", "rule", "del", "pref", "2201"])
        done = program(host, "apply")
        assert done.returncode == 0
        assert "the last readable generation stands in" in done.stderr
        assert way(host, INSIDE) == TUNNEL
        assert len(rules_from(host, OUTSIDE)) == 3

    def test_a_set_that_was_only_begun(self, host: Host) -> None:
        declare(host)
        host.shell(f"mv {SETS}/main.json {SETS}/main.pending")
        done = program(host, "apply")
        assert done.returncode == 1
        assert "was begun and never finished" in done.stderr


class TestBoot:
    def test_rules_and_backstops_stand_before_any_vpn(self, make: t.Callable[[str], Host]) -> None:
        before = make("before")
        connect(before, INSIDE)
        declare(before)
        after = make("after")
        reboot(before, after)
        # Whatever the network is at that moment: nothing but lo.
        after.run(["ip", "link", "del", UPLINK])
        after.run(["ip", "link", "set", "lo", "down"])
        done = program(after, "apply")
        assert done.returncode == 0, done.stderr
        assert rules_from(after, INSIDE) == ["lookup 2000", "lookup 2002", "unreachable"]
        assert status(after)["state"] == "pending"
        # The egress guard too.
        assert guard(before)
        assert guard(after) == guard(before)

    def test_what_has_no_way_is_closed_also_where_nobody_names_protocols(self, make: t.Callable[[str], Host]) -> None:
        """A small image without package netbase has no /etc/protocols, and nft lists numbers instead of names."""
        before = make("before")
        connect(before, INSIDE)
        declare(before, unbound="inside", unbound_backstop=True)
        after = make("after")
        reboot(before, after)
        after.shell("rm -f /etc/protocols")
        first, second = (program(after, "apply") for _time in range(2))
        assert first.returncode == 0, first.stderr
        assert second.stdout.startswith("main: no changes")

    def test_what_cannot_be_applied_is_closed_rather_than_open(self, make: t.Callable[[str], Host]) -> None:
        before = make("before")
        connect(before, INSIDE)
        declare(before)
        after = make("after")
        reboot(before, after)
        # With the rule for table local behind ours, nothing may be applied.
        after.run(["ip", "rule", "add", "pref", "9000", "lookup", "local"])
        after.run(["ip", "rule", "del", "pref", "0"])
        refused = program(after, "apply")
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert rules_from(after, INSIDE) == ["unreachable"]
        assert rules_from(after, OUTSIDE) == ["goto 2999"]
        after.run(["ip", "rule", "add", "pref", "0", "lookup", "local"])
        assert program(after, "apply").returncode == 0
        assert len(rules_from(after, INSIDE)) == 3
        assert "goto 2999" not in rules_from(after, OUTSIDE)

    def test_the_author_stays_the_author(self, host: Host) -> None:
        declare(host)
        path = seen(host, f"{SETS}/main.json")
        record = json.loads(path.read_text())
        record["meta"].update(user="alice", controller="192.0.2.99")
        path.write_text(json.dumps(record))
        connect(host, INSIDE, SECOND)
        assert program(host, "apply").returncode == 0
        meta = json.loads(path.read_text())["meta"]
        assert (meta["user"], meta["controller"]) == ("alice", "192.0.2.99")
        assert meta["when"] >= record["meta"]["when"]
        assert meta["digest"] != record["meta"]["digest"]
