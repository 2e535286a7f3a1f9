# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What the kernel answers to a request, as errors of ours; what only reads needs no more than that."""

from __future__ import annotations

import errno
import platform
import socket
import typing as t

from ._errors import KernelError, NotPermitted, NotSupported, RoutingError
from ._netlink_socket import Refused

_NEEDED = "one with policy routing for the family, CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES"

Answers = list[t.Optional[Refused]]


def failure(refused: Refused, operation: str) -> RoutingError:
    """Our error for what the kernel answered."""
    if refused.errno == errno.EPERM:
        return NotPermitted(f"may not {operation!r}", accepted="root with CAP_NET_ADMIN")
    if refused.errno in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP) or "not enabled in kernel" in refused.text:
        return NotSupported(
            f"cannot do {operation!r}: {refused.text}", field="kernel", value=platform.release(), accepted=_NEEDED
        )
    return KernelError(refused.text, errno=refused.errno, operation=operation)


def device_index(name: str) -> int:
    """The index of a device. Raises Refused (ENODEV)."""
    try:
        return socket.if_nametoindex(name)
    except OSError as exc:
        raise Refused(errno.ENODEV, f"there is no device {name!r}") from exc
