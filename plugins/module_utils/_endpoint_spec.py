# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The options of module endpoint."""

from __future__ import annotations

from ._argspec import NETNS, ROUTE, RULE, TABLE, Spec, list_of, merged
from ._model.declaration import STRICT_EGRESS, SYSCTLS, TUNNEL_TYPES
from ._path_options import keep_paths_spec, paths_spec

TUNNEL: Spec = {
    "type": {"type": "str", "required": True, "choices": list(TUNNEL_TYPES)},
    "manager": {"type": "str"},
    "connection": {"type": "str"},
    "apply": {"type": "str", "choices": ["next_connect", "reload", "restart"], "default": "next_connect"},
}

OUTER: Spec = {
    "fwmark": {"type": "str"},
    "uidrange": {"type": "str"},
}

PIN: Spec = {
    "ipproto": {"type": "str"},
    "sport": {"type": "str"},
    "uidrange": {"type": "str"},
}

IDENTITY: Spec = {
    "name": {"type": "str", "required": True},
    "tunnel": {"type": "dict", "options": TUNNEL},
    "interface": {"type": "list", "elements": "str"},
    "address_interface": {"type": "list", "elements": "str"},
    "addresses": {"type": "list", "elements": "str"},
    "pools": {"type": "list", "elements": "str"},
    "gateway": {"type": "list", "elements": "str"},
    "table": {"type": "str"},
    "priority": {"type": "int"},
    "backstop": {"type": "bool", "default": True},
    "required": {"type": "bool", "default": False},
    "destinations": {"type": "list", "elements": "str"},
    "destinations_backstop": {"type": "bool", "default": False},
    "outer": {"type": "dict", "options": OUTER},
    "mtu": {"type": "int"},
    "advmss": {"type": "int"},
    "pin": list_of(PIN),
    "follow_connections": {"type": "bool", "default": False},
    "families": {"type": "list", "elements": "str", "choices": ["ipv4", "ipv6"], "default": ["ipv4", "ipv6"]},
}

NUMBERS: Spec = {
    "priority_base": {"type": "int"},
    "table_base": {"type": "int"},
    "protocol": {"type": "int"},
    "group": {"type": "int"},
}

# What is kept in the record of a set, and so is known to the on-host program.
DECLARATION: Spec = {
    "identities": list_of(IDENTITY),
    "tables": list_of(TABLE),
    "rules": list_of(RULE),
    "routes": list_of(ROUTE),
    "local_networks": {"type": "list", "elements": "str", "default": ["auto"]},
    "unbound": {"type": "str", "default": "keep"},
    "unbound_local": {"type": "str", "choices": ["none", "main"], "default": "none"},
    "unbound_forwarded": {"type": "list", "elements": "str"},
    "unbound_backstop": {"type": "bool", "default": False},
    "mark": {"type": "str"},
    "sysctls": {"type": "list", "elements": "str", "choices": list(SYSCTLS)},
    "strict_egress": {"type": "str", "choices": list(STRICT_EGRESS), "default": "true"},
    "strict_ingress": {"type": "bool", "default": False},
    "numbers": {"type": "dict", "options": NUMBERS},
    "expires": {"type": "str"},
}

CONFIRM: Spec = {
    "by": {"type": "str", "choices": ["reconnect", "probe", "none"]},
    "timeout": {"type": "int", "default": 30},
    "address": {"type": "str"},
    "port": {"type": "int"},
}

ENDPOINT: Spec = merged(
    DECLARATION,
    {
        "set": {"type": "str", "default": "main"},
        "prune": {"type": "bool", "default": True},
        "adopt": {"type": "bool", "default": False},
        "paths": paths_spec(),
        "keep_paths": keep_paths_spec(),
        "what_if": {"type": "str", "choices": ["enforce", "report", "skip"], "default": "enforce"},
        "confirm": {"type": "dict", "options": CONFIRM},
        "persistent": {"type": "bool"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    },
    NETNS,
)

ENDPOINT_INFO: Spec = merged({"set": {"type": "str"}}, NETNS)
