# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows asked of a real kernel, and beside them real sockets: the answer must be what a socket gets."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import typing as t
from collections.abc import Iterator

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _paths
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel, open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Flow, Path
from ansible_collections.fleetvpn.routing.plugins.module_utils._paths import IdentityPaths, parse_flow

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

O4, I4, FAR4 = "192.0.2.10", "198.51.100.10", "203.0.113.5"
O6, I6, FAR6 = "2001:db8:2::10", "2001:db8:51::10", "2001:db8:ffff::5"
FAR = {4: FAR4, 6: FAR6}
OUTER, INNER = {4: O4, 6: O6}, {4: I4, 6: I6}
INSIDE = IdentityPaths("inside", (I4, I6), ("vpn0",), (2000,))
OUTSIDE = IdentityPaths("outside", (O4, O6), ("up0",), (2010,), ("192.0.2.1", "2001:db8:2::1"))
IDENTITIES = (INSIDE, OUTSIDE)

# Devices: up0 with O and main's default, vpn0 with I, br0. Tables: 2000 by vpn0, 2010 by up0. No rules.
# vpn0 stands in for a tunnel: without ARP, every packet is simply sent.
BATCH = f"""
link set lo up
link add up0 type veth peer name up1 netns {{far}}
link add vpn0 type veth peer name vpn1 netns {{far}}
link add br0 type bridge
link add port0 type veth peer name port1 netns {{far}}
link set port0 master br0
link set vpn0 arp off
addr add {O4}/24 dev up0
addr add {O6}/64 dev up0 nodad
addr add {I4}/32 dev vpn0
addr add {I6}/128 dev vpn0 nodad
addr add 172.20.0.1/24 dev br0
addr add fd20::1/64 dev br0 nodad
link set up0 up
link set vpn0 up
link set port0 up
link set br0 up
route add default via 192.0.2.1 dev up0
route add default via 2001:db8:2::1 dev up0
route add default dev vpn0 src {I4} table 2000
route add default dev vpn0 src {I6} table 2000
route add default via 192.0.2.1 dev up0 table 2010
route add default via 2001:db8:2::1 dev up0 table 2010
"""

# What leaves by which device, seen after routing and source NAT and before a neighbour must be known.
COUNTERS = """
table inet count {
    counter up0 { }
    counter vpn0 { }
    chain out {
        type filter hook postrouting priority 300;
        oifname up0 meta l4proto { tcp, udp } th dport 7000 counter name up0
        oifname vpn0 meta l4proto { tcp, udp } th dport 7000 counter name vpn0
    }
}
"""

SEND = """
import errno, socket, sys
way, family, to, device = sys.argv[1:]
kind = socket.SOCK_STREAM if way == "tcp" else socket.SOCK_DGRAM
sock = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, kind)
sock.setblocking(False)
if device:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
try:
    if way == "sendto":
        sock.sendto(b"x", (to, 7000))
    else:
        sock.connect((to, 7000))
        if way == "connected":
            sock.send(b"x")
except BlockingIOError:
    pass
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@dataclasses.dataclass(frozen=True)
class Host:
    """A namespace, asked and changed with iproute2 and real sockets."""

    netns: str

    def ip(self, *commands: str) -> None:
        for command in commands:
            run("ip", "-n", self.netns, *command.split())

    def sent(self, way: str, family: int, to: str, device: str = "") -> str:
        """The device by which a packet left that a real socket sent, or the error that it got."""
        before = self._counted()
        inside = ("ip", "netns", "exec", self.netns)
        error = run(*inside, sys.executable, "-c", SEND, way, str(family), to, device).strip()
        after = self._counted()
        return error or " ".join(name for name in after if after[name] > before[name])

    def _counted(self) -> dict[str, int]:
        listed = json.loads(run("ip", "netns", "exec", self.netns, "nft", "-j", "list", "counters"))["nftables"]
        return {entry["counter"]["name"]: entry["counter"]["packets"] for entry in listed if "counter" in entry}


def run(*command: str, **options: t.Any) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, **options)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def host() -> Iterator[Host]:
    near, far = f"fvt-paths-{os.getpid()}", f"fvt-pathsfar-{os.getpid()}"
    try:
        for name in (near, far):
            run("ip", "netns", "add", name)
        run("ip", "-n", near, "-batch", "-", input=BATCH.format(far=far))
        run("ip", "-n", far, "-batch", "-", input="link set up1 up\nlink set vpn1 up\nlink set port1 up\n")
        run("ip", "netns", "exec", near, "nft", "-f", "-", input=COUNTERS)
        yield Host(near)
    finally:
        for name in (near, far):
            if os.path.exists(f"/run/netns/{name}"):
                run("ip", "netns", "delete", name)


@pytest.fixture
def kernel(host: Host) -> Iterator[Kernel]:
    with open_kernel(host.netns) as found:
        yield found


def entries(
    kernel: Kernel, identities: t.Sequence[IdentityPaths] = IDENTITIES, **entry: t.Any
) -> list[dict[str, t.Any]]:
    if "source" in entry:
        entry["from"] = entry.pop("source")
    return _paths.answer_all(kernel, [parse_flow(entry, "paths[0]", identities)], identities)


def one(kernel: Kernel, **entry: t.Any) -> dict[str, t.Any]:
    (found,) = entries(kernel, **entry)
    return found


def way(path: Path | dict[str, t.Any]) -> tuple[t.Any, ...]:
    found = path if isinstance(path, dict) else vars(path)
    return found["dev"], found["table"], found["src"]


families = pytest.mark.parametrize("family", [4, 6])


# --- two lookups -----------------------------------------------------------------------------------------------------


@families
def test_a_rule_for_the_chosen_source_is_seen_by_the_second_lookup(host: Host, kernel: Kernel, family: int) -> None:
    """As `ip route get` without a source does not see it: main chooses O, and `from O` sends it elsewhere."""
    host.ip(f"-{family} rule add from {OUTER[family]} iif lo lookup 2000 priority 2200")
    found = one(kernel, to=FAR[family], expect={"dev": "up0"})
    assert way(found) == ("vpn0", 2000, OUTER[family])
    assert way(found["unconnected"]) == ("up0", 254, OUTER[family])
    assert (found["verdict"], found["identity"]) == ("wrong", "outside")
    assert "dev: up0 expected, vpn0 found" in found["differs"]


def test_ipv4_sockets_get_what_walk_says(host: Host, kernel: Kernel) -> None:
    host.ip(f"rule add from {O4} iif lo lookup 2000 priority 2200")
    answer = _paths.walk(kernel, Flow(4, FAR4))
    assert host.sent("connected", 4, FAR4) == host.sent("tcp", 4, FAR4) == answer.decided.dev == "vpn0"
    assert host.sent("sendto", 4, FAR4) == answer.unconnected.dev == "up0"


def test_ipv6_sockets_get_what_walk_says(host: Host, kernel: Kernel) -> None:
    """IPv6 keeps the first answer as long as nothing changes, so what it says counts as well."""
    host.ip(f"-6 rule add from {O6} iif lo lookup 2000 priority 2200")
    answer = _paths.walk(kernel, Flow(6, FAR6))
    assert answer.unconnected.dev == "up0"
    assert host.sent("sendto", 6, FAR6) == host.sent("connected", 6, FAR6) == host.sent("tcp", 6, FAR6) == "up0"
    assert [path.dev for _label, path in answer.counting()] == ["vpn0", "up0"]


def test_an_error_ends_an_ipv4_flow(host: Host, kernel: Kernel) -> None:
    host.ip("route add unreachable default table 2500", "rule add from 0.0.0.0/32 iif lo lookup 2500 priority 2900")
    found = one(kernel, to=FAR4, expect={"type": "unreachable"})
    assert (found["verdict"], found["unconnected"]) == ("proven", None)
    assert host.sent("connected", 4, FAR4) == host.sent("sendto", 4, FAR4) == "EHOSTUNREACH"


def test_after_an_error_an_ipv6_flow_takes_another_source(host: Host, kernel: Kernel) -> None:
    """An unreachable route for unbound traffic is no kill switch in IPv6: the packet leaves with source O."""
    host.ip(
        "-6 route add unreachable default table 2500",
        "-6 rule add from ::/1 iif lo goto 2999 priority 2900",
        "-6 rule add from 8000::/1 iif lo goto 2999 priority 2901",
        "-6 rule add iif lo lookup 2500 priority 2902",
        "-6 rule add nop priority 2999",
    )
    assert kernel.lookup(Flow(6, FAR6)).type == "unreachable"
    found = one(kernel, to=FAR6, expect={"type": "unreachable"})
    assert (found["verdict"], found["dev"]) == ("wrong", "up0")
    assert host.sent("connected", 6, FAR6) == host.sent("sendto", 6, FAR6) == "up0"
    host.ip(
        f"-6 rule add from {O6} iif lo unreachable priority 2210",
        f"-6 rule add from {I6} iif lo unreachable priority 2310",
    )
    host.ip("-6 rule add from fd20::1 iif lo unreachable priority 2220")
    assert one(kernel, to=FAR6, expect={"type": "unreachable"})["verdict"] == "proven"
    assert host.sent("connected", 6, FAR6) == "ENETUNREACH"


# --- what a flow may carry -------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        ("fwmark 0x1/0xff", {"fwmark": "0x101"}, {"fwmark": "0x2"}),
        ("tos 0x10", {"tos": "0x10"}, {"tos": "0x08"}),
        ("uidrange 1000-1999", {"uid": 1500}, {"uid": 2000}),
        ("uidrange 0-0", {"uid": 0}, {"uid": 1}),
        ("ipproto tcp", {"ipproto": "tcp"}, {"ipproto": "udp"}),
        ("ipproto tcp sport 443", {"ipproto": "tcp", "sport": "443"}, {"ipproto": "tcp", "sport": "444"}),
        ("ipproto udp dport 1000-2000", {"ipproto": "udp", "dport": 2000}, {"ipproto": "udp", "dport": 2001}),
        ("oif vpn0", {"oif": "vpn0"}, {}),
    ],
)
def test_what_a_rule_matches_on_reaches_the_kernel(
    host: Host, kernel: Kernel, family: int, rule: str, matching: dict[str, t.Any], other: dict[str, t.Any]
) -> None:
    host.ip(f"-{family} rule add {rule} lookup 2000 priority 2100")
    host.ip(f"-{family} rule add from {INNER[family]} lookup 2000 priority 2300")
    expect = {"expect": {"dev": "vpn0", "table": 2000, "identity": "inside"}}
    assert one(kernel, to=FAR[family], **matching, **expect)["verdict"] == "proven"
    assert one(kernel, to=FAR[family], **other, **expect)["verdict"] == "wrong"


def test_without_a_protocol_ipv4_is_looked_up_as_udp(host: Host, kernel: Kernel) -> None:
    """As documented; IPv6 then matches no rule with a protocol."""
    for family, dev in ((4, "vpn0"), (6, "up0")):
        host.ip(f"-{family} rule add ipproto udp lookup 2000 priority 2100")
        assert one(kernel, to=FAR[family], source=OUTER[family])["dev"] == dev


@families
def test_from_an_identity(host: Host, kernel: Kernel, family: int) -> None:
    host.ip(f"-{family} rule add from {INNER[family]} iif lo lookup 2000 priority 2300")
    for name, dev, table in (("inside", "vpn0", 2000), ("outside", "up0", 254)):
        (found,) = entries(kernel, source=name, to=FAR[family], expect={"identity": name})
        assert (found["verdict"], found["dev"], found["table"]) == ("proven", dev, table)
        assert found["unconnected"] is None, "a stated source is looked up once"
    host.ip(f"-{family} rule flush", f"-{family} rule add lookup main priority 32766")
    assert one(kernel, source="inside", to=FAR[family], expect={"identity": "inside"})["verdict"] == "wrong"


@families
def test_forwarded(host: Host, kernel: Kernel, family: int) -> None:
    knob = "net.ipv4.ip_forward" if family == 4 else "net.ipv6.conf.all.forwarding"
    run("ip", "netns", "exec", host.netns, "sysctl", "-qw", f"{knob}=1")
    source = {4: "172.20.0.9", 6: "fd20::9"}[family]
    expect = {"expect": {"dev": "vpn0"}}
    host.ip(f"-{family} rule add iif br0 lookup 2000 priority 2100")
    found = one(kernel, source=source, iif="br0", to=FAR[family], **expect)
    assert (found["verdict"], found["dev"], found["unconnected"]) == ("proven", "vpn0", None)
    assert one(kernel, to=FAR[family], **expect)["verdict"] == "wrong"
    assert one(kernel, source=source, iif="br0", to=OUTER[family], expect={"type": "local"})["verdict"] == "proven"


# --- errors and answers that prove nothing ---------------------------------------------------------------------------


@families
@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
def test_error_routes_and_error_rules(host: Host, kernel: Kernel, family: int, kind: str) -> None:
    to = {"to": FAR[family], "source": OUTER[family]}
    prefix = f"{FAR[family]}/{32 if family == 4 else 128}"
    host.ip(f"-{family} route add {kind} {prefix}")
    by_route = one(kernel, **to, expect={"type": kind})
    assert (by_route["verdict"], by_route["dev"]) == ("proven", None)
    assert one(kernel, **to, expect={"dev": "up0"})["differs"] == [f"dev: up0 expected, {kind} found"]
    host.ip(f"-{family} route del {kind} {prefix}", f"-{family} rule add {kind} priority 2100")
    assert one(kernel, **to, expect={"type": kind})["verdict"] == "proven"


@families
def test_a_source_that_is_not_local_proves_nothing(host: Host, kernel: Kernel, family: int) -> None:
    """The rule is right, and yet IPv4 would say "unreachable" without a look at it and IPv6 would say vpn0."""
    host.ip(f"-{family} rule add from {INNER[family]} iif lo lookup 2000 priority 2300")
    host.ip(f"-{family} addr del {INNER[family]}/{32 if family == 4 else 128} dev vpn0")
    raw = kernel.lookup(Flow(family, FAR[family], INNER[family]))
    assert (raw.type, raw.dev) == {4: ("unreachable", None), 6: ("unicast", "vpn0")}[family]
    for expect in ({"type": "unreachable"}, {"dev": "vpn0"}):
        found = one(kernel, source="inside", to=FAR[family], expect=expect)
        assert (found["verdict"], found["dev"], found["type"]) == ("pending", None, None)
        assert found["differs"] == [f"from: {INNER[family]} is not an address of this host now"]
        foreign = {4: "192.0.2.77", 6: "2001:db8:2::77"}[family]
        assert one(kernel, source=foreign, to=FAR[family], expect=expect)["verdict"] == "wrong"


def test_an_address_that_is_local_by_a_route_alone_is_local(host: Host, kernel: Kernel) -> None:
    host.ip("route add local 10.77.0.0/24 dev lo")
    assert one(kernel, source="10.77.0.9", to=FAR4, expect={"dev": "up0"})["verdict"] == "proven"


@families
def test_our_own_address_does_not_come_in(host: Host, kernel: Kernel, family: int) -> None:
    found = one(kernel, source=OUTER[family], iif="br0", to=FAR[family], expect={"dev": "up0"})
    assert (found["verdict"], found["type"]) == ("wrong", None)


@families
def test_a_device_that_is_not_there(host: Host, kernel: Kernel, family: int) -> None:
    found = one(kernel, to=FAR[family], oif="gone0", expect={"dev": "gone0"})
    assert (found["verdict"], found["differs"]) == ("wrong", ["oif: there is no device gone0"])


@families
def test_an_identity_is_pending_while_its_egress_is_down_and_its_backstop_stands(
    host: Host, kernel: Kernel, family: int
) -> None:
    """I sits on the bridge, so that it stays when the egress goes."""
    address = f"{INNER[family]}/{32 if family == 4 else 128}"
    host.ip(f"-{family} addr del {address} dev vpn0")
    host.ip(f"-{family} addr add {address} dev br0{' nodad' if family == 6 else ''}")
    host.ip(f"-{family} rule add from {INNER[family]} iif lo lookup 2000 priority 2300")
    host.ip(f"-{family} rule add from {INNER[family]} iif lo unreachable priority 2301")
    host.ip("link set vpn0 down")
    now = [_paths.present(each, kernel.links()) for each in IDENTITIES]
    entry = {"source": "inside", "to": FAR[family], "expect": {"identity": "inside"}}
    assert [each["verdict"] for each in entries(kernel, now, **entry)] == ["pending"]
    host.ip(f"-{family} rule del from {INNER[family]} iif lo unreachable priority 2301")
    assert [each["verdict"] for each in entries(kernel, now, **entry)] == ["wrong"]


# --- sockets bound to a device ---------------------------------------------------------------------------------------


def test_an_ipv6_socket_bound_to_a_device_leaves_by_no_other(host: Host, kernel: Kernel) -> None:
    """RTM_GETROUTE with a source takes oif for a wish, a bound socket does not."""
    assert kernel.lookup(Flow(6, FAR6, O6, oif="vpn0")).dev == "up0"
    assert one(kernel, to=FAR6, oif="vpn0", expect={"type": "unreachable"})["verdict"] == "proven"
    assert one(kernel, to=FAR6, source=O6, oif="vpn0", expect={"type": "unreachable"})["verdict"] == "proven"
    assert host.sent("connected", 6, FAR6, "vpn0") == host.sent("sendto", 6, FAR6, "vpn0") == "ENETUNREACH"


def test_an_ipv4_socket_bound_to_a_device_leaves_by_it_against_the_rules(host: Host, kernel: Kernel) -> None:
    """After an error IPv4 takes the destination to be on the link: the backstop does not count."""
    host.ip(f"rule add from {I4} iif lo unreachable priority 2301")
    found = one(kernel, source=I4, to=FAR4, oif="up0", expect={"type": "unreachable"})
    assert (found["verdict"], found["dev"]) == ("wrong", "up0")
    host.ip("rule add iif lo unreachable priority 2302")
    assert host.sent("sendto", 4, FAR4, "up0") == "up0"
