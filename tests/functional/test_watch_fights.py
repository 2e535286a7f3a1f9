# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch against those who remove what is ours, and beside those who change what is none of ours."""

from __future__ import annotations

import os
import re
import threading
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._host.pace import CREDIT, SHARE
from ansible_collections.fleetvpn.routing.plugins.module_utils._host.units import WATCH, unit_texts
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation

from tests.functional.onhost import (
    GATEWAY,
    INSIDE,
    INSIDE6,
    PROGRAM,
    TUNNEL,
    UPLINK,
    declare,
    eventually,
    program,
    rules,
    rules_from,
    seen,
    status,
    way,
)
from tests.functional.watching import SOON, Watch, batch
from tests.lab import Host

pytestmark = [pytest.mark.alone, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

HISTORY = "/run/fleetvpn/history.json"
FLUSHES = 50
FOREIGN = 100_000
WHOLE = ["lookup 2000", "lookup 2002", "unreachable"]


@pytest.fixture
def watch(host: Host) -> t.Iterator[Watch]:
    watch = Watch(host)
    yield watch
    watch.end()


def flush(host: Host) -> None:
    """All our rules, in both families."""
    for family in ("-4", "-6"):
        host.run(["ip", family, "rule", "flush", "protocol", "151"])


def plain(host: Host) -> list[str]:
    """The rules of both families; which of their devices are there does not count."""
    shown = [*rules(host), *host.run(["ip", "-6", "-N", "rule", "show"]).stdout.splitlines()]
    return [line.split(" [")[0] for line in shown]


def add_inside6(host: Host) -> None:
    """The VPN gives an IPv6 address as well, and the watch follows."""
    batch(host, f"addr add {INSIDE6}/128 dev {TUNNEL} nodad", family=6)
    eventually(lambda: way(host, INSIDE6) == TUNNEL)
    eventually(lambda: rules_from(host, INSIDE6) == WHOLE)


class TestPutsBack:
    def test_rules_that_are_flushed_again_and_again(self, host: Host, watch: Watch) -> None:
        add_inside6(host)
        before = plain(host)
        took = []
        for _time in range(FLUSHES):
            flush(host)
            took.append(eventually(lambda: plain(host) == before))
        print(f"{FLUSHES} flushes: back after {sorted(took)[FLUSHES // 2]:.3f} s (median), {max(took):.3f} s at most")
        assert (way(host, INSIDE), way(host, INSIDE6)) == (TUNNEL, TUNNEL)

    def test_a_ruleset_that_is_flushed_again_and_again(self, host: Host, watch: Watch) -> None:
        def ruleset() -> str:
            return host.run(["nft", "--stateless", "list", "ruleset"]).stdout

        before = ruleset()
        assert "fleetvpn" in before
        for _time in range(FLUSHES):
            host.run(["nft", "flush", "ruleset"])
            eventually(lambda: ruleset() == before)

    @pytest.mark.parametrize("table", ["2000", "2001", "2002"])
    def test_a_table_that_is_flushed(self, host: Host, table: str) -> None:
        batch(host, "link add fvtbr0 type bridge", "link set fvtbr0 up", "addr add 172.20.0.1/24 dev fvtbr0")
        declare(host)
        watch = Watch(host)
        before = host.ip_json("route", "show", "table", table)
        assert before
        host.run(["ip", "route", "flush", "table", table])
        assert eventually(lambda: host.ip_json("route", "show", "table", table) == before) < SOON
        watch.end()

    def test_what_is_added_in_our_name(self, host: Host, watch: Watch) -> None:
        before = plain(host)
        host.run(["ip", "rule", "add", "pref", "2150", "from", INSIDE, "lookup", "main", "protocol", "151"])
        eventually(lambda: plain(host) == before)
        eventually(lambda: "removed rule ipv4 2150:" in "".join(watch.lines()))


class TestHistory:
    def test_tells_what_when_and_how_often(self, host: Host) -> None:
        assert "nothing had to be put right" in program(host, "status", "--history").stdout
        watch = Watch(host)
        for _time in range(2):
            host.run(["ip", "rule", "del", "pref", "2301", "from", INSIDE])
            eventually(lambda: rules_from(host, INSIDE) == WHOLE)
            eventually(watch.is_waiting)
        assert len([line for line in watch.end() if "put back rule ipv4 2301" in line]) == 2
        restarted = Watch(host)
        host.run(["ip", "route", "flush", "table", "2002"])
        eventually(lambda: way(host, INSIDE) == TUNNEL)
        eventually(restarted.is_waiting)
        newest, oldest = status(host)["history"]
        assert (oldest["set"], oldest["done"], oldest["times"]) == ("main", "put back", 2)
        assert oldest["object"].startswith(f"rule ipv4 2301: from {INSIDE}")
        assert oldest["first"] <= oldest["last"] <= newest["last"]
        text = program(host, "status", "--history").stdout.splitlines()
        assert text[1] == f"{oldest['last']}  2 times  main: put back {oldest['object']}"
        restarted.end()

    def test_is_for_root_alone_and_goes_with_the_last_set(self, host: Host, watch: Watch) -> None:
        flush(host)
        path = seen(host, HISTORY)
        eventually(path.exists)
        assert (path.stat().st_mode & 0o7777, path.stat().st_uid) == (0o600, 0)
        declare(host, state="absent")
        assert not path.exists()

    def test_says_nothing_of_changes_that_are_followed(self, host: Host, watch: Watch) -> None:
        host.run(["ip", "link", "set", TUNNEL, "down"])
        eventually(lambda: status(host)["state"] == "pending")
        eventually(watch.is_waiting)
        host.run(["ip", "link", "set", TUNNEL, "up"])
        eventually(lambda: status(host)["state"] == "proven")
        eventually(watch.is_waiting)
        assert status(host)["history"] == []


class Opponent:
    """Removes the rules of one priority as soon as they are back, as long as the context lasts."""

    def __init__(self, host: Host, priority: int) -> None:
        self._netns, self._priority = f"/proc/{host.pid}/ns/net", priority
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fight)
        self.removed = 0

    def __enter__(self) -> Opponent:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _fight(self) -> None:
        with open_kernel(self._netns) as kernel:
            while not self._stop.wait(0.003):
                found = [Operation("remove", rule) for rule in kernel.rules(4) if rule.priority == self._priority]
                kernel.apply(found)
                self.removed += len(found)


class TestAFight:
    SECONDS = 8.0

    def test_is_named_once_and_costs_little_and_ends_well(self, host: Host, watch: Watch) -> None:
        before = plain(host)
        daemon = host.popen(["sh", "-c", "echo NetworkManager >/proc/self/comm; sleep 60 & wait"])
        with Opponent(host, 2301) as opponent:
            eventually(lambda: any("fights back" in line for line in watch.lines()), 30)
            spent = watch.cpu()
            time.sleep(self.SECONDS)
            spent = watch.cpu() - spent
        daemon.kill()
        assert opponent.removed > 20
        print(f"{opponent.removed} removals; {spent / self.SECONDS:.0%} of a processor")
        assert spent / self.SECONDS < 0.3
        eventually(lambda: plain(host) == before)
        [line] = [line for line in watch.lines() if "fights back" in line]
        assert f"put back rule ipv4 2301: from {INSIDE}" in line
        assert line.endswith("running here: NetworkManager")

    def test_leaves_no_address_without_its_backstop_for_long(self, host: Host, watch: Watch) -> None:
        """Of the three rules the last one comes back at once, the others as often as the fight allows."""
        with Opponent(host, 2301):
            eventually(lambda: any("fights back" in line for line in watch.lines()), 30)
        gone = []
        for _time in range(5):
            flush(host)
            gone.append(eventually(lambda: "unreachable" in rules_from(host, INSIDE)))
        print(f"without a backstop for {max(gone):.3f} s at most")
        assert sorted(gone)[2] < SOON / 2
        eventually(lambda: rules_from(host, INSIDE) == WHOLE)


class TestForeignChanges:
    @pytest.mark.parametrize(
        "route",
        ["{prefix} {via} table 77", "{prefix} {via} proto bgp", "{prefix} {via} proto static table 70000"],
        ids=["another table", "main, as BGP does", "a table with a long number"],
    )
    @pytest.mark.parametrize("family", [4, 6])
    def test_cost_next_to_nothing(self, host: Host, watch: Watch, route: str, family: int) -> None:
        add_inside6(host)
        eventually(lambda: watch.sleeps_for(2), 20)
        prefix, via = {4: ("10.{}.{}.0/24", f"via {GATEWAY}"), 6: ("2001:db8:{}:{}::/64", f"dev {UPLINK}")}[family]
        prefixes = [prefix.format(n >> 8, n & 255) for n in range(FOREIGN // 100)]
        lines = [f"route {what} {route.format(prefix=p, via=via)}" for what in ("add", "del") for p in prefixes]
        spent, woken = watch.cpu(), watch.field("voluntary_ctxt_switches")
        for _time in range(50):
            batch(host, *lines, family=family)
        spent, woken = watch.cpu() - spent, watch.field("voluntary_ctxt_switches") - woken
        print(f"{FOREIGN} route changes: {spent:.2f} s of processor time, woken {woken} times")
        assert spent < 0.2
        assert woken < 20

    def test_of_the_ruleset_make_no_round(self, host: Host, watch: Watch) -> None:
        eventually(lambda: watch.sleeps_for(2), 20)
        lines = ("add table inet other", "add chain inet other one", "add rule inet other one drop")
        script = "\n".join([*lines, "delete table inet other", ""])
        spent = watch.cpu()
        host.run(["nft", "-f", "-"], stdin=script * 100)
        time.sleep(0.5)
        assert watch.cpu() - spent < 0.1

    def test_of_what_does_matter_in_great_number_get_their_share_and_no_more(self, host: Host, watch: Watch) -> None:
        """Somebody who flips the default without end. What it may do at once comes first, and is not measured."""
        began, before = time.monotonic(), watch.cpu()
        _flip_default(host, lambda: watch.cpu() - before > CREDIT + SHARE * (time.monotonic() - began))
        began, before = time.monotonic(), watch.cpu()
        _flip_default(host, lambda: time.monotonic() - began > 6)
        share = (watch.cpu() - before) / (time.monotonic() - began)
        print(f"{share:.0%} of a processor")
        assert share < SHARE + 0.2  # a round that is under way at either end counts whole
        eventually(lambda: "via 198.51.100.2 " in host.run(["ip", "route", "show", "table", "2001"]).stdout)


def _flip_default(host: Host, done: t.Callable[[], bool]) -> None:
    stop = time.monotonic() + 60
    while not done():
        assert time.monotonic() < stop, "so long, and the watch has never used what it may"
        batch(host, *(f"route replace default via 198.51.100.{n} dev {UPLINK}" for n in (1, 2) * 20))


class TestFewCapabilities:
    def test_those_of_its_unit_are_enough(self, host: Host) -> None:
        stated = re.search(r"^CapabilityBoundingSet=(.*)$", unit_texts(PROGRAM)[WATCH], re.MULTILINE)
        assert stated
        kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in stated[1].split())
        watch = Watch(host, under=["setpriv", "--no-new-privs", f"--bounding-set=-all,{kept}"])
        assert int(watch.text("CapEff"), 16).bit_count() == len(stated[1].split())
        before = plain(host)
        eventually(lambda: watch.sleeps_for(1), 20)
        with watch.frozen():  # of a flush in the middle of a round it would say what is wrong
            flush(host)
        eventually(lambda: plain(host) == before)
        eventually(lambda: len(status(host)["history"]) > 0)
        eventually(lambda: watch.sleeps_for(1), 20)
        spent = watch.field("voluntary_ctxt_switches")
        host.run(["nft", "add", "table", "inet", "fleetvpn_fvt"])
        eventually(lambda: watch.field("voluntary_ctxt_switches") > spent)
        assert watch.lines()[1:] == []
        watch.end()


class TestLostEvents:
    def test_everything_is_read_anew(self, host: Host, watch: Watch) -> None:
        before = plain(host)
        eventually(watch.is_waiting)
        addresses = [f"10.7.{n >> 8}.{n & 255}/32" for n in range(6000)]
        with watch.frozen():
            batch(host, *(f"addr {what} {a} dev {UPLINK}" for a in addresses for what in ("add", "del")))
            assert watch.lost() > 0
            flush(host)
        eventually(lambda: plain(host) == before)
        eventually(watch.is_waiting)
