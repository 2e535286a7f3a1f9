# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A route as a value."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

from .._errors import InvalidInput
from . import fields

# What a user may ask for; the kernel has nat (refused since 2.6) besides.
TYPES = (
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
)
ERROR_TYPES = ("blackhole", "unreachable", "prohibit", "throw")
PREFERENCES = ("low", "medium", "high")
DEFAULT_METRIC_6 = 1024
MTU, MTU_MAX, ADVMSS_MAX = {4: 68, 6: 1280}, 65520, 65495
LINK_LOCAL = ipaddress.ip_network("fe80::/10")

# Without a scope, ip-route(8) picks it by type, and for unicast by whether there is a gateway.
_SCOPE_OF_TYPE = {"local": 254, "broadcast": 253, "anycast": 253, "multicast": 253}


@dataclasses.dataclass(frozen=True)
class Nexthop:
    """One way of a multipath route."""

    gateway: str | None = None
    dev: str | None = None
    weight: int = 1
    onlink: bool = False

    def text(self, family: int) -> str:
        """As `ip route show` writes it in a route of that family."""
        flags = ["onlink"] if self.onlink else []
        return " ".join(["nexthop", *_way(self.gateway, self.dev, family), f"weight {self.weight}", *flags])


@dataclasses.dataclass(frozen=True)
class Route:
    """One route. C(key) is what the kernel calls the same route; everything else can be replaced in place.

    Normalised here, for what a user wrote and what the kernel reports alike: the metric of an IPv6 route without one is
    1024, IPv6 has no scope (0) and its preference medium is None, a multipath route with one way is a plain one, an
    error route has no device (IPv6 reports lo), a route by a nexthop object has nothing of that object. C(dst) must
    come in canonical (fields.prefix; "0.0.0.0/0" for default), the scope of an IPv4 route as it shall be.
    """

    family: int
    dst: str
    table: int = 254
    type: str = "unicast"
    gateway: str | None = None  # may be an IPv6 address in an IPv4 route (`via inet6`)
    dev: str | None = None
    src: str | None = None
    metric: int = 0
    scope: int = 0
    onlink: bool = False
    mtu: int | None = None
    advmss: int | None = None
    tos: int = 0
    pref: str | None = None  # IPv6: low, medium, high; None is medium
    nexthops: tuple[Nexthop, ...] = ()
    nexthop_id: int | None = None
    protocol: int = dataclasses.field(default=0, compare=False)
    # What the nexthop object stands for at present, as the kernel reports it: not the route's own.
    through: tuple[Nexthop, ...] = dataclasses.field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.family == 6:
            self._set(metric=self.metric or DEFAULT_METRIC_6, scope=0)
        if self.pref == "medium":
            self._set(pref=None)
        if self.nexthop_id or self.type in ERROR_TYPES:
            self._set(gateway=None, dev=None, onlink=False, nexthops=())
        if len(self.nexthops) == 1:
            only = self.nexthops[0]
            self._set(gateway=only.gateway, dev=only.dev, onlink=only.onlink, nexthops=())

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def key(self) -> tuple[int, int, str, int, int]:
        """Family, table, destination, tos and metric: what add refuses a second time and replace exchanges."""
        return (self.family, self.table, self.dst, self.tos, self.metric)

    @property
    def ways(self) -> tuple[Nexthop, ...]:
        """Every gateway and device of the route, for a plain route its one."""
        if self.nexthops or not (self.gateway or self.dev):
            return self.nexthops
        return (Nexthop(self.gateway, self.dev, 1, self.onlink),)

    def holds(self, address: str) -> bool:
        """Whether an address is in the destination."""
        return fields.family_of(address) == self.family and ipaddress.ip_address(address) in ipaddress.ip_network(
            self.dst
        )

    def satisfied_by(self, current: Route) -> bool:
        """Whether the kernel's C(current) is this route; a device that was left to the kernel may be any."""
        if len(self.ways) != len(current.ways):
            return False
        devices = [mine.dev or theirs.dev for mine, theirs in zip(self.ways, current.ways)]
        return self.by(devices) == current

    def by(self, devices: t.Sequence[str | None]) -> Route:
        """The same route with the devices of its ways filled in, in order."""
        if self.nexthops:
            hops = zip(self.nexthops, devices)
            return dataclasses.replace(self, nexthops=tuple(dataclasses.replace(hop, dev=dev) for hop, dev in hops))
        return dataclasses.replace(self, dev=devices[0]) if devices else self

    def text(self) -> str:
        """The route as `ip -N route show table all` writes it, on one line, always with its table, the type in words
        and without the protocol.
        """
        return " ".join([*self._where(), *self._how(), *(hop.text(self.family) for hop in self.nexthops)])

    def _where(self) -> t.Iterator[str]:
        if self.type != "unicast":
            yield self.type
        yield "default" if self.dst == fields.DEFAULT[self.family] else fields.shown(self.dst)
        if self.nexthop_id:
            yield f"nhid {self.nexthop_id}"
        if self.tos:
            yield f"tos {self.tos:#04x}"
        # The kernel binds IPv6 error routes to lo, and ip shows that.
        dev = "lo" if self.family == 6 and self.type in ERROR_TYPES else self.dev
        yield from _way(self.gateway, dev, self.family)
        yield f"table {self.table}"

    def _how(self) -> t.Iterator[str]:
        if self.scope:
            yield f"scope {self.scope}"
        if self.src:
            yield f"src {self.src}"
        if self.metric:
            yield f"metric {self.metric}"
        if self.onlink:
            yield "onlink"
        if self.mtu:
            yield f"mtu {self.mtu}"
        if self.advmss:
            yield f"advmss {self.advmss}"
        if self.family == 6:
            yield f"pref {self.pref or 'medium'}"

    @classmethod
    def from_params(
        cls,
        params: t.Mapping[str, t.Any],
        *,
        field: str = "",
        tables: t.Callable[[object, str], int] = fields.table_id,
    ) -> Route:
        """The route that a user wrote. Raises InvalidInput. C(field) is the prefix for error messages.

        C(tables) turns a table's name or number into its number, as in Rule.from_params. With C(state=absent) a route
        needs no gateway or device: its key says which one is meant.
        """
        given = fields.Params(params, field)
        hops = _nexthops(given)
        gateway, src = given.read("gateway", fields.address), given.read("src", fields.address)
        family, dst = _destination(given, src, gateway, hops)
        route = cls(
            family=family,
            dst=dst,
            table=given.read("table", tables) or fields.RESERVED_TABLES["main"],
            type=fields.choice(params.get("type") or "unicast", given.name("type"), TYPES),
            gateway=gateway,
            dev=given.read("dev", fields.device),
            src=src,
            metric=given.number("metric", 0, fields.U32_MAX) or 0,
            onlink=given.flag("onlink"),
            mtu=given.number("mtu", MTU[family], MTU_MAX),
            advmss=given.number("advmss", 1, ADVMSS_MAX),
            tos=given.read("tos", fields.dsfield) or 0,
            pref=given.read("pref", lambda value, name: fields.choice(value, name, PREFERENCES)),
            nexthops=hops,
            nexthop_id=given.number("nexthop_id", 1, fields.U32_MAX),
            protocol=given.read("protocol", fields.protocol) or 0,
        )
        _check_ways(route, given)
        _check_family(route, given)
        return dataclasses.replace(route, scope=_scope(route, given))


def _way(gateway: str | None, dev: str | None, family: int) -> t.Iterator[str]:
    if gateway:
        yield f"via inet6 {gateway}" if family == 4 and ":" in gateway else f"via {gateway}"
    if dev:
        yield f"dev {dev}"


def _nexthops(given: fields.Params) -> tuple[Nexthop, ...]:
    written = given.params.get("nexthops") or []
    hops = tuple(_nexthop(fields.Params(hop, given.name(f"nexthops[{at}]"))) for at, hop in enumerate(written))
    ways = [(hop.gateway, hop.dev) for hop in hops]
    for at, way in enumerate(ways):
        if way in ways[:at]:
            name = given.name(f"nexthops[{at}]")
            raise InvalidInput("is there twice", field=name, value=written[at], accepted="each next hop once")
    return hops


def _nexthop(given: fields.Params) -> Nexthop:
    hop = Nexthop(
        gateway=given.read("gateway", fields.address),
        dev=given.read("dev", fields.device),
        weight=given.number("weight", 1, 256) or 1,
        onlink=given.flag("onlink"),
    )
    if hop.gateway is None and hop.dev is None:
        raise given.refuse("gateway", "must be given where there is no dev", "gateway, dev or both")
    _check_gateway(given)
    return hop


def _check_gateway(given: fields.Params) -> None:
    gateway = given.params.get("gateway")
    if (
        gateway is not None
        and ipaddress.ip_address(fields.address(gateway, "")) in LINK_LOCAL
        and not given.given("dev")
    ):
        raise given.refuse("dev", "must be given with a link-local gateway", "the device that it is on")
    if given.flag("onlink") and not (given.given("gateway") and given.given("dev")):
        raise given.refuse("onlink", "says that a gateway is on a device", "with gateway and dev")


def _destination(
    given: fields.Params, src: str | None, gateway: str | None, hops: t.Sequence[Nexthop]
) -> tuple[int, str]:
    """Family and destination. Only gateways may be of another family than the rest, so they are asked last."""
    written = given.params.get("dst")
    if written is None:
        raise given.refuse("dst", "must be given", "a prefix, or default")
    dst = None if written == "default" else fields.prefix(written, given.name("dst"))
    texts = {"dst": dst, "src": src}
    if not given.given("family") and dst is None and src is None:
        texts["gateway"] = next((hop for hop in [gateway, *(hop.gateway for hop in hops)] if hop), None)
    family = fields.one_family(given, texts)
    return family, dst or fields.DEFAULT[family]


def _check_ways(route: Route, given: fields.Params) -> None:
    by = [key for key in ("gateway", "dev", "nexthops", "nexthop_id") if given.params.get(key)]
    if route.type in ERROR_TYPES and by:
        raise given.refuse(by[0], f"does not go with type {route.type}", "an error route leads nowhere")
    if "nexthops" in by and by[0] != "nexthops":
        raise given.refuse(by[0], "does not go with nexthops", "one of the two")
    if "nexthop_id" in by and len(by) > 1:
        raise given.refuse(by[0], "does not go with nexthop_id", "one of the two")
    if "nexthops" in by and given.flag("onlink"):
        raise given.refuse("onlink", "does not go with nexthops", "onlink in each of nexthops")
    _check_gateway(given)
    if given.params.get("state") != "absent":
        _check_leads_somewhere(route, given, by)


def _check_leads_somewhere(route: Route, given: fields.Params, by: list[str]) -> None:
    if route.type == "unicast" and not by:
        raise given.refuse("gateway", "must be given", "gateway, dev, nexthops or nexthop_id")
    if route.type in _SCOPE_OF_TYPE and by != ["dev"]:
        raise given.refuse("dev", f"must be the only way of a route of type {route.type}", "dev, and no gateway")


def _check_family(route: Route, given: fields.Params) -> None:
    if route.family == 4:
        if given.given("pref"):
            raise given.refuse("pref", "does not exist in IPv4", "an IPv6 route")
        return
    if route.tos:
        raise given.refuse("tos", "does not exist in IPv6 routes", "no tos")
    for at, hop in enumerate(route.ways):
        multipath = bool(route.nexthops)
        name = given.name(f"nexthops[{at}].gateway" if multipath else "gateway")
        if hop.gateway and ":" not in hop.gateway:
            accepted = "an IPv6 address"
            raise InvalidInput("is of the other address family", field=name, value=hop.gateway, accepted=accepted)
        if multipath and not hop.gateway:
            raise InvalidInput("must be given in each IPv6 next hop", field=name, accepted="an IPv6 address")


def _scope(route: Route, given: fields.Params) -> int:
    """What was written, or what ip-route(8) picks where nothing was."""
    written = given.read("scope", fields.scope)
    if route.family == 6:
        if written:
            raise given.refuse("scope", "does not exist in IPv6", "no scope, or global")
        return 0
    by_gateway = any(hop.gateway for hop in route.ways)
    if written is not None:
        if by_gateway and written >= fields.SCOPES["link"]:
            raise given.refuse("scope", "is too narrow for a route by a gateway", "global or site")
        return written
    if route.type == "unicast" and route.dev and not by_gateway:
        return fields.SCOPES["link"]
    return _SCOPE_OF_TYPE.get(route.type, 0)
