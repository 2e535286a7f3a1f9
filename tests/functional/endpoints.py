# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module endpoint on a host of one namespace, whose devices lead nowhere: what is sent can be seen, and is lost."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import itertools
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint import ensure_endpoint
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint_spec import ENDPOINT
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._netns import inside
from ansible_collections.fleetvpn.routing.plugins.module_utils._worker import Context, Result

from tests.functional.conftest import ip
from tests.lab.settled import await_ipv6

STATE = pathlib.Path("/run/fleetvpn/netns")
INSIDE, OUTSIDE, GATEWAY = "198.51.100.10", "192.0.2.10", "192.0.2.1"
INSIDE6, OUTSIDE6, GATEWAY6 = "2001:db8:51::10", "2001:db8:2::10", "2001:db8:2::1"
OURS = ("inet fleetvpn", "inet fleetvpn_second")  # the tables of our sets
FAR, FAR6 = "203.0.113.9", "2001:db8:9::9"
IDENTITIES: list[dict[str, t.Any]] = [
    {"name": "outside", "interface": ["up0"]},
    {"name": "inside", "interface": ["vpn0"], "gateway": ["none"]},
]


def device(name: str, *addresses: str) -> list[str]:
    """A cable whose other end is not looked at. It resolves no neighbours, so that what is sent leaves at once."""
    return [
        f"link add {name} arp off type veth peer name x{name}",
        f"link set x{name} addrgenmode none",
        f"link set x{name} up",
        f"link set {name} addrgenmode none",
        f"link set {name} up",
        f"address add fe80::10/64 dev {name} nodad",
        *(f"address add {address} dev {name}{' nodad' * (':' in address)}" for address in addresses),
    ]


UPLINK = [
    *device("up0", f"{OUTSIDE}/24", f"{OUTSIDE6}/64"),
    f"route add default via {GATEWAY} dev up0 proto dhcp",
    f"route add ::/0 via {GATEWAY6} dev up0 proto ra",
]
TUNNEL = device("vpn0", f"{INSIDE}/32", f"{INSIDE6}/128")
# A firewall as others may have it, with a table whose name begins like ours.
FIREWALL = """
table inet fleetvpn_other {
    set known {
        type ipv4_addr
        flags interval
        elements = { 192.0.2.0/28, 192.0.2.77 }
    }
    chain leaving {
        type filter hook postrouting priority 300
        ip saddr @known counter accept comment "kept"
    }
}
table ip nat {
    chain leaving {
        type nat hook postrouting priority 100
        oifname "up0" masquerade
    }
}
"""
# Apart from those of conftest.py, which finds by these names what a killed run left.
_NUMBERS = itertools.count(1000)
_SPEC = ArgumentSpecValidator(ENDPOINT)


@contextlib.contextmanager
def namespace(*lines: str) -> t.Iterator[str]:
    """A namespace with lo up, set up by lines of ip(8), those with -6 last. It goes, and its sets with it."""
    name = f"fvt-{os.getpid()}-{next(_NUMBERS)}"
    ip("netns", "add", name)
    try:
        ip("-n", name, lines=["link set lo up", *(line for line in lines if not line.startswith("-6 "))])
        ip("-n", name, "-6", lines=["", *(line[3:] for line in lines if line.startswith("-6 "))])
        with inside(name):
            await_ipv6()
        yield name
    finally:
        ip("netns", "del", name)
        shutil.rmtree(STATE / name, ignore_errors=True)


def ensure(netns: str, *, check: bool = False, **params: t.Any) -> Result:
    """Module endpoint in the namespace, with the options as Ansible would hand them over."""
    given = _SPEC.validate({"identities": IDENTITIES, "netns": netns, **params})
    assert not given.error_messages, given.error_messages
    context = Context(given.validated_parameters, functools.partial(open_kernel, netns), check_mode=check, diff=True)
    return ensure_endpoint(context)


def state(netns: str, *, without: str | None = None) -> list[str]:
    """Rules, routes, device groups and nftables; C(without) leaves out the lines of one protocol, and our tables.

    What the kernel does late and by itself is left out: a device's multicast route, and how its carrier is.
    """
    lines = [
        " ".join(word for word in line.split() if word != "linkdown")
        for family in ("-4", "-6")
        for what in (["rule", "show"], ["route", "show", "table", "all"])
        for line in ip("-n", netns, family, "-N", "-d", *what).splitlines()
        if "ff00::/8" not in line
    ]
    links = json.loads(ip("-n", netns, "-j", "link", "show"))
    kept = [line for line in lines if without is None or f" proto {without}" not in f"{line} "]
    kept += [text for name, text in tables(netns).items() if without is None or name not in OURS]
    return kept if without else [*kept, *(f"{link['ifname']} group {link['group']}" for link in links)]


def nft(netns: str, *arguments: str, text: str | None = None) -> str:
    """nft in the namespace."""
    command = ["ip", "netns", "exec", netns, "nft", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def tables(netns: str) -> dict[str, str]:
    """All nftables tables by family and name, as nft lists them without counters."""
    listed = f"\n{nft(netns, '-s', 'list', 'ruleset')}".split("\ntable ")[1:]
    return {text.partition(" {")[0]: text.strip() for text in listed}


def files(netns: str) -> list[str]:
    """The files that hold sets, apart from locks, and from the note why a change was refused."""
    found = [path.relative_to(STATE / netns) for path in (STATE / netns).rglob("*.*") if path.is_file()]
    return sorted(str(path) for path in found if path.name != "notes.json")


class Sockets:
    """What real sockets of the namespace do: the source that they get, and the device by which their packets leave."""

    def __init__(self, netns: str) -> None:
        self._netns = netns

    def ways(self, destinations: t.Sequence[str]) -> dict[str, str]:
        """For each destination and kind of socket the answer of a connect, and the packets seen."""
        with inside(self._netns), tap_all() as tap:
            made = {f"{kind} {to}": self._source(to, kind) for to in destinations for kind in ("udp", "tcp", "sendto")}
            seen = sorted({packet for packet in received(tap) if packet[1] in destinations})
        return {**made, **{f"packet {source} {to}": f"{dev}" for source, to, dev in seen}}

    def _source(self, to: str, kind: str) -> str:
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        form = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family, form | socket.SOCK_NONBLOCK) as made:
            try:
                if kind == "sendto":
                    made.sendto(b"?", (to, 7))
                    return "sent"
                made.connect((to, 7))
                if kind == "udp":
                    made.send(b"?")
            except BlockingIOError:
                pass  # TCP: the first packet is on its way
            except OSError as error:
                return str(error)
            return str(made.getsockname()[0])


def tap_all() -> socket.socket:
    """A socket that is given a copy of every packet, for `received`."""
    everything = 3
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(everything))


def received(tap: socket.socket) -> t.Iterator[tuple[str, str, str]]:
    """Source, destination and device of what has left since."""
    while True:
        try:
            packet, (device, protocol, kind, *_rest) = tap.recvfrom(256)
        except BlockingIOError:
            return
        if kind == socket.PACKET_OUTGOING and protocol == 0x0800:
            source, to = struct.unpack_from("!II", packet, 12)
            yield str(ipaddress.IPv4Address(source)), str(ipaddress.IPv4Address(to)), device
        elif kind == socket.PACKET_OUTGOING and protocol == 0x86DD:
            yield str(ipaddress.IPv6Address(packet[8:24])), str(ipaddress.IPv6Address(packet[24:40])), device
