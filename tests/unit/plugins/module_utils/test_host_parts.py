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
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._host import cli, sets, status, watch
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import EventsLost
from ansible_collections.fleetvpn.routing.plugins.module_utils._record import Record
from ansible_collections.fleetvpn.routing.plugins.module_utils._store import Store


class Trickle:
    """Events that come from another thread."""

    def __init__(self, *, lost: bool = False) -> None:
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
        found = ["link"] * len(self._reader.recv(1 << 16))
        if self._lost:
            raise EventsLost("too many")
        return found

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


@pytest.fixture
def stop() -> t.Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


class TestWaiting:
    def wait(self, stop: int, pauses: list[float], **how: bool) -> tuple[bool, float]:
        with contextlib.closing(Trickle(**how)) as events:
            thread = threading.Thread(target=events.happen, args=(pauses,), daemon=True)
            start = time.monotonic()
            thread.start()
            found = watch._next_event(events, stop), time.monotonic() - start
            thread.join()
        return found

    def test_one_event_is_followed_by_a_moment_of_silence(self, stop: tuple[int, int]) -> None:
        again, took = self.wait(stop[0], [0.0])
        assert again
        assert watch.QUIET <= took < watch.LONGEST

    def test_events_close_together_are_one(self, stop: tuple[int, int]) -> None:
        again, took = self.wait(stop[0], [0.0] + [watch.QUIET / 4] * 8)
        assert again
        assert took >= watch.QUIET * 2

    def test_a_storm_does_not_put_it_off(self, stop: tuple[int, int]) -> None:
        again, took = self.wait(stop[0], [0.0] + [watch.QUIET / 10] * 400)
        assert again
        assert watch.LONGEST <= took < watch.LONGEST * 3

    def test_lost_events_are_events(self, stop: tuple[int, int]) -> None:
        assert self.wait(stop[0], [0.0], lost=True)[0]

    @pytest.mark.parametrize("pauses", [[], [0.0]])
    def test_a_signal_ends_it(self, stop: tuple[int, int], pauses: list[float]) -> None:
        os.write(stop[1], b"!")
        assert not self.wait(stop[0], pauses)[0]


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
            "drift": ["add rule 2301: ..."],
        }
        assert status.as_table({"sets": [entry]}).splitlines() == [
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
