# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nftables table of a set through its life: with others beside it, changed by others, flushed, and without nft."""

from __future__ import annotations

import os
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _guard
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import (
    Conflict,
    KernelError,
    NotPermitted,
    NotSupported,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._host.apply import apply_sets, close, converge_sets
from ansible_collections.fleetvpn.routing.plugins.module_utils._host.sets import kept_sets
from ansible_collections.fleetvpn.routing.plugins.module_utils._host.status import read_status
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Netlink, open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation

from tests.functional.conftest import ip
from tests.functional.endpoints import (
    FIREWALL,
    IDENTITIES,
    STATE,
    TUNNEL,
    UPLINK,
    device,
    ensure,
    files,
    namespace,
    nft,
    state,
    tables,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

OURS, SECOND = "inet fleetvpn", "inet fleetvpn_second"
POOLED = [IDENTITIES[0], {**IDENTITIES[1], "pools": ["10.8.0.0/16", "fd00:8::/48"]}]


@pytest.fixture
def host() -> t.Iterator[str]:
    """An uplink, a tunnel, and a firewall of somebody else."""
    with namespace(*UPLINK, *TUNNEL) as netns:
        nft(netns, "-f", "-", text=FIREWALL)
        yield netns


def others(netns: str) -> dict[str, str]:
    return {name: text for name, text in tables(netns).items() if name not in (OURS, SECOND)}


class TestLife:
    def test_comes_changes_and_goes(self, host: str) -> None:
        before = state(host)
        first = ensure(host)
        assert (first.plan or [{}])[0] == {"op": "add", "kind": "guard", "family": None, "text": f"table {OURS}"}
        assert first.values["guard"] == {"state": "present", "table": OURS}
        assert not ensure(host).changed
        changed = ensure(host, identities=POOLED)
        assert (changed.plan or [{}])[0]["op"] == "replace"
        assert "ip saddr @pool_inside4" not in changed.before
        assert "ip saddr @pool_inside4" in changed.after
        assert "ip saddr @pool_inside4" in tables(host)[OURS]
        gone = ensure(host, state="absent")
        assert (gone.plan or [{}])[-1]["op"] == "remove"
        assert state(host) == before

    @pytest.mark.parametrize("options", [{"strict_egress": "false"}, {"identities": [IDENTITIES[0]]}])
    def test_goes_when_it_is_not_asked_for_any_more(self, host: str, options: dict[str, t.Any]) -> None:
        ensure(host)
        announced, done = ensure(host, check=True, **options), ensure(host, **options)
        assert (done.plan or [{}])[-1]["op"] == "remove"
        assert announced.plan == done.plan
        assert done.values["guard"] == {"state": "absent", "table": None}
        assert OURS not in tables(host)
        assert not ensure(host, **options).changed

    def test_stays_without_prune(self, host: str) -> None:
        ensure(host)
        kept = ensure(host, strict_egress="false", prune=False)
        assert kept.values["guard"]["state"] == "present"
        assert OURS in tables(host)
        assert not ensure(host, strict_egress="false", prune=False).changed
        ensure(host, strict_egress="false")
        assert OURS not in tables(host)

    def test_of_two_sets(self, host: str) -> None:
        ip("-n", host, lines=device("vpn1", "10.9.0.5/32"))
        second = [{"name": "other", "interface": ["vpn1"], "gateway": ["none"]}]
        ensure(host)
        first = tables(host)[OURS]
        ensure(host, set="second", identities=second)
        assert not ensure(host).changed
        assert tables(host)[OURS] == first
        assert "10.9.0.5" in tables(host)[SECOND]
        ensure(host, state="absent")
        assert OURS not in tables(host)
        assert SECOND in tables(host)
        ensure(host, set="second", state="absent")
        assert SECOND not in tables(host)

    def test_costs_nothing_where_it_is_neither_asked_for_nor_there(
        self, host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ensure(host, strict_egress="false")
        monkeypatch.setattr(_guard, "PROGRAMS", ())
        found = ensure(host, strict_egress="false")
        assert not found.changed
        assert found.warnings == []


class TestForeign:
    def test_tables_of_others_stay_to_the_letter(self, host: str) -> None:
        before = others(host)
        for options in (
            {},
            {"identities": POOLED, "strict_egress": "any", "strict_ingress": True},
            {"state": "absent"},
        ):
            ensure(host, **options)
            assert others(host) == before

    @pytest.mark.parametrize("check", [True, False])
    def test_a_table_of_our_name_that_is_not_ours(self, host: str, check: bool) -> None:
        nft(host, "add table inet fleetvpn; add chain inet fleetvpn leaving { type filter hook output priority 0; }")
        before = state(host), files(host)
        with pytest.raises(Conflict, match="somebody else's"):
            ensure(host, check=check)
        assert (state(host), files(host)) == before
        assert ensure(host, strict_egress="false").changed
        ensure(host, state="absent")
        assert state(host) == before[0]

    def test_ours_whose_record_is_lost_is_taken_over(self, host: str) -> None:
        """As rules of our protocol number are."""
        ensure(host)
        for path in (STATE / host / "sets.d").glob("main.*"):
            path.unlink()
        found = ensure(host, identities=POOLED)
        assert [step["op"] for step in found.plan or [] if step["kind"] == "guard"] == ["replace"]


TAMPERED = (
    "flush ruleset",
    "delete table inet fleetvpn",
    "flush table inet fleetvpn",
    "flush chain inet fleetvpn elsewhere",
    "insert rule inet fleetvpn egress accept",
    "add rule inet fleetvpn elsewhere counter accept",
    "add element inet fleetvpn internal { up0 }",
    "add element inet fleetvpn pool_inside4 { 10.9.0.0/24 }",
    "delete element inet fleetvpn address_inside4 { 198.51.100.10 }",
    "add chain inet fleetvpn more { type filter hook output priority 0; }",
    "add map inet fleetvpn extra { type ipv4_addr : verdict; }",
    "add set inet fleetvpn extra { type inet_service; }",
    "add counter inet fleetvpn extra",
    "add table inet fleetvpn { flags dormant; }",
    "add chain inet fleetvpn egress { policy drop; }",
)


class TestChangedByOthers:
    @pytest.mark.parametrize("command", TAMPERED)
    def test_is_put_back(self, host: str, command: str) -> None:
        ensure(host, identities=POOLED)
        before = tables(host)[OURS]
        nft(host, command)
        assert tables(host).get(OURS) != before
        assert ensure(host, check=True, identities=POOLED).changed
        found = ensure(host, identities=POOLED)
        assert [step["kind"] for step in found.plan or []] == ["guard"]
        assert tables(host)[OURS] == before

    def test_counting_is_no_change(self, host: str) -> None:
        ensure(host)
        nft(host, "insert rule inet fleetvpn egress counter packets 5 bytes 50")
        ensure(host)
        assert "counter packets 5" not in nft(host, "list", "table", "inet", "fleetvpn")
        assert not ensure(host).changed

    @pytest.mark.parametrize("time", range(5))
    def test_a_flush_in_a_row(self, host: str, time: int) -> None:
        ensure(host)
        for _each in range(10):
            nft(host, "flush", "ruleset")
            with open_kernel(host) as kernel:
                (applied,) = apply_sets(kernel, host)
            assert applied.result is not None
            assert [o.kind for o in applied.result.plan.operations] == ["guard"]
        assert OURS in tables(host)


class TestOnHost:
    """What the program does at boot, after an event, and when asked."""

    def test_status_tells_of_drift(self, host: str) -> None:
        ensure(host)
        nft(host, "flush", "ruleset")
        with open_kernel(host) as kernel:
            found = read_status(kernel, host)
        assert (found["state"], found["ok"]) == ("drifted", False)
        assert found["sets"][0]["drift"] == [f"add guard table {OURS}"]

    def test_a_set_that_cannot_be_applied_is_guarded_all_the_same(self, host: str) -> None:
        ensure(host, identities=POOLED)
        before = tables(host)[OURS]
        (kept,) = kept_sets(host)
        assert kept.record is not None
        nft(host, "flush", "ruleset")
        with open_kernel(host) as kernel:
            close(kernel, kept.record)
            assert tables(host)[OURS] == before
            close(kernel, kept.record)
        assert tables(host)[OURS] == before

    def test_a_closed_host_without_nft_has_its_backstops(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        ensure(host)
        (kept,) = kept_sets(host)
        assert kept.record is not None
        monkeypatch.setattr(_guard, "PROGRAMS", ())
        with open_kernel(host) as kernel:
            close(kernel, kept.record)


class TestWithoutNft:
    @pytest.fixture(autouse=True)
    def _gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_guard, "PROGRAMS", ("/nonexistent/nft",))

    def test_the_default_is_a_warning(self, host: str) -> None:
        for check in (True, False, False):
            found = ensure(host, check=check)
            assert found.values["guard"] == {"state": "missing", "table": None}
            assert [str(w) for w in found.warnings if "no egress guard" in str(w) and "nftables" in str(w)]
        assert not found.changed

    @pytest.mark.parametrize("options", [{"strict_egress": "any"}, {"strict_ingress": True}])
    def test_more_than_the_default_is_refused(self, host: str, options: dict[str, t.Any]) -> None:
        before = state(host), files(host)
        with pytest.raises(NotSupported) as caught:
            ensure(host, **options)
        assert caught.value.field == next(iter(options))
        assert (state(host), files(host)) == before

    def test_but_not_at_boot(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as there:
            there.setattr(_guard, "PROGRAMS", ("/usr/sbin/nft",))
            ensure(host, strict_egress="any")
        with open_kernel(host) as kernel:
            (applied,) = converge_sets(kernel, host)
        assert applied.result is not None
        assert [line for line in applied.remarks() if "no egress guard" in line]

    def test_no_option_needs_none(self, host: str) -> None:
        found = ensure(host, strict_egress="false")
        assert found.values["guard"] == {"state": "absent", "table": None}
        assert not [w for w in found.warnings if "guard" in str(w)]

    def test_it_comes_with_nft(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        ensure(host)
        monkeypatch.setattr(_guard, "PROGRAMS", ("/usr/sbin/nft",))
        assert [step["kind"] for step in ensure(host).plan or []] == ["guard"]


class TestWithoutPrivilege:
    def test_reading_says_so(self, host: str) -> None:
        """Then check mode of a host without sets goes on."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with open_kernel(host) as kernel:
                    os.setresuid(65534, 65534, 65534)
                    kernel.guard("fleetvpn")
            except NotPermitted:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0


class TestFailures:
    def test_nft_that_refuses_changes_nothing(
        self, host: str, tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = tmp_path / "nft"
        program.write_text('#!/bin/sh\n[ "$2" = list ] && exec /usr/sbin/nft "$@"\necho "Error: no more" >&2\nexit 1\n')
        program.chmod(0o755)
        monkeypatch.setattr(_guard, "PROGRAMS", (str(program),))
        before = state(host), files(host)
        with pytest.raises(KernelError, match="no more"):
            ensure(host)
        assert (state(host), files(host)) == before

    def test_a_run_killed_between_two_operations_leaves_what_the_next_one_finds(
        self, host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Twice, so that what the first one began is in no record any more."""
        before = state(host)
        apply = Netlink.apply
        for options in ({}, {"strict_egress": "false"}):
            pid = os.fork()
            if pid == 0:

                def stop(kernel: Netlink, operations: t.Sequence[Operation]) -> None:
                    apply(kernel, [o for o in operations if o.kind == "guard" and o.op == "add"])
                    os.kill(os.getpid(), 9)

                monkeypatch.setattr(Netlink, "apply", stop)
                try:
                    ensure(host, what_if="skip", **options)  # whose kernel is another one
                finally:
                    os._exit(1)
            assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        assert OURS in tables(host)
        ensure(host, state="absent")
        assert state(host) == before
