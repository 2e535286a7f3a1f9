# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The name of a routing table as a value."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import InvalidInput
from . import fields

RESERVED = {"unspec": 0, **fields.RESERVED_TABLES}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,31}")


@dataclasses.dataclass(frozen=True)
class Table:
    """A name for a routing table. The table itself exists as soon as it holds a route."""

    name: str
    id: int

    def text(self) -> str:
        """The line of a file in rt_tables.d."""
        return f"{self.id}\t{self.name}"

    @classmethod
    def from_params(cls, params: t.Mapping[str, t.Any], *, field: str = "") -> Table:
        """The name that a user wants. Raises InvalidInput. C(field) is the prefix for error messages."""
        given = fields.Params(params, field)
        name = table_name(params.get("name"), given.name("name"))
        number = fields.number(params.get("id"), given.name("id"), 1, fields.U32_MAX)
        if RESERVED.get(name, number) != number:
            raise given.refuse("id", f"is not the table {name}", str(RESERVED[name]))
        owner = next((word for word, its in RESERVED.items() if its == number), name)
        if owner != name:
            raise given.refuse("name", f"cannot name table {number}", owner)
        return cls(name, number)


def table_name(value: object, field: str) -> str:
    """A name that iproute2 takes for a table: no number, nothing that its files would cut."""
    if _NAME.fullmatch(str(value)) is None:
        accepted = "a letter, then up to 31 letters, digits, '.', '_' or '-'"
        raise InvalidInput("is no name for a table", field=field, value=value, accepted=accepted)
    return str(value)
