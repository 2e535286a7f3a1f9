# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Changes of the nftables ruleset, as far as they concern tables of ours: somebody flushed them, or wrote into them."""

from __future__ import annotations

import errno
import struct

from ._netlink_filter import without
from ._netlink_socket import EventSocket

OUR_TABLES = b"fleetvpn"  # what the names of all our tables begin with

_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES, the upper half of a message's type
# Of linux/netfilter/nf_tables.h: new and deleted tables, chains and rules. All name their table in attribute 1.
_KINDS = frozenset({0, 2, 3, 5, 6, 8})
# New and deleted elements of sets. Some programs change thousands of them, in messages of their own.
_ELEMENTS = (12, 14)
_TABLE_NAME = 1
_NESTED = 0xC000  # flags in the type of an attribute
_HEAD = 16 + 4  # nlmsghdr and nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")


class RulesetEvents:
    """Listens. The kernel puts many changes of one transaction into one message, so that they are sorted here."""

    def __init__(self, sock: EventSocket) -> None:
        self._sock = sock
        sock.attach(without(_SUBSYSTEM << 8 | kind for kind in _ELEMENTS))

    @classmethod
    def listen(cls) -> RulesetEvents | None:
        """None where the kernel has no nftables: then there is nothing of ours in it, or we may not listen."""
        try:
            return cls(EventSocket((_NFNLGRP_NFTABLES,), _NETLINK_NETFILTER))
        except OSError as exc:
            if exc.errno in (errno.EPROTONOSUPPORT, errno.EPERM):
                return None
            raise

    def fileno(self) -> int:
        """For select and poll."""
        return self._sock.fileno()

    def read(self) -> bool:
        """Whether anything of ours has changed, without waiting. Raises Overrun."""
        return any(_is_ours(message.type, message.data) for message in self._sock.read())

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()


def _is_ours(kind: int, data: bytes) -> bool:
    if kind >> 8 != _SUBSYSTEM or kind & 0xFF not in _KINDS or len(data) < _HEAD + _ATTRIBUTE.size:
        return False
    length, attribute = _ATTRIBUTE.unpack_from(data, _HEAD)
    return attribute & ~_NESTED == _TABLE_NAME and data[_HEAD + _ATTRIBUTE.size : _HEAD + length].startswith(OUR_TABLES)
