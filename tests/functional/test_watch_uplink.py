# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An uplink whose address and gateway others choose: a real DHCP client and server, real router advertisements."""

from __future__ import annotations

import os
import typing as t

import pytest

from tests.functional.onhost import (
    INSIDE,
    TUNNEL,
    UPLINK,
    connect,
    declare,
    eventually,
    hosts,
    rules_from,
    status,
    way,
)
from tests.functional.watching import Watch, batch, cable
from tests.lab import Host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

LAN = "fvtlan0"
OLD, NEW = ("198.51.100.50", "198.51.100.1"), ("198.51.100.60", "198.51.100.2")
OLD_PREFIX, NEW_PREFIX = "2001:db8:2:a:", "2001:db8:2:b:"
OLD_ROUTER, NEW_ROUTER = "fe80::1", "fe80::2"
PATIENCE = 30.0


class Network:
    """A host, and a router on its uplink."""

    def __init__(self, host: Host, router: Host) -> None:
        self.host, self.router = host, router
        host.run(["ip", "link", "del", UPLINK])
        router.run(["ip", "link", "del", UPLINK])
        cable(router, LAN, host, UPLINK)
        batch(router, *(f"addr add {gateway}/24 dev {LAN}" for _address, gateway in (OLD, NEW)))
        connect(host, INSIDE)

    def offer(self, address: str, gateway: str) -> None:
        """A DHCP server with one address to give."""
        for pid in self.router.pids("dnsmasq"):
            self.router.run(["kill", str(pid)])
        eventually(lambda: not self.router.pids("dnsmasq"))
        self.router.popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--no-ping",
             f"--interface={LAN}", "--bind-interfaces", "--dhcp-authoritative", "--leasefile-ro",
             f"--dhcp-range={address},{address},255.255.255.0,2m", f"--dhcp-option=3,{gateway}", "--pid-file="],
        )  # fmt: skip
        eventually(lambda: bool(self.router.pids("dnsmasq")))

    def ask(self) -> None:
        """The DHCP client starts, as after a change of the network; what it had it asks for again."""
        for pid in self.host.pids("dhclient"):
            self.host.run(["kill", "-KILL", str(pid)])
        self.host.popen(["dhclient", "-4", "-d", "-pf", "/run/dhclient.pid", "-lf", "/run/dhclient.leases", UPLINK])

    def advertise(self, prefix: str, source: str) -> None:
        """A router that says so, and takes back what it said before."""
        for pid in self.router.pids("radvd"):
            self.router.run(["kill", str(pid)], check=False)
        eventually(lambda: not self.router.pids("radvd"), 10)
        batch(self.router, f"addr flush dev {LAN}", f"addr add {source}/64 dev {LAN} nodad", family=6)
        self.router.write(
            "/run/radvd.conf",
            f"interface {LAN} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;\n"
            f"prefix {prefix}:/64 {{ AdvValidLifetime 60; AdvPreferredLifetime 50; }}; }};\n",
        )
        self.router.popen(["radvd", "--nodaemon", "-C", "/run/radvd.conf", "-p", "/run/radvd.pid", "-m", "stderr"])

    def outside(self) -> list[str]:
        """The addresses of the uplink's identity, as the set has them."""
        found = status(self.host)["sets"][0]["identities"]
        return next(entry["addresses"] for entry in found if entry["name"] == "outside")

    def gateway(self, family: int) -> str:
        """That of the uplink's own table."""
        found = self.host.ip_json(f"-{family}", "route", "show", "default", "table", "2001")
        return str(found[0].get("gateway", "")) if found else ""


@pytest.fixture
def network() -> t.Iterator[Network]:
    with hosts() as make:
        yield Network(make("h"), make("r"))


def test_dhcp_gives_another_address_and_gateway(network: Network) -> None:
    network.offer(*OLD)
    network.ask()
    eventually(lambda: network.host.owns(OLD[0]), PATIENCE)
    declare(network.host)
    watch = Watch(network.host)
    assert (network.gateway(4), way(network.host, OLD[0])) == (OLD[1], UPLINK)
    network.offer(*NEW)
    network.ask()
    eventually(lambda: network.gateway(4) == NEW[1], PATIENCE)
    eventually(lambda: rules_from(network.host, OLD[0]) == [])
    assert len(rules_from(network.host, NEW[0])) == 3
    assert (way(network.host, NEW[0]), way(network.host, INSIDE)) == (UPLINK, TUNNEL)
    eventually(lambda: status(network.host)["state"] == "proven")
    watch.end()


def test_a_router_advertises_another_prefix_and_goes(network: Network) -> None:
    network.host.sysctl(**{f"ipv6__conf__{UPLINK}__accept_ra": 2})
    network.router.sysctl(ipv6__conf__all__forwarding=1)
    network.advertise(OLD_PREFIX, OLD_ROUTER)
    eventually(lambda: bool(network.host.ip_json("-6", "route", "show", "default")), PATIENCE)
    declare(network.host)
    watch = Watch(network.host)
    eventually(lambda: network.gateway(6) == OLD_ROUTER, PATIENCE)
    eventually(lambda: any(address.startswith(OLD_PREFIX) for address in network.outside()), PATIENCE)
    network.advertise(NEW_PREFIX, NEW_ROUTER)
    eventually(lambda: network.gateway(6) == NEW_ROUTER, PATIENCE)
    eventually(lambda: any(address.startswith(NEW_PREFIX) for address in network.outside()), PATIENCE)
    watch.end()
