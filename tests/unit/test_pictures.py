# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures are those that tests/tools/pictures.py draws, and show what the recipe does on the guide's host.

That nothing in them covers anything else is for tests/functional/test_pictures.py.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t
import xml.etree.ElementTree as ET

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._explain import (
    ERROR,
    FOUND,
    SUPPRESSED,
    Scene,
    Step,
    Walk,
    explain,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Address, Flow
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe.facts import Facts

from tests.tools import pictures
from tests.tools.pictures import Arrow, Panel, Picture
from tests.unit.plugins.module_utils.hosts import BR0, LO, OUTSIDE, UP0, VPN0, connected, default, recipe

ETH0, WG0 = (dataclasses.replace(link, name=name) for link, name in ((UP0, "eth0"), (VPN0, "wg0")))
INSIDE: dict[str, t.Any] = {
    "name": "inside",
    "tunnel": {"type": "wireguard", "connection": "wg0"},
    "pools": ["198.51.100.0/24"],
}
# The host of the guide, and the same while its tunnel is down: then the kernel has no routes by it.
THERE = Facts(
    links=(LO, ETH0, BR0, WG0),
    addresses=(
        Address(4, "192.0.2.10", 24, "eth0"),
        Address(6, "2001:db8:2::10", 64, "eth0"),
        Address(4, "172.20.0.1", 24, "br0"),
        Address(4, "198.51.100.10", 32, "wg0"),
        Address(6, "2001:db8:51::10", 128, "wg0"),
    ),
    main=(
        default("eth0", "192.0.2.1"),
        connected("eth0", "192.0.2.0/24", "192.0.2.10"),
        connected("br0", "172.20.0.0/24", "172.20.0.1"),
        default("eth0", "2001:db8:2::1"),
        connected("eth0", "2001:db8:2::/64", "2001:db8:2::10"),
        Route(4, "10.0.0.0/8", dev="wg0", scope=253),
    ),
    tunnels={"inside": "wg0"},
)
AWAY = dataclasses.replace(
    THERE,
    links=(LO, ETH0, BR0, dataclasses.replace(WG0, up=False)),
    main=tuple(route for route in THERE.main if route.dev != "wg0"),
)
ADDRESS = re.compile(r"\b\d+(?:\.\d+){3}\b|\b2001:[\da-f:]+")
DEVICE = re.compile(r"\b(?:eth0|wg0|br0)\b")
RULE_IN_CONSOLE = re.compile(r"^   (\d+: +.*?)(?: proto fleetvpn)?$", re.MULTILINE)

ways = pytest.mark.parametrize("picture", pictures.WAYS, ids=lambda picture: picture.name)
files = pytest.mark.parametrize("picture", pictures.PICTURES, ids=lambda picture: picture.name)


def flow(picture: Picture) -> Flow:
    assert picture.sent
    return Flow(6 if ":" in picture.sent.to else 4, picture.sent.to, picture.sent.source, oif=picture.sent.device)


def walk(picture: Picture, panel: Panel, source: str | None = None) -> Walk:
    """The lookup in one half of a picture, by the recipe's rules and those of the kernel."""
    asked = flow(picture)
    away = any(box.state == "away" for box in picture.boxes.values())
    facts = AWAY if away else THERE
    desired = recipe(facts, (OUTSIDE, INSIDE)).desired
    kernels = [Rule(asked.family, at, table=table) for at, table in ((0, 255), (32766, 254), (32767, 253))]
    rules = [rule for rule in (*kernels, *desired.rules) if rule.family == asked.family]
    routes = [route for route in (*facts.main, *desired.routes) if route.family == asked.family]
    scene = Scene(
        sorted((rule for rule in rules if rule.priority not in panel.without), key=lambda rule: rule.priority),
        lambda table: [route for route in routes if route.table == table],
        {link.name: dataclasses.replace(link, group=151 if link.name == "wg0" else 0) for link in facts.links},
    )
    return explain(scene, dataclasses.replace(asked, source=source or asked.source))


def sending(panel: Panel) -> Arrow:
    (arrow,) = (arrow for arrow in panel.arrows if arrow.kind != "asks")
    return arrow


def told(step: Step) -> str:
    """As the picture says what came of a rule."""
    if step.outcome == FOUND:
        assert step.route
        return f"found: {'default' if step.route.dst.endswith('/0') else step.route.dst} dev {step.route.dev}"
    if step.outcome == SUPPRESSED:
        return f"suppressed: {step.why}"
    return "refused" if step.outcome == ERROR else step.outcome


def root(picture: Picture) -> ET.Element:
    return ET.parse(pictures.DOCS / picture.name).getroot()  # noqa: S314 -- our own


def texts(picture: Picture, css: str = "text") -> list[str]:
    """What the file says, in elements of a class or of that name."""
    found = root(picture).iterfind(".//{*}text")
    return [each.text or "" for each in found if css in ("text", *each.get("class", "").split())]


class TestFiles:
    def test_are_those_that_the_tool_draws(self) -> None:
        for path, text in pictures.current().items():
            assert path.read_text(encoding="utf-8") == text, f"{path.name}: run tests/tools/pictures.py"

    def test_are_all_that_there_are(self) -> None:
        assert set((pictures.DOCS / "ways").iterdir()) | {pictures.DOCS / "problem.svg"} == set(pictures.current())

    @files
    def test_tell_those_who_cannot_see_them(self, picture: Picture) -> None:
        drawn = root(picture)
        named = {each.get("id"): each.text for each in drawn if each.get("id")}
        assert drawn.get("role") == "img"
        labels = drawn.get("aria-labelledby", "").split()
        assert [named[name] for name in labels] == [picture.title, picture.description]

    @files
    def test_are_small_and_load_nothing(self, picture: Picture) -> None:
        text = (pictures.DOCS / picture.name).read_text(encoding="utf-8")
        assert len(text) < 16_000
        assert set(re.findall(r"https?://[^\s\"<)]+", text)) == {
            "http://www.w3.org/2000/svg",
            "https://www.gnu.org/licenses/gpl-3.0.txt",
        }
        assert set(re.findall(r"url\((.)", text)) == {"#"}
        assert "prefers-color-scheme: dark" in text


class TestColours:
    """WCAG 2: 4.5 for text, 3 for what is drawn."""

    @pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
    def test_can_be_told_from_what_is_behind_them(self, scheme: int) -> None:
        behind = dict.fromkeys(("ink", "quiet", "right", "wrong", "refused"), ("paper", "host", "box"))
        behind["ink"] += ("chosen",)
        low = [(name, under) for name, all_ in behind.items() for under in all_ if contrast(name, under, scheme) < 4.5]
        assert low == []
        assert contrast("line", "paper", scheme) >= 3


def contrast(one: str, other: str, scheme: int) -> float:
    lighter, darker = sorted((luminance(pictures.COLOURS[name][scheme]) for name in (one, other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class TestWays:
    @ways
    def test_rules_are_lines_of_the_guide(self, picture: Picture) -> None:
        console = {" ".join(line.split()) for line in RULE_IN_CONSOLE.findall(pictures.GUIDE.read_text("utf-8"))}
        shown = texts(picture, "rule")
        assert shown
        assert {f"{priority} {text}" for priority, text in zip(shown[::2], shown[1::2])} <= console

    @ways
    def test_what_comes_of_each_rule_is_what_the_lookup_says(self, picture: Picture) -> None:
        steps = walk(picture, picture.after).steps
        assert [(priority, outcome) for priority, _text, outcome in picture.asked] == [
            (step.rule.priority, told(step)) for step in steps
        ]
        assert steps[-1].ends
        assert texts(picture, "decides") == [told(steps[-1])]

    @ways
    @pytest.mark.parametrize("half", ["before", "after"])
    def test_packet_leaves_by_the_device_that_the_lookup_finds(self, picture: Picture, half: str) -> None:
        panel = getattr(picture, half)
        (path,) = walk(picture, panel).paths
        arrow = sending(panel)
        assert (None if arrow.kind == "refused" else arrow.stops[1]) == path.dev

    @ways
    def test_caption_names_the_rule_that_decides(self, picture: Picture) -> None:
        assert picture.after.caption.startswith(f"{picture.asked[-1][0]}: ")
        assert str(picture.asked[-1][0]) in picture.description

    @ways
    def test_addresses_and_devices_are_those_of_the_guide(self, picture: Picture) -> None:
        """But for who is far away, and the address that is new."""
        said = " ".join((*texts(picture), picture.title, picture.description))
        guide = pictures.GUIDE.read_text("utf-8")
        new = {"198.51.100.77", "172.20.0.5", "2001:db8:5::5"}
        shown = re.sub(r"(?m)^   :alt: .*(?:\n {9,}.*)*", "", guide)
        assert set(ADDRESS.findall(said)) - new <= set(ADDRESS.findall(shown))
        assert DEVICE.findall(said)

    def test_of_unbound_traffic_is_the_same_with_the_source_that_it_finds(self) -> None:
        (path,) = walk(pictures.UNBOUND, pictures.UNBOUND.after, "192.0.2.10").paths
        assert path.dev == "eth0"

    @ways
    def test_is_shown_by_the_guide_with_its_description(self, picture: Picture) -> None:
        guide = " ".join(pictures.GUIDE.read_text("utf-8").split())
        address = f"https://raw.githubusercontent.com/fleetvpn/fleetvpn.routing/main/docs/{picture.name}"
        assert f".. image:: {address} :alt: {picture.description}" in guide

    def test_cover_every_group_of_rules(self) -> None:
        """All but the backstop of the uplink, which is as that of the tunnel."""
        decisive = {picture.asked[-1][0] for picture in pictures.WAYS}
        assert decisive == {2100, 2200, 2201, 2301, 2302, 2625, 32766}
