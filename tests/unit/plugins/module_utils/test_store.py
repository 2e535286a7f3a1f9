# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records on disk: complete or absent, believed only from the right owner, kept for ten generations."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _record, _store
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import (
    Conflict,
    InvalidInput,
    NotPermitted,
    RoutingError,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Nexthop, Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._record import Record
from ansible_collections.fleetvpn.routing.plugins.module_utils._store import Store

RULE = Rule(4, 2300, table=2000, src="198.51.100.10/32", iif="lo", uidrange=(1, 2), sport=(53, 53), protocol=151)
ROUTE = Route(
    6, "::/0", table=2000, metric=1024, nexthops=(Nexthop("fe80::1", "wg0"), Nexthop(dev="wg1")), protocol=151
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sets.d", owner=os.getuid())


@contextlib.contextmanager
def refused(kind: type[RoutingError], pattern: str) -> Iterator[None]:
    """The error's one line, which pytest's own match does not look at."""
    with pytest.raises(kind) as caught:
        yield
    assert re.search(pattern, caught.value.line()), caught.value.line()


def record(number: int) -> Record:
    return Record(declaration={"identities": [], "table": number}, meta={"number": number})


def save(store: Store, number: int, name: str = "main") -> None:
    store.begin(name, record(number))
    store.commit(name)


def number_of(found: Record | None) -> int:
    assert found is not None
    return int(found.meta["number"])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nothing_there(store: Store) -> None:
    assert store.read("main") is None
    assert store.pending("main") is None
    assert store.read_all() == {}
    assert store.generations("main") == []
    assert not store.root.exists()


def test_every_field_comes_back(store: Store) -> None:
    full = Record(
        declaration={"set": "main", "identities": [{"name": "inside"}]},
        objects=_record.objects_from([RULE], [ROUTE]),
        groups={"wg0": 7},
        tables={"inside": 2000},
        names={"fleetvpn_inside": 2000},
        identities=[{"name": "inside", "addresses": ["198.51.100.10"]}],
        numbers={"priority_base": 2000},
        meta={"when": "2026-11-22T13:00:00Z"},
    )
    store.begin("main", full)
    store.commit("main")
    assert store.read("main") == full
    assert not full.fallback


def test_objects_come_back_as_values_with_protocol(store: Store) -> None:
    store.begin("main", Record(objects=_record.objects_from([RULE], [ROUTE])))
    store.commit("main")
    found = store.read("main")
    assert found is not None
    rules, routes = _record.objects_of(found)
    assert (rules, routes) == ({RULE}, {ROUTE})
    assert {each.protocol for each in (*rules, *routes)} == {151}


def test_begun_is_pending_and_not_current(store: Store) -> None:
    save(store, 1)
    store.begin("main", record(2))
    assert number_of(store.read("main")) == 1
    assert number_of(store.pending("main")) == 2
    store.discard("main")
    assert store.pending("main") is None
    assert number_of(store.read("main")) == 1


def test_what_is_found_anew_takes_no_further_generation(store: Store) -> None:
    save(store, 1)
    for number in range(20):
        store.begin("main", Record(declaration=record(2).declaration, meta={"number": number}))
        store.commit("main")
    found = [number_of(store._load(path)) for path in store.generations("main")]
    assert found == [1, 18]


def test_a_set_that_was_only_begun_is_named(store: Store) -> None:
    store.begin("main", record(1))
    assert store.names() == ["main"]
    assert store.read_all() == {}


def test_commit_without_begin_is_a_defect(store: Store) -> None:
    save(store, 1)
    with pytest.raises(FileNotFoundError):
        store.commit("main")
    assert number_of(store.read("main")) == 1


def test_ten_generations_are_kept(store: Store) -> None:
    for number in range(1, 15):
        save(store, number)
    kept = [number_of(store._load(path)) for path in store.generations("main")]
    assert kept == list(range(4, 14))
    assert number_of(store.read("main")) == 14


def test_older_records_have_numbers_and_a_damaged_one_is_none(store: Store) -> None:
    for number in (1, 2, 3, 4):
        save(store, number)
    store.generations("main")[1].write_bytes(b"{")
    found = store.older("main")
    assert list(found) == [1, 2, 3]
    assert found[2] is None
    assert number_of(found[3]) == 3


def test_sets_do_not_mix_even_when_one_name_begins_like_another(store: Store) -> None:
    for name in ("a", "a-1", "a_"):
        save(store, 1, name)
        save(store, 2, name)
    store.remove("a")
    assert store.names() == ["a-1", "a_"]
    assert [path.name for path in store.generations("a-1")] == ["a-1.1.json"]
    assert store.generations("a") == []


def test_modes(store: Store) -> None:
    old = os.umask(0)
    try:
        save(store, 1)
        save(store, 2)
    finally:
        os.umask(old)
    assert mode(store.root) == mode(store.root / "generations") == 0o700
    assert mode(store.root / "main.json") == mode(store.generations("main")[0]) == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1}'])
def test_unreadable_current_file_falls_back_and_says_so(store: Store, content: str) -> None:
    for number in (1, 2, 3, 4):
        save(store, number)
    (store.root / "main.json").write_text(content)
    store.generations("main")[-1].write_text("damaged too")
    found = store.read("main")
    assert found is not None
    assert (number_of(found), found.fallback) == (2, True)


def test_an_object_that_this_version_does_not_know_is_unreadable(store: Store) -> None:
    save(store, 1)
    store.begin("main", Record(objects=[{"kind": "rule", "family": 4, "priority": 1, "colour": "red"}]))
    store.commit("main")
    found = store.read("main")
    assert found is not None
    assert found.fallback


def test_nothing_readable_is_a_conflict_and_not_an_empty_set(store: Store) -> None:
    save(store, 1)
    (store.root / "main.json").write_text("x")
    with refused(Conflict, r"main\.json.*unreadable"):
        store.read("main")


def test_a_fallback_is_not_kept_as_a_flag(store: Store) -> None:
    store.begin("main", dataclasses.replace(record(1), fallback=True))
    store.commit("main")
    found = store.read("main")
    assert found is not None
    assert not found.fallback


@pytest.mark.parametrize("name", ["", "a.b", "../x", "a/b", ".", "ä", "x" * 65, "a b", "a\n", "a%b"])
def test_unsafe_names(store: Store, name: str) -> None:
    for call in (store.read, store.pending, store.discard, store.remove, store.commit, store.generations):
        with refused(InvalidInput, "letters"):
            call(name)
    with pytest.raises(InvalidInput):
        store.begin(name, record(1))
    assert not store.root.exists()


@pytest.mark.parametrize("name", ["a", "x" * 64, "A-b_9", "-"])
def test_safe_names(store: Store, name: str) -> None:
    save(store, 1, name)
    assert store.names() == [name]


@pytest.mark.parametrize("bits", [0o701, 0o750, 0o777])
def test_open_directory_is_not_believed(store: Store, bits: int) -> None:
    save(store, 1)
    store.root.chmod(bits)
    for call in (store.read, store.pending, store.commit, store.remove):
        with refused(Conflict, "0700"):
            call("main")
    with pytest.raises(Conflict):
        store.begin("main", record(2))


@pytest.mark.parametrize("bits", [0o604, 0o640, 0o666])
def test_open_file_is_not_believed(store: Store, bits: int) -> None:
    save(store, 1)
    (store.root / "main.json").chmod(bits)
    with refused(Conflict, "0600"):
        store.read("main")


def test_open_pending_file_is_not_committed(store: Store) -> None:
    store.begin("main", record(1))
    (store.root / "main.pending").chmod(0o666)
    with refused(Conflict, "0600"):
        store.commit("main")


def test_open_generation_is_not_believed(store: Store) -> None:
    save(store, 1)
    save(store, 2)
    store.generations("main")[0].chmod(0o666)
    (store.root / "main.json").write_text("x")
    with refused(Conflict, "0600"):
        store.read("main")


def test_another_owner_is_not_believed(store: Store) -> None:
    save(store, 1)
    other = Store(store.root, owner=os.getuid() + 1)
    with refused(Conflict, f"owner {os.getuid()}"):
        other.read("main")


def test_another_owners_file_is_not_believed(store: Store) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    save(store, 1)
    os.chown(store.root / "main.json", 65534, 65534)
    with refused(Conflict, "owner 65534"):
        store.read("main")


def test_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    save(store, 1)
    real = tmp_path / "real.json"
    (store.root / "main.json").rename(real)
    (store.root / "main.json").symlink_to(real)
    with refused(Conflict, "no file"):
        store.read("main")
    store.root.rename(tmp_path / "elsewhere")
    store.root.symlink_to(tmp_path / "elsewhere")
    with refused(Conflict, "no directory"):
        store.read("main")


def test_what_is_no_file_is_not_believed(store: Store) -> None:
    save(store, 1)
    (store.root / "main.json").unlink()
    (store.root / "main.json").mkdir()
    (store.root / "main.json").chmod(0o600)
    with refused(Conflict, "no file"):
        store.read("main")


def test_a_group_that_the_parent_hands_down_does_not_matter(store: Store) -> None:
    store.root.parent.chmod(0o2755)
    save(store, 1)
    assert mode(store.root) == 0o700


def test_content_reaches_the_disk_before_its_name_and_the_name_before_the_return(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test can cut the power; so the order of the real calls is watched."""
    save(store, 1)
    save(store, 1)
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(handle: int) -> None:
        calls.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        fsync(handle)

    def watched_replace(path: Path, target: Path) -> Path:
        calls.append(f"{path.name} becomes {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    save(store, 2)
    assert calls == [
        ".main.pending.new becomes main.pending",
        ".main.link becomes main.1.json",
        "sync generations",
        "sync main.pending",
        "main.pending becomes main.json",
        "sync sets.d",
    ]


def test_without_privilege(tmp_path: Path) -> None:
    """As another user: not an empty store, but an error of one line."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(0o755)
    store = Store(tmp_path / "sets.d")
    save(store, 1)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        found = [_refused(store.read, "main"), _refused(store.names), _refused(store.begin, "main", record(1))]
        os._exit(0 if all(found) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _refused(call: object, *arguments: object) -> bool:
    try:
        call(*arguments)  # type: ignore[operator]
    except NotPermitted as error:
        return "\n" not in error.line()
    return False


KILLED = """
import os, sys, itertools
from pathlib import Path
from ansible_collections.fleetvpn.routing.plugins.module_utils._record import Record
from ansible_collections.fleetvpn.routing.plugins.module_utils._store import Store
store = Store(Path(sys.argv[1]), owner=os.getuid())
for number in itertools.count(1):
    store.begin("main", Record(meta={"number": number, "padding": "x" * 1000000}))
    if sys.argv[2] == "commit":
        store.commit("main")
    if number == 1:
        print(flush=True)
"""


def kill_a_writer(store: Store, what: str, delay: float) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.root), what],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(delay)
    writer.kill()
    writer.wait()
    writer.stdout.close()


@pytest.mark.parametrize("what", ["begin", "commit"])
def test_killed_at_any_moment_leaves_a_complete_record(store: Store, what: str) -> None:
    for step in range(6):
        kill_a_writer(store, what, 0.007 * step)
        found = store.pending("main") if what == "begin" else store.read("main")
        assert found is not None
        assert not found.fallback
        assert len(found.meta["padding"]) == 1000000
        assert len(store.generations("main")) <= 11, "one too many, between adding one and dropping one"
    save(store, 1)
    save(store, 2)
    assert len(store.generations("main")) <= 10
    assert {entry.suffix for entry in store.root.iterdir()} == {".json", ""}


def test_places(tmp_path: Path) -> None:
    roots = {"persistent_root": tmp_path / "etc", "runtime_root": tmp_path / "run"}
    assert _store.store_for(True, None).root == Path("/etc/fleetvpn/sets.d")
    assert _store.store_for(False, None).root == Path("/run/fleetvpn/sets.d")
    assert _store.store_for(True, "blue").root == Path("/run/fleetvpn/netns/blue/sets.d")
    assert [each.root for each in _store.all_stores(None, **roots)] == [
        tmp_path / "etc/sets.d",
        tmp_path / "run/sets.d",
    ]
    assert [each.root for each in _store.all_stores("blue", **roots)] == [tmp_path / "run/netns/blue/sets.d"]


def test_a_namespace_by_name_or_path_is_one_place() -> None:
    assert _store.netns_key("blue") == _store.netns_key("/run/netns/blue") == _store.netns_key("/var/run/netns/blue")
    assert _store.netns_key("/proc/12/ns/net") == "proc%12%ns%net"
    for unsafe in ("", "..", "a/b", "/run/netns/../x", "/", "a\nb"):
        with refused(InvalidInput, "namespace"):
            _store.netns_key(unsafe)
