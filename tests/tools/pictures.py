# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw the pictures of the documentation: what is in them is data below, their rules are those that a guide shows.

pictures.py            write
pictures.py --check    exit with 1 if a picture is not current, and name it
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import typing as t
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GUIDE = DOCS / "docsite" / "rst" / "guide_how_it_works.rst"
# What every file of the repository begins with, this one too.
NOTICE = "\n".join(line.removeprefix("# ") for line in Path(__file__).read_text(encoding="utf-8").splitlines()[:3])
_CONSOLE = re.compile(r"^   \$ ip rule\n((?:   \d+: .*\n)+)", re.MULTILINE)
_RULE = re.compile(r"^   (\d+): +(.*?)(?: proto fleetvpn)?$", re.MULTILINE)


# --- what is drawn ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Box:
    """What a packet comes by, or where it begins or ends."""

    row: str  # network, device, or program
    column: int
    title: str
    detail: str
    state: str = ""  # away: a device that is down; inside: a network within the host


@dataclasses.dataclass(frozen=True)
class Arrow:
    """A packet's way from box to box. One that goes wrong does not reach the last, one that is refused no second."""

    kind: str  # asks, right, wrong, or refused
    stops: tuple[str, ...]
    shifts: tuple[int, int] | None = None  # of its ends, to the right; None: as all of its kind
    label: str = ""
    side: int = 1  # of the label: 1 right, -1 left


@dataclasses.dataclass(frozen=True)
class Panel:
    """One half of a picture."""

    title: str
    caption: str
    arrows: tuple[Arrow, ...]
    without: t.Collection[int] = ()  # the rules of ours that are missing, by priority


@dataclasses.dataclass(frozen=True)
class Sent:
    """The packet whose way it is."""

    to: str
    source: str | None = None
    device: str | None = None  # the socket is bound to it

    @property
    def lines(self) -> tuple[str, str]:
        """What the program's box says."""
        if self.source:
            return f"program sends from {self.source}", f"to {self.to}"
        chosen = f"socket is bound to {self.device}" if self.device else "program has chosen no source"
        return chosen, f"sends to {self.to}"


@dataclasses.dataclass(frozen=True)
class Picture:
    """Before and after, and the rules that are asked."""

    name: str  # of its file, below docs
    title: str
    description: str
    boxes: dict[str, Box]
    before: Panel
    after: Panel
    sent: Sent | None = None
    # What comes of the rules; those that are not here do not match. The last one decides.
    outcomes: dict[int, str] = dataclasses.field(default_factory=dict)

    @property
    def asked(self) -> list[tuple[int, str, str]]:
        """Priority, text and outcome of each rule from the first to the one that decides."""
        return [
            (priority, text, self.outcomes.get(priority, "no match"))
            for priority, text in guide_rules().items()
            if priority <= max(self.outcomes, default=-1)
        ]


def guide_rules() -> dict[int, str]:
    """The rules of the guide's host, as it prints them."""
    console = _CONSOLE.search(GUIDE.read_text(encoding="utf-8"))
    if console is None:
        raise ValueError(f"{GUIDE} shows no rules")
    return {int(priority): text for priority, text in _RULE.findall(console[1])}


# --- the guide's host and what happens on it -------------------------------------------------------------------------

BLOCK = range(2000, 3000)
MAIN_ALONE = "Table main alone"
WITH_RULES = "With the rules"
ETH0 = Box("device", 0, "eth0", "192.0.2.10")
WG0 = Box("device", 1, "wg0", "198.51.100.10")
INTERNET = Box("network", 0, "Internet", "203.0.113.5")
GATEWAY = Box("network", 1, "VPN gateway", "10.0.0.0/8 behind it")
HOST = {"internet": INTERNET, "gateway": GATEWAY, "eth0": ETH0, "wg0": WG0}
BY_UPLINK = ("program", "eth0", "internet")
BY_TUNNEL = ("program", "wg0", "gateway")
THROUGH = ("internet", "gateway", "wg0", "program")

PROBLEM = Picture(
    "problem.svg",
    "Replies of a VPN endpoint, without and with source-based routing",
    "Two copies of one picture. A host has an outside address O on its uplink and an inside address I on its "
    "tunnel. On the left, the table main alone decides: the reply to the Internet that asked I leaves by the "
    "uplink and is dropped there, and the reply to the private network that asked O enters the tunnel. On the "
    "right each reply leaves by the device of the address that was asked.",
    {
        "internet": Box("network", 0, "Internet", "somebody asks I"),
        "private": Box("network", 1, "private network", "somebody asks O"),
        "uplink": Box("device", 0, "uplink", "outside address O"),
        "tunnel": Box("device", 1, "tunnel", "inside address I"),
    },
    Panel(
        "Destinations alone decide",
        "",
        (
            Arrow("asks", ("internet", "tunnel"), (0, -45)),
            Arrow("asks", ("private", "uplink"), (0, 45)),
            Arrow("wrong", ("uplink", "internet"), (-45, -45), "reply of I"),
            Arrow("wrong", ("tunnel", "private"), (45, 45), "reply of O", -1),
        ),
    ),
    Panel(
        "The source decides",
        "",
        (
            Arrow("asks", ("internet", "tunnel"), (0, -45)),
            Arrow("asks", ("private", "uplink"), (0, 45)),
            Arrow("right", ("tunnel", "internet"), (0, 45), "reply of I"),
            Arrow("right", ("uplink", "private"), (0, -45), "reply of O", -1),
        ),
    ),
)

BOUND = Picture(
    "ways/bound.svg",
    "A socket that is bound to the tunnel's device",
    "A socket bound to wg0 sends to 2001:db8:5::5. Table main has no route by wg0 for that, so IPv6 refuses. With "
    "the rules, 2100 asks the tunnel's table, and the packet leaves by wg0.",
    {
        "internet": Box("network", 0, "Internet", "2001:db8:5::5"),
        "gateway": Box("network", 1, "VPN gateway", "private network"),
        "eth0": Box("device", 0, "eth0", "2001:db8:2::10"),
        "wg0": Box("device", 1, "wg0", "2001:db8:51::10"),
    },
    Panel(MAIN_ALONE, "IPv6 has no route by this device: refused.", (Arrow("refused", ("program",)),), BLOCK),
    Panel(WITH_RULES, "2100: it leaves by the socket's own device.", (Arrow("right", (*BY_TUNNEL, "internet")),)),
    Sent("2001:db8:5::5", device="wg0"),
    {0: "no route", 2100: "found: default dev wg0"},
)

REPLY_OUTSIDE = Picture(
    "ways/reply-outside.svg",
    "The outside address answers the private network",
    "10.1.0.5 in the private network asks 192.0.2.10 by the Internet. With table main alone the reply enters the "
    "tunnel, and the VPN gateway drops it. With the rules, 2200 asks main, where the route by wg0 does not count, "
    "and 2201 sends the reply out by eth0.",
    {
        **HOST,
        "internet": Box("network", 0, "Internet", "everybody"),
        "gateway": Box("network", 1, "VPN gateway", "10.1.0.5 behind it"),
    },
    Panel(
        MAIN_ALONE,
        "The VPN gateway drops a packet with a foreign source.",
        (Arrow("asks", ("gateway", "internet", "eth0", "program")), Arrow("wrong", BY_TUNNEL)),
        BLOCK,
    ),
    Panel(
        WITH_RULES,
        "2201: it leaves by the device of the address that was asked.",
        (Arrow("asks", ("gateway", "internet", "eth0", "program")), Arrow("right", (*BY_UPLINK, "gateway"))),
    ),
    Sent("10.1.0.5", "192.0.2.10"),
    {0: "no route", 2200: "suppressed: wg0 in group 151", 2201: "found: default dev eth0"},
)

NEARBY = Picture(
    "ways/nearby.svg",
    "The outside address and a container",
    "The host sends from 192.0.2.10 to the container 172.20.0.5. With the uplink's own table alone, which is what "
    "rule 2201 asks, the packet goes to the gateway of the uplink and is lost. Rule 2200 asks main first, and "
    "finds the bridge br0.",
    {
        "router": Box("network", 0, "gateway of the uplink", "192.0.2.1"),
        "container": Box("network", 1, "container", "172.20.0.5", "inside"),
        "eth0": ETH0,
        "br0": Box("device", 1, "br0", "172.20.0.1"),
    },
    Panel(
        "Without rule 2200",
        "2201 knows the uplink only: the packet is lost.",
        (Arrow("wrong", ("program", "eth0", "router")),),
        (2200,),
    ),
    Panel(
        WITH_RULES,
        "2200: main is asked first, but for defaults and tunnels.",
        (Arrow("right", ("program", "br0", "container")),),
    ),
    Sent("172.20.0.5", "192.0.2.10"),
    {0: "no route", 2200: "found: 172.20.0.0/24 dev br0"},
)

REPLY_INSIDE = Picture(
    "ways/reply-inside.svg",
    "The inside address answers the Internet",
    "203.0.113.5 on the Internet asks 198.51.100.10, through the VPN gateway and the tunnel. With table main "
    "alone the reply leaves by eth0, where the provider drops it. With the rules, 2300 finds no network inside "
    "the host, and 2301 sends the reply back into the tunnel.",
    HOST,
    Panel(
        MAIN_ALONE,
        "The provider drops a packet with a foreign source.",
        (Arrow("asks", THROUGH), Arrow("wrong", BY_UPLINK)),
        BLOCK,
    ),
    Panel(
        WITH_RULES,
        "2301: it leaves by the device of the address that was asked.",
        (Arrow("asks", THROUGH), Arrow("right", (*BY_TUNNEL, "internet"))),
    ),
    Sent("203.0.113.5", "198.51.100.10"),
    {0: "no route", 2300: "no route", 2301: "found: default dev wg0"},
)

BACKSTOP = Picture(
    "ways/backstop.svg",
    "The tunnel is away",
    "wg0 is down, and a program sends from 198.51.100.10. Without the backstops the lookup goes on to table main, "
    "and the packet leaves by eth0, past the tunnel. With the rules, 2301 finds an empty table, and 2302 refuses "
    "the packet.",
    {**HOST, "wg0": Box("device", 1, "wg0, down", "198.51.100.10", "away")},
    Panel(
        "Without the backstops",
        "It falls through to main and leaks by the uplink.",
        (Arrow("wrong", BY_UPLINK),),
        (2302, 2626),
    ),
    Panel(WITH_RULES, "2302: the program is told that there is no way.", (Arrow("refused", ("program",)),)),
    Sent("203.0.113.5", "198.51.100.10"),
    {0: "no route", 2300: "no route", 2301: "no route", 2302: "refused"},
)

POOL = Picture(
    "ways/pool.svg",
    "A new address of the pool",
    "The VPN has just assigned 198.51.100.77, which has no rules of its own yet. Without the rules of the pool "
    "the packet leaves by eth0 and is dropped. With them, 2625 sends it into the tunnel.",
    {**HOST, "wg0": Box("device", 1, "wg0", "198.51.100.77, new")},
    Panel(
        "Without the rules of the pool",
        "No rule knows the address: it leaves by the uplink.",
        (Arrow("wrong", BY_UPLINK),),
        (2624, 2625, 2626),
    ),
    Panel(WITH_RULES, "2625: the whole pool belongs to the tunnel.", (Arrow("right", (*BY_TUNNEL, "internet")),)),
    Sent("203.0.113.5", "198.51.100.77"),
    {0: "no route", 2624: "no route", 2625: "found: default dev wg0"},
)

UNBOUND = Picture(
    "ways/unbound.svg",
    "Traffic without a chosen source",
    "A program has chosen no source and sends to 203.0.113.5. No rule of the block matches, table main decides at "
    "32766 as it did before, and the packet leaves by eth0.",
    HOST,
    Panel(MAIN_ALONE, "The default route of main.", (Arrow("right", BY_UPLINK),), BLOCK),
    Panel(WITH_RULES, "32766: no rule of the block matches, main decides as before.", (Arrow("right", BY_UPLINK),)),
    Sent("203.0.113.5"),
    {0: "no route", 2999: "nop", 32766: "found: default dev eth0"},
)

WAYS = (BOUND, REPLY_OUTSIDE, NEARBY, REPLY_INSIDE, BACKSTOP, POOL, UNBOUND)
PICTURES = (PROBLEM, *WAYS)


# --- how it looks ----------------------------------------------------------------------------------------------------

# In light and in dark. The paper is painted, for a page may be light where the reader's system is dark.
COLOURS = {
    "paper": ("#ffffff", "#151b24"),
    "host": ("#eef2f7", "#1d2532"),
    "box": ("#ffffff", "#2a3443"),
    "line": ("#48566a", "#9aa8bd"),
    "ink": ("#1c2430", "#e8edf4"),
    "quiet": ("#586579", "#a3afc2"),
    "right": ("#1a7a40", "#58d68d"),
    "wrong": ("#b93226", "#ff8a7c"),
    "refused": ("#8a5a00", "#f0b65a"),
    "chosen": ("#ffefb8", "#4a3d10"),
}
KINDS = {"asks": "quiet", "right": "right", "wrong": "wrong", "refused": "refused"}
_PAINTED = (
    ("paper", "fill", "paper"),
    ("host", "fill", "host"),
    ("host", "stroke", "line"),
    ("box", "fill", "box"),
    ("box", "stroke", "line"),
    ("text", "fill", "ink"),
    ("quiet", "fill", "quiet"),
    ("chosen", "fill", "chosen"),
    *((kind, "stroke", colour) for kind, colour in KINDS.items()),
    *((f"{kind}-text", "fill", colour) for kind, colour in KINDS.items()),
)
_SHAPES = """
    .host, .box { stroke-width: 1.5 }
    .away { stroke-dasharray: 4 4 }
    .arrow { fill: none; stroke-width: 2.5 }
    .wrong { stroke-dasharray: 8 4 }
    .whole { stroke-dasharray: none; stroke-width: 3.5 }
    .head { font-size: 16px; font-weight: 600 }
    .small { font-size: 13px }
    .rule { font-family: ui-monospace, monospace; font-size: 12.5px }
"""

WIDTH, MARGIN, PANEL, GAP = 940, 20, 440, 20
COLUMN, BOX, INDENT = 230, 190, 10  # from one column to the next, a box's width, and how far it is inside the host
LINE = 20
# Of a request and its reply, on both sides of the middle; along a row, above and below it.
SHIFTS = {"asks": -26, "right": 26, "wrong": 26, "refused": 0}
ALONG = {"asks": -9, "right": 9, "wrong": 9}
CROSS = 7  # half the width of what marks a lost packet


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the rows of boxes are, and how far down a panel goes."""

    rows: dict[str, int]
    host: tuple[int, int]
    height: int
    tall: int = 46  # a box


WAY = Layout({"network": 46, "device": 164, "program": 264}, (150, 340), 380)
SKETCH = Layout({"network": 50, "device": 260}, (244, 348), 364, 50)


@dataclasses.dataclass(frozen=True)
class Frame:
    """A box's place in a panel."""

    left: int
    top: int
    width: int
    height: int

    @property
    def middle(self) -> int:
        """Of its width."""
        return self.left + self.width // 2

    @property
    def bottom(self) -> int:
        """Its lower edge."""
        return self.top + self.height


def frame(box: Box, layout: Layout) -> Frame:
    """A program spans both columns, so that all ways between it and a device are straight."""
    width = COLUMN + BOX if box.row == "program" else BOX
    return Frame(INDENT + COLUMN * box.column, layout.rows[box.row], width, layout.tall)


# --- drawing ---------------------------------------------------------------------------------------------------------


def add(parent: ET.Element, tag: str, text: str | None = None, **attributes: object) -> ET.Element:
    """A new element; an underscore in a name stands for a hyphen, C(css) for the class."""
    names = {"css": "class"}
    given = {names.get(name, name.replace("_", "-")): str(value) for name, value in attributes.items()}
    made = ET.SubElement(parent, tag, given)
    made.text = text
    return made


def drawn(picture: Picture) -> str:
    """The file."""
    layout = WAY if picture.sent else SKETCH
    height = layout.height + (LINE * (len(picture.asked) + 2) if picture.outcomes else 0)
    size = {"viewBox": f"0 0 {WIDTH} {height}", "width": str(WIDTH), "height": str(height)}
    told = {"role": "img", "aria-labelledby": "title desc"}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, **told})
    root.set("font-family", "system-ui, sans-serif")
    root.set("font-size", "15")
    add(root, "title", picture.title, id="title")
    add(root, "desc", picture.description, id="desc")
    add(root, "style", style())
    add_heads(add(root, "defs"), picture)
    add(root, "rect", css="paper", width=WIDTH, height=height, rx=10)
    for number, panel in enumerate((picture.before, picture.after)):
        moved = add(root, "g", transform=f"translate({MARGIN + number * (PANEL + GAP)})")
        add_panel(moved, picture, panel, layout)
    if picture.outcomes:
        add_rules(add(root, "g", transform=f"translate({MARGIN} {layout.height})"), picture.asked)
    ET.indent(root)
    notice = ET.tostring(ET.Comment(f"\n{NOTICE}\n"), encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{notice}\n{ET.tostring(root, encoding="unicode")}\n'


def style() -> str:
    """Shapes once, colours for both schemes."""
    light, dark = (
        "".join(f".{name} {{ {what}: {COLOURS[colour][scheme]} }}\n" for name, what, colour in _PAINTED)
        for scheme in (0, 1)
    )
    return f"{_SHAPES}{_indented(light, 4)}    @media (prefers-color-scheme: dark) {{\n{_indented(dark, 6)}    }}\n  "


def _indented(lines: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in lines.splitlines())


def add_heads(defs: ET.Element, picture: Picture) -> None:
    """The heads of the arrows that there are."""
    arrows = (*picture.before.arrows, *picture.after.arrows)
    for kind in sorted({arrow.kind for arrow in arrows}):
        size = {"viewBox": "0 0 8 8", "refX": 7, "refY": 4, "markerWidth": 6, "markerHeight": 6, "orient": "auto"}
        add(add(defs, "marker", id=kind, **size), "path", css=f"{kind}-text", d="M0 0 8 4 0 8z")


def add_panel(parent: ET.Element, picture: Picture, panel: Panel, layout: Layout) -> None:
    """Title, host, boxes, the arrows over them, caption."""
    boxes = dict(picture.boxes)
    if picture.sent:
        boxes["program"] = Box("program", 0, *picture.sent.lines)
    add(parent, "text", panel.title, css="text head", x=0, y=28)
    add_host(parent, layout, inside=any(box.state == "inside" for box in boxes.values()))
    for box in boxes.values():
        add_box(parent, box, frame(box, layout))
    frames = {name: frame(box, layout) for name, box in boxes.items()}
    for arrow in panel.arrows:
        add_arrow(parent, arrow, frames)
    if panel.caption:
        add(parent, "text", panel.caption, css="text small", x=0, y=layout.host[1] + 20)


def add_host(parent: ET.Element, layout: Layout, *, inside: bool) -> None:
    """All of the panel's lower half; up to the networks where one of those is inside the host."""
    top, bottom = layout.host
    step, upper = COLUMN, layout.rows["network"] - INDENT
    raised = f"H{step} V{upper} H{PANEL}" if inside else f"H{PANEL}"
    add(parent, "path", css="host", d=f"M0 {top} {raised} V{bottom} H0 Z", stroke_linejoin="round")
    add(parent, "text", "host", css="quiet small", x=INDENT, y=bottom - 9)


def add_box(parent: ET.Element, box: Box, place: Frame) -> None:
    """With two lines."""
    css = "box away" if box.state == "away" else "box"
    add(parent, "rect", css=css, x=place.left, y=place.top, width=place.width, height=place.height, rx=6)
    middle = place.top + place.height // 2
    add(parent, "text", box.title, css="text", x=place.middle, y=middle - 3, text_anchor="middle")
    add(parent, "text", box.detail, css="quiet small", x=place.middle, y=middle + 15, text_anchor="middle")


def add_arrow(parent: ET.Element, arrow: Arrow, frames: dict[str, Frame]) -> None:
    """From stop to stop."""
    stops = [frames[stop] for stop in arrow.stops]
    if arrow.kind == "refused":
        add_refusal(parent, stops[0])
    for number, (start, end) in enumerate(zip(stops, stops[1:])):
        lost = arrow.kind == "wrong" and number == len(stops) - 2
        add_hop(parent, arrow, (start, end), lost=lost)
    if arrow.label:
        start, at = stops[0], (arrow.shifts or (0, 0))[0]
        anchor = "start" if arrow.side > 0 else "end"
        place = {"x": start.middle + at + 10 * arrow.side, "y": start.top - 30, "text_anchor": anchor}
        add(parent, "text", arrow.label, css=f"{arrow.kind}-text small", **place)


def add_hop(parent: ET.Element, arrow: Arrow, ends: tuple[Frame, Frame], *, lost: bool) -> None:
    """Along a row it is a straight line, and a curve from row to row, straight unless the column changes."""
    start, end = ends
    if start.top == end.top:
        y = start.top + start.height // 2 + ALONG[arrow.kind]
        x, to = (start.left + start.width, end.left) if start.left < end.left else (start.left, end.left + end.width)
        add(parent, "path", css=f"arrow {arrow.kind}", d=f"M{x} {y} H{to}", marker_end=f"url(#{arrow.kind})")
        return
    y, to = (start.bottom, end.top) if start.top < end.top else (start.top, end.bottom)
    # A program is as wide as the host: there the other end says where.
    middles = [(each if each.width == BOX else other).middle for each, other in ((start, end), (end, start))]
    x, x_to = (middle + shift for middle, shift in zip(middles, arrow.shifts or (SHIFTS[arrow.kind],) * 2))
    head = {} if lost else {"marker_end": f"url(#{arrow.kind})"}
    to += 4 * CROSS if lost else 0
    half = (y + to) // 2
    add(parent, "path", css=f"arrow {arrow.kind}", d=f"M{x} {y} C{x} {half} {x_to} {half} {x_to} {to}", **head)
    if lost:
        add_cross(parent, x_to, to - 2 * CROSS)


def add_cross(parent: ET.Element, x: int, y: int) -> None:
    """Here the packet is lost."""
    strokes = f"M{x - CROSS} {y - CROSS} l{2 * CROSS} {2 * CROSS} m0 {-2 * CROSS} l{-2 * CROSS} {2 * CROSS}"
    add(parent, "path", css="arrow wrong whole", d=strokes)


def add_refusal(parent: ET.Element, sender: Frame) -> None:
    """A way that ends at a bar before it has begun."""
    stop = sender.top - 26
    add(parent, "path", css="arrow refused", d=f"M{sender.middle} {sender.top} V{stop}")
    add(parent, "path", css="arrow refused whole", d=f"M{sender.middle - 16} {stop} h32")
    add(parent, "text", "refused", css="refused-text small", x=sender.middle + 26, y=stop + 5)


def add_rules(parent: ET.Element, asked: list[tuple[int, str, str]]) -> None:
    """One below the other, what matches none quiet, the one that decides marked."""
    width = WIDTH - 2 * MARGIN
    add(parent, "text", "The rules, asked from the top until one decides", css="text head", x=0, y=LINE - 4)
    for number, (priority, text, outcome) in enumerate(asked, start=1):
        decides = number == len(asked)
        base = number * LINE + LINE - 4
        if decides:
            add(parent, "rect", css="chosen", x=0, y=base - 15, width=width, height=LINE + 1, rx=4)
        ink = "quiet" if outcome == "no match" else "text"
        add(parent, "text", f"{priority}:", css=f"{ink} rule", x=8, y=base)
        add(parent, "text", text, css=f"{ink} rule", x=62, y=base)
        told = f"{ink} small" + (" decides" if decides else "")
        add(parent, "text", outcome, css=told, x=width - 8, y=base, text_anchor="end")


# --- files -----------------------------------------------------------------------------------------------------------


def current() -> dict[Path, str]:
    """All pictures as they should be."""
    return {DOCS / picture.name: drawn(picture) for picture in PICTURES}


def main(arguments: t.Sequence[str]) -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    stale = {
        path: text for path, text in current().items() if not path.exists() or text != path.read_text(encoding="utf-8")
    }
    for path, text in stale.items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}: {'is not current' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
