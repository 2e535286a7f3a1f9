# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Whether this host can have a route, and by which device: asked before anything is changed.

The kernel looks a gateway up in the route's own table first. In a table with a default by a tunnel it would find any
gateway there, and so would a replacement of that very default. Hence the device is found here and always stated.
"""

from __future__ import annotations

import ipaddress
import typing as t

from ._errors import InvalidInput
from ._model.fields import RESERVED_TABLES
from ._model.route import Nexthop, Route
from ._model.state import Flow

if t.TYPE_CHECKING:
    from ._reading import Readable


class Reach:
    """What a host reaches, asked once for each gateway however many routes go by it."""

    def __init__(self, kernel: Readable) -> None:
        self._kernel = kernel
        self._names = sorted(link.name for link in kernel.links())
        self._known: dict[tuple[str, str | None, int], str | None] = {}  # gateway, its device as stated, table: device

    def completed(self, route: Route, *, field: str = "") -> Route:
        """The route with the device of every gateway. C(field) is the prefix for error messages.

        Raises InvalidInput for a device that does not exist, a gateway that is not reachable, and a source that is not
        local.
        """
        before = f"{field}." if field else ""
        devices = [
            self._device(way, f"{before}nexthops[{at}]." if route.nexthops else before, route.table)
            for at, way in enumerate(route.ways)
        ]
        if route.src is not None and not _local(route.src, self._kernel):
            accepted = "an address of this host"
            raise InvalidInput("is not local", field=f"{before}src", value=route.src, accepted=accepted)
        return route.by(devices)

    def _device(self, way: Nexthop, before: str, table: int) -> str | None:
        if way.dev is not None and way.dev not in self._names:
            accepted = f"a device of this host: {', '.join(self._names)}"
            raise InvalidInput("is no device", field=f"{before}dev", value=way.dev, accepted=accepted)
        if way.gateway is None or way.onlink:
            return way.dev
        key = (way.gateway, way.dev, table)
        if key not in self._known:
            self._known[key] = _device_of_gateway(*key, self._kernel)
        found = self._known[key]
        if found is None:
            where = f"of {way.dev}" if way.dev else "of a device"
            accepted = f"an address in a connected network {where}, or onlink with dev"
            raise InvalidInput("is not reachable", field=f"{before}gateway", value=way.gateway, accepted=accepted)
        return found


def _device_of_gateway(gateway: str, dev: str | None, table: int, kernel: Readable) -> str | None:
    """The device of the longest connected prefix, in the route's table or in main, else what the rules lead to."""
    address = ipaddress.ip_address(gateway)
    if address.version == 6 and address.is_link_local:
        return dev
    if _local(gateway, kernel):
        return None
    connected = {
        ipaddress.ip_network(found.dst).prefixlen: way.dev
        for number in (RESERVED_TABLES["main"], table)  # of two equal prefixes, the table's own counts
        for found in kernel.routes(address.version, table=number)
        for way in found.ways
        if found.type == "unicast" and _leads_to(way, dev) and address in ipaddress.ip_network(found.dst)
    }
    longest = max(connected, default=0)
    if longest or (connected and dev):  # a default by a device covers everything: it proves the device that was named
        return connected[longest]
    answer = kernel.lookup(Flow(address.version, gateway))
    fits = answer.type == "unicast" and answer.gateway is None and dev in (None, answer.dev)
    return answer.dev if fits else None


def _leads_to(way: Nexthop, dev: str | None) -> bool:
    return way.gateway is None and dev in (None, way.dev)


def _local(address: str, kernel: Readable) -> bool:
    known = any(found.address == address for found in kernel.addresses())
    return known or kernel.lookup(Flow(6 if ":" in address else 4, address)).type == "local"
