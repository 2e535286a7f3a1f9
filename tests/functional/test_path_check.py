# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of module path_check, with records on disk and a real kernel, as root and as nobody."""

from __future__ import annotations

import functools
import os
import subprocess
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import (
    InvalidInput,
    NotPermitted,
    RoutingError,
    VerificationError,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._path_check import check_paths
from ansible_collections.fleetvpn.routing.plugins.module_utils._record import Record
from ansible_collections.fleetvpn.routing.plugins.module_utils._store import store_for
from ansible_collections.fleetvpn.routing.plugins.module_utils._worker import Context, Result

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

OUTER, INNER, FAR = "192.0.2.10", "198.51.100.10", "203.0.113.5"
NOBODY = 65534

BATCH = f"""
link set lo up
link add up0 type bridge
link add vpn0 type bridge
link add port0 type veth peer name port1
link set port0 master up0
link add port2 type veth peer name port3
link set port2 master vpn0
addr add {OUTER}/24 dev up0
addr add {INNER}/32 dev vpn0
link set port0 up
link set port1 up
link set port2 up
link set port3 up
link set up0 up
link set vpn0 up
route add default via 192.0.2.1 dev up0
route add default dev vpn0 src {INNER} table 2000
rule add from {INNER} iif lo lookup 2000 priority 2301
rule add from {INNER} iif lo unreachable priority 2302
"""

INSIDE = {"name": "inside", "interface": "vpn0", "addresses": [INNER], "table": 2000, "gateways": []}
OUTSIDE = {"name": "outside", "interface": "up0", "addresses": [OUTER], "table": 2001, "gateways": ["192.0.2.1"]}


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"fvt-check-{os.getpid()}"
    try:
        ip("netns", "add", name)
        ip("-n", name, "-batch", "-", text=BATCH)
        yield name
    finally:
        if os.path.exists(f"/run/netns/{name}"):
            ip("netns", "delete", name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where this host's files begin; readable for everybody, as / is."""
    for folder in [tmp_path, *list(tmp_path.parents)[:3]]:
        folder.chmod(0o755)
    return tmp_path


def ip(*words: str, text: str | None = None) -> None:
    done = subprocess.run(["ip", *words], input=text, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{words}: {done.stderr}"


def save(
    root: Path, name: str, *identities: dict[str, t.Any], netns: str | None = None, required: bool = False
) -> None:
    declaration = {"identities": [{"name": each["name"], "required": required} for each in identities]}
    store = store_for(False, netns, runtime_root=root / "run/fleetvpn")
    store.begin(name, Record(declaration=declaration, identities=list(identities)))
    store.commit(name)


def check(root: Path, netns: str, *paths: dict[str, t.Any]) -> Result:
    params = {"paths": list(paths), "netns": netns}
    return check_paths(Context(params, functools.partial(open_kernel, netns), root=str(root)))


def test_identities_of_several_sets(root: Path, netns: str) -> None:
    save(root, "main", OUTSIDE, netns=netns)
    save(root, "other", INSIDE, netns=netns)
    found = check(
        root,
        netns,
        {"from": "inside", "to": FAR, "expect": {"identity": "inside", "table": 2000}},
        {"from": "outside", "to": FAR, "expect": {"identity": "outside", "gateway": "192.0.2.1"}},
        {"to": FAR},
    )
    assert not found.changed
    entries = found.values["paths"]
    assert [each["verdict"] for each in entries] == ["proven", "proven", None]
    assert [each["identity"] for each in entries] == ["inside", "outside", "outside"]


def test_an_identity_with_two_egresses_has_both(root: Path, netns: str) -> None:
    second = {**INSIDE, "interface": "up0", "addresses": [OUTER], "table": 2005}
    save(root, "main", INSIDE, second, netns=netns)
    (one, two) = check(root, netns, {"from": "inside", "to": FAR, "expect": {"identity": "inside"}}).values["paths"]
    assert [(one["from"], one["dev"]), (two["from"], two["dev"])] == [(INNER, "vpn0"), (OUTER, "up0")]


def test_all_that_differ_are_named_and_all_are_returned(root: Path, netns: str) -> None:
    with pytest.raises(VerificationError) as caught:
        check(
            root,
            netns,
            {"from": INNER, "to": FAR, "expect": {"dev": "up0"}},
            {"from": OUTER, "to": FAR, "expect": {"dev": "up0"}},
            {"to": FAR, "ipproto": "tcp", "dport": "443", "expect": {"gateway": "none"}},
        )
    result = caught.value.as_result()
    assert result["field"] == "paths"
    assert result["msg"] == (
        "paths: 2 of 3 paths are not as expected: "
        "203.0.113.5 from 198.51.100.10 (dev: up0 expected, vpn0 found); "
        "203.0.113.5 ipproto tcp dport 443 (gateway: none expected, 192.0.2.1 found)"
    )
    assert [each["verdict"] for each in result["paths"]] == ["wrong", "proven", "wrong"]


@pytest.mark.parametrize("required", [False, True])
def test_pending_fails_only_if_required(root: Path, netns: str, required: bool) -> None:
    save(root, "main", INSIDE, netns=netns, required=required)
    ip("-n", netns, "link", "set", "vpn0", "down")
    path = {"from": "inside", "to": FAR, "expect": {"identity": "inside"}}
    if required:
        with pytest.raises(VerificationError, match="1 of 1 paths is not as expected"):
            check(root, netns, path)
    else:
        assert check(root, netns, path).values["paths"][0]["verdict"] == "pending"


def test_bad_input_is_refused_without_the_kernel(root: Path) -> None:
    def no_kernel() -> t.Any:
        raise AssertionError

    params = {"paths": [{"to": FAR}, {"to": FAR, "from": "inside"}]}
    with pytest.raises(InvalidInput) as caught:
        check_paths(Context(params, no_kernel, root=str(root)))
    assert caught.value.line() == (
        "paths[1].from: 'inside' is neither an address nor an identity; "
        "accepted: an address, or an identity: none of which is known"
    )


def test_a_damaged_record_is_told(root: Path, netns: str) -> None:
    save(root, "main", INSIDE, netns=netns)
    save(root, "main", INSIDE, netns=netns)
    (root / "run/fleetvpn/netns" / netns / "sets.d/main.json").write_text("")
    found = check(root, netns, {"from": "inside", "to": FAR, "expect": {"identity": "inside"}})
    assert found.warnings == ["the record of set main is unreadable; its last readable generation was used instead"]


def test_reading_needs_no_privilege(root: Path, netns: str) -> None:
    """As nobody, in the host's own namespace, which here is the one of the test."""
    save(root, "main", INSIDE)
    outcomes = as_nobody(
        root, netns, {"from": INNER, "to": FAR, "expect": {"dev": "vpn0"}}, {"from": "inside", "to": FAR}
    )
    assert outcomes == ["proven", "NotPermitted"]


def as_nobody(root: Path, netns: str, *paths: dict[str, t.Any]) -> list[str]:
    """What comes of each path, asked in a process without any privilege."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open_kernel(netns), os.fdopen(writer, "w") as pipe:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                pipe.write(" ".join(_outcome(root, path) for path in paths))
                pipe.flush()
                os._exit(0)
        finally:
            os._exit(1)  # whatever went wrong, the test run goes on in the parent alone
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read().split()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return told


def _outcome(root: Path, path: dict[str, t.Any]) -> str:
    try:
        found = check_paths(Context({"paths": [path]}, open_kernel, root=str(root)))
    except NotPermitted as error:
        return type(error).__name__ if "\n" not in error.line() else "lines"
    except RoutingError as error:
        return error.line().replace(" ", "_")
    return str(found.values["paths"][0]["verdict"])


def test_with_explain_each_path_carries_its_walk(root: Path, netns: str) -> None:
    save(root, "main", INSIDE, netns=netns)
    paths = [{"from": "inside", "to": FAR}, {"from": "192.0.2.77", "to": FAR}]
    for explain in (True, False):
        params = {"paths": paths, "netns": netns, "explain": explain}
        found = check_paths(Context(params, functools.partial(open_kernel, netns), root=str(root))).values["paths"]
        assert [("walk" in each) for each in found] == [explain, explain]
        if explain:
            (lookup,) = found[0]["walk"]
            assert lookup["agrees"]
            assert [step["outcome"] for step in lookup["steps"]] == ["no route", "found"]
            assert lookup["steps"][-1]["rule"] == f"2301: from {INNER} iif lo lookup 2000"
            assert lookup["answer"]["dev"] == lookup["expected"][0]["dev"] == "vpn0"
            assert found[1]["walk"] == [], "from an address that is not there no answer proves anything"
