# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What can go wrong, by whose fault it is.

Every error that a user can meet is a RoutingError: one line that names the field, the value and what would be accepted.
Anything else that is raised is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import os
import typing as t


class RoutingError(Exception):
    """Base of all errors that end as a clean failure."""

    def __init__(
        self,
        msg: str,
        *,
        field: str | None = None,
        value: object = None,
        accepted: str | None = None,
    ) -> None:
        super().__init__(msg)
        self.msg = msg
        self.field = field
        self.value = value
        self.accepted = accepted

    def __str__(self) -> str:
        return self.line()

    def as_result(self) -> dict[str, t.Any]:
        """The keys of a failed result: C(msg), C(field), C(value), C(accepted), and C(error), the name of the kind."""
        return {
            "msg": self.line(),
            "error": type(self).__name__,
            "field": self.field,
            "value": self.value,
            "accepted": self.accepted,
        }

    def line(self) -> str:
        """One line for people: field, value, reason, and what would be accepted."""
        where = "" if self.field is None else f"{self.field}: "
        what = "" if self.field is None or self.value is None else f"{self.value!r} "
        tail = "" if self.accepted is None else f"; accepted: {self.accepted}"
        return " ".join(f"{where}{what}{self.msg}{tail}".split())


class InvalidInput(RoutingError):
    """The declaration is wrong; nothing was changed."""


class MissingDependency(RoutingError):
    """Something that must be installed is missing or too old."""


class NotPermitted(RoutingError):
    """The process lacks the privilege. Where no field is to blame, the user is."""

    def __init__(self, msg: str, *, field: str | None = None, value: object = None, accepted: str = "root") -> None:
        blamed = ("user", os.geteuid()) if field is None else (field, value)
        super().__init__(msg, field=blamed[0], value=blamed[1], accepted=accepted)


class NotSupported(RoutingError):
    """This kernel, or this host, lacks what was asked for."""


class Conflict(RoutingError):
    """Somebody else's object, or another set, stands in the way."""


class VerificationError(RoutingError):
    """The kernel does not give the declared path. C(paths) are the result entries of all that were asked for, and
    C(tunnels) those of the VPN clients, one of which may be why.
    """

    def __init__(
        self,
        msg: str,
        *,
        paths: t.Sequence[t.Mapping[str, t.Any]] | None = None,
        tunnels: t.Sequence[t.Mapping[str, t.Any]] | None = None,
        **details: t.Any,
    ) -> None:
        super().__init__(msg, **details)
        self.paths = paths
        self.tunnels = tunnels

    def as_result(self) -> dict[str, t.Any]:
        found = {"paths": self.paths, "tunnels": self.tunnels}
        return {**super().as_result(), **{key: list(value) for key, value in found.items() if value is not None}}


class KernelError(RoutingError):
    """The kernel refused an operation."""

    def __init__(self, msg: str, *, errno: int, operation: str) -> None:
        super().__init__(f"the kernel refused {operation!r}: {msg}")
        self.errno = errno
        self.operation = operation

    def as_result(self) -> dict[str, t.Any]:
        return {**super().as_result(), "errno": self.errno, "operation": self.operation}
