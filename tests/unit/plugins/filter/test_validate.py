# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of role endpoint, checked without a host."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fleetvpn.routing.plugins.filter.validate import endpoint_plan
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint_spec import ENDPOINT

KNOWN = [f"endpoint_{name}" for name in (*ENDPOINT, "group_identities", "host_identities", "watch")]
GOOD: dict[str, t.Any] = {
    "endpoint_identities": [{"name": "inside", "interface": "wg0", "gateway": "none"}],
    "endpoint_host_identities": [{"name": "inside", "pools": ["10.9.0.0/16"]}],
    "endpoint_mark": None,
    "endpoint_watch": False,
}


def test_the_levels_are_joined_and_planned() -> None:
    found = endpoint_plan(GOOD, KNOWN)
    assert found["error"] is None
    assert "add rule ipv4 2649: from 10.9.0.0/16 iif lo lookup 2001" in found["plan"]
    assert "add table 2001 fleetvpn_inside" in found["plan"]


def test_a_host_that_declares_nothing_has_nothing_to_do() -> None:
    assert endpoint_plan({}, KNOWN) == {"error": None, "plan": []}
    assert endpoint_plan({**GOOD, "endpoint_state": "absent"}, KNOWN)["plan"] == []


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"endpoint_set": "a b"}, ["set: 'a b' is not a name; accepted: "]),
        ({"endpoint_host_identities": [{"name": "inside", "table": "x"}]}, ["identities[0].table: 'x'", "accepted: "]),
        ({"endpoint_host_identities": [{"name": "inside", "mtu": "x"}]}, ["'mtu'", "identities", "'x'", "int"]),
        ({"endpoint_host_identities": [{"name": "inside", "shelf": 9}]}, ["unknown option identities.shelf", "table"]),
        ({"endpoint_host_identities": [{"pools": []}]}, ["third list, entry 0: has no name; accepted: "]),
        ({"endpoint_unbound_local": "x"}, ["unbound_local must be one of: none, main, got: x"]),
        ({"endpoint_unbound": "x"}, ["unbound: 'x' is no identity of this set; accepted: keep, inside"]),
        ({"endpoint_confirm": {"timeout": 0}}, ["confirm.timeout: 0 is no time; accepted: 1 to 3600 seconds"]),
        ({"endpoint_paths": [{"from": "x", "to": "192.0.2.1"}]}, ["paths[0].from: 'x'", "accepted: ", "inside"]),
        ({"endpoint_keep_paths": [{"to": "x"}]}, ["keep_paths[0].to: 'x'", "accepted: "]),
        ({"endpoint_identites": []}, ["endpoint_identites: is no variable of role endpoint; accepted: endpoint_ident"]),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, t.Any], parts: list[str]) -> None:
    found = endpoint_plan({**GOOD, **wrong}, KNOWN)
    assert found["plan"] == []
    assert [part for part in parts if part not in found["error"]] == [], found["error"]
    assert "\n" not in found["error"]


def test_a_table_has_the_names_that_the_declaration_gives() -> None:
    named = {
        "endpoint_tables": [{"name": "lab", "id": 77}],
        "endpoint_rules": [{"priority": 9, "family": "ipv4", "table": "lab"}],
    }
    path = {"endpoint_paths": [{"to": "192.0.2.1", "expect": {"table": "lab"}}]}
    assert endpoint_plan({**named, **path}, KNOWN)["error"] is None
    assert "accepted: a number" in endpoint_plan(path, KNOWN)["error"]


def test_what_is_no_dictionary_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="takes a dictionary"):
        endpoint_plan([], KNOWN)
