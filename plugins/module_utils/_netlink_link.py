# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Devices of our own: made, taken up and down, removed. Each takes more than one message."""

from __future__ import annotations

import errno
import struct
import typing as t

from ._model.operation import OwnLink
from ._netlink_codec import Codec, Content
from ._netlink_host import IFF_UP, LINK
from ._netlink_socket import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Refused

Tell = t.Callable[[t.Sequence[bytearray]], t.Sequence[t.Optional[Refused]]]

# What leads nowhere: a device that drops what it is given, or a bridge without ports where the kernel has none.
KINDS = ("dummy", "bridge")
# IFLA_AF_SPEC: AF_INET6 (10) with IFLA_INET6_ADDR_GEN_MODE (8) none (1).
_NO_ADDRESSES = struct.pack("=HHHHB3x", 12, 10, 5, 8, 1)


def change_link(op: str, link: OwnLink, codec: Codec, tell: Tell) -> Refused | None:
    """Carry out one operation; what the kernel had against it. A device is made whole or not at all."""

    def ask(request: str, content: Content, flags: int = 0) -> Refused | None:
        return tell([codec.encode(LINK, request, NLM_F_REQUEST | NLM_F_ACK | flags, content)])[0]

    name = ("IFLA_IFNAME", link.name)
    if op == "remove":
        return ask("RTM_DELLINK", Content({}, [name]))
    if op == "add":
        refused = _make(ask, name)
        if refused is not None:
            return refused
    # Without link-local addresses: that has to be said before the device goes up.
    quiet = ask("RTM_SETLINK", Content({}, [name, ("IFLA_AF_SPEC", _NO_ADDRESSES)]))
    state = {"flags": IFF_UP if link.up else 0, "change": IFF_UP}
    refused = quiet or ask("RTM_SETLINK", Content(state, [name]))
    if refused is not None and op == "add":
        ask("RTM_DELLINK", Content({}, [name]))
    return refused


def _make(ask: t.Callable[[str, Content, int], Refused | None], name: tuple[str, str]) -> Refused | None:
    """A new device of the first kind that this kernel knows."""
    refused = None
    for kind in KINDS:
        content = Content({}, [name, ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]})])
        refused = ask("RTM_NEWLINK", content, NLM_F_CREATE | NLM_F_EXCL)
        if refused is None or refused.errno != errno.EOPNOTSUPP:
            break
    return refused
