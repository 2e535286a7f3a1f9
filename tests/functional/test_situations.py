# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declarations of the guide with the six situations work as written there, on one fleet with one play: no value
that differs from host to host and could be found out.

The two laptops and the container host are containers with systemd and their own NetworkManager or networkd; the servers
are namespaces with wg-quick. Stood in for: AnyConnect's device, a cable that NetworkManager has by the name of the
connection; the address that strongSwan puts on an uplink, without the policies, since its ESP in user space has a
device of its own; and that networkd makes the WireGuard device, which needs the kernel's WireGuard: wireguard-go makes
it, and networkd gives it its addresses.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import typing as t

import pytest
import yaml

from tests.functional import pages
from tests.functional.onhost import PROGRAM, eventually, provide_pyroute2, status
from tests.functional.playbooks import ansible_playbook
from tests.functional.test_coexistence import Deleted
from tests.lab import Client, Host, Lab, Probe, networkmanager, topology
from tests.lab import addresses as plan
from tests.lab import lab as lab_module
from tests.lab.responder import PORT
from tests.lab.senders import no_leak
from tests.lab.topology import UPLINK

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and containers need root")]

GUIDE = "guide_situations.rst"
# Hosts and their groups; what is declared of them is on the page.
CLIENTS = {
    "laptop": "laptops_openvpn",
    "web": "servers",
    "vm": "vm_two_nics",
    "docker": "docker_hosts",
    "dock": "laptops_anyconnect",
    "gcp": "gcp",
}
TWO_UPLINKS = {"dock": ("enp0", "wlp0"), "vm": ("ens5", "ens6")}
NETWORKD = "/etc/systemd/network"
POOL = ("10.8.0.0/16", "fd00:8::/64")  # of OpenVPN, as the laptops' declaration has it
SOON = 30.0  # seconds, on a machine that others use as well
PROTOCOLS = ("tcp", "udp", "icmp")

# As Docker publishes a port.
PUBLISHED = """
table ip published {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        ip daddr {inside} meta l4proto {{ tcp, udp }} th dport 8080 dnat to 172.17.0.2:{port}
    }}
}}
"""


def group_vars(group: str) -> dict[str, t.Any]:
    """The declaration of a group."""
    found: dict[str, t.Any] = yaml.safe_load(pages.files(GUIDE)[f"group_vars/{group}.yml"])
    return found


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    """Six hosts, their tunnels up, and nothing of the collection on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "OPENVPN_POOL", POOL)
        patch.setitem(lab_module.POOLS, "openvpn", POOL)
        with Lab() as lab:
            lab.serve(lab.router, lab.outside, lab.gateway, lab.corporate)
            for prefix, via in zip(POOL, plan.GATEWAY, strict=True):
                lab.router.route(prefix, via=via)
            lab.router.route("172.20.0.0/14", via=plan.GATEWAY[0])
            _servers(lab)
            _laptop(lab)
            _docker_host(lab)
            _dock(lab)
            _two_cards(lab)
            for client in lab.clients:
                lab.serve(client.host)
            yield lab


def _servers(lab: Lab) -> None:
    """A split tunnel whose routes are wg-quick's own, and a cloud host with a /32 and the gateway outside of it."""
    for client in (lab.client("web", mode="auto"), lab.client("gcp", mode="split", cloud=True)):
        provide_pyroute2(client.host)
        client.up()


def _laptop(lab: Lab) -> None:
    """A full tunnel by NetworkManager's plugin."""
    client = lab.client("laptop", "openvpn", mode="full", systemd=True)
    client.tunnel = networkmanager.PluginOpenvpn(client)
    networkmanager.start(client.host, UPLINK)


def _docker_host(lab: Lab) -> None:
    """Two bridges with a container each; networkd has the addresses of uplink and tunnel."""
    client = lab.client("docker", mode="identity", systemd=True)
    client.up()
    add_bridge(lab, client, "docker0", 17)
    gateways = "".join(f"Gateway={gateway}\n" for gateway in plan.in_lan(0, 1))
    own = {UPLINK: [f"{a}/{plan.length(p)}" for a, p in zip(client.outside, plan.lan(0), strict=True)]}
    own["wg0"] = topology.single(client.inside)
    for device, addresses in own.items():
        network = "".join(f"Address={address}\n" for address in addresses) + gateways * (device == UPLINK)
        client.host.write(f"{NETWORKD}/{device}.network", f"[Match]\nName={device}\n[Network]\n{network}")
    client.host.write(f"{NETWORKD}/wg0.netdev", "[NetDev]\nName=wg0\nKind=wireguard\n")
    # Over an address without a broadcast address networkd 252 would stumble, without end.
    client.host.shell("for d in up0 wg0; do ip address flush scope global dev $d; done")
    client.host.run(["systemctl", "enable", "--now", "systemd-networkd"])
    eventually(lambda: all("routable" in shown(client, device) for device in own), SOON)


def shown(client: Client, device: str) -> str:
    """What networkd says of a device."""
    return client.host.run(["networkctl", "status", "--no-pager", device], check=False).stdout


def add_bridge(lab: Lab, client: Client, bridge: str, number: int) -> Host:
    """A bridge as Docker makes it, with a container on it."""
    own, other = f"172.{number}.0.1", f"172.{number}.0.2"
    client.host.sysctl(ipv4__ip_forward=1)
    pod = lab.host(f"pod{number}")
    topology.quiet(pod)
    topology.make_bridge(client.host, bridge)
    lab.link(client.host, f"veth{number}", pod, "eth0", bridge=bridge)
    topology.settle(client.host, bridge, [f"{own}/16"])
    topology.settle(pod, "eth0", [f"{other}/16"], gateways=[own])
    return pod


def _dock(lab: Lab) -> None:
    """Ethernet and Wi-Fi, both with a default as leases bring one, and a device with the connection's addresses."""
    client = lab.client("dock", "standin", mode="identity", families=(4,), systemd=True)
    second = lab.second_uplink(client)
    client.outside = (*client.outside, *second)
    client.host.shell("ip link set up0 name enp0; ip link set up1 name wlp0")
    for gateway in plan.in_lan(1, 1):
        client.host.run(["ip", "route", "add", "default", "via", gateway, "dev", "wlp0", "metric", "2000"])
    client.up()
    client.inside = ("172.21.0.5",)
    client.host.run(["ip", "address", "flush", "dev", "vpn0"])
    lab.gateway.route("172.21.0.5/32", dev=f"s-{client.name}")
    networkmanager.profile(client.host, "vpn0", ["172.21.0.5/32"], name="corp-anyconnect")
    networkmanager.start(client.host, "enp0", "wlp0")
    networkmanager.up(client.host, "corp-anyconnect")


def _two_cards(lab: Lab) -> None:
    """Two cards with a default each, the inside address on the first."""
    client = lab.client("vm", "standin", mode="identity", families=(4,))
    provide_pyroute2(client.host)
    client.outside = (*client.outside, *lab.second_uplink(client, 2))
    client.host.shell("ip link set up0 name ens5; ip link set up1 name ens6")
    for gateway in plan.in_lan(2, 1):
        client.host.run(["ip", "route", "add", "default", "via", gateway, "dev", "ens6", "metric", "2000"])
    client.inside = ("10.30.0.5",)
    client.host.address("ens5", "10.30.0.5/32")
    # As charon's, but that without a key it lets go in clear: this kernel need not have ESP.
    between = ["src", client.outside[0], "dst", plan.GATEWAY[0], "proto", "esp", "mode", "transport", "level", "use"]
    client.host.run(
        ["ip", "xfrm", "policy", "add", "src", "10.30.0.5/32", "dst", "0.0.0.0/0", "dir", "out", "tmpl", *between]
    )
    lab.router.route("10.30.0.5/32", via=client.outside[0])


@pytest.fixture(scope="module")
def fleet(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The controller's files, as people write them."""
    directory = tmp_path_factory.mktemp("controller")
    pages.write(GUIDE, directory)
    variables = {"ansible_connection": "lab", "ansible_python_interpreter": "/usr/bin/python3", "ansible_become": False}
    groups = {group: {"hosts": {name: {"ansible_lab_pid": lab.hosts[name].pid}}} for name, group in CLIENTS.items()}
    inventory = {"vpn_endpoints": {"children": groups, "vars": variables}}
    (directory / "inventory.yml").write_text(json.dumps(inventory))
    return Fleet(lab, directory)


@dataclasses.dataclass
class Fleet:
    """The hosts and their controller."""

    lab: Lab
    directory: pathlib.Path

    def __getitem__(self, name: str) -> Client:
        return next(client for client in self.lab.clients if client.name == name)

    def play(self, hosts: str = "all", **variables: object) -> dict[str, int]:
        """Run the playbook; how much it changed on each host."""
        status, text = ansible_playbook(self.directory, "site.yml", "--limit", hosts, **variables)
        assert status == 0, "\n".join(re.findall(r"^fatal: .*", text, re.MULTILINE))
        found = re.findall(r"^(\w+) +: ok=\d+ +changed=(\d+)", text, re.MULTILINE)
        return {name: int(count) for name, count in found}

    def uplinks(self, name: str) -> dict[str, str]:
        """The device of each outside address."""
        first, second = TWO_UPLINKS.get(name, (UPLINK, UPLINK))
        devices = (first, first, second, second)
        return dict(zip(self[name].outside, devices, strict=False))

    def egress(self, name: str) -> str:
        """The device of the inside addresses."""
        return TWO_UPLINKS[name][0] if name == "vm" else self[name].tunnel.device

    def astray(self, name: str) -> list[str]:
        """Questions to I and O that are not answered, or whose answers left by another device."""
        client = self[name]
        # What comes from outside of AllowedIPs is WireGuard's to drop.
        asker = self.lab.corporate if name == "web" else self.lab.outside
        asked = [(asker, address, self.egress(name)) for address in client.inside]
        asked += [(self.lab.corporate, address, device) for address, device in self.uplinks(name).items()]
        probes = [Probe(host, to, proto, timeout=1) for host, to, _device in asked for proto in PROTOCOLS]
        with self.lab.capture(client.host) as seen:
            answers = self.lab.probes(probes)
        found = [f"{p.to} {p.proto}: {a.error}" for p, a in zip(probes, answers, strict=True) if not a]
        left = {address: seen.left_by(source=address) for _host, address, _device in asked}
        return found + [f"{to} left by {left[to]}" for _host, to, device in asked if left[to] != {device}]

    def unbound(self, name: str) -> list[tuple[str | None, str | None]]:
        """Who answers sockets that chose no source, and the source that he sees."""
        targets = (*plan.ANYCAST, *plan.CORPORATE_HOST)
        answers = self.lab.probes([Probe(self[name].host, to, "tcp", timeout=1) for to in targets])
        return [(answer.name, answer.seen) for answer in answers]

    def verdicts(self, name: str) -> dict[str, str]:
        """Of each identity."""
        identities = status(self[name].host)["sets"][0]["identities"]
        return {entry["name"]: entry["verdict"] for entry in identities}


class TestStory:
    """One play over the fleet, and what happens to its hosts afterwards."""

    before: t.ClassVar[dict[str, t.Any]] = {}

    def test_before_replies_go_astray(self, fleet: Fleet) -> None:
        for name in CLIENTS:
            assert name == "laptop" or fleet.astray(name), name
            self.before[name] = fleet.unbound(name)

    def test_the_play_takes_the_declarations_as_written(self, fleet: Fleet) -> None:
        changed = fleet.play()
        assert all(changed[name] for name in CLIENTS)
        for name in CLIENTS:
            if not systemd(fleet[name]):
                fleet[name].host.popen([PROGRAM, "watch"], stdout=subprocess.DEVNULL)
        pending = {"outside": "proven", "inside": "pending"}
        assert fleet.verdicts("laptop") == pending
        others = {name: set(fleet.verdicts(name).values()) for name in CLIENTS if name != "laptop"}
        assert others == {name: {"proven"} for name in others}

    @pytest.mark.parametrize("name", ["web", "vm", "docker", "dock", "gcp"])
    def test_every_reply_is_right(self, fleet: Fleet, name: str) -> None:
        assert fleet.astray(name) == []
        assert fleet.unbound(name) == self.before[name]

    def test_1_the_vpn_of_the_laptop_comes_up_later(self, fleet: Fleet) -> None:
        laptop = fleet["laptop"]
        addresses = [*laptop.inside, *(plan.shifted(address, 100) for address in laptop.inside)]
        with no_leak(laptop.host, *addresses):
            laptop.up()
            eventually(lambda: fleet.astray("laptop") == [], SOON)
            assert fleet.unbound("laptop")[0] == ("gw", laptop.inside[0])  # NetworkManager's full tunnel stays one
            laptop.renumber(addresses[2:])
            eventually(lambda: fleet.astray("laptop") == [], SOON)
            laptop.tunnel.kill()
            laptop.up()
            eventually(lambda: fleet.astray("laptop") == [], SOON)
        assert fleet.verdicts("laptop")["inside"] == "proven"

    def test_1_a_kill_switch_by_user_ids_is_refused(self, fleet: Fleet) -> None:
        identity = group_vars("laptops_openvpn")["endpoint_group_identities"][0]
        with pytest.raises(AssertionError, match="does not match the first socket of NetworkManager's OpenVPN"):
            fleet.play(
                "laptop",
                endpoint_group_identities=[{**identity, "outer": {"uidrange": "100-110"}}],
                endpoint_unbound="inside",
            )
        assert fleet.astray("laptop") == []

    def test_4_bridges_come_and_go(self, fleet: Fleet) -> None:
        docker = fleet["docker"]
        deleted = Deleted(docker.host)
        with no_leak(docker.host, *docker.inside):
            pods = {
                "172.17.0.2": fleet.lab.hosts["pod17"],
                "172.18.0.2": add_bridge(fleet.lab, docker, "br-1a2b3c", 18),
            }
            asked = [Probe(pod, docker.inside[0], proto, timeout=1) for pod in pods.values() for proto in PROTOCOLS]
            asked += [Probe(docker.host, to, "icmp", source=docker.inside[0], timeout=1) for to in pods]
            eventually(lambda: all(fleet.lab.probes(asked)), SOON)
            docker.host.remove("br-1a2b3c")
            eventually(lambda: fleet.astray("docker") == [], SOON)
        assert deleted.end() == []

    def test_4_a_published_port_is_answered_by_the_tunnel(self, fleet: Fleet) -> None:
        """Its container answers who asks the inside address from behind the VPN and from the Internet."""
        docker, pod = fleet["docker"], fleet.lab.hosts["pod17"]
        fleet.lab.serve(pod)
        docker.host.run(["nft", "-f", "-"], stdin=PUBLISHED.format(inside=docker.inside[0], port=PORT))
        asked = [
            Probe(host, docker.inside[0], proto, port=8080, timeout=1)
            for host in (fleet.lab.corporate, fleet.lab.outside)
            for proto in ("tcp", "udp")
        ]
        with fleet.lab.capture(docker.host) as seen:
            answers = fleet.lab.probes(asked)
        assert [(answer.ok, answer.name) for answer in answers] == [(True, pod.name)] * len(asked)
        left = {(packet.dev, packet.sport) for packet in seen.seen(outgoing=True, source=docker.inside[0])}
        assert left == {(docker.tunnel.device, 8080)}
        assert "172.17.0.2" not in {packet.source for packet in seen.seen(outgoing=True, dev=UPLINK)}
        docker.host.run(["nft", "delete", "table", "ip", "published"])

    def test_4_networkd_restarts(self, fleet: Fleet) -> None:
        docker = fleet["docker"]
        with no_leak(docker.host, *docker.inside):
            docker.host.run(["systemctl", "restart", "systemd-networkd"])
            eventually(lambda: fleet.astray("docker") == [], SOON)

    def test_5_the_laptop_leaves_its_dock(self, fleet: Fleet) -> None:
        dock = fleet["dock"]
        with no_leak(dock.host, *dock.inside, devices=TWO_UPLINKS["dock"]):
            networkmanager.down(dock.host, "enp0")
            eventually(lambda: all(text.startswith(dock.outside[:2]) for text in fleet.astray("dock")), SOON)
            networkmanager.up(dock.host, "enp0")
            eventually(lambda: fleet.astray("dock") == [], SOON)

    def test_6_the_lease_is_renewed(self, fleet: Fleet) -> None:
        """Main loses default and host route of the gateway for a moment, as dhclient does it."""
        gcp = fleet["gcp"]
        gateway = plan.CLOUD_GATEWAY[0]
        gcp.host.shell(f"ip route del default; ip route del {gateway}")
        eventually(lambda: fleet.astray("gcp") == [], SOON)
        gcp.host.shell(f"ip route add {gateway} dev up0 scope link; ip route add default via {gateway} dev up0")
        eventually(lambda: fleet.astray("gcp") == [], SOON)

    def test_the_play_again_changes_nothing(self, fleet: Fleet) -> None:
        assert fleet.play() == dict.fromkeys(CLIENTS, 0)

    def test_removal_leaves_nothing(self, fleet: Fleet) -> None:
        for client in fleet.lab.clients:
            if not systemd(client):
                client.host.signal("fleetvpn-endpoi", signal.SIGTERM)
        fleet.play(endpoint_state="absent")
        for client in fleet.lab.clients:
            left = client.host.shell("for f in 4 6; do ip -N -$f rule; ip -N -$f route show table all; done; ip link")
            assert re.findall(r".*(?:proto 15[12]|group 151).*", left) == [], client.name
            assert client.host.shell("find /etc /usr/local -path '*fleetvpn*' -not -path '*/site-packages*'") in (
                "",
                "/usr/local/lib/fleetvpn\n",
            )


def systemd(client: Client) -> bool:
    """Whether units run there."""
    return client.name in ("laptop", "docker", "dock")
