# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Devices, addresses and neighbours as rtnetlink writes them. Pure, apart from the name of a device."""

from __future__ import annotations

import ipaddress
import typing as t

from ._model.state import Address, Link
from ._netlink_layout import FAMILIES, Content, Layout, unpack_address
from ._netlink_socket import attributes

LINK = Layout(
    "fleetvpn_link",
    (("family", "B"), ("pad", "B"), ("arptype", "H"), ("index", "i"), ("flags", "I"), ("change", "I")),
    (
        (3, "IFNAME", "asciiz"),
        (10, "MASTER", "uint32"),
        (18, "LINKINFO", "cdata"),
        (27, "GROUP", "uint32"),
        (29, "EXT_MASK", "uint32"),
        (33, "CARRIER", "uint8"),
    ),
)
ADDRESS = Layout(
    "fleetvpn_address",
    (("family", "B"), ("prefixlen", "B"), ("flags", "B"), ("scope", "B"), ("index", "I")),
    ((1, "ADDRESS", "cdata"), (2, "LOCAL", "cdata"), (8, "FLAGS", "uint32")),
)
NEIGHBOUR = Layout(
    "fleetvpn_neighbour",
    (("family", "B"), ("pad1", "B"), ("pad2", "H"), ("index", "i"), ("state", "H"), ("flags", "B"), ("kind", "B")),
    ((1, "DST", "cdata"),),
)

_IFF_UP = 0x1
_INFO_KIND = 1
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS: most of a link's message is counters
_SECONDARY, _DEPRECATED, _TENTATIVE = 0x01, 0x20, 0x40
_NTF_ROUTER = 0x80


def encode_links() -> Content:
    """A dump of devices."""
    return Content({}, [("EXT_MASK", _SKIP_STATISTICS)])


def encode_group(index: int, group: int) -> Content:
    """A change of a device's group and of nothing else."""
    return Content({"index": index}, [("GROUP", group)])


def decode_link(fields: t.Mapping[str, t.Any]) -> Link:
    """The device in a message."""
    kind = attributes(fields.get("LINKINFO", b"")).get(_INFO_KIND)
    return Link(
        index=fields["index"],
        name=fields["IFNAME"],
        kind=None if kind is None else kind.rstrip(b"\0").decode("ascii"),
        arptype=fields["arptype"],
        up=bool(fields["flags"] & _IFF_UP),
        carrier=bool(fields.get("CARRIER", 0)),
        group=fields.get("GROUP", 0),
        master=fields.get("MASTER"),
    )


def decode_address(fields: t.Mapping[str, t.Any], name: t.Callable[[int], str | None]) -> Address | None:
    """The address in a message; None if its device has just gone. ADDRESS is the far end where there is one."""
    device = name(fields["index"])
    if device is None or fields["family"] not in FAMILIES:
        return None
    flags = fields.get("FLAGS", fields["flags"])
    local = fields.get("LOCAL", fields.get("ADDRESS"))
    far = fields.get("ADDRESS", local)
    first = bool(flags & _SECONDARY)  # one bit, which means secondary in IPv4 and temporary in IPv6
    family = FAMILIES[fields["family"]]
    return Address(
        family=family,
        address=unpack_address(local),
        prefixlen=fields["prefixlen"],
        dev=device,
        scope=fields["scope"],
        secondary=first and family == 4,
        temporary=first and family == 6,
        deprecated=bool(flags & _DEPRECATED),
        tentative=bool(flags & _TENTATIVE),
        peer=None if far == local else _network(far, fields["prefixlen"]),
    )


def _network(address: bytes, length: int) -> str:
    return str(ipaddress.ip_network((address, length), strict=False))


def decode_router(fields: t.Mapping[str, t.Any], name: t.Callable[[int], str | None]) -> tuple[str, str] | None:
    """Device and address of a neighbour that said it is a router; None for any other neighbour."""
    device = name(fields["index"])
    if device is None or not fields["flags"] & _NTF_ROUTER or "DST" not in fields:
        return None
    return device, unpack_address(fields["DST"])
