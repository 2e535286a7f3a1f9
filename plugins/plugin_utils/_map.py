# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Where things stand in the map of a host: what is in the way across the top, below it identities on the left, tables
in the middle, devices on the right. Pure.

Lengths are in units of the drawing, which the page scales.
"""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

FOREIGN, IDENTITY, TABLE, DEVICE = "foreign", "identity", "table", "device"
# Column: where it begins, how wide its boxes are, and how many characters fit into one.
COLUMNS = {FOREIGN: (10, 740, 96), IDENTITY: (10, 260, 34), TABLE: (350, 140, 18), DEVICE: (570, 180, 24)}
WIDTH = 760
MARGIN, GAP, PADDING, ROW = 10, 14, 8, 18
LINES = 4  # of one box; the last says how many more there are
NOWHERE = "nowhere"
NAMES = {254: "main", 255: "local", 253: "default"}

Found = c.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Box:
    """One identity, table or device."""

    kind: str
    key: str
    texts: tuple[str, ...]
    state: str = ""
    y: int = 0

    @property
    def x(self) -> int:
        """Where it begins."""
        return COLUMNS[self.kind][0]

    @property
    def width(self) -> int:
        """How wide it is."""
        return COLUMNS[self.kind][1]

    @property
    def height(self) -> int:
        """How high it is."""
        return 2 * PADDING + ROW * len(self.texts)

    @property
    def rows(self) -> list[tuple[int, str]]:
        """Each text with its baseline, cut to what fits."""
        fits = COLUMNS[self.kind][2]
        return [(self.y + PADDING + ROW * (at + 1) - 5, cut(text, fits)) for at, text in enumerate(self.texts)]


@dataclasses.dataclass(frozen=True)
class Line:
    """The way of a path from one box to the next, as an SVG path."""

    course: str
    state: str
    text: str


@dataclasses.dataclass(frozen=True)
class Map:
    """The whole drawing."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: int = WIDTH

    @property
    def height(self) -> int:
        """As high as the longest column."""
        return max((box.y + box.height for box in self.boxes), default=0) + MARGIN


def cut(text: str, length: int) -> str:
    """At most so many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def draw(identities: c.Sequence[Found], paths: c.Sequence[Found], findings: c.Sequence[Found] = ()) -> Map:
    """The map of a host, from its identities, paths and findings as fleet_report has them."""
    ways = [way for identity in identities for way in _ways(identity, paths)]
    across = list(_stacked([_foreign(finding) for finding in findings if finding["severity"] in ("error", "warning")]))
    top = across[-1].y + across[-1].height + 2 * GAP if across else MARGIN
    boxes = [
        *across,
        *_stacked((_identity(identity) for identity in identities), top),
        *_stacked((Box(TABLE, key, (key,)) for key in dict.fromkeys(way.table for way in ways if way.table)), top),
        *_stacked((Box(DEVICE, key, (key,)) for key in dict.fromkeys(way.device for way in ways)), top),
    ]
    placed = {(box.kind, box.key): box for box in boxes}
    return Map(tuple(boxes), tuple(line for way in dict.fromkeys(ways) for line in _lines(way, placed)))


def _foreign(finding: Found) -> Box:
    """What stands in the way, in one line."""
    return Box(FOREIGN, "", (f"in the way, {finding['kind']}: {finding['object']}",), finding["severity"])


@dataclasses.dataclass(frozen=True)
class _Way:
    """Identity, table and device of one or several paths; without a table it ends at a rule."""

    identity: str
    table: str | None
    device: str
    state: str

    @property
    def text(self) -> str:
        by = f" by {self.table}" if self.table else ""
        return f"{self.identity.partition(' ')[2]}{by} to {self.device}: {self.state}"


def _key(identity: Found) -> str:
    """Two sets may have an identity of one name."""
    return f"{identity['set']} {identity['key']}"


def _ways(identity: Found, paths: c.Sequence[Found]) -> list[_Way]:
    """Those that the kernel gave; where it was not asked, the declared one."""
    own = [path for path in paths if path["from"] in identity["addresses"]]
    given = [_Way(_key(identity), _table(p["table"]), _device(p["dev"]), p["verdict"]) for p in own]
    declared = _Way(_key(identity), _table(identity["table"]), _device(identity["interface"]), identity["verdict"])
    return given or [declared]


def _device(name: t.Any) -> str:
    return str(name or NOWHERE)


def _table(number: t.Any) -> str | None:
    return None if number is None else f"table {NAMES.get(number, number)}"


def _identity(identity: Found) -> Box:
    """The name, then addresses and pools."""
    texts = [*identity["addresses"], *(f"pool {pool}" for pool in identity["pools"])]
    more = [f"and {len(texts) - LINES + 2} more"] if len(texts) >= LINES else []
    shown = texts[: LINES - 2] if more else texts
    return Box(IDENTITY, _key(identity), (str(identity["key"]), *shown, *more), identity["verdict"])


def _stacked(boxes: t.Iterable[Box], y: int = MARGIN) -> t.Iterator[Box]:
    """One below the other."""
    for box in boxes:
        yield dataclasses.replace(box, y=y)
        y += box.height + GAP


def _lines(way: _Way, placed: c.Mapping[tuple[str, str], Box]) -> t.Iterator[Line]:
    stops = [placed[IDENTITY, way.identity], placed[DEVICE, way.device]]
    if way.table:
        stops.insert(1, placed[TABLE, way.table])
    for one, other in zip(stops, stops[1:]):
        yield Line(_course(one, other), way.state, way.text)


def _course(one: Box, other: Box) -> str:
    """A curve that leaves and arrives level, and leaves room for the arrow's head."""
    begin, end = one.x + one.width, other.x - 4
    middle = (begin + end) // 2
    here, there = one.y + one.height // 2, other.y + other.height // 2
    return f"M{begin} {here}C{middle} {here} {middle} {there} {end} {there}"
