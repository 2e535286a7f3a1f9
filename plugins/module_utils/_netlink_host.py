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
from ._netlink_codec import FAMILIES, Content, Message

LINK = Message(
    "ifinfmsg",
    ("IFLA_IFNAME", "IFLA_MASTER", "IFLA_LINKINFO", "IFLA_GROUP", "IFLA_EXT_MASK", "IFLA_CARRIER"),
    missing=(
        (3, "IFLA_IFNAME", "asciiz"),
        (26, "IFLA_AF_SPEC", "cdata"),
        (10, "IFLA_MASTER", "uint32"),
        (27, "IFLA_GROUP", "uint32"),
        (29, "IFLA_EXT_MASK", "uint32"),
        (33, "IFLA_CARRIER", "uint8"),
    ),
)
ADDRESS = Message("ifaddrmsg", ("IFA_ADDRESS", "IFA_LOCAL", "IFA_FLAGS"))
NEIGHBOUR = Message("ndmsg", ("NDA_DST",))

IFF_UP = 0x1
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS: most of a link's message is counters
_SECONDARY, _DEPRECATED, _TENTATIVE = 0x01, 0x20, 0x40
_NTF_ROUTER = 0x80


def encode_links() -> Content:
    """A dump of devices."""
    return Content({}, [("IFLA_EXT_MASK", _SKIP_STATISTICS)])


def encode_group(index: int, group: int) -> Content:
    """A change of a device's group and of nothing else."""
    return Content({"index": index}, [("IFLA_GROUP", group)])


def decode_link(fields: t.Mapping[str, t.Any]) -> Link:
    """The device in a message."""
    return Link(
        index=fields["index"],
        name=fields["IFLA_IFNAME"],
        kind=fields["IFLA_LINKINFO"].get_attr("IFLA_INFO_KIND") if "IFLA_LINKINFO" in fields else None,
        arptype=fields["type"],
        up=bool(fields["flags"] & IFF_UP),
        carrier=bool(fields.get("IFLA_CARRIER", 0)),
        group=fields.get("IFLA_GROUP", 0),
        master=fields.get("IFLA_MASTER"),
    )


def decode_address(fields: t.Mapping[str, t.Any], name: t.Callable[[int], str | None]) -> Address | None:
    """The address in a message; None if its device has just gone. ADDRESS is the far end where there is one."""
    device = name(fields["index"])
    if device is None or fields["family"] not in FAMILIES:
        return None
    flags = fields.get("IFA_FLAGS", fields["flags"])
    local = fields.get("IFA_LOCAL", fields.get("IFA_ADDRESS"))
    far = fields.get("IFA_ADDRESS", local)
    first = bool(flags & _SECONDARY)  # one bit, which means secondary in IPv4 and temporary in IPv6
    family = FAMILIES[fields["family"]]
    return Address(
        family=family,
        address=local,
        prefixlen=fields["prefixlen"],
        dev=device,
        scope=fields["scope"],
        secondary=first and family == 4,
        temporary=first and family == 6,
        deprecated=bool(flags & _DEPRECATED),
        tentative=bool(flags & _TENTATIVE),
        peer=None if far == local else str(ipaddress.ip_network((far, fields["prefixlen"]), strict=False)),
    )


def decode_router(fields: t.Mapping[str, t.Any], name: t.Callable[[int], str | None]) -> tuple[str, str] | None:
    """Device and address of a neighbour that said it is a router; None for any other neighbour."""
    device = name(fields["ifindex"])
    if device is None or not fields["flags"] & _NTF_ROUTER or "NDA_DST" not in fields:
        return None
    return device, fields["NDA_DST"]
