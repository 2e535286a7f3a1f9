# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of a host's declaration without the host: for playbook validate."""

from __future__ import annotations

import collections.abc as c
import copy
import difflib
import typing as t

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError
from ansible_collections.fleetvpn.routing.plugins.filter.join_identities import join_identities
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint_spec import ENDPOINT
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput, RoutingError
from ansible_collections.fleetvpn.routing.plugins.module_utils._validate import foresee

Entry = dict[str, t.Any]
PREFIX = "endpoint_"
LEVELS = ("endpoint_identities", "endpoint_group_identities", "endpoint_host_identities")


def endpoint_plan(variables: object, known: c.Collection[str]) -> Entry:
    """What role endpoint would do with these variables on a host that has nothing yet.

    C(variables) are those that begin with C(endpoint_), C(known) the names of those that the role has. The result has
    C(error), none or one line that names field, value and what is accepted, and C(plan), lines as iproute2 writes them.
    """
    if not isinstance(variables, c.Mapping):
        raise AnsibleFilterError("endpoint_plan: takes a dictionary of variables")
    try:
        _refuse_unknown(variables, known)
        plan = foresee(_options(variables))
    except (RoutingError, AnsibleFilterError) as exc:
        return {"error": str(exc), "plan": []}
    return {"error": None, "plan": [_line(step) for step in plan]}


def _refuse_unknown(variables: c.Mapping[str, t.Any], known: c.Collection[str]) -> None:
    """A name with a slip in it would be ignored in silence, and so would what it declares."""
    for name in variables:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3) or sorted(known)
            raise InvalidInput("is no variable of role endpoint", field=name, accepted=", ".join(near))


def _options(variables: c.Mapping[str, t.Any]) -> Entry:
    """The options of module endpoint that the role would hand on. Raises InvalidInput."""
    given = {name: variables.get(PREFIX + name) for name in ENDPOINT}
    given["identities"] = join_identities(*(variables.get(level) for level in LEVELS))
    stated = copy.deepcopy({name: value for name, value in given.items() if value not in (None, "")})
    result = ArgumentSpecValidator(ENDPOINT).validate(stated)
    if result.error_messages:
        raise InvalidInput("; ".join(_said(error) for error in result.errors.errors))
    return t.cast("Entry", result.validated_parameters)


def _said(error: Exception) -> str:
    """What Ansible says of an option; of an unknown one it gives the name alone, and what is supported."""
    return f"unknown option {error}" if isinstance(error, UnsupportedError) else str(error)


def _line(step: Entry) -> str:
    words = (step["op"], step["kind"], step["family"], *str(step["text"]).split())
    return " ".join(word for word in words if word)


class FilterModule:
    """The filters of this file, as Ansible asks for them."""

    def filters(self) -> dict[str, t.Callable[..., object]]:
        """Name to function."""
        return {"endpoint_plan": endpoint_plan}
