# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a fleet, as data and as one page: for playbook report."""

from __future__ import annotations

import base64
import collections.abc as c
import hashlib
import pathlib
import typing as t

import jinja2
import markupsafe
from ansible.errors import AnsibleFilterError
from ansible_collections.fleetvpn.routing.plugins.filter.fleet import (
    DRIFTED,
    PENDING,
    PROVEN,
    WAITING,
    WRONG,
    fleet_state,
)
from ansible_collections.fleetvpn.routing.plugins.plugin_utils._map import cut, draw

Entry = dict[str, t.Any]
# What needs somebody first.
ORDER = (WRONG, DRIFTED, PENDING, WAITING, PROVEN)
# So many of one host are shown, whatever it says.
ENTRIES = 200
LETTERS = 500
TEMPLATES = pathlib.Path(__file__).parents[2] / "playbooks" / "templates"

_IDENTITY = ("set", "key", "verdict", "interface", "table")
_PATH = ("identity", "from", "to", "dev", "gateway", "src", "table", "type", "verdict")
_FINDING = ("kind", "severity", "object", "text", "advice")
_REPAIR = ("set", "done", "object", "first", "last", "times")
_CHANGE = ("when", "user", "controller", "play", "version")


def fleet_report(answers: object, when: str = "") -> Entry:
    """All that is told of a fleet: what fleet_state gives, and of each host its map's parts, what stands in the way,
    what was put right and who changed what last. C(answers) are those that fleet_state takes, C(when) is shown as the
    time of the report. Those who need somebody come first, otherwise they stay in their order.
    """
    fleet = fleet_state(answers)
    given = {str(name): answer for name, answer in t.cast("c.Mapping[object, object]", answers).items()}
    hosts = [{**host, **_details(given[host["name"]])} for host in fleet["hosts"]]
    return {**fleet, "when": when, "hosts": sorted(hosts, key=lambda host: ORDER.index(host["state"]))}


def _details(answer: t.Any) -> Entry:
    """What a host says beside its state; nothing where it gave no answer."""
    told = answer if isinstance(answer, c.Mapping) else {}
    sets = _entries(told.get("sets"))
    return {
        "identities": [_identity(each) for each in _entries(told.get("identities"))],
        "paths": [_picked(each, _PATH) for each in _entries(told.get("paths"))],
        "findings": [_picked(each, _FINDING) for each in _entries(told.get("findings"))],
        "repairs": [_picked(each, _REPAIR) for each in _entries(told.get("repairs"))],
        "changes": [{"set": each.get("name"), **_picked(each.get("meta"), _CHANGE)} for each in sets],
    }


def _entries(value: object) -> list[c.Mapping[str, t.Any]]:
    """The dictionaries of a list. A host may say anything, and must not spoil the report of the others."""
    return [each for each in value if isinstance(each, c.Mapping)][:ENTRIES] if isinstance(value, list) else []


def _picked(entry: object, keys: c.Iterable[str]) -> Entry:
    """Some keys, each with a plain value: what is a list or a dictionary there is none of ours."""
    given = entry if isinstance(entry, c.Mapping) else {}
    return {key: _plain(given.get(key)) for key in keys}


def _plain(value: object) -> str | int | None:
    return cut(value, LETTERS) if isinstance(value, str) else value if isinstance(value, int) else None


def _identity(found: c.Mapping[str, t.Any]) -> Entry:
    return {**_picked(found, _IDENTITY), **{key: _words(found.get(key)) for key in ("addresses", "pools", "gateways")}}


def _words(value: object) -> list[str]:
    return [cut(each, LETTERS) for each in value[:ENTRIES] if isinstance(each, str)] if isinstance(value, list) else []


def fleet_page(report: object, title: str = "Routing of the fleet") -> str:
    """The same as one HTML page that loads nothing. C(report) is what fleet_report gives.

    Every value is escaped, and the page lets no script run but its own.
    """
    if not isinstance(report, c.Mapping) or "hosts" not in report:
        raise AnsibleFilterError("fleet_page: takes what filter fleet_report gives")
    style, script = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            order=ORDER,
            title=title,
            style=markupsafe.Markup(style),  # noqa: S704 -- a file of ours
            script=markupsafe.Markup(script),  # noqa: S704 -- a file of ours
            policy=f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'",
        )
    )


def _environment() -> jinja2.Environment:
    """Not Ansible's own, which escapes nothing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cut"] = cut
    environment.globals["draw"] = draw
    return environment


def _shown(value: object) -> object:
    """What is not there is left empty; what cannot be printed, or would turn the text around, is replaced."""
    if isinstance(value, (int, markupsafe.Markup)):
        return value
    text = "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _digest(text: str) -> str:
    """As a content security policy names the text of an element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class FilterModule:
    """The filters of this file, as Ansible asks for them."""

    def filters(self) -> dict[str, t.Callable[..., object]]:
        """Name to function."""
        return {"fleet_page": fleet_page, "fleet_report": fleet_report}
