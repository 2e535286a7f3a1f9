# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Connected sockets as the kernel's NETLINK_SOCK_DIAG writes them (linux/inet_diag.h). Pure.

pyroute2 knows these messages, but loads its sockets with them, which takes longer than to load all else that we need.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import typing as t

from ._model.state import Flow
from ._netlink_socket import HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, attributes

NETLINK_SOCK_DIAG = 4
KINDS = tuple(
    (family, protocol)
    for family in (socket.AF_INET, socket.AF_INET6)
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
)
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_STATES = 1 << 1 | 1 << 8  # TCP_ESTABLISHED, which connected UDP has too, and TCP_CLOSE_WAIT
_MARK = 15  # INET_DIAG_MARK, which only root is told
_HEADER = struct.Struct("=IHHII")
# struct inet_diag_req_v2 without its 48 bytes of struct inet_diag_sockid.
_REQUEST = struct.Struct("=BBxxI48x")
# struct inet_diag_msg: the family, ports, addresses, the device that the socket is bound to, and the user.
_SOCKET = struct.Struct("!Bxxx HH16s16s")
_REST = struct.Struct("=I8x12xI4x")


def encode_sockets(family: int, protocol: int) -> bytearray:
    """A dump of the connected sockets of a family and a protocol."""
    header = _HEADER.pack(HEADER_SIZE + _REQUEST.size, _BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0)
    return bytearray(header + _REQUEST.pack(family, protocol, _STATES))


def decode_socket(data: bytes, protocol: int, name: t.Callable[[int], str | None]) -> Flow:
    """What the socket in a message sends. IPv4 by an IPv6 socket is IPv4."""
    family, sport, dport, source, to = _SOCKET.unpack_from(data, HEADER_SIZE)
    device, user = _REST.unpack_from(data, HEADER_SIZE + _SOCKET.size)
    found = dict(attributes(data[HEADER_SIZE + _SOCKET.size + _REST.size :]))
    source_address, to_address = (_address(family, packed) for packed in (source, to))
    return Flow(
        to_address.version,
        str(to_address),
        source=str(source_address),
        oif=name(device) if device else None,
        fwmark=(struct.unpack("=I", found[_MARK])[0] or None) if _MARK in found else None,
        uid=user,
        ipproto=protocol,
        sport=sport,
        dport=dport,
    )


def _address(family: int, packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(packed[:4])
    found = ipaddress.IPv6Address(packed)
    return found.ipv4_mapped or found
