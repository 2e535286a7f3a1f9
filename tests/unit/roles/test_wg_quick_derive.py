# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The derived configuration: when, what, and that no key ever gets out."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = Path(__file__).resolve().parents[3] / "roles" / "vpn_wireguard" / "files" / "wg_quick_derive.py"
SECRET = "cE9TRUNSRVQtU0VDUkVULVNFQ1JFVC1TRUNSRVQtMTI="
FULL = f"""# the office
[Interface]
PrivateKey = {SECRET}
Address = 10.9.0.10/24, fd00:9::10/64
Table = auto # as ever
PostUp = echo up

[Peer]
PublicKey = {SECRET}
PresharedKey = {SECRET}
AllowedIPs = 0.0.0.0/0, 10.7.0.0/16
AllowedIPs = ::/0
"""


def _module() -> t.Any:
    spec = importlib.util.spec_from_file_location("wg_quick_derive", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["wg_quick_derive"] = module
    spec.loader.exec_module(module)
    return module


derive = _module()


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Where configurations are read and written; the second is not there yet."""
    source = tmp_path / "wireguard"
    source.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    return source, run / "fleetvpn" / "wg-quick"


def _derived(content: str, name: str = "wg0") -> list[str]:
    config = derive.parse(content.encode())
    return t.cast("list[str]", derive.derive(config, name, derive.choose_mark(config, [])).decode().splitlines())


def _lines(derived: t.Iterable[str], key: str) -> list[str]:
    return [line.partition("=")[2].strip() for line in derived if line.partition("=")[0].strip() == key]


def test_a_full_tunnel_gets_table_off_and_a_mark() -> None:
    """wg-quick itself sets a mark only where it sets rules."""
    derived = _derived(FULL)
    assert _lines(derived, "Table") == ["off"]
    assert _lines(derived, "FwMark") == ["0xca6c"]


def test_every_other_line_is_the_users_own_and_in_its_order() -> None:
    """What is added stands together, right after the first [Interface], ahead of the user's own hooks."""
    derived = _derived(FULL)
    own = [line for line in FULL.splitlines() if not line.startswith("Table")]
    added = derived[2 : 2 + len(derived) - len(own)]
    assert derived[:2] + derived[2 + len(added) :] == own
    assert _lines(derived, "PostUp")[-1] == "echo up"


def test_rules_have_priorities_behind_those_of_the_endpoint_and_go_away_again() -> None:
    """In wg-quick's own words, so that it removes them too when it goes down without the derived file."""
    derived = _derived(FULL)
    for family in (4, 6):
        for rule in (
            "table main suppress_prefixlength 0 priority 32764",
            "not fwmark 0xca6c table 51820 priority 32765",
        ):
            assert [line for line in _lines(derived, "PostUp") if line.endswith(f"ip -{family} rule add {rule}")]
            assert [line for line in _lines(derived, "PostDown") if line.endswith(f"ip -{family} rule delete {rule}")]


def test_routes_are_those_that_wg_quick_adds() -> None:
    """Longer prefixes first and in main, everything in the table of the mark."""
    hooks = _lines(_derived(FULL), "PostUp")
    assert hooks[0].endswith("ip -4 route add 10.7.0.0/16 dev wg0")
    assert hooks[1:3] == [
        "ip -4 route replace 0.0.0.0/0 dev wg0 table 51820",
        "ip -6 route replace ::/0 dev wg0 table 51820",
    ]


def test_one_family_alone() -> None:
    """The other keeps its way."""
    derived = _derived(FULL.replace("AllowedIPs = ::/0\n", "AllowedIPs = fd00:7::/64\n"))
    assert not [line for line in derived if "ip -6 rule" in line]
    assert [line for line in derived if line.endswith("ip -6 route add fd00:7::/64 dev wg0")]


@pytest.mark.parametrize(
    ("mark", "table"), [("FwMark = 77", 77), ("fwmark=0x4D # x", 77), (" FWMARK = off", 51820), ("FwMark = 0", 51820)]
)
def test_the_users_mark_is_kept_and_one_that_is_off_is_replaced(mark: str, table: int) -> None:
    """The mark is the number of the table, as with wg-quick."""
    derived = _derived(FULL.replace("Table = auto # as ever", mark))
    assert [line for line in derived if line.endswith(f"dev wg0 table {table}")]
    marks = [line for line in derived if line.lower().strip().startswith("fwmark")]
    assert marks == ([mark] if table == 77 else ["FwMark = 0xca6c"])


def test_a_mark_that_another_tunnel_has_is_not_taken() -> None:
    """Two full tunnels at once are odd, but no reason not to start."""
    first = derive.parse(b"[Interface]\nFwMark = 51820\n")
    assert derive.choose_mark(derive.parse(FULL.encode()), [first]) == 51821


@pytest.mark.parametrize(
    "content",
    [
        FULL.replace("Table = auto # as ever", "Table = off"),
        FULL.replace("Table = auto # as ever", "table=off"),
        FULL.replace("Table = auto # as ever", "Table = 1234"),
        FULL.replace("0.0.0.0/0, ", "").replace("::/0", "fd00:7::/64"),
        FULL.replace("0.0.0.0/0, ", "").replace("AllowedIPs = ::/0", "# AllowedIPs = ::/0"),
    ],
)
def test_a_tunnel_that_sets_no_rules_is_left_as_it_is(content: str) -> None:
    """To the byte: the drop-in may stand there while the user edits the file."""
    config = derive.parse(content.encode())
    assert not config.needed
    assert derive.derive(config, "wg0", 51820) == content.encode()


@pytest.mark.parametrize(
    "content",
    [
        FULL,
        FULL.replace("Table = auto # as ever\n", ""),
        FULL.replace("\n", "\r\n"),
        FULL.replace("[Interface]", "  [interface] # mine"),
        FULL.replace("0.0.0.0/0, ", "").replace("AllowedIPs = ::/0", "allowed ips=10.0.0.0/8,1.2.3.4/0"),
        FULL.replace("0.0.0.0/0, ", "").replace("AllowedIPs = ::/0", "AllowedIPs = +::/0"),
        FULL.replace("[Peer]", "[ PEER ]"),
        FULL.replace("Table = auto # as ever", "Table = off\nTable = auto"),
        FULL.replace("AllowedIPs = ::/0", "Table = off\nAllowedIPs = ::/0"),
        FULL.rstrip("\n"),
    ],
)
def test_it_is_needed_however_it_is_written(content: str) -> None:
    """With the rules of wg-quick's parser and of wg's; Table below [Peer] is none of wg-quick's."""
    assert derive.parse(content.encode()).needed


def test_bytes_that_are_no_text_survive() -> None:
    """A comment in another encoding."""
    content = b"# \xff\xfe caf\xe9\n" + FULL.encode()
    derived = derive.derive(derive.parse(content), "wg0", 51820)
    assert derived.startswith(b"# \xff\xfe caf\xe9\n# the office\n[Interface]\nTable = off\n")


def test_the_file_and_its_directory_are_private(places: tuple[Path, Path]) -> None:
    """From the first byte, whatever the umask says, and also when it replaces an older one."""
    source, target = places
    (source / "wg0.conf").write_text(FULL)
    before = os.umask(0)
    try:
        assert derive.main(["wg0"], source, target) == 0
        assert derive.main(["wg0"], source, target) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((target / "wg0.conf").stat().st_mode) == 0o600
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert [path.name for path in target.iterdir()] == ["wg0.conf"]
    assert (source / "wg0.conf").read_text() == FULL


def test_a_directory_that_others_can_write_to_gets_no_keys(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor one that a link leads to."""
    source, target = places
    (source / "wg0.conf").write_text(FULL)
    target.mkdir(parents=True)
    target.chmod(0o777)
    assert derive.main(["wg0"], source, target) == 1
    target.rmdir()
    target.symlink_to(source)
    assert derive.main(["wg0"], source, target) == 1
    assert capsys.readouterr().err.count("is not a directory that its owner alone can write to") == 2
    assert sorted(path.name for path in source.iterdir()) == ["wg0.conf"]


def test_the_report_says_what_the_role_asks(places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """And writes nothing."""
    source, target = places
    (source / "wg0.conf").write_text(FULL.replace("PostUp", "saveconfig = True\nPostUp"))
    assert derive.main(["--check", "wg0"], source, target) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"needed": True, "fwmark": 51820, "families": ["ipv4", "ipv6"], "save_config": True}
    assert not target.exists()


def test_the_report_of_a_tunnel_that_somebody_else_starts(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no file, and nothing to do."""
    assert derive.main(["--check", "wg7"], *places) == 0
    assert json.loads(capsys.readouterr().out)["needed"] is False


HOSTILE = {
    "no section": FULL.replace("[Interface]", ""),
    "no file": None,
    "mark": FULL.replace("Table = auto # as ever", f"FwMark = {SECRET}"),
    "prefix": FULL.replace("::/0", SECRET),
    "injection": FULL.replace("::/0", f"$(echo {SECRET})/0"),
    "zero byte": FULL.replace("[Peer]", f"{SECRET}\0[Peer]"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_cannot_be_read_is_refused_in_one_line_without_a_key(
    content: str | None, places: tuple[Path, Path]
) -> None:
    """As the unit would run it; standard error goes to the journal."""
    source, target = places
    if content is not None:
        (source / "wg0.conf").write_text(content)
    code = (
        "import sys, wg_quick_derive as w; from pathlib import Path as P;"
        f" sys.exit(w.main(['wg0'], P({str(source)!r}), P({str(target)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=PROGRAM.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert SECRET not in done.stderr
    assert not target.exists()


@pytest.mark.parametrize("name", ["../wg0", "", "a" * 16, "wg 0", "wg0\n", "-x"])
def test_an_unsafe_name_is_refused(name: str, places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """wg-quick would refuse it as well, but only after the keys were written somewhere."""
    assert derive.main(["--check", "--", name], *places) in (0, 1)
    if name != "-x":
        assert "is no interface name" in capsys.readouterr().err


@given(st.text(alphabet="[]=#/,:0.% \t\r\nInterfacePeerTableAllowedIPsFwMark", max_size=200))
def test_anything_is_read_or_refused_and_what_is_derived_needs_no_deriving(text: str) -> None:
    """No traceback, which would end up in the journal."""
    try:
        config = derive.parse(text.encode())
        once = derive.derive(config, "wg0", derive.choose_mark(config, []))
    except derive.Refusal:
        return
    again = derive.parse(once)
    assert not again.needed or not any(line.quick for line in config.lines)
