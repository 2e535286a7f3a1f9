# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What module endpoint would do on a host that has nothing yet: no device, no address, no route. Needs no host."""

from __future__ import annotations

import pathlib
import typing as t

from ._confirm import Terms
from ._endpoint import declared
from ._names import TABLES, Names
from ._parse import parse_declaration
from ._path_options import UNCHANGED, parse_flow
from ._plan import Current, make_plan
from ._recipe import Outcome, build
from ._recipe.facts import Facts
from ._sets import choose_numbers
from ._store import check_name
from ._verify import identity_paths

if t.TYPE_CHECKING:
    from ._model.declaration import Declaration

Params = t.Mapping[str, t.Any]
EMPTY = Facts()
# Without a host there are no files that name tables: the declaration's own names and the kernel's are all.
NO_NAMES = Names(TABLES, (), pathlib.Path())


def foresee(params: Params) -> list[dict[str, t.Any]]:
    """The plan, as module endpoint returns it, for options as an argument specification leaves them.

    Raises InvalidInput for all that the module refuses without looking at its host.
    """
    check_name(params["set"])
    Terms.of(params["confirm"] or {})
    given = {} if params["state"] == "absent" else declared(params)
    numbers = choose_numbers(given.get("numbers") or {}, None, {})
    declaration = parse_declaration(params["set"], given, numbers, NO_NAMES.table)
    outcome = build(declaration, EMPTY)
    _check_paths(params, declaration, outcome)
    named = [
        {"op": "add", "kind": "table", "family": None, "text": f"{number}\t{name}"} for name, number in outcome.names
    ]
    return [*make_plan(outcome.desired, Current()).as_result(), *named]


def _check_paths(params: Params, declaration: Declaration, outcome: Outcome) -> None:
    """Options C(paths) and C(keep_paths)."""
    identities = identity_paths(outcome, EMPTY)
    named = dict(declaration.tables)

    def tables(value: object, field: str) -> int:
        return named[str(value)] if str(value) in named else NO_NAMES.table(value, field)

    kept = [{**path, "expect": UNCHANGED} for path in params["keep_paths"] or ()]
    for option, paths in (("paths", params["paths"] or ()), ("keep_paths", kept)):
        for at, path in enumerate(paths):
            parse_flow(path, f"{option}[{at}]", identities, tables, unchanged_allowed=True)
