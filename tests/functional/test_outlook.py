# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Option what_if of module endpoint on a real kernel: what would go wrong is refused before anything changes."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _connections, _management, _netns, _whatif
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import NotPermitted, VerificationError
from ansible_collections.fleetvpn.routing.plugins.module_utils._management import Watched
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Flow
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_apply import Transaction
from ansible_collections.fleetvpn.routing.plugins.module_utils._paths import walk

from tests.functional.conftest import ip
from tests.functional.endpoints import (
    FAR,
    FAR6,
    GATEWAY,
    IDENTITIES,
    INSIDE,
    INSIDE6,
    OUTSIDE,
    OUTSIDE6,
    TUNNEL,
    UPLINK,
    ensure,
    files,
    namespace,
    state,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

PATHS = [
    {"from": "inside", "to": FAR, "expect": {"identity": "inside"}},
    {"from": "outside", "to": FAR6, "expect": {"identity": "outside"}},
    {"to": FAR, "expect": "unchanged"},
    {"to": FAR6, "oif": "vpn0"},
]


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[list[int]]:
    """The network namespaces in which changes were made."""
    places: list[int] = []
    real = Transaction.run

    def run(self: Transaction, operations: t.Any) -> None:
        places.append(os.stat(_netns.THIS_NETNS).st_ino)
        real(self, operations)

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "run", run)
        yield places


def test_check_mode_foresees_what_then_comes() -> None:
    with namespace(*UPLINK, *TUNNEL) as netns:
        before = state(netns)
        announced = ensure(netns, check=True, paths=PATHS)
        assert (state(netns), files(netns)) == (before, [])
        done = ensure(netns, paths=PATHS)
        for foreseen, come in zip(announced.values["paths"], done.values["paths"], strict=True):
            planned = {key: come[key] for key in ("dev", "gateway", "src", "table", "type")}
            assert foreseen["planned"] == come["planned"] == planned
            assert foreseen["verdict"] == come["verdict"]
            assert (foreseen["dev"], foreseen["unjudged"]) == (None, None)
            assert foreseen["before"] is not None
            assert foreseen["before"] == come["before"]
        assert [each["verdict"] for each in announced.values["identities"]] == ["proven", "proven"]
        assert {each["verdict"] for each in done.values["paths"]} == {"proven", None}
        inside = next(each for each in announced.values["paths"] if each["from"] == INSIDE)
        assert (inside["before"]["dev"], inside["planned"]["dev"]) == ("up0", "vpn0")


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("trap", "paths", "says"),
    [
        ("rule add pref 1500 lookup main", [], f"inside: {GATEWAY} from {INSIDE}: dev: vpn0 expected, up0 found"),
        ("rule add pref 1000 from 198.51.100.0/24 lookup main", [], f"from {INSIDE}: dev: vpn0 expected, up0 found"),
        ("rule add pref 1000 ipproto tcp goto 32766", [{"from": "inside", "to": FAR, "ipproto": "tcp", "expect": {
            "identity": "inside"}}], f"{FAR} from {INSIDE} ipproto tcp: identity: inside expected"),
        ("route add unreachable 203.0.113.0/24", [{"from": "outside", "to": FAR, "expect": {"dev": "up0"}}],
         f"{FAR} from {OUTSIDE}: dev: up0 expected, unreachable found"),
    ],
)  # fmt: skip
def test_what_would_be_wrong_is_refused_before_anything_changes(
    trap: str, paths: list[dict[str, t.Any]], says: str, check: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with namespace(*UPLINK, *TUNNEL, trap) as netns:
        before = state(netns), files(netns)
        with _netns.inside(netns):
            here = os.stat(_netns.THIS_NETNS).st_ino
        with watched(monkeypatch) as places, pytest.raises(VerificationError) as refused:
            ensure(netns, check=check, paths=paths)
        assert "the kernel would not give the declared path" in refused.value.line()
        assert says in refused.value.line()
        assert places, "the plan was tried"
        assert here not in places, "and not here"
        assert (state(netns), files(netns)) == before


@pytest.mark.parametrize("check", [False, True])
def test_so_is_another_way_for_a_path_to_keep(check: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inside address goes by the uplink today, and would go by the tunnel."""
    with namespace(*UPLINK, *TUNNEL) as netns:
        before = state(netns), files(netns)
        with _netns.inside(netns):
            here = os.stat(_netns.THIS_NETNS).st_ino
        with watched(monkeypatch) as places, pytest.raises(VerificationError) as refused:
            ensure(netns, check=check, keep_paths=[{"from": INSIDE, "to": FAR}])
        assert f"{FAR} from {INSIDE}: " in refused.value.line()
        assert places
        assert here not in places
        assert (state(netns), files(netns)) == before


def test_skip_finds_out_afterwards_and_undoes_it() -> None:
    with namespace(*UPLINK, *TUNNEL, "rule add pref 1500 lookup main") as netns:
        before = state(netns)
        with pytest.raises(VerificationError, match="the kernel does not give the declared path"):
            ensure(netns, what_if="skip")
        assert state(netns) == before


def test_report_warns_and_goes_on() -> None:
    """Then a path that is wrong is undone as ever; in check mode the warning is all."""
    with namespace(*UPLINK, *TUNNEL, "rule add pref 1500 lookup main") as netns:
        announced = ensure(netns, check=True, what_if="report")
        assert any("would not give the declared path" in line for line in announced.warnings)
        assert "wrong" in {each["verdict"] for each in announced.values["paths"]}
        assert announced.changed
        with pytest.raises(VerificationError, match="does not give the declared path"):
            ensure(netns, what_if="report")


STATED = [{**IDENTITIES[0], "gateway": [GATEWAY], "families": ["ipv4"]}, *IDENTITIES[1:]]
RESOLVES = "link set up0 arp on"
ANSWERS = f"neigh replace {GATEWAY} lladdr 02:00:00:00:00:01 dev up0 nud permanent"


@pytest.mark.parametrize("check", [False, True])
def test_a_stated_gateway_that_does_not_answer_is_refused(check: bool) -> None:
    with namespace(*UPLINK, *TUNNEL, RESOLVES) as netns:
        before = state(netns), files(netns)
        with pytest.raises(VerificationError, match=f"outside: gateway {GATEWAY} does not answer on up0"):
            ensure(netns, check=check, identities=STATED)
        assert (state(netns), files(netns)) == before
        said = ensure(netns, check=check, identities=STATED, what_if="report").warnings
        assert any("does not answer" in line for line in said)


def test_a_gateway_that_answers_is_not_asked_again_while_it_is_away() -> None:
    with namespace(*UPLINK, *TUNNEL, RESOLVES, ANSWERS) as netns:
        ensure(netns, identities=STATED)
        ip("-n", netns, lines=[f"neigh del {GATEWAY} dev up0"])
        assert not ensure(netns, identities=STATED).changed
        assert ensure(netns, identities=[STATED[0], {**STATED[1], "mtu": 1400}]).changed
        assert ensure(netns, identities=[], state="absent").changed


def test_without_a_namespace_it_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise NotPermitted("may not make a network namespace")

    with namespace(*UPLINK, *TUNNEL) as netns, monkeypatch.context() as patch:
        patch.setattr(_netns, "_unshare", refused)
        announced = ensure(netns, check=True, paths=PATHS)
        assert {each["verdict"] for each in announced.values["paths"]} == {None}
        done = ensure(netns, paths=PATHS)
        for result in (announced, done):
            assert any("what would come of the plan was not asked" in line for line in result.warnings)
        assert [each["verdict"] for each in done.values["identities"]] == ["proven", "proven"]


def test_a_backstop_is_foreseen() -> None:
    """The tunnel is away: pending, and the error is what the plan comes to."""
    with namespace(*UPLINK, *TUNNEL, "link set vpn0 down") as netns:
        identities = [{**IDENTITIES[1], "addresses": [INSIDE]}, IDENTITIES[0]]
        found = ensure(netns, check=True, identities=identities)
        assert {each["name"]: each["verdict"] for each in found.values["identities"]} == {
            "inside": "pending",
            "outside": "proven",
        }


def test_an_unchanged_run_makes_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise AssertionError

    with namespace(*UPLINK, *TUNNEL) as netns:
        ensure(netns, paths=PATHS)
        monkeypatch.setattr(_whatif, "open_scratch", fail)
        for check in (True, False):
            assert not ensure(netns, check=check, paths=PATHS).changed


def test_it_costs_a_changing_run_at_most_a_quarter_of_a_second() -> None:
    """Time of the processor, as a busy machine lengthens all other; the kernel's part in it counts."""
    costs: dict[str, list[float]] = {"enforce": [], "skip": []}
    with namespace(*UPLINK, *TUNNEL) as netns:
        for _round in range(5):
            for what_if, taken in costs.items():
                begun = time.process_time()
                ensure(netns, check=False, what_if=what_if, paths=PATHS)
                taken.append(time.process_time() - begun)
                ensure(netns, state="absent", what_if="skip")
    median = {name: statistics.median(taken) for name, taken in costs.items()}
    print(f"with what-if: {median['enforce'] * 1000:.0f} ms, without: {median['skip'] * 1000:.0f} ms")
    assert median["enforce"] - median["skip"] < 0.25


@pytest.mark.parametrize("what_if", ["enforce", "report"])
def test_the_management_connection_is_among_what_is_foreseen(what_if: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address becomes one of the tunnel's, at whose far end no controller is."""
    flow = Flow(4, FAR, OUTSIDE, ipproto=6, sport=22, dport=40000)
    rules = [{"priority": 1000, "from": OUTSIDE, "table": "900"}]
    routes = [{"dst": "default", "dev": "vpn0", "table": "900", "family": "ipv4"}]
    monkeypatch.setattr(_management, "watched", lambda kernel: Watched(flow, walk(kernel, flow).decided))
    with namespace(*UPLINK, *TUNNEL) as netns:
        before = state(netns)
        given = {"identities": [], "rules": rules, "routes": routes, "what_if": what_if, "check": True}
        if what_if == "report":
            assert any("would cut off" in line for line in ensure(netns, **given).warnings)
            return
        with watched(monkeypatch) as places, pytest.raises(VerificationError, match="would cut off"):
            ensure(netns, **{**given, "check": False})
        assert len(set(places)) == 1, "in the copy alone"
        assert state(netns) == before


@pytest.mark.parametrize("check", [True, False])
def test_the_management_connection_is_listed_and_what_cannot_be_judged_of_it_is_said(
    check: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its way is by a nexthop object, which is not copied."""
    flow = Flow(4, "203.0.113.9", OUTSIDE, ipproto=6, sport=22, dport=40000)
    monkeypatch.setattr(_management, "watched", lambda kernel: Watched(flow, walk(kernel, flow).decided))
    with namespace(*UPLINK, *TUNNEL) as netns:
        listed = ensure(netns, check=True).values["management"]
        assert listed["flow"].startswith("203.0.113.9 from")
        assert (listed["before"]["dev"], listed["planned"]["dev"], listed["unjudged"]) == ("up0", "up0", None)
        ip("-n", netns, "nexthop", "add", "id", "7", "via", "192.0.2.1", "dev", "up0")
        ip("-n", netns, "route", "add", "203.0.113.0/24", "nhid", "7")
        done = ensure(netns, check=check)
        assert (done.values["management"]["planned"], done.values["management"]["unjudged"]) == (
            None,
            "203.0.113.0/24 nhid 7 table 254 cannot be copied",
        )
        assert any("manages this host is not judged beforehand: 203.0" in line for line in done.warnings)
        ensure(netns)
        assert ensure(netns).values["management"] is None


TCP_REPAIR = 19


@contextlib.contextmanager
def connected(netns: str, source: str, to: str, kind: int = socket.SOCK_DGRAM) -> t.Iterator[None]:
    """A socket of the namespace that is connected; TCP without anybody at the far end."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with _netns.inside(netns):
        made = socket.socket(family, kind)
    with made:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        made.bind((source, 0))
        made.connect((to, 7000))
        yield


class TestLiveConnections:
    @pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
    @pytest.mark.parametrize(("source", "to"), [(INSIDE, FAR), (INSIDE6, FAR6)])
    def test_one_that_goes_another_way_is_listed(self, source: str, to: str, kind: int) -> None:
        """And no other: not the one by the uplink, to this host itself, or a second that no rule can tell from it."""
        stays = (OUTSIDE6, FAR6) if ":" in source else (OUTSIDE, FAR)
        with contextlib.ExitStack() as stack:
            netns = stack.enter_context(namespace(*UPLINK, *TUNNEL))
            for pair in ((source, to), (source, to), stays, (source, stays[0])):
                stack.enter_context(connected(netns, *pair, kind))
            announced, done, again = (ensure(netns, check=True), ensure(netns), ensure(netns))
            (found,) = announced.values["connections"]
            assert found["flow"] == f"{to} from {source}"
            assert (found["before"]["dev"], found["planned"]["dev"], found["unjudged"]) == ("up0", "vpn0", None)
            assert done.values["connections"] == [found]
            assert again.values["connections"] == []
            assert not [line for line in [*announced.warnings, *done.warnings] if "connection" in line]

    def test_one_that_would_have_no_way_is_a_warning(self) -> None:
        rules = [{"priority": 1000, "from": OUTSIDE, "dport": "7000", "ipproto": "udp", "action": "unreachable"}]
        with namespace(*UPLINK) as netns, connected(netns, OUTSIDE, FAR), connected(netns, OUTSIDE, "203.0.113.10"):
            given = {"identities": [], "rules": rules}
            announced = ensure(netns, check=True, **given)
            assert [each["planned"]["type"] for each in announced.values["connections"]] == ["unreachable"] * 2
            (line,) = (line for line in announced.warnings if "no way any more" in line)
            assert line.count("dport 7000") == 2, "a rule looks at ports, so they are told apart"
            assert ensure(netns, what_if="skip", **given).values["connections"] == []

    def test_what_is_not_judged_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with namespace(*UPLINK, *TUNNEL) as netns, contextlib.ExitStack() as stack:
            for last in range(3):
                stack.enter_context(connected(netns, INSIDE, f"203.0.113.{last + 10}"))
            monkeypatch.setattr(_connections, "MOST_FLOWS", 2)
            found = ensure(netns, check=True)
            assert len(found.values["connections"]) == 2
            assert "not every live connection is judged: there are 1 more than are asked for" in found.warnings
            monkeypatch.setattr(_connections, "MOST_SOCKETS", 2)
            found = ensure(netns, check=True)
            assert found.values["connections"] == []
            assert "not every live connection is judged: there are more than 2" in found.warnings
