# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The incident switch: while a file is there, nothing of any set is in the kernel.

touch(1) and rm(1) are enough to use it. What `fleetvpn-endpoint suspend` writes into it says who, when and until when.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import typing as t

from ._errors import Conflict, InvalidInput
from ._files import permitted, present, sync, unfinished, write_whole
from ._model import fields
from ._store import PERSISTENT_ROOT, store_for

if t.TYPE_CHECKING:
    import pathlib


@dataclasses.dataclass(frozen=True)
class Suspension:
    """What is known of it; times are ISO 8601. One that somebody made by hand says nothing of itself."""

    since: str | None = None
    by: str = ""
    until: str | None = None  # nothing: until somebody ends it

    @property
    def over(self) -> bool:
        """Whether its time is up."""
        return self.until is not None and fields.moment(self.until, "until") <= fields.now()

    def line(self) -> str:
        """For people."""
        words = [f"by {self.by}" * bool(self.by), f"since {self.since}" if self.since else ""]
        words.append(f"until {self.until}" if self.until else "until it is resumed")
        return " ".join(["suspended", *filter(None, words)])


def suspension(netns: str | None) -> Suspension | None:
    """The suspension of this host or namespace. A file that cannot be understood suspends too. Raises NotPermitted."""
    path = _path(netns)
    if not present(path):
        return None
    try:
        with permitted(path):
            found = Suspension(**json.loads(path.read_bytes()))
        found.over  # noqa: B018 -- a time that is none
    except (ValueError, TypeError, InvalidInput):
        return Suspension()
    return found


def as_result(netns: str | None) -> dict[str, t.Any] | None:
    """For results: its fields, and C(text) for people; nothing if there is none, or its time is up."""
    found = suspension(netns)
    return None if found is None or found.over else {**dataclasses.asdict(found), "text": found.line()}


def suspend(netns: str | None, by: str, seconds: int | None) -> Suspension:
    """Write it, for so many seconds or until it is resumed; it survives a power cut. Raises NotPermitted."""
    now = fields.now()
    until = None if seconds is None else (now + datetime.timedelta(seconds=seconds)).isoformat()
    made = Suspension(now.isoformat(), by, until)
    path = _path(netns)
    with permitted(path):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_whole(path, f"{json.dumps(dataclasses.asdict(made))}\n".encode())
        sync(path)
        sync(path.parent)
    return made


def resume(netns: str | None) -> None:
    """End it. Raises NotPermitted."""
    path = _path(netns)
    for each in (path, unfinished(path)):
        with permitted(each):
            each.unlink(missing_ok=True)


def refuse_suspended(netns: str | None) -> None:
    """Whoever switched the routing off decides when it comes back. Raises Conflict."""
    found = suspension(netns)
    if found is not None and not found.over:
        raise Conflict(
            f"is there: this host is {found.line()}",
            field="suspended",
            value=str(_path(netns)),
            accepted="`fleetvpn-endpoint resume` on the host, or the removal of the file",
        )


def _path(netns: str | None) -> pathlib.Path:
    folder = PERSISTENT_ROOT if netns is None else store_for(False, netns).root.parent
    return folder / "disabled"
