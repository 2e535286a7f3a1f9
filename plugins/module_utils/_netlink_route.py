# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A route and a lookup as rtnetlink writes them (linux/rtnetlink.h). Pure, apart from the index of a device."""

from __future__ import annotations

import errno
import typing as t

from ._model.route import Nexthop, Route
from ._model.state import Flow, Path
from ._netlink_codec import AF, FAMILIES, Content, Message, header_table, join_prefix, split_prefix

MESSAGE = Message(
    "rtmsg",
    (
        "RTA_DST",
        "RTA_SRC",
        "RTA_IIF",
        "RTA_OIF",
        "RTA_GATEWAY",
        "RTA_PRIORITY",
        "RTA_PREFSRC",
        "RTA_METRICS",
        "RTA_MULTIPATH",
        "RTA_TABLE",
        "RTA_MARK",
        "RTA_VIA",
        "RTA_PREF",
        "RTA_UID",
        "RTA_IP_PROTO",
        "RTA_SPORT",
        "RTA_DPORT",
        "RTA_NH_ID",
    ),
    missing=(
        (25, "RTA_UID", "uint32"),
        (27, "RTA_IP_PROTO", "uint8"),
        (28, "RTA_SPORT", "be16"),
        (29, "RTA_DPORT", "be16"),
        (30, "RTA_NH_ID", "uint32"),
    ),
)

Index = t.Callable[[str], int]  # of a device's name
Name = t.Callable[[int], t.Optional[str]]  # of a device's index

_TYPES = ("unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit")
TYPE_NAMES = (*_TYPES, "throw", "nat", "xresolve")
TYPE_NUMBERS = {name: number for number, name in enumerate(TYPE_NAMES)}
ERROR_TYPES = ("blackhole", "unreachable", "prohibit", "throw")

_PREFS = {"medium": 0, "high": 1, "low": 3}
_PREF_NAMES = {1: "high", 3: "low"}
_RTNH_F_ONLINK = 0x4
_RTM_F_CLONED = 0x200
_RTM_F_LOOKUP_TABLE = 0x1000
RTM_F_FIB_MATCH = 0x2000
_MAIN, _LOCAL = 254, 255
_IPV6_METRIC = 1024  # what the kernel makes of none; a delete without metric would take any
_RTAX = {"mtu": "RTAX_MTU", "advmss": "RTAX_ADVMSS"}

# The kind of error that a lookup meets. A rule's action unreachable gives ENETUNREACH, a route's EHOSTUNREACH.
_LOOKUP_ERRORS = {
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EACCES: "prohibit",
    errno.EINVAL: "blackhole",
}
_ERRNO_BY_TYPE = {"unreachable": errno.EHOSTUNREACH, "prohibit": errno.EACCES, "blackhole": errno.EINVAL}


def encode(route: Route, index: Index) -> Content:
    """The whole route; the same for add, replace and remove."""
    dst, length = split_prefix(route.dst)
    header = {
        "family": AF[route.family],
        "dst_len": length,
        "tos": route.tos,
        "table": header_table(route.table),
        "proto": route.protocol,
        "scope": route.scope,
        "type": TYPE_NUMBERS[route.type],
        "flags": _RTNH_F_ONLINK if route.onlink else 0,
    }
    attrs: list[tuple[str, t.Any]] = [("RTA_TABLE", route.table)]
    if length:
        attrs.append(("RTA_DST", dst))
    metric = route.metric or (_IPV6_METRIC if route.family == 6 else 0)
    if metric:
        attrs.append(("RTA_PRIORITY", metric))
    if route.src is not None:
        attrs.append(("RTA_PREFSRC", route.src))
    if route.pref is not None:
        attrs.append(("RTA_PREF", _PREFS[route.pref]))
    return Content(header, attrs + _encode_metrics(route) + _encode_way(route, index))


def _encode_way(route: Route, index: Index) -> list[tuple[str, t.Any]]:
    """Where to: a nexthop object, several ways, or one."""
    if route.nexthop_id is not None:
        return [("RTA_NH_ID", route.nexthop_id)]
    if route.nexthops:
        return [("RTA_MULTIPATH", [_encode_nexthop(route.family, hop, index) for hop in route.nexthops])]
    attrs = _encode_gateway(route.family, route.gateway)
    if route.dev is not None:
        attrs.append(("RTA_OIF", index(route.dev)))
    return attrs


def _encode_gateway(family: int, gateway: str | None) -> list[tuple[str, t.Any]]:
    """A gateway of the other family needs RTA_VIA, which names its family."""
    if gateway is None:
        return []
    own = 6 if ":" in gateway else 4
    return [("RTA_GATEWAY", gateway) if own == family else ("RTA_VIA", {"family": AF[own], "addr": gateway})]


def _encode_nexthop(family: int, hop: Nexthop, index: Index) -> dict[str, t.Any]:
    return {
        "flags": _RTNH_F_ONLINK if hop.onlink else 0,
        "hops": hop.weight - 1,
        "oif": 0 if hop.dev is None else index(hop.dev),
        "attrs": _encode_gateway(family, hop.gateway),
    }


def _encode_metrics(route: Route) -> list[tuple[str, t.Any]]:
    values = [(name, getattr(route, field)) for field, name in _RTAX.items() if getattr(route, field) is not None]
    return [("RTA_METRICS", {"attrs": values})] if values else []


def decode(fields: t.Mapping[str, t.Any], name: Name) -> Route | None:
    """The route in a message. None for what is no route of the tables: cached clones, other families."""
    if fields["flags"] & _RTM_F_CLONED or fields["family"] not in FAMILIES:
        return None
    family = FAMILIES[fields["family"]]
    kind = TYPE_NAMES[fields["type"]]
    return Route(
        family=family,
        dst=join_prefix(fields, "RTA_DST", "dst_len") or ("0.0.0.0/0" if family == 4 else "::/0"),
        table=fields.get("RTA_TABLE", fields["table"]),
        type=kind,
        src=fields.get("RTA_PREFSRC"),
        metric=fields.get("RTA_PRIORITY", 0),
        scope=fields["scope"] if family == 4 else 0,
        mtu=_metric(fields, "mtu"),
        advmss=_metric(fields, "advmss"),
        tos=fields["tos"],
        pref=_PREF_NAMES.get(fields.get("RTA_PREF", 0)),
        protocol=fields["proto"],
        **_decode_way(fields, kind, name),
    )


def _decode_way(fields: t.Mapping[str, t.Any], kind: str, name: Name) -> dict[str, t.Any]:
    """Where to. A nexthop object is reported together with what it stands for, which is not the route's own.

    The error routes of IPv6 are bound to lo by the kernel, which nobody asked for.
    """
    if "RTA_NH_ID" in fields:
        return {"nexthop_id": fields["RTA_NH_ID"], "through": _decode_through(fields, name)}
    if "RTA_MULTIPATH" in fields:
        return {"nexthops": _decode_nexthops(fields, name)}
    if kind in ERROR_TYPES:
        return {}
    return {
        "gateway": _gateway(fields.get("RTA_GATEWAY"), fields.get("RTA_VIA")),
        "dev": name(fields["RTA_OIF"]) if "RTA_OIF" in fields else None,
        "onlink": bool(fields["flags"] & _RTNH_F_ONLINK),
    }


def _decode_through(fields: t.Mapping[str, t.Any], name: Name) -> tuple[Nexthop, ...]:
    """What a nexthop object stands for, as far as the kernel says (net.ipv4.nexthop_compat_mode)."""
    if "RTA_MULTIPATH" in fields:
        return _decode_nexthops(fields, name)
    if "RTA_OIF" not in fields:
        return ()
    return (Nexthop(_gateway(fields.get("RTA_GATEWAY"), fields.get("RTA_VIA")), name(fields["RTA_OIF"])),)


def _decode_nexthops(fields: t.Mapping[str, t.Any], name: Name) -> tuple[Nexthop, ...]:
    return tuple(_decode_nexthop(hop, name) for hop in fields["RTA_MULTIPATH"])


def _decode_nexthop(hop: t.Any, name: Name) -> Nexthop:
    return Nexthop(
        gateway=_gateway(hop.get_attr("RTA_GATEWAY"), hop.get_attr("RTA_VIA")),
        dev=name(hop["oif"]) if hop["oif"] else None,
        weight=hop["hops"] + 1,
        onlink=bool(hop["flags"] & _RTNH_F_ONLINK),
    )


def _gateway(own: str | None, via: t.Mapping[str, t.Any] | None) -> str | None:
    return via["addr"] if own is None and via is not None else own


def _metric(fields: t.Mapping[str, t.Any], field: str) -> int | None:
    value: int | None = fields["RTA_METRICS"].get_attr(_RTAX[field]) if "RTA_METRICS" in fields else None
    return value


def encode_filter(family: int, table: int | None, protocol: int | None, device: int | None) -> Content:
    """A dump of routes that the kernel filters."""
    header = {"family": AF[family], "proto": protocol or 0}
    attrs: list[tuple[str, t.Any]] = []
    if table is not None:
        header["table"] = header_table(table)
        attrs.append(("RTA_TABLE", table))
    if device is not None:
        attrs.append(("RTA_OIF", device))
    return Content(header, attrs)


def encode_flow(flow: Flow, index: Index, flags: int = 0) -> Content:
    """The question for a lookup. IPv4 names the table that the answer came from only when asked; IPv6 always, and
    refuses to be asked.
    """
    dst, dst_len = split_prefix(flow.to)
    src, src_len = split_prefix(flow.source)
    flags |= _RTM_F_LOOKUP_TABLE if flow.family == 4 else 0
    header = {"family": AF[flow.family], "dst_len": dst_len, "src_len": src_len, "tos": flow.tos, "flags": flags}
    values = (
        ("RTA_DST", dst),
        ("RTA_SRC", src),
        ("RTA_IIF", None if flow.iif is None else index(flow.iif)),
        ("RTA_OIF", None if flow.oif is None else index(flow.oif)),
        ("RTA_MARK", flow.fwmark),
        ("RTA_UID", flow.uid if flow.iif is None else 0),  # as what is forwarded has it
        ("RTA_IP_PROTO", flow.ipproto),
        ("RTA_SPORT", flow.sport),
        ("RTA_DPORT", flow.dport),
    )
    return Content(header, [(name, value) for name, value in values if value is not None])


def decode_path(fields: t.Mapping[str, t.Any], name: Name) -> Path:
    """The answer of a lookup. IPv6 answers with an error route where IPv4 refuses."""
    kind = TYPE_NAMES[fields["type"]]
    if kind in ERROR_TYPES:
        return Path(type=kind, errno=_cached_error(fields["message"]) or _ERRNO_BY_TYPE.get(kind))
    return Path(
        type=kind,
        dev=name(fields["RTA_OIF"]) if "RTA_OIF" in fields else None,
        gateway=_gateway(fields.get("RTA_GATEWAY"), fields.get("RTA_VIA")),
        src=fields.get("RTA_PREFSRC"),
        table=_lookup_table(fields, kind),
    )


def _lookup_table(fields: t.Mapping[str, t.Any], kind: str) -> int | None:
    """None where no table gave the answer: a socket bound to a device takes all that has no route for a neighbour.

    Until the first rule is added, IPv4 keeps local and main in one tree and answers 254 for both.
    """
    table: int = fields.get("RTA_TABLE", fields["table"])
    merged = fields["family"] == AF[4] and kind in ("local", "broadcast") and table == _MAIN
    return _LOCAL if merged else table or None


def _cached_error(message: t.Any) -> int | None:
    """rta_error of struct rta_cacheinfo, a negative number that is read as one without sign."""
    info = message.get_attr("RTA_CACHEINFO")
    return None if info is None else -info["rta_error"] & 0xFFFFFFFF or None


def path_of_error(number: int) -> Path | None:
    """The path that an errno stands for; None if it says nothing about routing."""
    kind = _LOOKUP_ERRORS.get(number)
    return None if kind is None else Path(type=kind, errno=number)
