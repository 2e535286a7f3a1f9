# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What ends at a stated time ends then, without anybody looking: one timer for whatever ends first."""

from __future__ import annotations

import json
import typing as t

from .. import _switch
from .._files import permitted, present, write_whole
from .._model import fields
from .._record import end_of
from .._surroundings import Host
from .._suspension import suspension
from .install import PROGRAM
from .sets import kept_sets

if t.TYPE_CHECKING:
    import datetime
    import pathlib


def arrange(netns: str | None) -> None:
    """Have the program run as soon as the next thing ends. Who calls this does not hold the lock of the host.

    Raises NotPermitted.
    """
    host = Host(None, netns)
    path = host.runtime / "due.json"
    moment = _next(netns)
    if moment is None and not present(path):
        return
    with host.lock():
        before = _read(path)
        if moment is None:
            path.unlink(missing_ok=True)
        elif moment.isoformat() == before.get("moment") and _switch.alive(before["handle"], before["moment"]):
            return
        else:
            handle = _switch.start_at(_command(netns, moment), moment)
            write_whole(path, json.dumps({"moment": moment.isoformat(), "handle": handle}).encode())
        if before:
            _switch.stop(before["handle"], before["moment"])
        host.tidy()


def _next(netns: str | None) -> datetime.datetime | None:
    """When the next thing ends; one that is overdue because it had to wait ends in a moment."""
    found = suspension(netns)
    ends = [end_of(kept.record.declaration) for kept in kept_sets(netns) if kept.record]
    ends.append(fields.moment(found.until, "until") if found and found.until else None)
    moments = [each for each in ends if each is not None]
    return max(min(moments), fields.now()) if moments else None


def _read(path: pathlib.Path) -> dict[str, str]:
    """What was started last; nothing if that cannot be read, for it does no harm if it runs as well."""
    try:
        with permitted(path):
            found = json.loads(path.read_bytes())
        return {key: str(found[key]) for key in ("moment", "handle")}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}


def _command(netns: str | None, moment: datetime.datetime) -> list[str]:
    return [f"/{PROGRAM}", "wake", *(["--netns", netns] if netns else []), moment.isoformat()]
