# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""A route and a lookup as rtnetlink writes them (linux/rtnetlink.h). Pure, apart from the index of a device."""

from __future__ import annotations

import errno
import struct
import typing as t

from ._model.route import Nexthop, Route
from ._model.state import Flow, Path
from ._netlink_layout import AF, FAMILIES, Content, Layout, pack_address, pack_prefix, unpack_address, unpack_prefix
from ._netlink_rule import header_table
from ._netlink_socket import attributes

LAYOUT = Layout(
    "fleetvpn_route",
    (
        ("family", "B"),
        ("dst_len", "B"),
        ("src_len", "B"),
        ("tos", "B"),
        ("table", "B"),
        ("proto", "B"),
        ("scope", "B"),
        ("type", "B"),
        ("flags", "I"),
    ),
    (
        (1, "DST", "cdata"),
        (2, "SRC", "cdata"),
        (3, "IIF", "uint32"),
        (4, "OIF", "uint32"),
        (5, "GATEWAY", "cdata"),
        (6, "PRIORITY", "uint32"),
        (7, "PREFSRC", "cdata"),
        (8, "METRICS", "cdata"),
        (9, "MULTIPATH", "cdata"),
        (12, "CACHEINFO", "cdata"),
        (15, "TABLE", "uint32"),
        (16, "MARK", "uint32"),
        (18, "VIA", "cdata"),
        (20, "PREF", "uint8"),
        (25, "UID", "uint32"),
        (27, "IP_PROTO", "uint8"),
        (28, "SPORT", "be16"),
        (29, "DPORT", "be16"),
        (30, "NH_ID", "uint32"),
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
_MAIN, _LOCAL = 254, 255
_IPV6_METRIC = 1024  # what the kernel makes of none; a delete without metric would take any
_RTAX = {"mtu": 2, "advmss": 8}
_RTA_GATEWAY, _RTA_VIA = 5, 18
_NEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index

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
    dst, length = pack_prefix(route.dst)
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
    attrs: list[tuple[str, t.Any]] = [("TABLE", route.table)]
    if length:
        attrs.append(("DST", dst))
    metric = route.metric or (_IPV6_METRIC if route.family == 6 else 0)
    if metric:
        attrs.append(("PRIORITY", metric))
    if route.src is not None:
        attrs.append(("PREFSRC", pack_address(route.src)))
    if route.pref is not None:
        attrs.append(("PREF", _PREFS[route.pref]))
    return Content(header, attrs + _encode_metrics(route) + _encode_way(route, index))


def _encode_way(route: Route, index: Index) -> list[tuple[str, t.Any]]:
    """Where to: a nexthop object, several ways, or one."""
    if route.nexthop_id is not None:
        return [("NH_ID", route.nexthop_id)]
    if route.nexthops:
        return [("MULTIPATH", b"".join(_encode_nexthop(route.family, hop, index) for hop in route.nexthops))]
    attrs: list[tuple[str, t.Any]] = []
    if route.gateway is not None:
        number, value = _encode_gateway(route.family, route.gateway)
        attrs.append(("VIA" if number == _RTA_VIA else "GATEWAY", value))
    if route.dev is not None:
        attrs.append(("OIF", index(route.dev)))
    return attrs


def _encode_gateway(family: int, gateway: str) -> tuple[int, bytes]:
    """Attribute and value: a gateway of the other family needs RTA_VIA, which names its family."""
    packed = pack_address(gateway)
    own = len(packed) == (4 if family == 4 else 16)
    if own:
        return _RTA_GATEWAY, packed
    return _RTA_VIA, struct.pack("=H", AF[4] if len(packed) == 4 else AF[6]) + packed


def _encode_nexthop(family: int, hop: Nexthop, index: Index) -> bytes:
    body = b"" if hop.gateway is None else attribute(*_encode_gateway(family, hop.gateway))
    flags = _RTNH_F_ONLINK if hop.onlink else 0
    device = 0 if hop.dev is None else index(hop.dev)
    return _NEXTHOP.pack(_NEXTHOP.size + len(body), flags, hop.weight - 1, device) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _encode_metrics(route: Route) -> list[tuple[str, t.Any]]:
    values = [(number, getattr(route, name)) for name, number in _RTAX.items()]
    body = b"".join(attribute(number, struct.pack("=I", value)) for number, value in values if value is not None)
    return [("METRICS", body)] if body else []


def decode(fields: t.Mapping[str, t.Any], name: Name) -> Route | None:
    """The route in a message. None for what is no route of the tables: cached clones, other families."""
    if fields["flags"] & _RTM_F_CLONED or fields["family"] not in FAMILIES:
        return None
    family = FAMILIES[fields["family"]]
    kind = TYPE_NAMES[fields["type"]]
    metrics = _decode_metrics(fields)
    return Route(
        family=family,
        dst=unpack_prefix(fields, "DST", "dst_len") or ("0.0.0.0/0" if family == 4 else "::/0"),
        table=fields.get("TABLE", fields["table"]),
        type=kind,
        src=_address(fields, "PREFSRC"),
        metric=fields.get("PRIORITY", 0),
        scope=fields["scope"] if family == 4 else 0,
        mtu=metrics.get(_RTAX["mtu"]),
        advmss=metrics.get(_RTAX["advmss"]),
        tos=fields["tos"],
        pref=_PREF_NAMES.get(fields.get("PREF", 0)),
        protocol=fields["proto"],
        **_decode_way(fields, kind, name),
    )


def _decode_way(fields: t.Mapping[str, t.Any], kind: str, name: Name) -> dict[str, t.Any]:
    """Where to. A nexthop object is reported together with what it stands for, which is not the route's own.

    The error routes of IPv6 are bound to lo by the kernel, which nobody asked for.
    """
    if "NH_ID" in fields:
        return {"nexthop_id": fields["NH_ID"], "through": _decode_through(fields, name)}
    if "MULTIPATH" in fields:
        return {"nexthops": tuple(_decode_nexthops(fields["MULTIPATH"], name))}
    if kind in ERROR_TYPES:
        return {}
    return {
        "gateway": _gateway(fields.get("GATEWAY"), fields.get("VIA")),
        "dev": name(fields["OIF"]) if "OIF" in fields else None,
        "onlink": bool(fields["flags"] & _RTNH_F_ONLINK),
    }


def _decode_through(fields: t.Mapping[str, t.Any], name: Name) -> tuple[Nexthop, ...]:
    """What a nexthop object stands for, as far as the kernel says (net.ipv4.nexthop_compat_mode)."""
    if "MULTIPATH" in fields:
        return tuple(_decode_nexthops(fields["MULTIPATH"], name))
    if "OIF" not in fields:
        return ()
    return (Nexthop(_gateway(fields.get("GATEWAY"), fields.get("VIA")), name(fields["OIF"])),)


def _decode_nexthops(data: bytes, name: Name) -> t.Iterator[Nexthop]:
    offset = 0
    while offset + _NEXTHOP.size <= len(data):
        length, flags, hops, device = _NEXTHOP.unpack_from(data, offset)
        found = attributes(data[offset + _NEXTHOP.size : offset + length])
        gateway = _gateway(found.get(_RTA_GATEWAY), found.get(_RTA_VIA))
        yield Nexthop(gateway, name(device) if device else None, hops + 1, bool(flags & _RTNH_F_ONLINK))
        offset += (max(length, _NEXTHOP.size) + 3) & ~3


def _gateway(own: bytes | None, via: bytes | None) -> str | None:
    if own is not None:
        return unpack_address(own)
    return None if via is None else unpack_address(via[2:])


def _address(fields: t.Mapping[str, t.Any], name: str) -> str | None:
    return unpack_address(fields[name]) if name in fields else None


def _decode_metrics(fields: t.Mapping[str, t.Any]) -> dict[int, int]:
    found = attributes(fields.get("METRICS", b""))
    return {number: struct.unpack("=I", value)[0] for number, value in found.items() if len(value) == 4}


def encode_filter(family: int, table: int | None, protocol: int | None, device: int | None) -> Content:
    """A dump of routes that the kernel filters."""
    header = {"family": AF[family], "proto": protocol or 0}
    attrs: list[tuple[str, t.Any]] = []
    if table is not None:
        header["table"] = header_table(table)
        attrs.append(("TABLE", table))
    if device is not None:
        attrs.append(("OIF", device))
    return Content(header, attrs)


def encode_flow(flow: Flow, index: Index) -> Content:
    """The question for a lookup. IPv4 names the table that the answer came from only when asked; IPv6 always, and
    refuses to be asked.
    """
    dst, dst_len = pack_prefix(flow.to)
    src, src_len = pack_prefix(flow.source)
    flags = _RTM_F_LOOKUP_TABLE if flow.family == 4 else 0
    header = {"family": AF[flow.family], "dst_len": dst_len, "src_len": src_len, "flags": flags}
    values = (
        ("DST", dst),
        ("SRC", src),
        ("IIF", None if flow.iif is None else index(flow.iif)),
        ("OIF", None if flow.oif is None else index(flow.oif)),
        ("MARK", flow.fwmark),
        ("UID", flow.uid),
        ("IP_PROTO", flow.ipproto),
        ("SPORT", flow.sport),
        ("DPORT", flow.dport),
    )
    return Content(header, [(name, value) for name, value in values if value is not None])


def decode_path(fields: t.Mapping[str, t.Any], name: Name) -> Path:
    """The answer of a lookup. IPv6 answers with an error route where IPv4 refuses."""
    kind = TYPE_NAMES[fields["type"]]
    if kind in ERROR_TYPES:
        return Path(type=kind, errno=_cached_error(fields) or _ERRNO_BY_TYPE.get(kind))
    return Path(
        type=kind,
        dev=name(fields["OIF"]) if "OIF" in fields else None,
        gateway=_gateway(fields.get("GATEWAY"), fields.get("VIA")),
        src=_address(fields, "PREFSRC"),
        table=_lookup_table(fields, kind),
    )


def _lookup_table(fields: t.Mapping[str, t.Any], kind: str) -> int | None:
    """None where no table gave the answer: a socket bound to a device takes all that has no route for a neighbour.

    Until the first rule is added, IPv4 keeps local and main in one tree and answers 254 for both.
    """
    table: int = fields.get("TABLE", fields["table"])
    merged = fields["family"] == AF[4] and kind in ("local", "broadcast") and table == _MAIN
    return _LOCAL if merged else table or None


def _cached_error(fields: t.Mapping[str, t.Any]) -> int | None:
    """rta_error of struct rta_cacheinfo."""
    info = fields.get("CACHEINFO", b"")
    if len(info) < 16:
        return None
    return -struct.unpack_from("=i", info, 12)[0] or None


def path_of_error(number: int) -> Path | None:
    """The path that an errno stands for; None if it says nothing about routing."""
    kind = _LOOKUP_ERRORS.get(number)
    return None if kind is None else Path(type=kind, errno=number)
