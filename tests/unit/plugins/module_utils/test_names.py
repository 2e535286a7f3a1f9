# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of tables: where iproute2 would find them, which of them lie, and our own file."""

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput, RoutingError
from ansible_collections.fleetvpn.routing.plugins.module_utils._names import (
    PROTOCOLS,
    Names,
    edit,
    edited,
    name_protocols,
    resolve_table,
)
from hypothesis import given
from hypothesis import strategies as st

RESERVED = "255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n"


def host(root: pathlib.Path, **files: str) -> str:
    """A host with files, each by its path with __ for / and _DOT_ for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize("vendor", ["usr__share", "usr__lib", "usr__lib64"])
def test_vendor_files_are_read_unless_hidden_by_etc(tmp_path: pathlib.Path, vendor: str) -> None:
    root = host(
        tmp_path,
        **{
            f"{vendor}__iproute2__rt_tables": RESERVED + "10 vendor\n",
            f"{vendor}__iproute2__rt_tables_DOT_d__a_DOT_conf": "11 extra\n",
            f"{vendor}__iproute2__rt_tables_DOT_d__b_DOT_conf": "12 hidden\n",
            "etc__iproute2__rt_tables_DOT_d__b_DOT_conf": "13 own\n",
            "etc__iproute2__rt_tables_DOT_d__README": "14 remark\n",
        },
    )
    assert {entry.name for entry in Names.read(root=root).entries if entry.id < 250 and entry.id} == {
        "vendor",
        "extra",
        "own",
    }
    host(tmp_path, etc__iproute2__rt_tables=RESERVED)
    assert {entry.name for entry in Names.read(root=root).entries if entry.id < 250 and entry.id} == {"extra", "own"}


def test_lines_as_iproute2_reads_them(tmp_path: pathlib.Path) -> None:
    text = "# 1 no\n\n 10\tten\n0x14 twenty # 21 remark\nnonsense\n4294967295 top\n#30 thirty\n"
    root = host(tmp_path, etc__iproute2__rt_tables=text)
    found = {entry.name: entry.id for entry in Names.read(root=root).entries}
    assert found == {"ten": 10, "twenty": 20, "top": 4294967295}


@pytest.mark.parametrize(("value", "number"), [("inside", 2000), ("main", 254), (254, 254), ("2000", 2000), (7, 7)])
def test_a_table_by_name_or_number(tmp_path: pathlib.Path, value: object, number: int) -> None:
    root = host(tmp_path, etc__iproute2__rt_tables_DOT_d__x_DOT_conf="2000 inside\n")
    assert resolve_table(value, root=root) == number


@pytest.mark.parametrize(
    ("text", "name", "accepted"),
    [
        ("2000 inside\n", "outside", "inside"),
        ("2000 inside\n2001 inside\n", "inside", "a number"),
        ("100 main\n", "main", "a number"),
        ("254 inside\n", "inside", "main"),
        ("255 inside\n", "inside", "local"),
        ("0 inside\n", "inside", "a number"),
        ("0 unspec\n", "unspec", "a number"),
        ("", "0", "1 to 4294967295"),
        ("", "12x", "1 to 4294967295"),
    ],
)
def test_unknown_names_and_names_that_lie_are_refused(
    tmp_path: pathlib.Path, text: str, name: str, accepted: str
) -> None:
    root = host(tmp_path, etc__iproute2__rt_tables=text)
    with pytest.raises(InvalidInput) as caught:
        resolve_table(name, "rules[0].table", root=root)
    assert caught.value.field == "rules[0].table"
    assert accepted in str(caught.value.accepted)


def test_names_of_a_namespace(tmp_path: pathlib.Path) -> None:
    root = host(tmp_path, etc__iproute2__rt_tables="10 host\n", etc__netns__red__iproute2__rt_tables="10 red\n")
    assert Names.read(root=root, netns="red").name_of(10) == "red"
    assert Names.read(root=root, netns="blue").name_of(10) == "host"
    assert Names.read(root=root, netns="/proc/1/ns/net").name_of(10) == "host"


def test_our_file_comes_and_goes_and_nothing_else_is_written(tmp_path: pathlib.Path) -> None:
    root = host(tmp_path, etc__iproute2__rt_tables=RESERVED)
    before = sorted(tmp_path.rglob("*"))
    assert edit(Names.read(root=root), add={2000: "inside"})
    own = tmp_path / "etc/iproute2/rt_tables.d/fleetvpn.conf"
    assert own.stat().st_mode & 0o777 == 0o644
    assert resolve_table("inside", root=root) == 2000
    stamp = own.stat().st_ino
    assert not edit(Names.read(root=root), add={2000: "inside"})
    assert own.stat().st_ino == stamp
    assert edit(Names.read(root=root), add={2001: "inside"})
    assert resolve_table("inside", root=root) == 2001
    assert edit(Names.read(root=root), remove=["inside"])
    assert sorted(tmp_path.rglob("*")) == sorted([*before, own.parent])
    assert (tmp_path / "etc/iproute2/rt_tables").read_text() == RESERVED


def test_lines_of_others_in_our_file_stay(tmp_path: pathlib.Path) -> None:
    text = "# mine\n7 seven\n2000 inside\n"
    assert edited(text, remove=["inside"]).endswith("# mine\n7 seven\n")
    assert edited("# mine\n2000 inside\n", remove=["inside"]).endswith("# mine\n")


NAMES = st.sampled_from(["a", "b", "c"])


@given(st.dictionaries(st.integers(1, 5), NAMES), st.sets(NAMES))
def test_edits_do_what_they_say_and_twice_changes_nothing(add: dict[int, str], remove: set[str]) -> None:
    wanted = {number: name for number, name in add.items() if list(add.values()).count(name) == 1}
    text = edited("1 a\n9 z\n", add=wanted)
    assert edited(text, add=wanted) == text
    assert [line for line in text.splitlines() if line == "9 z"] == ["9 z"]
    less = edited(text, remove=remove)
    assert edited(less, remove=remove) == less
    assert not remove & {line.split()[1] for line in less.splitlines() if line[0] != "#"}


def test_protocols_get_their_names_unless_somebody_gave_others(tmp_path: pathlib.Path) -> None:
    root = host(tmp_path, etc__iproute2__rt_protos_DOT_d__other_DOT_conf="151 theirs\n")
    assert name_protocols(root=root)
    assert Names.read(PROTOCOLS, root=root).name_of(151) == "theirs"
    assert Names.read(PROTOCOLS, root=root).name_of(152) == "fleetvpn_task"
    assert not name_protocols(root=root)


def test_where_nothing_can_be_written_the_path_is_named(tmp_path: pathlib.Path) -> None:
    # Holds for root too, unlike a mode.
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/iproute2").write_text("")
    with pytest.raises(RoutingError, match=r"rt_tables\.d"):
        edit(Names.read(root=os.fspath(tmp_path)), add={2000: "inside"})
