# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Captures on every device of a host at once.

One packet socket per capture, opened in the host's namespace. It is of type SOCK_DGRAM: the kernel takes the link-layer
header off, so that tunnels without one and Ethernet look alike. The kernel queues; nothing runs meanwhile.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import struct
import time
import types
import typing as t

import dpkt  # type: ignore[import-untyped]

from .host import Host

ETH_P_ALL = 3
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}


@dataclasses.dataclass(frozen=True)
class Packet:
    """A packet as one device saw it. For ARP, source and destination are the addresses it speaks of."""

    dev: str
    outgoing: bool
    source: str
    destination: str
    proto: str  # icmp, icmp6, tcp, udp, arp, or a number
    sport: int = 0
    dport: int = 0
    flags: int = 0  # of tcp
    data: bytes = b""


class Capture:
    """A context manager; what it saw can be asked during and after the context."""

    def __init__(self, host: Host, *, settle: float = 0.1, buffer: int = 16 << 20) -> None:
        self.host = host
        self._settle = settle
        self._buffer = buffer
        self._packets: list[Packet] = []
        self._socket: socket.socket | None = None

    def __enter__(self) -> Capture:
        self._socket = self.host.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, self._buffer)
        self._socket.setblocking(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._socket is not None:
            with self._socket:
                self.packets()
            self._socket = None

    def packets(self, *, outgoing: bool | None = None, **wanted: t.Any) -> list[Packet]:
        """What was seen so far, in order: of one direction, and with the given fields."""
        if self._socket is not None:
            time.sleep(self._settle)
            self._drain(self._socket)
        return self.seen(outgoing=outgoing, **wanted)

    def seen(self, *, outgoing: bool | None = None, **wanted: t.Any) -> list[Packet]:
        """As `packets`, of what was read already: it does not wait."""
        if outgoing is not None:
            wanted["outgoing"] = outgoing
        return [packet for packet in self._packets if _matches(packet, wanted)]

    def left_by(self, **wanted: t.Any) -> set[str]:
        """The devices by which such packets left: left_by(source=I) == {"wg0"} is "by wg0 and by nothing else".

        ARP counts only if asked for by proto.
        """
        return {packet.dev for packet in self._ip(outgoing=True, **wanted)}

    def arrived_by(self, **wanted: t.Any) -> set[str]:
        """The devices by which such packets arrived."""
        return {packet.dev for packet in self._ip(outgoing=False, **wanted)}

    def _ip(self, **wanted: t.Any) -> list[Packet]:
        found = self.packets(**wanted)
        return found if "proto" in wanted else [packet for packet in found if packet.proto != "arp"]

    def _drain(self, opened: socket.socket) -> None:
        check_none_dropped(opened)
        while True:
            try:
                data, (dev, protocol, kind, _hardware, _address) = opened.recvfrom(1 << 16)
            except BlockingIOError:
                return
            if dev != "lo":
                self._packets.extend(_parsed(dev, kind == socket.PACKET_OUTGOING, protocol, data))


def check_none_dropped(opened: socket.socket) -> None:
    """What did not fit into the buffer of a packet socket was not seen: "no such packet" would prove nothing."""
    _packets, dropped = struct.unpack("II", opened.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    assert not dropped, f"the capture missed {dropped} packets"


def _matches(packet: Packet, wanted: t.Mapping[str, t.Any]) -> bool:
    return all(getattr(packet, field) == value for field, value in wanted.items())


def _parsed(dev: str, outgoing: bool, protocol: int, data: bytes) -> t.Iterator[Packet]:
    """Nothing for what is neither IP nor ARP, and for what is cut short."""
    readers = {ETH_P_IP: _ipv4, ETH_P_IPV6: _ipv6, ETH_P_ARP: _arp}
    if protocol not in readers:
        return
    try:
        fields = readers[protocol](data)
    except dpkt.UnpackError:
        return
    yield Packet(dev, outgoing, **fields)


def _ipv4(data: bytes) -> dict[str, t.Any]:
    packet = dpkt.ip.IP(data)
    return _ip_fields(packet.src, packet.dst, packet.p, packet.data)


def _ipv6(data: bytes) -> dict[str, t.Any]:
    packet = dpkt.ip6.IP6(data)
    return _ip_fields(packet.src, packet.dst, packet.p, packet.data)


def _ip_fields(source: bytes, destination: bytes, protocol: int, payload: t.Any) -> dict[str, t.Any]:
    fields: dict[str, t.Any] = {
        "source": _text(source),
        "destination": _text(destination),
        "proto": _PROTOCOLS.get(protocol, str(protocol)),
        "data": bytes(payload),
    }
    if isinstance(payload, (dpkt.tcp.TCP, dpkt.udp.UDP)):
        fields.update(sport=payload.sport, dport=payload.dport, flags=getattr(payload, "flags", 0))
    return fields


def _arp(data: bytes) -> dict[str, t.Any]:
    packet = dpkt.arp.ARP(data)
    return {"source": _text(packet.spa), "destination": _text(packet.tpa), "proto": "arp"}


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
