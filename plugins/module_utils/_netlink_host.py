# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Devices, addresses and neighbours as rtnetlink writes them. Pure, apart from the name of a device."""

from __future__ import annotations

import ipaddress
import os
import typing as t

from ._model.state import Address, Link
from ._netlink_codec import AF, FAMILIES, Content, Message

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
NEW_ADDRESS = Message("ifaddrmsg", (*ADDRESS.attrs, "IFA_CACHEINFO"))
NEW_LINK = Message("veth", ("IFLA_IFNAME", "IFLA_LINKINFO", "IFLA_GROUP"))
NEIGHBOUR = Message("ndmsg", ("NDA_DST",))

IFF_UP = 0x1
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS: most of a link's message is counters
_SECONDARY, _NODAD, _DEPRECATED, _TENTATIVE, _NOPREFIXROUTE = 0x01, 0x02, 0x20, 0x40, 0x200
_UP = {"flags": IFF_UP, "change": IFF_UP}
_FOREVER = 0xFFFFFFFF
_NTF_USE, _NTF_ROUTER = 0x01, 0x80
# NUD_*: what the kernel knows of a neighbour.
ANSWERED = 0x02 | 0x40 | 0x80  # reachable, or on a device that needs no answer, or entered by hand
KNOWN = 0x04 | 0x08  # answered once
PROBE = 0x10
FAILED = 0x20


def encode_links() -> Content:
    """A dump of devices."""
    return Content({}, [("IFLA_EXT_MASK", _SKIP_STATISTICS)])


def encode_group(index: int, group: int) -> Content:
    """A change of a device's group and of nothing else."""
    return Content({"index": index}, [("IFLA_GROUP", group)])


def encode_up(name: str) -> Content:
    """A device that comes up."""
    return Content(_UP, [("IFLA_IFNAME", name)])


def encode_stand_in(link: Link, peer: str) -> Content:
    """A cable with the name, state and group of a device; with its other end, C(peer), it gets carrier."""
    far = {"attrs": [("IFLA_IFNAME", peer)]}
    info = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", far)]})]
    attrs = [("IFLA_IFNAME", link.name), ("IFLA_GROUP", link.group), ("IFLA_LINKINFO", {"attrs": info})]
    return Content(_UP if link.up else {}, attrs)


def encode_address(address: Address, index: int) -> Content:
    """An address without the routes to its network, which are copied like all others, and without detection."""
    far = address.address if address.peer is None else address.peer.partition("/")[0]
    attrs: list[tuple[str, t.Any]] = [
        ("IFA_LOCAL", address.address),
        ("IFA_ADDRESS", far),
        ("IFA_FLAGS", _NOPREFIXROUTE | (_NODAD if address.family == 6 else 0)),
    ]
    if address.deprecated:
        times = {"ifa_preferred": 0, "ifa_valid": _FOREVER, "cstamp": 0, "tstamp": 0}
        attrs.append(("IFA_CACHEINFO", times))
    header = {"family": AF[address.family], "prefixlen": address.prefixlen, "scope": address.scope, "index": index}
    return Content(header, attrs)


def decode_link(fields: t.Mapping[str, t.Any]) -> Link:
    """The device in a message."""
    return Link(
        index=fields["index"],
        name=_text(fields["IFLA_IFNAME"]),
        kind=fields["IFLA_LINKINFO"].get_attr("IFLA_INFO_KIND") if "IFLA_LINKINFO" in fields else None,
        arptype=fields["type"],
        up=bool(fields["flags"] & IFF_UP),
        carrier=bool(fields.get("IFLA_CARRIER", 0)),
        group=fields.get("IFLA_GROUP", 0),
        master=fields.get("IFLA_MASTER"),
    )


def _text(name: str | bytes) -> str:
    """A name may be any bytes. pyroute2 leaves those that are no UTF-8; as text they are what Python makes of them."""
    return name if isinstance(name, str) else os.fsdecode(name.rstrip(b"\0"))


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


def encode_neighbour(family: int, index: int, address: str, *, probe: bool) -> Content:
    """A wish to know whether a neighbour is there: to begin to find out, or (C(probe)) to ask one that is known."""
    asked = {"state": PROBE, "flags": 0} if probe else {"state": 0, "flags": _NTF_USE}
    return Content({"family": AF[family], "ifindex": index, **asked}, [("NDA_DST", address)])


def decode_neighbour(fields: t.Mapping[str, t.Any]) -> tuple[int, str | None, int]:
    """Index of the device, address and state of a neighbour."""
    return fields["ifindex"], fields.get("NDA_DST"), fields["state"]


def decode_router(fields: t.Mapping[str, t.Any], name: t.Callable[[int], str | None]) -> tuple[str, str] | None:
    """Device and address of a neighbour that said it is a router; None for any other neighbour."""
    device = name(fields["ifindex"])
    if device is None or not fields["flags"] & _NTF_ROUTER or "NDA_DST" not in fields:
        return None
    return device, fields["NDA_DST"]
