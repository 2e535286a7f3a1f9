# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel in memory, held to the same contract as the real one (tests/functional/test_kernel_contract.py).

It knows what routing decides by and nothing else: no packets, no caches, no neighbours' states.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import socket
import typing as t

from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput, KernelError, NotSupported
from ansible_collections.fleetvpn.routing.plugins.module_utils._explain import Scene, Walk, explain
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.guard import Guard
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import (
    LinkGroup,
    Operation,
    OwnLink,
    Sysctl,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Address, Flow, Link, Path, Policy
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_events import EventsLost
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_filter import DAEMONS, Interest
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe.facts import NOWHERE_DEVICE

MAIN, LOCAL = 254, 255
KERNEL = 2  # the protocol number of what the kernel itself has made
UDP = 17
PROTOCOLS = {4: (None, 6, UDP, 1), 6: (None, 6, UDP, 58)}  # what the kernel looks up


def default_rules(family: int) -> list[Rule]:
    """What a new namespace has."""
    rules = [Rule(family, 0, table=LOCAL, protocol=KERNEL), Rule(family, 32766, table=MAIN, protocol=KERNEL)]
    return rules + ([Rule(4, 32767, table=253, protocol=KERNEL)] if family == 4 else [])


class MemoryEvents:
    """Events that wait to be read; the descriptor is readable while there are any."""

    def __init__(self, kinds: t.Collection[str], limit: int, *, own: bool = True) -> None:
        self._kinds = kinds
        self._limit = limit
        self._own = own
        self._interest: Interest | None = None
        self._waiting: list[str] = []
        self._lost = False
        self._reader, self._writer = socket.socketpair()

    def happened(self, kind: str, *, own: bool, route: Route | None, index: t.Mapping[str, int]) -> None:
        if kind not in self._kinds or (own and not self._own):
            return
        if route is not None and self._interest is not None and not _matters(route, self._interest, index):
            return
        if not self._waiting and not self._lost:
            self._writer.send(b"!")
        if len(self._waiting) < self._limit:
            self._waiting.append(kind)
        else:
            self._lost = True

    def fileno(self) -> int:
        return self._reader.fileno()

    def narrow(self, interest: Interest) -> None:
        self._interest = interest

    def read(self) -> list[str]:
        waiting, lost = self._waiting, self._lost
        if waiting or lost:
            self._reader.recv(1)
        self._waiting, self._lost = [], False
        if lost:
            raise EventsLost("more events than fit")
        return waiting

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def _matters(route: Route, interest: Interest, index: t.Mapping[str, int]) -> bool:
    if route.table != MAIN:
        return route.table in interest.tables
    network = ipaddress.ip_network(route.dst)
    inside = [prefix for prefix in map(ipaddress.ip_network, interest.prefixes) if prefix.version == network.version]
    device = index.get(route.dev or "")
    by_host = network.prefixlen == network.max_prefixlen and route.protocol not in DAEMONS
    return (
        network.prefixlen <= 1
        or route.type in ("blackhole", "unreachable", "prohibit")
        or route.protocol in {KERNEL, *interest.protocols}
        or device in interest.devices
        or (device in interest.uplinks and by_host)
        or any(network.subnet_of(t.cast("t.Any", prefix)) for prefix in inside)
    )


class MemoryKernel:
    """Devices, addresses, rules and routes of one host.

    What a test sets up is done by C(link), C(address), their opposites and the public attributes; what is tested goes
    through the methods of the Kernel protocol.
    """

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._addresses: list[Address] = []
        self._rules = {family: default_rules(family) for family in (4, 6)}
        self._routes: list[Route] = []
        self._listeners: list[MemoryEvents] = []
        self.sysctls: dict[str, str] = {"ipv4/conf/all/rp_filter": "0"}
        self.routers: list[tuple[str, str]] = []
        self.connected: list[Flow] = []
        self.silent: set[tuple[str, str]] = set()  # device and address of neighbours that do not answer
        self.nexthops: set[int] = set()
        self.encrypted: list[Policy] = []
        self.nft = True  # whether the host has it
        self.guards: dict[str, Guard] = {}
        self.applied: list[Operation] = []
        self.link("lo", arptype=772)
        self.address("lo", "127.0.0.1/8", scope=254)
        self.address("lo", "::1/128", scope=254)

    # What a test sets up.

    def link(self, name: str, **attributes: t.Any) -> Link:
        """A device, up and with carrier unless said otherwise; one that exists is changed."""
        old = self._links.get(name)
        index = old.index if old else len(self._links) + 1
        self._links[name] = Link(**{"index": index, "name": name, "up": True, "carrier": True, **attributes})
        self._tell("link")
        return self._links[name]

    def unlink(self, name: str) -> None:
        """A device goes, and with it its addresses and routes."""
        del self._links[name]
        self._addresses = [address for address in self._addresses if address.dev != name]
        self._routes = [route for route in self._routes if name not in {way.dev for way in route.ways}]
        self._tell("link")

    def address(self, dev: str, interface: str, *, scope: int = 0, **attributes: t.Any) -> Address:
        """An address with its length, and the routes that the kernel makes of it."""
        parsed = ipaddress.ip_interface(interface)
        address = Address(parsed.version, str(parsed.ip), parsed.network.prefixlen, dev, scope, **attributes)
        self._addresses.append(address)
        self._routes += self._routes_of(address)
        self._tell("address")
        return address

    def append(self, route: Route) -> None:
        """A route behind those of its key."""
        self._routes.append(route)

    def remove_address(self, dev: str, address: str) -> None:
        """An address goes, and with it the kernel's routes of it, and in main what names it as source."""
        gone = [one for one in self._addresses if one.dev == dev and one.address == address]
        self._addresses = [one for one in self._addresses if one not in gone]
        for one in gone:
            lost = self._routes_of(one)
            self._routes = [route for route in self._routes if route not in lost]
        self._routes = [
            route for route in self._routes if route.src != address or route.table != MAIN or route.family == 6
        ]
        self._tell("address")

    def _routes_of(self, address: Address) -> list[Route]:
        family, host = address.family, f"{address.address}/{32 if address.family == 4 else 128}"
        network = str(ipaddress.ip_interface(f"{address.address}/{address.prefixlen}").network)
        if family == 6:
            own = Route(6, host, LOCAL, "local", dev=address.dev, metric=0, protocol=KERNEL)
            link = Route(6, network, MAIN, dev=address.dev, metric=256, protocol=KERNEL)
            return [own] if address.prefixlen == 128 else [own, link]
        source = address.address
        own = Route(4, host, LOCAL, "local", dev=address.dev, src=source, scope=254, protocol=KERNEL)
        if address.prefixlen == 32:
            return [own]
        if address.dev == "lo":
            return [own, Route(4, network, LOCAL, "local", dev="lo", src=source, scope=254, protocol=KERNEL)]
        return [own, Route(4, network, MAIN, dev=address.dev, src=source, scope=253, protocol=KERNEL)]

    # The Kernel protocol.

    def links(self) -> list[Link]:
        return list(self._links.values())

    def addresses(self) -> list[Address]:
        return list(self._addresses)

    def rules(self, family: int) -> list[Rule]:
        return list(self._rules[family])

    def routes(
        self, family: int, *, table: int | None = None, protocol: int | None = None, dev: str | None = None
    ) -> list[Route]:
        return [
            route
            for route in self._routes
            if route.family == family
            and table in (None, route.table)
            and protocol in (None, route.protocol)
            and (dev is None or dev in {way.dev for way in route.ways})
        ]

    def policies(self) -> list[Policy]:
        return list(self.encrypted)

    def guard(self, table: str) -> Guard | None:
        if not self.nft:
            raise NotSupported("cannot be used: this host does not have it", field="nft", accepted="package nftables")
        return self.guards.get(table)

    def covering(self, family: int, table: int, destinations: t.Collection[str], most: int) -> list[Route] | None:
        held = self.routes(family, table=table)
        wanted = [ipaddress.ip_address(each) for each in destinations]
        fitting = [route for route in held if any(each in ipaddress.ip_network(route.dst) for each in wanted)]
        return fitting if len(held) <= most else None

    def matched(self, flow: Flow) -> Route | None:
        last = self._walk(flow, self._rules[flow.family]).steps[-1]
        return last.route if last.outcome == "found" else None

    def sysctl(self, path: str) -> str | None:
        return self.sysctls.get(path)

    def connections(self, most: int) -> list[Flow] | None:
        return list(self.connected) if len(self.connected) <= most else None

    def router_neighbours(self) -> list[tuple[str, str]]:
        return list(self.routers)

    def answers(self, dev: str, address: str, seconds: float) -> bool:
        return (dev, address) not in self.silent

    def events(
        self, *, rules: bool = False, routes: bool = False, ruleset: bool = False, own: bool = True
    ) -> MemoryEvents:
        asked = {"rule": rules, "route": routes, "ruleset": ruleset}
        kinds = {"link", "address", *(kind for kind, wanted in asked.items() if wanted)}
        self._listeners.append(MemoryEvents(kinds, limit=1000, own=own))
        return self._listeners[-1]

    def apply(self, operations: t.Sequence[Operation]) -> None:
        for operation in operations:
            self._check_devices(operation)
        rules = {family: list(rules) for family, rules in self._rules.items()}
        before = (dict(self._links), rules, list(self._routes), dict(self.guards), dict(self.sysctls))
        for operation in operations:
            try:
                self._carry_out(operation)
            except OSError as exc:
                self._links, self._rules, self._routes, self.guards, self.sysctls = before
                raise _error(operation, exc) from exc
            self.applied.append(operation)

    def lookup(self, flow: Flow) -> Path:
        for field, name in (("iif", flow.iif), ("oif", flow.oif)):
            if name is not None and name not in self._links:
                raise InvalidInput("is no device of this host", field=field, value=name)
        if flow.ipproto not in PROTOCOLS[flow.family]:
            raise NotSupported("this kernel cannot do the lookup: Unsupported ip proto")
        if flow.family == 4 and flow.source and flow.iif is None and not self._is_local(flow.source):
            return Path("unreachable", errno=errno.ENETUNREACH)
        path = self._walk(flow, self._rules[flow.family]).paths[0]
        if path.errno or flow.iif:
            return path
        if path.type == "local":
            return dataclasses.replace(path, src=flow.source or flow.to)
        return dataclasses.replace(path, src=flow.source or path.src or self._source(flow, path.dev))

    # Operations.

    def _check_devices(self, operation: Operation) -> None:
        target = operation.target
        names = [target.name] if isinstance(target, LinkGroup) else []
        if isinstance(target, Route):
            names = [way.dev for way in target.ways if way.dev is not None]
        if operation.op != "remove" and not set(names) - {NOWHERE_DEVICE} <= set(self._links):
            raise _error(operation, OSError(errno.ENODEV, "there is no such device"))

    def _carry_out(self, operation: Operation) -> None:
        target = operation.target
        if isinstance(target, Rule):
            self._change_rule(operation.op, target)
        elif isinstance(target, Route):
            self._change_route(operation.op, target)
        elif isinstance(target, OwnLink):
            if operation.op == "remove":
                self.unlink(target.name)
            else:
                self.link(target.name, kind="dummy", up=target.up)
        elif isinstance(target, Sysctl):
            if target.name not in self.sysctls:
                raise OSError(errno.ENOENT, "No such file or directory")
            self.sysctls[target.name] = target.value
        elif isinstance(target, Guard):
            self._change_guard(operation.op, target)
        else:
            self._links[target.name] = dataclasses.replace(self._links[target.name], group=target.group)
            self._tell("link")

    def _change_guard(self, op: str, guard: Guard) -> None:
        self.guards.pop(guard.table, None)
        if op != "remove":
            self.guards[guard.table] = guard

    def _change_rule(self, op: str, rule: Rule) -> None:
        rules = self._rules[rule.family]
        found = [place for place, other in enumerate(rules) if other == rule and other.protocol == rule.protocol]
        if op == "remove":
            if found:
                del rules[found[0]]
                self._tell("rule", own=True)
        elif not found:
            self._check_rule(rule)
            behind = [place for place, other in enumerate(rules) if other.priority > rule.priority]
            rules.insert(behind[0] if behind else len(rules), rule)
            self._tell("rule", own=True)

    def _check_rule(self, rule: Rule) -> None:
        for name in ("sport", "dport"):
            span = getattr(rule, name)
            if span and not 0 < span[0] <= span[1] < 65535:
                raise OSError(errno.EINVAL, f"Invalid {name} range")
        if rule.action == "goto" and (rule.goto or 0) <= rule.priority:
            raise OSError(errno.EINVAL, "Backward goto not supported")

    def _change_route(self, op: str, route: Route) -> None:
        same = [other for other in self._routes if other.key == route.key]
        if op == "remove":
            same = [other for other in same if other.protocol == route.protocol and _describes(route, other)]
            meant = [other for other in same if other == route] or same[:1]
            self._routes = [other for other in self._routes if other not in meant]
        elif op == "replace" or not same:
            complete = self._complete(route)
            place = self._routes.index(same[0]) if same else len(self._routes)
            self._routes[place : place + len(same[:1])] = [complete]
        self._tell("route", own=True, route=route)

    def _complete(self, route: Route) -> Route:
        """The route as the kernel would report it, if it takes it."""
        if route.src is not None and not self._is_local(route.src):
            raise OSError(errno.EINVAL, "Invalid prefsrc address" if route.family == 4 else "Invalid source address")
        if route.nexthop_id is not None and route.nexthop_id not in self.nexthops:
            raise OSError(errno.EINVAL, "Nexthop id does not exist")
        return route.by([self._device_of(route, way.gateway, way.dev, way.onlink) for way in route.ways])

    def _device_of(self, route: Route, gateway: str | None, dev: str | None, onlink: bool) -> str | None:
        if gateway is None or onlink:
            return dev
        family = ipaddress.ip_address(gateway).version
        asked = self._walk(Flow(family, gateway, oif=dev), [Rule(family, 0, table=MAIN)]).paths[0]
        if asked.table is None or asked.gateway is not None:
            number = errno.ENETUNREACH if route.family == 4 else errno.EHOSTUNREACH
            raise OSError(number, "Nexthop has invalid gateway")
        return asked.dev

    # Lookups.

    def _walk(self, flow: Flow, rules: t.Sequence[Rule]) -> Walk:
        uid = os.getuid() if flow.uid is None and flow.iif is None else flow.uid
        scene = Scene(rules, lambda table: self.routes(flow.family, table=table), self._links)
        return explain(scene, dataclasses.replace(flow, uid=uid))

    def _source(self, flow: Flow, dev: str | None) -> str | None:
        """The first address of the device, else of any."""
        own = [one for one in self._addresses if one.family == flow.family and one.scope == 0]
        chosen = [one for one in own if one.dev == dev] or own
        return chosen[0].address if chosen else None

    def _is_local(self, address: str) -> bool:
        return any(one.address == address for one in self._addresses)

    def _tell(self, kind: str, *, own: bool = False, route: Route | None = None) -> None:
        index = {link.name: link.index for link in self._links.values()}
        for listener in self._listeners:
            listener.happened(kind, own=own, route=route, index=index)


def _error(operation: Operation, exc: OSError) -> KernelError:
    text = f"{operation.op} {operation.kind} {operation.target.text()}"
    return KernelError(str(exc.strerror), errno=exc.errno or 0, operation=text)


def _describes(target: Route, route: Route) -> bool:
    given = ("gateway", "dev", "src", "nexthop_id", "mtu", "advmss")
    return (target.type, target.scope) == (route.type, route.scope) and all(
        getattr(target, name) in (None, getattr(route, name)) for name in given
    )
