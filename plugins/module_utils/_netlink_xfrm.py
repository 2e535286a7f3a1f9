# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""IPsec policies as the kernel's NETLINK_XFRM writes them (linux/xfrm.h), which pyroute2 does not know. Pure."""

from __future__ import annotations

import ipaddress
import socket
import struct

from ._model.state import Policy
from ._netlink_socket import NLM_F_DUMP, NLM_F_REQUEST, attributes

NETLINK_XFRM = 6
_GETPOLICY = 0x15
_OUT = 1
_TEMPLATES, _IF_ID = 5, 31  # XFRMA_TMPL, XFRMA_IF_ID
_HEADER = struct.Struct("=IHHII")
# struct xfrm_userpolicy_info: the selector's addresses, family and lengths, and the direction.
_INFO = struct.Struct("=16s16s8xHBB12x64x32x4x4xB7x")


def encode_policies() -> bytearray:
    """A dump of policies."""
    return bytearray(_HEADER.pack(_HEADER.size, _GETPOLICY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0))


def decode_policy(data: bytes) -> Policy | None:
    """The policy in a message; None for one that encrypts nothing or is for what others send."""
    destination, source, family, to, by, direction = _INFO.unpack_from(data, _HEADER.size)
    found = dict(attributes(data[_HEADER.size + _INFO.size :]))
    if direction != _OUT or _TEMPLATES not in found:
        return None
    if_id = struct.unpack("=I", found[_IF_ID])[0] if _IF_ID in found else 0
    return Policy(_prefix(source, family, by), _prefix(destination, family, to), if_id)


def _prefix(address: bytes, family: int, length: int) -> str:
    packed = address[:4] if family == socket.AF_INET else address
    return str(ipaddress.ip_network((packed, length), strict=False))
