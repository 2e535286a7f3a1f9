# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Changes in the kernel as they are told: by the multicast groups of rtnetlink, and of nftables."""

from __future__ import annotations

import select

from ._netlink_filter import Interest, program
from ._netlink_ruleset import RulesetEvents
from ._netlink_socket import EventSocket, Overrun

# Groups of linux/rtnetlink.h to listen to, and what the types of messages that come from them are called.
_GROUPS = (1, 5, 9)
_RULE_GROUPS = (8, 19)
_ROUTE_GROUPS = (7, 11)
_EVENT_KINDS = {
    **dict.fromkeys((16, 17), "link"),
    **dict.fromkeys((20, 21), "address"),
    **dict.fromkeys((24, 25), "route"),
    **dict.fromkeys((32, 33), "rule"),
}


class EventsLost(Exception):
    """Events came faster than they were read: everything must be read again. Listening goes on."""


class NetlinkEvents:
    """Events by multicast groups."""

    def __init__(self, ignored_port: int | None, *, rules: bool, routes: bool, ruleset: bool) -> None:
        groups = (*_GROUPS, *(_RULE_GROUPS if rules else ()), *(_ROUTE_GROUPS if routes else ()))
        self._ignored_port = ignored_port
        self._socket = EventSocket(groups)
        self._socket.attach(program(None, ignored_port))
        self._ruleset = RulesetEvents.listen() if ruleset else None
        self._ready = select.epoll()
        for source in (self._socket, self._ruleset):
            if source is not None:
                self._ready.register(source.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        return self._ready.fileno()

    def narrow(self, interest: Interest) -> None:
        self._socket.attach(program(interest, self._ignored_port))

    def read(self) -> list[str]:
        try:
            messages = self._socket.read()
            ruleset = self._ruleset is not None and self._ruleset.read()
        except Overrun as exc:
            raise EventsLost(str(exc)) from exc
        found = [_EVENT_KINDS[message.type] for message in messages if message.type in _EVENT_KINDS]
        return [*found, "ruleset"] if ruleset else found

    def close(self) -> None:
        self._ready.close()
        self._socket.close()
        if self._ruleset is not None:
            self._ruleset.close()
