# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a fleet: what is told, where it is drawn, and that no host can put anything into the page but text."""

from __future__ import annotations

import html.parser
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fleetvpn.routing.plugins.filter.report import fleet_page, fleet_report
from ansible_collections.fleetvpn.routing.plugins.plugin_utils._map import NOWHERE, WIDTH, Map, draw

from tests.unit.plugins.filter.answers import FINDING, HOSTILE, everywhere, host

FLEET = {
    "a": host(),
    "b": host("wrong"),
    "c": host("drifted"),
    "d": {"unreachable": True, "msg": "timed out"},
    "e": host("pending"),
}


class Page(html.parser.HTMLParser):
    """Elements with their attributes, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("style", "script"):
            self.text += data

    def shape(self) -> list[tuple[str, list[str]]]:
        """All that is no text: elements and the names of their attributes."""
        return [(tag, sorted(attributes)) for tag, attributes in self.elements]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def page(**answers: t.Any) -> Page:
    return Page(fleet_page(fleet_report(answers)))


class TestReport:
    def test_has_those_first_who_need_somebody(self) -> None:
        report = fleet_report(FLEET, "today")
        assert [each["name"] for each in report["hosts"]] == ["b", "c", "e", "d", "a"]
        assert report["counts"] == {"proven": 1, "pending": 1, "wrong": 1, "drifted": 1, "waiting": 1}
        assert (report["when"], report["ok"]) == ("today", False)

    def test_tells_what_is_in_the_way_what_was_put_right_and_who_changed_what(self) -> None:
        (only,) = fleet_report({"b": host("wrong")})["hosts"]
        assert only["findings"] == [FINDING]
        assert [(each["done"], each["times"]) for each in only["repairs"]] == [("put back", 3)]
        assert only["changes"][0] == {
            "set": "main",
            "when": "2026-11-28T04:00:00+00:00",
            "user": "alice",
            "controller": "192.0.2.250",
            "play": "Correct routing",
            "version": "1.0.0",
        }

    @pytest.mark.parametrize("said", ["all is well", 7, [[]], [{"key": {}}], {"sets": []}])
    def test_a_host_that_says_anything_does_not_spoil_it(self, said: object) -> None:
        keys = ("identities", "paths", "findings", "repairs")
        answers = {"a": {**host(), **dict.fromkeys(keys, said)}, "b": host()}
        assert "b" in Page(fleet_page(fleet_report(answers))).text

    def test_shows_so_much_of_one_host_and_no_more(self) -> None:
        told = host()
        (only,) = fleet_report({"a": {**told, "paths": [{**told["paths"][0], "to": "x" * 9999}] * 9999}})["hosts"]
        assert len(only["paths"]) == 200
        assert len(only["paths"][0]["to"]) == 500


class TestPage:
    def test_has_every_host_with_its_state(self) -> None:
        classes = [each["class"] for each in page(**FLEET).of("details")]
        assert classes == ["host wrong", "host drifted", "host pending", "host waiting", "host proven"]

    def test_loads_nothing(self) -> None:
        shown = page(**FLEET)
        assert not {tag for tag, _names in shown.shape()} & {"link", "img", "iframe", "object", "base", "use"}
        references = [value for _tag, each in shown.elements for key, value in each.items() if key in ("src", "href")]
        assert references == []

    @pytest.mark.parametrize("hostile", HOSTILE)
    def test_takes_what_a_host_says_for_text(self, hostile: str) -> None:
        """Whatever stands in every field: the same elements with the same attributes."""
        kept = ("state", "verdict", "severity")
        plain = everywhere(host("wrong"), "x", kept)
        assert page(**{hostile: everywhere(host("wrong"), hostile, kept)}).shape() == page(x=plain).shape()
        assert page(a=everywhere(host("wrong"), hostile, ())).of("script") == [{}]

    def test_shows_what_cannot_be_printed_as_such(self) -> None:
        text = page(a={"failed": True, "msg": "\x1b[2J \u202egnp.exe \ud800"}).text
        assert "\N{REPLACEMENT CHARACTER}[2J \N{REPLACEMENT CHARACTER}gnp.exe" in text
        text.encode()

    def test_lets_no_script_run_but_its_own(self) -> None:
        (policy,) = [each["content"] for each in page().of("meta") if each.get("http-equiv")]
        assert str(policy).startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in str(policy)
        assert [
            key for _tag, each in page(**FLEET).elements for key in each if key.startswith("on") or key == "style"
        ] == []

    @pytest.mark.parametrize("wrong", [[], "report", {}, None])
    def test_of_anything_else_is_refused(self, wrong: object) -> None:
        with pytest.raises(AnsibleFilterError, match="takes what filter fleet_report gives"):
            fleet_page(wrong)


def drawn(state: str = "proven") -> Map:
    (only,) = fleet_report({"a": host(state)})["hosts"]
    return draw(only["identities"], only["paths"], only["findings"])


class TestMap:
    def test_leads_from_identities_over_tables_to_devices(self) -> None:
        found = drawn()
        assert [box.texts[0] for box in found.boxes] == ["outside", "inside", "table 2001", "table 2002", "eth0", "wg0"]
        assert {line.text for line in found.lines} == {
            "outside by table 2001 to eth0: proven",
            "inside by table 2002 to wg0: proven",
        }

    def test_shows_the_way_that_a_wrong_path_goes_and_what_is_in_the_way(self) -> None:
        found = drawn("wrong")
        assert found.boxes[0].texts == (f"in the way, ahead: {FINDING['object']}",)
        assert {line.text for line in found.lines if line.state == "wrong"} == {"inside by table 77 to eth0: wrong"}

    def test_shows_that_a_pending_path_leads_nowhere(self) -> None:
        found = drawn("pending")
        assert [line.text for line in found.lines if line.state == "pending"] == [f"inside to {NOWHERE}: pending"]

    def test_of_a_host_that_was_not_asked_shows_the_declared_ways(self) -> None:
        (only,) = fleet_report({"a": {**host("pending"), "paths": []}})["hosts"]
        lines = draw(only["identities"], []).lines
        assert {line.text for line in lines if line.state == "pending"} == {"inside by table 2002 to wg0: pending"}

    def test_has_boxes_that_do_not_overlap_and_texts_that_fit(self) -> None:
        (only,) = fleet_report({"a": host(addresses=[f"2001:db8:1234:5678:9abc:def0:1234:{n}" for n in range(9)])})[
            "hosts"
        ]
        found = draw(only["identities"], only["paths"], [FINDING, FINDING])
        for kind in ("foreign", "identity", "table", "device"):
            column = [box for box in found.boxes if box.kind == kind]
            assert all(above.y + above.height < below.y for above, below in zip(column, column[1:], strict=False))
        assert max(box.y + box.height for box in found.boxes) <= found.height
        assert all(box.x + box.width <= WIDTH for box in found.boxes)
        inside = next(box for box in found.boxes if box.texts[0] == "inside")
        assert inside.texts[-1] == "and 7 more"
        assert all(len(text) <= 34 for _baseline, text in inside.rows)
