# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status as metrics, held to the grammar of the text format, and as a monitoring plugin."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._host import metrics

from tests.unit.plugins.module_utils.exposition import parsed

PAUSED = {"since": None, "by": "", "until": None, "text": "suspended until it is resumed"}


def entry(name: str = "main", state: str = "proven", **more: t.Any) -> dict[str, t.Any]:
    identity = {"key": "inside", "verdict": "proven"}
    change = {"declared": "2026-11-28T04:00:00+00:00"}
    told = {"name": name, "state": state, "ok": state == "proven", "identities": [identity], "drift": []}
    return {**told, "warnings": [], "expires": None, "last_change": change, **more}


def status(*sets: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    ok = all(each["ok"] for each in sets)
    return {"version": "1.0.0", "ok": ok, "suspended": None, "sets": list(sets), "history": [], **more}


class TestMetrics:
    def test_tell_state_verdict_and_time(self) -> None:
        repair = {"set": "main", "done": "put back", "object": "rule", "first": "", "last": "", "times": 3}
        event = {**repair, "done": "ended", "times": 1}
        whole = status(
            entry(), entry("other", "drifted", drift=["add"], expires="2026-12-24T18:00:00Z"), history=[repair, event]
        )
        found = parsed(metrics.as_metrics(whole))
        assert found['fleetvpn_info{version="1.0.0"}'] == 1
        assert found["fleetvpn_ok"] == found["fleetvpn_suspended"] == 0
        assert found['fleetvpn_set_state{set="main",state="proven"}'] == 1
        assert found['fleetvpn_set_state{set="other",state="proven"}'] == 0
        assert found['fleetvpn_set_drift{set="other"}'] == 1
        assert found['fleetvpn_set_changed_timestamp_seconds{set="main"}'] == 1795838400
        assert found['fleetvpn_set_expires_timestamp_seconds{set="other"}'] == 1798135200
        assert found['fleetvpn_identity_verdict{set="main",identity="inside",verdict="proven"}'] == 1
        assert found['fleetvpn_repairs_total{set="main"}'] == 3
        assert found['fleetvpn_repairs_total{set="other"}'] == 0

    def test_of_a_host_without_sets(self) -> None:
        found = parsed(metrics.as_metrics(status()))
        assert set(found) == {'fleetvpn_info{version="1.0.0"}', "fleetvpn_ok", "fleetvpn_suspended"}

    def test_escape_what_would_end_a_label(self) -> None:
        text = metrics.as_metrics(status(entry('a"b\\c\nd')))
        assert 'set="a\\"b\\\\c\\nd"' in text
        parsed(text)


class TestCheck:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (status(entry()), (0, "FLEETVPN OK - 1 identities, 1 sets | proven=1 pending=0 wrong=0\n")),
            (status(entry(state="pending", ok=True)), (0, "FLEETVPN OK - ")),
            (status(entry(warnings=["a | b\nc"])), (1, "FLEETVPN WARNING - a / b c | proven=1")),
            (
                status(entry(state="suspended"), suspended=PAUSED),
                (1, "FLEETVPN WARNING - is suspended until it is resumed | proven=1"),
            ),
            (status(suspended=PAUSED), (1, "FLEETVPN WARNING - is suspended until it is resumed")),
            (status(entry(state="drifted")), (2, "FLEETVPN CRITICAL - main drifted | ")),
            (status(entry(state="pending")), (2, "FLEETVPN CRITICAL - main pending")),
            (status(entry(), entry("b", "unreadable", warnings=["x"])), (2, "FLEETVPN CRITICAL - b unreadable; x | ")),
            (status(), (3, "FLEETVPN UNKNOWN - no sets\n")),
        ],
    )
    def test_has_one_line_and_a_status(self, given: dict[str, t.Any], expected: tuple[int, str]) -> None:
        level, line = metrics.as_check(given)
        assert (level, line[: len(expected[1])]) == expected
        assert line.count("\n") == 1
