# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Messages as bytes, by the message classes of pyroute2, which are handed in; and prefixes in them."""

from __future__ import annotations

import typing as t


class Message(t.NamedTuple):
    """A kind of message: the class of pyroute2, and the closed list of attributes that we read or write.

    C(missing) are attributes that are not in that class in every version: number, name and type.
    """

    base: str
    attrs: tuple[str, ...]
    missing: tuple[tuple[int, str, str], ...] = ()


class Content(t.NamedTuple):
    """What goes into a message: header fields that are not 0, and attributes."""

    header: dict[str, int]
    attrs: list[tuple[str, t.Any]]


AF = {4: 2, 6: 10}
_LINK_FIELDS = (("family", "B"), ("pad", "B"), ("type", "H"), ("index", "i"), ("flags", "I"), ("change", "I"))
FAMILIES = {2: 4, 10: 6}


class Library(t.NamedTuple):
    """Modules of pyroute2: netlink, netlink.rtnl, and those of rtnl by the name of the message class in them."""

    netlink: t.Any
    rtnl: t.Any
    messages: dict[str, t.Any]


class Codec:
    """Encodes and decodes."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._classes: dict[str, t.Any] = {}

    def encode(self, kind: Message, request: str, flags: int, content: Content) -> bytearray:
        """A whole message with sequence number 0. C(request) is the name of its type, such as RTM_GETRULE."""
        message = self._class(kind)()
        message["header"]["type"] = getattr(self._library.rtnl, request)
        message["header"]["flags"] = flags
        for name, value in content.header.items():
            message[name] = value
        message["attrs"] = content.attrs
        message.encode()
        return bytearray(message.data)

    def decode(self, kind: Message, data: bytes) -> dict[str, t.Any]:
        """Header fields and the listed attributes in one mapping, and the C(message) itself.

        It has to live as long as they do: what is nested in an attribute finds its family there.
        """
        message = self._class(kind)(data)
        message.decode()
        fields = {name: message[name] for name, _form in message.fields}
        fields.update((slot.name, slot.value) for slot in message["attrs"] if slot.name in kind.attrs)
        fields["message"] = message
        return fields

    def explanation(self, data: bytes) -> str | None:
        """The text of the extended ack in an error."""
        message = self._library.netlink.nlmsgerr(data)
        message.decode()
        text: str | None = message.get_attr("NLMSGERR_ATTR_MSG")
        return text

    def _class(self, kind: Message) -> t.Any:
        if kind.base not in self._classes:
            own = {"ifinfmsg": self._link, "veth": self._veth}.get(kind.base)
            found = own() if own else getattr(self._library.messages[kind.base], kind.base)
            self._classes[kind.base] = _extended(found, kind)
        return self._classes[kind.base]

    def _link(self) -> t.Any:
        """The one class that is not taken from pyroute2: its ifinfmsg knows every kind of device, and to import that
        takes longer than to import all else that we need.
        """
        netlink = self._library.netlink
        info = type("linkinfo", (netlink.nla,), {"nla_map": ((1, "IFLA_INFO_KIND", "asciiz"),)})
        attrs = ((18, "IFLA_LINKINFO", "linkinfo"),)
        return type("ifinfmsg", (netlink.nlmsg,), {"fields": _LINK_FIELDS, "nla_map": attrs, "linkinfo": info})

    def _veth(self) -> t.Any:
        """A new cable: a message about one end that holds one about the other."""
        nla, nlmsg = self._library.netlink.nla, self._library.netlink.nlmsg
        name = ((3, "IFLA_IFNAME", "asciiz"),)
        peer = type("peer", (nla,), {"fields": _LINK_FIELDS, "nla_map": name})
        data = type("data", (nla,), {"nla_map": ((1, "VETH_INFO_PEER", "far_end"),), "far_end": peer})
        kinds = ((1, "IFLA_INFO_KIND", "asciiz"), (2, "IFLA_INFO_DATA", "cable"))
        info = type("linkinfo", (nla,), {"nla_map": kinds, "cable": data})
        attrs = (*name, (18, "IFLA_LINKINFO", "linkinfo"), (27, "IFLA_GROUP", "uint32"))
        return type("veth", (nlmsg,), {"fields": _LINK_FIELDS, "nla_map": attrs, "linkinfo": info})


def _extended(base: t.Any, kind: Message) -> t.Any:
    """The class with what is missing in it.

    A class inherits the table of attributes that was made of its parent's list when that was first used. The table is
    marked as not made; else an attribute that is in no table would be left out of the message without a word.
    """
    found = base
    if kind.missing:
        known = [entry if isinstance(entry[0], int) else (number, *entry) for number, entry in enumerate(base.nla_map)]
        attrs = (*known, *kind.missing)
        found = type(base.__name__, (base,), {"nla_map": attrs, "_nlmsg_base__compiled_nla": False})
    lost = [name for name in kind.attrs if not found().valid_nla(name)]
    if lost:
        raise RuntimeError(f"this version of pyroute2 cannot encode {', '.join(lost)}")
    return found


def split_prefix(prefix: str | None) -> tuple[str | None, int]:
    """Address and length. None, which is any, has neither."""
    if prefix is None:
        return None, 0
    address, _slash, length = prefix.partition("/")
    return address, int(length or (128 if ":" in address else 32))


def join_prefix(fields: t.Mapping[str, t.Any], name: str, length: str) -> str | None:
    """The prefix of an attribute and its length in the header; None for length 0, which is any."""
    if not fields[length]:
        return None
    return f"{fields[name]}/{fields[length]}"


def header_table(table: int) -> int:
    """The header's 8 bits for a table. Where it does not fit they say RT_TABLE_COMPAT: the attribute counts."""
    return table if table < 256 else 252
