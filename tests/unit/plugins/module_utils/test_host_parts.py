# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the watch waits, how the status is drawn, and which sets are believed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import threading
import time
import types
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._host import (
    cli,
    daemons,
    ear,
    history,
    pace,
    sets,
    status,
    watch,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_events import EventsLost
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_filter import Interest
from ansible_collections.fleetvpn.routing.plugins.module_utils._record import Record
from ansible_collections.fleetvpn.routing.plugins.module_utils._store import Store


class Trickle:
    """Events that come from another thread."""

    def __init__(self, kind: str, *, lost: bool = False) -> None:
        self._kind = kind
        self._lost = lost
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def happen(self, pauses: t.Iterable[float]) -> None:
        for pause in pauses:
            time.sleep(pause)
            with contextlib.suppress(BlockingIOError):  # nobody reads any more
                self._writer.send(b"!")

    def fileno(self) -> int:
        return self._reader.fileno()

    def read(self) -> list[str]:
        found = [self._kind] * len(self._reader.recv(1 << 16))
        if self._lost:
            raise EventsLost("too many")
        return found if self._kind else []

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


@pytest.fixture
def stop() -> t.Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


class Still:
    """A pace that is told what to say."""

    def __init__(self, pause: float = 0.0, *, fighting: bool = False) -> None:
        self._pause = pause
        self.fighting = fighting

    def pause(self) -> float:
        return self._pause


class TestWaiting:
    @pytest.fixture(autouse=True)
    def _slowly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that a machine that does other things cannot make a silence."""
        monkeypatch.setattr(ear, "QUIET", 0.08)
        monkeypatch.setattr(ear, "LONGEST", 0.3)

    def wait(
        self, stop: int, pauses: list[float], pace: Still | None = None, kind: str = "link", **how: bool
    ) -> tuple[float, int]:
        """How long it waited, and how often it protected meanwhile."""
        protected: list[float] = []
        with contextlib.closing(Trickle(kind, **how)) as events:
            thread = threading.Thread(target=events.happen, args=(pauses,), daemon=True)
            listening = ear.Ear(t.cast("t.Any", events), stop)
            start = time.monotonic()
            thread.start()
            try:
                listening.wait(t.cast("t.Any", pace or Still()), lambda: protected.append(time.monotonic()))
                took = time.monotonic() - start
            finally:
                thread.join()
        return took, len(protected)

    def test_one_event_is_followed_by_a_moment_of_silence(self, stop: tuple[int, int]) -> None:
        took, _protected = self.wait(stop[0], [0.0])
        assert ear.QUIET <= took < ear.LONGEST

    def test_events_close_together_are_one(self, stop: tuple[int, int]) -> None:
        took, _protected = self.wait(stop[0], [0.0] + [ear.QUIET / 8] * 16)
        assert took >= ear.QUIET * 2

    def test_a_storm_does_not_put_it_off(self, stop: tuple[int, int]) -> None:
        took, _protected = self.wait(stop[0], [0.0] + [ear.QUIET / 20] * 250)
        assert ear.LONGEST <= took < ear.LONGEST * 2.5

    def test_lost_events_are_events(self, stop: tuple[int, int]) -> None:
        assert self.wait(stop[0], [0.0], lost=True)

    def test_what_is_found_not_to_matter_is_none(self, stop: tuple[int, int]) -> None:
        os.set_blocking(stop[1], False)
        threading.Timer(0.2, os.write, (stop[1], b"!")).start()
        with pytest.raises(ear.Stopped):
            self.wait(stop[0], [0.0, 0.0], kind="")

    def test_it_waits_until_the_next_round_is_due(self, stop: tuple[int, int]) -> None:
        took, protected = self.wait(stop[0], [0.0, 0.02, 0.02], Still(0.2))
        assert took >= 0.2
        assert protected == 0

    @pytest.mark.parametrize(("kind", "protects"), [("rule", True), ("address", False)])
    def test_in_a_fight_it_protects_meanwhile(self, stop: tuple[int, int], kind: str, protects: bool) -> None:
        took, protected = self.wait(stop[0], [0.0], Still(0.2, fighting=True), kind)
        assert took >= 0.2
        assert bool(protected) == protects

    @pytest.mark.parametrize("pauses", [[], [0.0]])
    def test_a_signal_ends_it(self, stop: tuple[int, int], pauses: list[float]) -> None:
        os.write(stop[1], b"!")
        with pytest.raises(ear.Stopped):
            self.wait(stop[0], pauses)


class TestPace:
    """Time is what the test says."""

    @pytest.fixture(autouse=True)
    def _time(self) -> None:
        self.now = 1000.0
        self.pace = pace.Pace(lambda: self.now)

    def rounds(self, count: int, took: float = 0.0, *, repaired: bool = False, every: float = 0.0) -> list[float]:
        """Rounds in a row; the pause after each."""
        pauses = []
        for _round in range(count):
            self.now += took + every
            self.pace.round(took, repaired=repaired)
            pauses.append(self.pace.pause())
            self.now += pauses[-1]
        return pauses

    def test_rounds_now_and_then_wait_for_nothing(self) -> None:
        assert set(self.rounds(100, 0.03, every=0.5)) == {0.0}

    def test_rounds_without_end_get_their_share(self) -> None:
        self.rounds(100, 0.03)
        start = self.now
        self.rounds(100, 0.03)
        assert 100 * 0.03 / (self.now - start) == pytest.approx(pace.SHARE)

    def test_a_fight_slows_down_to_the_bound(self) -> None:
        pauses = self.rounds(40, repaired=True)
        assert set(pauses[: pace.BURST]) == {0.0}
        assert pauses[pace.BURST : pace.BURST + 3] == pytest.approx([0.05, 0.1, 0.2])
        assert max(pauses) == pytest.approx(pauses[-1]) == pytest.approx(pace.LONGEST_PAUSE)
        assert self.pace.fighting

    def test_a_fight_is_over_after_a_minute(self) -> None:
        self.rounds(40, repaired=True)
        self.now += pace.MINUTE
        assert not self.pace.fighting
        assert self.rounds(1, repaired=True) == [0.0]


class TestRounds:
    """What is listened to changes before the kernel is read again; how a result comes about is not asked here."""

    def calls(self, monkeypatch: pytest.MonkeyPatch, tables: list[int], runs: int = 1) -> list[str]:
        """The order of applying and narrowing, for results that depend on one table after the other."""
        done: list[str] = []
        waiting = iter(tables)
        proof = types.SimpleNamespace(identities=(), wrong=list)

        def applied(_kernel: object, _netns: object) -> list[t.Any]:
            done.append("apply")
            interest = Interest(tables=frozenset({next(waiting)}))
            plan = types.SimpleNamespace(operations=())
            result = types.SimpleNamespace(plan=plan, changed=False, warnings=(), proof=proof, interest=interest)
            return [watch.Applied(sets.Kept("main", persistent=True, record=Record()), t.cast("t.Any", result), None)]

        monkeypatch.setattr(watch, "apply_sets", applied)
        monkeypatch.setattr(watch, "repairs", lambda _applied: [])
        events = types.SimpleNamespace(narrow=lambda interest: done.append(f"hear {max(interest.tables)}"))
        rounds = watch._Rounds(t.cast("t.Any", None), None, t.cast("t.Any", events), done.append)
        for _run in range(runs):
            rounds.run()
        return done

    def test_what_is_newly_heard_is_read_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.calls(monkeypatch, [2000, 2000]) == ["apply", "hear 2000", "apply"]

    def test_otherwise_once_is_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.calls(monkeypatch, [2000, 2000, 2000], runs=2) == ["apply", "hear 2000", "apply", "apply"]

    def test_there_is_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.calls(monkeypatch, [2000, 2001, 2002, 2003]).count("apply") == watch.ROUNDS

    def test_a_fight_is_one_line_a_minute_whatever_comes_and_goes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A repair each second, and every other time a trouble with it; then a minute of peace."""
        now = [1000.0]
        said: list[str] = []
        wrong: list[str] = []
        proof = types.SimpleNamespace(identities=(), wrong=lambda: wrong)
        plan = types.SimpleNamespace(operations=())
        interest = Interest(tables=frozenset({2000}))
        result = types.SimpleNamespace(plan=plan, names=(), changed=True, warnings=(), proof=proof, interest=interest)
        kept = sets.Kept("main", persistent=True, record=Record())
        repaired = [history.Repair("main", history.PUT_BACK, "rule 1")]
        monkeypatch.setattr(watch, "apply_sets", lambda *_where: [watch.Applied(kept, t.cast("t.Any", result), None)])
        monkeypatch.setattr(watch, "repairs", lambda _applied: repaired)
        monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(watch.History, "add", lambda *_what: None)
        events = types.SimpleNamespace(narrow=lambda _interest: None)
        rounds = watch._Rounds(t.cast("t.Any", None), None, t.cast("t.Any", events), said.append)
        rounds.pace = pace.Pace(lambda: now[0])

        def fight(seconds: int) -> list[str]:
            said.clear()
            for second in range(seconds):
                now[0] += 1
                wrong[:] = ["inside is wrong"] * (second % 2)
                rounds.run()
            return said

        fight(pace.BURST + 1)
        assert rounds.pace.fighting
        assert 4 <= len(fight(5 * 60)) <= 5
        assert all("somebody fights back" in line for line in said)
        now[0] += pace.MINUTE
        repaired.clear()
        result.changed = False
        fight(1)
        assert fight(2) == ["main: inside is wrong"], "the fight is over, and so it is new"


class TestDaemons:
    def test_are_found_by_the_name_of_their_process(self, tmp_path: pathlib.Path) -> None:
        for pid, name in (("7", "systemd-network"), ("8", "sh"), ("9", "NetworkManager"), ("10", "NetworkManager")):
            (tmp_path / pid).mkdir()
            (tmp_path / pid / "comm").write_text(f"{name}\n")
        (tmp_path / "11").mkdir()
        assert daemons.running(tmp_path) == ["NetworkManager", "systemd-networkd"]

    def test_have_names_that_the_kernel_can_hold(self) -> None:
        assert all(len(name) <= 15 for name in daemons.KNOWN)


FILE = "history.json"


class TestHistory:
    def test_counts_and_keeps_the_last(self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "LONGEST", 3)
        monkeypatch.setattr(history, "OWNER", os.getuid())
        kept = history.History(tmp_path / FILE)
        for number in (1, 2, 3, 4, 2):
            kept.add([history.Repair("main", history.PUT_BACK, f"rule {number}")])
        assert [(entry.object, entry.times) for entry in kept.read()] == [("rule 2", 2), ("rule 4", 1), ("rule 3", 1)]
        assert all(entry.first <= entry.last for entry in kept.read())
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
        assert [path.name for path in tmp_path.iterdir()] == [FILE]

    @pytest.mark.parametrize("content", ["", "[", "{}", '[{"set": 1}]', '{"a": 1}', "[1]"])
    def test_a_damaged_one_is_none(self, tmp_path: pathlib.Path, content: str) -> None:
        (tmp_path / FILE).write_text(content)
        (tmp_path / FILE).chmod(0o600)
        assert history.History(tmp_path / FILE).read() == []

    def test_one_that_others_may_read_is_none(self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "OWNER", os.getuid())
        kept = history.History(tmp_path / FILE)
        kept.add([history.Repair("main", history.PUT_BACK, "rule 1")])
        (tmp_path / FILE).chmod(0o640)
        assert kept.read() == []


@pytest.fixture
def stores(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[bool, Store]:
    """Both stores of a host, elsewhere."""
    found = {kept: Store(tmp_path / str(kept) / "sets.d", owner=os.getuid()) for kept in (True, False)}
    monkeypatch.setattr(sets, "all_stores", lambda _netns: [found[True], found[False]])
    monkeypatch.setattr(sets, "store_for", lambda kept, _netns: found[kept])
    return found


def put(store: Store, name: str) -> None:
    store.begin(name, Record())
    store.commit(name)


class TestSets:
    def test_of_both_kinds(self, stores: dict[bool, Store]) -> None:
        put(stores[True], "main")
        put(stores[False], "lab")
        assert [(kept.name, kept.persistent) for kept in sets.kept_sets(None)] == [("main", True), ("lab", False)]

    def test_one_that_is_kept_twice_counts_once(self, stores: dict[bool, Store]) -> None:
        put(stores[True], "main")
        put(stores[False], "main")
        assert [(kept.name, kept.persistent) for kept in sets.kept_sets(None)] == [("main", True)]

    def test_a_bad_one_hides_no_other(self, stores: dict[bool, Store]) -> None:
        put(stores[True], "bad")
        put(stores[True], "good")
        (stores[True].root / "bad.json").chmod(0o644)
        assert [(kept.name, kept.record is None) for kept in sets.kept_sets(None)] == [("bad", True), ("good", False)]
        assert [store.names() for store in sets.readable_stores(None)] == [["good"], []]

    def test_a_bad_directory_hides_no_other(self, stores: dict[bool, Store]) -> None:
        put(stores[True], "main")
        put(stores[False], "lab")
        stores[True].root.chmod(0o755)
        assert [kept.name for kept in sets.kept_sets(None) if kept.error is None] == ["lab"]
        assert [store.root for store in sets.readable_stores(None)] == [stores[False].root]

    def test_an_unknown_one_is_refused(self, stores: dict[bool, Store]) -> None:
        put(stores[True], "main")
        with pytest.raises(InvalidInput, match="is no set of this host"):
            sets.kept_sets(None, "nix")


class TestTable:
    def test_columns_are_aligned_and_remarks_below(self) -> None:
        identity = {"key": "inside", "verdict": None, "interface": None, "addresses": [], "pools": ["10.8.0.0/16"]}
        entry = {
            "name": "main",
            "state": "drifted",
            "identities": [{**identity, "table": 2002, "priority": None}],
            "error": None,
            "wrong": [],
            "required": [],
            "expires": None,
            "drift": ["add rule 2301: ..."],
        }
        assert status.as_table({"sets": [entry], "suspended": None}).splitlines() == [
            "set   identity  verdict  interface  addresses    table  priority",
            "main  inside    drifted  -          10.8.0.0/16  2002   -",
            "main: would add rule 2301: ...",
        ]


class TestUsage:
    @pytest.mark.parametrize("arguments", [[], ["aply"], ["path"], ["status", "--jso"], ["apply", "--set"]])
    def test_is_told_with_status_2(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
        assert "usage: fleetvpn-endpoint" in capsys.readouterr().err
