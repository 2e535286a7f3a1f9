# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx builds the documentation site (`make docs`)."""

from __future__ import annotations

import typing as t

from docutils import nodes

project = "fleetvpn.routing"
project_copyright = "fleetvpn.routing contributors"
title = html_title = "fleetvpn.routing"
html_short_title = "fleetvpn.routing"
extensions = ["sphinx_antsibull_ext"]
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
html_theme = "sphinx_ansible_theme"
html_show_sphinx = False
html_copy_source = False
html_use_index = False
default_role = "any"
# A reference that leads nowhere is a warning, and warnings are errors.
nitpicky = True

# For `make links`. What is ours is public only once it is published, and tests/unit/test_docs.py looks at the files.
linkcheck_ignore = [r"https://(\w+\.)*(github|githubusercontent|ansible)\.com/([\w-]+/)*fleetvpn/"]
linkcheck_timeout = 30

# Labels of Ansible's own documentation, which antsibull-docs refers to. Not by intersphinx: that would need a network
# for every build.
_ANSIBLE = "https://docs.ansible.com/ansible/latest"
_ELSEWHERE = {
    "action_plugins": f"{_ANSIBLE}/plugins/action.html",
    "ansible_configuration_settings": f"{_ANSIBLE}/reference_appendices/config.html",
    "common_return_values": f"{_ANSIBLE}/reference_appendices/common_return_values.html",
}


def _lead_elsewhere(_app: t.Any, _env: t.Any, node: t.Any, content: t.Any) -> nodes.reference | None:
    url = _ELSEWHERE.get(node["reftarget"])
    return None if url is None else nodes.reference("", content.astext(), refuri=url)


def setup(app: t.Any) -> None:
    """What Sphinx calls."""
    app.connect("missing-reference", _lead_elsewhere)
