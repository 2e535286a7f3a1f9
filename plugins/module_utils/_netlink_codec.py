# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Messages as bytes, by the message class of a client library that is handed in."""

from __future__ import annotations

import errno
import socket
import typing as t

from . import _netlink_host as host_messages
from . import _netlink_route as route_messages
from . import _netlink_rule as rule_messages
from ._model.operation import Operation
from ._model.route import Route
from ._model.rule import Rule
from ._netlink_layout import Content, Layout
from ._netlink_socket import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, Refused

Index = t.Callable[[str], int]

# Message types of linux/rtnetlink.h.
SETLINK, GETLINK, GETADDR, GETNEIGH = 19, 18, 22, 30
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWRULE, DELRULE, GETRULE = 32, 33, 34
_REQUESTS = {
    "rule": {"add": NEWRULE, "remove": DELRULE},
    "route": {"add": NEWROUTE, "replace": NEWROUTE, "remove": DELROUTE},
    "group": {"set": SETLINK},
}
_FLAGS = {"add": NLM_F_CREATE | NLM_F_EXCL, "replace": NLM_F_CREATE | NLM_F_REPLACE, "remove": 0, "set": 0}


class Codec:
    """Encodes and decodes; C(base) is the class of a netlink message that the library offers for own definitions."""

    def __init__(self, base: t.Any) -> None:
        hosts = (host_messages.LINK, host_messages.ADDRESS, host_messages.NEIGHBOUR)
        layouts: tuple[Layout, ...] = (*hosts, rule_messages.LAYOUT, route_messages.LAYOUT)
        self._classes = {layout: _message_class(base, layout) for layout in layouts}

    def encode(self, layout: Layout, kind: int, flags: int, content: Content) -> bytearray:
        """A whole message, with sequence number 0."""
        message = self._classes[layout]()
        message["header"]["type"] = kind
        message["header"]["flags"] = flags
        for name, _form in layout.fields:
            message[name] = content.header.get(name, 0)
        message["attrs"] = content.attrs
        message.encode()
        return bytearray(message.data)

    def decode(self, layout: Layout, data: bytes) -> dict[str, t.Any]:
        """Header fields and known attributes in one mapping."""
        message = self._classes[layout](data)
        message.decode()
        fields = {name: message[name] for name, _form in layout.fields}
        fields.update((item[0], item[1]) for item in message["attrs"])
        return fields

    def operation(self, operation: Operation, index: Index) -> bytearray:
        """The message of an operation. Raises Refused (ENODEV) if it names a device that is not there."""
        layout, content = _content(operation, index)
        flags = NLM_F_REQUEST | NLM_F_ACK | _FLAGS[operation.op]
        return self.encode(layout, _REQUESTS[operation.kind][operation.op], flags, content)

    def append(self, rule: Rule) -> bytearray:
        """The message that adds a rule even where its like exists."""
        flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
        return self.encode(rule_messages.LAYOUT, NEWRULE, flags, rule_messages.encode(rule))


def _message_class(base: t.Any, layout: Layout) -> t.Any:
    """Own definitions: those of pyroute2 lack attributes that we need (nexthop id, ports, uid), and vary by version."""
    return type(layout.name, (base,), {"prefix": "", "fields": layout.fields, "nla_map": layout.attrs})


def _content(operation: Operation, index: Index) -> tuple[Layout, Content]:
    target = operation.target
    if isinstance(target, Rule):
        return rule_messages.LAYOUT, rule_messages.encode(target)
    if isinstance(target, Route):
        return route_messages.LAYOUT, route_messages.encode(target, index)
    return host_messages.LINK, host_messages.encode_group(index(target.name), target.group)


def device_index(name: str) -> int:
    """The index of a device. Raises Refused (ENODEV)."""
    try:
        return socket.if_nametoindex(name)
    except OSError as exc:
        raise Refused(errno.ENODEV, f"there is no device {name!r}") from exc


def device_name(index: int) -> str | None:
    """The name of a device; None if it has gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None
