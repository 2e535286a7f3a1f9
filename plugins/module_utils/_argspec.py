# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The options of the modules, each described once. The doc fragment of the same name says what they mean.

A value that is a mark, a range or a name is a string here; _model reads it and says what is wrong with it.
"""

from __future__ import annotations

import copy
import typing as t

from ._model.fields import FAMILIES, TASK_PROTOCOL
from ._model.route import PREFERENCES, TYPES
from ._model.rule import ACTIONS

Spec = dict[str, dict[str, t.Any]]

STATE: Spec = {"state": {"type": "str", "choices": ["present", "absent"], "default": "present"}}
NETNS: Spec = {"netns": {"type": "str"}}
PROTOCOL: Spec = {"protocol": {"type": "int", "default": TASK_PROTOCOL}}

TABLE: Spec = {
    "name": {"type": "str", "required": True},
    "id": {"type": "int"},
}

RULE: Spec = {
    "family": {"type": "str", "choices": list(FAMILIES)},
    "priority": {"type": "int", "required": True},
    "not": {"type": "bool", "default": False},
    "from": {"type": "str"},
    "to": {"type": "str"},
    "iif": {"type": "str"},
    "oif": {"type": "str"},
    "fwmark": {"type": "str"},
    "tos": {"type": "str"},
    "dscp": {"type": "int"},
    "uidrange": {"type": "str"},
    "ipproto": {"type": "str"},
    "sport": {"type": "str"},
    "dport": {"type": "str"},
    "tun_id": {"type": "int"},
    "l3mdev": {"type": "bool", "default": False},
    "action": {"type": "str", "choices": list(ACTIONS), "default": "lookup"},
    "table": {"type": "str"},
    "goto": {"type": "int"},
    "suppress_prefixlength": {"type": "int"},
    "suppress_ifgroup": {"type": "int"},
}

NEXTHOP: Spec = {
    "gateway": {"type": "str"},
    "dev": {"type": "str"},
    "weight": {"type": "int", "default": 1},
    "onlink": {"type": "bool", "default": False},
}

ROUTE: Spec = {
    "family": {"type": "str", "choices": list(FAMILIES)},
    "dst": {"type": "str", "required": True},
    "table": {"type": "str", "default": "main"},
    "type": {"type": "str", "choices": list(TYPES), "default": "unicast"},
    "gateway": {"type": "str"},
    "dev": {"type": "str"},
    "src": {"type": "str"},
    "metric": {"type": "int"},
    "scope": {"type": "str"},
    "onlink": {"type": "bool", "default": False},
    "mtu": {"type": "int"},
    "advmss": {"type": "int"},
    "tos": {"type": "str"},
    "pref": {"type": "str", "choices": list(PREFERENCES)},
    "nexthops": {"type": "list", "elements": "dict", "options": NEXTHOP},
    "nexthop_id": {"type": "int"},
}


def merged(*parts: Spec) -> Spec:
    """One specification of several, with nothing shared between modules."""
    whole: Spec = {}
    for part in parts:
        whole.update(copy.deepcopy(part))
    return whole


def list_of(options: Spec) -> dict[str, t.Any]:
    """An option that is a list of objects, as C(rules) of endpoint."""
    return {"type": "list", "elements": "dict", "options": copy.deepcopy(options)}
