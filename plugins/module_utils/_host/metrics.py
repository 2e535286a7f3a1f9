# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The status for those who watch many hosts: Prometheus' text format, and a monitoring plugin's line and status."""

from __future__ import annotations

import typing as t

from .._model import fields
from .._paths import PENDING, PROVEN, WRONG
from .history import PUT_BACK, REMOVED
from .status import DRIFTED, SUSPENDED, UNREADABLE

Status = t.Mapping[str, t.Any]
Sample = tuple[dict[str, str], float]
Family = tuple[str, str, str, list[Sample]]

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3  # exit status of a monitoring plugin
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_STATES = (PROVEN, PENDING, WRONG, DRIFTED, SUSPENDED, UNREADABLE)
_VERDICTS = (PROVEN, PENDING, WRONG)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def as_metrics(status: Status) -> str:
    """For the textfile collector of node_exporter, text format 0.0.4."""
    families: tuple[Family, ...] = (
        ("info", "gauge", "Version of the program.", [({"version": status["version"]}, 1)]),
        ("ok", "gauge", "Whether the host is as declared.", [({}, status["ok"])]),
        ("suspended", "gauge", "Whether the host is suspended.", [({}, status["suspended"] is not None)]),
        ("set_state", "gauge", "1 for the state that a set has.", _each(status, _states)),
        ("set_drift", "gauge", "How much of a set the kernel does not have as it should.", _each(status, _drift)),
        ("set_changed_timestamp_seconds", "gauge", "When a set was declared.", _each(status, _declared)),
        ("set_expires_timestamp_seconds", "gauge", "When a set ends by itself.", _each(status, _expires)),
        ("identity_verdict", "gauge", "1 for the verdict that an identity has.", _each(status, _verdicts)),
        ("repairs_total", "counter", "What had to be put right since the boot.", _each(status, _repairs)),
    )
    return "".join(line for family in families for line in _family(*family))


def _each(status: Status, samples: t.Callable[[Status, Status], t.Iterable[Sample]]) -> list[Sample]:
    """Samples of all sets."""
    return [({"set": entry["name"], **more}, n) for entry in status["sets"] for more, n in samples(entry, status)]


def _states(entry: Status, _status: Status) -> t.Iterator[Sample]:
    yield from (({"state": state}, entry["state"] == state) for state in _STATES)


def _drift(entry: Status, _status: Status) -> t.Iterator[Sample]:
    yield {}, len(entry["drift"])


def _declared(entry: Status, _status: Status) -> t.Iterator[Sample]:
    when = entry["last_change"].get("declared") or entry["last_change"].get("when")
    if when:
        yield {}, fields.moment(when, "when").timestamp()


def _expires(entry: Status, _status: Status) -> t.Iterator[Sample]:
    if entry["expires"]:
        yield {}, fields.moment(entry["expires"], "expires").timestamp()


def _verdicts(entry: Status, _status: Status) -> t.Iterator[Sample]:
    for found in entry["identities"]:
        yield from (({"identity": found["key"], "verdict": v}, found["verdict"] == v) for v in _VERDICTS)


def _repairs(entry: Status, status: Status) -> t.Iterator[Sample]:
    done = [each for each in status["history"] if each["set"] == entry["name"]]
    yield {}, sum(each["times"] for each in done if each["done"] in (PUT_BACK, REMOVED))


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> t.Iterator[str]:
    full = f"fleetvpn_{name}"
    if samples:
        yield f"# HELP {full} {text}\n# TYPE {full} {kind}\n"
    yield from (f"{full}{_labels(labels)} {int(value)}\n" for labels, value in samples)


def _labels(labels: t.Mapping[str, str]) -> str:
    stated = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
    return f"{{{stated}}}" if stated else ""


def as_check(status: Status) -> tuple[int, str]:
    """Exit status and line of a monitoring plugin.

    Critical is a path that is or may be wrong, and what is required and pending. A warning is a host that is suspended,
    or has something that somebody should look at. Nothing is known of a host without sets.
    """
    sets, paused = status["sets"], status["suspended"]
    bad = [f"{entry['name']} {entry['state']}" for entry in sets if not entry["ok"] and entry["state"] != SUSPENDED]
    remarks = [f"is {paused['text']}"] if paused else [line for entry in sets for line in entry["warnings"]]
    if not (sets or paused):
        return check_line(UNKNOWN, "no sets")
    level = CRITICAL if bad else WARNING if remarks else OK
    verdicts = [found["verdict"] for entry in sets for found in entry["identities"]]
    counts = " ".join(f"{verdict}={verdicts.count(verdict)}" for verdict in _VERDICTS)
    text = "; ".join([*bad, *remarks]) or f"{len(verdicts)} identities, {len(sets)} sets"
    return check_line(level, text, counts)


def check_line(level: int, text: str, counts: str = "") -> tuple[int, str]:
    """The same for any text, in which a bar would end it."""
    shown = " ".join(text.replace("|", "/").split())
    return level, f"FLEETVPN {_WORDS[level]} - {shown}{f' | {counts}' if counts else ''}\n"
