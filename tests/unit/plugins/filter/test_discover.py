# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that a proposal becomes, whatever a host has put into it."""

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.fleetvpn.routing.plugins.filter.discover import proposal_file

IDENTITIES = [{"name": "outside", "interface": "auto"}, {"name": "inside", "tunnel": {"type": "wireguard"}}]


def proposal(*remarks: str, **declaration: t.Any) -> dict[str, t.Any]:
    return {"declaration": {"identities": IDENTITIES, **declaration}, "remarks": list(remarks)}


def test_it_is_variables_of_the_role() -> None:
    text = proposal_file(proposal(adopt=True, numbers={"priority_base": 500}), "web1")
    assert yaml.safe_load(text) == {
        "endpoint_host_identities": IDENTITIES,
        "endpoint_adopt": True,
        "endpoint_numbers": {"priority_base": 500},
    }
    assert text.startswith("# Proposed for web1 ")


def test_a_remark_stays_a_comment() -> None:
    text = proposal_file(proposal("one\nendpoint_state: absent", "two\x85three\u2028four"), "web1\nendpoint_set: x")
    assert set(yaml.safe_load(text)) == {"endpoint_host_identities"}
    assert "# - one endpoint_state: absent\n# - two three four\n---\n" in text


@pytest.mark.parametrize("said", ["{{ lookup('pipe', 'id') }}", "{% x %}", "a{# b", "two\nlines"])
def test_a_host_puts_no_template_into_the_inventory(said: str) -> None:
    with pytest.raises(AnsibleFilterError, match="is no value for a file"):
        proposal_file(proposal(local_networks=[said]), "web1")
    with pytest.raises(AnsibleFilterError, match="is no value for a file"):
        proposal_file(proposal(**{said: 1}), "web1")


@pytest.mark.parametrize("given", [None, [], {"declaration": {}}])
def test_what_is_no_proposal_is_refused(given: object) -> None:
    with pytest.raises(AnsibleFilterError, match="takes the proposal"):
        proposal_file(given, "web1")
