# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proposal of a host as a file of host variables, for playbook discover."""

from __future__ import annotations

import collections.abc as c
import typing as t

import yaml
from ansible.errors import AnsibleFilterError

# Where Ansible would template what a host said, on the controller.
_TEMPLATES = ("{{", "{%", "{#")


def proposal_file(proposal: object, host: str) -> str:
    """A proposal of module endpoint_info as YAML, its remarks as comments. What a host said is never a template, and a
    comment never more than a line.
    """
    if not isinstance(proposal, c.Mapping) or not {"declaration", "remarks"} <= set(proposal):
        raise AnsibleFilterError("proposal_file: takes the proposal of module endpoint_info")
    for text in _texts(proposal["declaration"]):
        if any(sign in text for sign in _TEMPLATES) or not text.isprintable():
            raise AnsibleFilterError(f"proposal_file: {host}: {text!r} is no value for a file of variables")
    comments = "".join(f"# - {_line(remark)}\n" for remark in proposal["remarks"])
    head = f"# Proposed for {_line(host)} by fleetvpn.routing.discover. Read it before it is applied.\n"
    return f"{head}{comments and '#' + chr(10)}{comments}---\n{_yaml(_variables(proposal['declaration']))}"


def _variables(declaration: c.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """As role endpoint takes them; identities are those of one host."""
    names = {"identities": "endpoint_host_identities"}
    return {names.get(key, f"endpoint_{key}"): value for key, value in declaration.items()}


def _yaml(content: c.Mapping[str, t.Any]) -> str:
    return yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True, width=120)


def _plain(value: t.Any) -> t.Any:
    """Without the marks that Ansible puts on what comes from a host."""
    if isinstance(value, c.Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, str):
        return "".join(value)
    return [_plain(each) for each in value] if isinstance(value, c.Sequence) else value


def _texts(value: t.Any) -> c.Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, c.Mapping):
        for each in (*value, *value.values()):
            yield from _texts(each)
    elif isinstance(value, c.Iterable):
        for each in value:
            yield from _texts(each)


def _line(text: object) -> str:
    """One line, whatever is in it."""
    return "".join(each if each.isprintable() else " " for each in str(text))


class FilterModule:
    """The filters of this file, as Ansible asks for them."""

    def filters(self) -> dict[str, t.Callable[..., object]]:
        """Name to function."""
        return {"proposal_file": proposal_file}
