# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Neighbours: daemons that write, and delete, rules and routes of a host, taken through what they do to others.

Whatever they do, ours are to the letter what they were, at the latest a moment later, every reply is right, and what
is theirs stays. The guide about coexistence names these tests. Each kind of manager has a container with systemd.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import subprocess
import time
import typing as t

import pytest

from tests.functional.onhost import PROGRAM, declare, eventually, play, provide_pyroute2, status
from tests.functional.watching import Watch
from tests.lab import Client, Host, Lab, networkmanager
from tests.lab import addresses as plan
from tests.lab.senders import no_leak
from tests.lab.topology import UPLINK

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and containers need root")]

IDENTITIES = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "interface": "vpn0", "gateway": "none", "pools": list(plan.OTHER_POOL)},
]
DROP_IN = "/etc/systemd/networkd.conf.d/fleetvpn.conf"
NETWORK = "/etc/systemd/network/up0.network"
SOON = 30.0  # seconds, on a machine that others use as well
# Rules that somebody deletes leave a moment in which only the egress guard keeps packets in.
CHECKS = ["state", "packets"]
# Protocols of FRR's daemons, as zebra writes them.
FRR = range(186, 198)

TAILSCALE = [
    "pref 5210 fwmark 0x80000/0xff0000 lookup main",
    "pref 5230 fwmark 0x80000/0xff0000 lookup default",
    "pref 5250 fwmark 0x80000/0xff0000 unreachable",
    "pref 5270 lookup 52",
]


class Endpoint:
    """A client with the collection on it, and what of it must come back."""

    def __init__(self, lab: Lab, client: Client) -> None:
        self.lab, self.client, self.host = lab, client, client.host
        lab.serve(self.host)

    def ours(self) -> list[str]:
        """Our rules and routes. What the kernel says of carriers is left out."""
        return [line for line in self._shown() if "proto 151" in line]

    def rules(self) -> list[str]:
        """Our rules alone."""
        return [line for line in self.ours() if re.match(r"\d+:\t", line)]

    def theirs(self) -> list[str]:
        """All others."""
        return [line for line in self._shown() if "proto 151" not in line]

    def _shown(self) -> list[str]:
        text = self.host.shell("for f in 4 6; do ip -N -$f rule; ip -N -$f route show table all; done")
        return sorted(line.replace(" linkdown", "").strip() for line in text.splitlines())

    def is_right(self) -> bool:
        """Every reply leaves by the device of the address that was asked, and is met."""
        return all(row.right for row in self.lab.survey([self.client], timeout=1))

    @contextlib.contextmanager
    def taken_through(self, check: str = "packets") -> t.Iterator[None]:
        """What is done meanwhile changes nothing in the end; with C(packets) not a packet of I leaves by the uplink."""
        eventually(self.is_right, SOON)  # what the test before it has put back may be on its way
        before = self.ours()
        assert before
        with no_leak(self.host, *self.client.inside) if check == "packets" else contextlib.nullcontext():
            yield
            eventually(lambda: self.ours() == before, SOON)
            eventually(self.is_right, SOON)
        assert status(self.host)["state"] == "proven"

    @contextlib.contextmanager
    def kept(self) -> t.Iterator[None]:
        """Nobody deletes a rule of an inside address or pool meanwhile. Those of the outside one go where it goes."""
        deleted = Deleted(self.host)
        yield
        inside = [f"from {source} " for source in (*self.client.inside, *plan.OTHER_POOL)]
        assert [line for line in deleted.end() if any(source in line for source in inside)] == []


BEHIND_MAIN = "34768:"


class Deleted:
    """Our rules that somebody deletes, by the kernel's own word."""

    def __init__(self, host: Host) -> None:
        self._process = host.popen(["ip", "-N", "monitor", "rule"], stdout=subprocess.PIPE, text=True)
        time.sleep(0.3)

    def end(self) -> list[str]:
        """The rules, without the one behind main: the watch takes that away itself when a default comes."""
        time.sleep(0.3)
        self._process.kill()
        output, _nothing = self._process.communicate()
        deleted = [line for line in str(output).splitlines() if line.startswith("Deleted") and "proto 151" in line]
        return [line for line in deleted if BEHIND_MAIN not in line]


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    with Lab() as lab:
        lab.serve(lab.outside, lab.corporate, lab.router, lab.gateway)
        yield lab


Make = t.Callable[[str], Endpoint]


@pytest.fixture(scope="module")
def make(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Containers with systemd and the role's work on them."""

    def endpoint(name: str) -> Endpoint:
        client = lab.client(name, "standin", systemd=True)
        client.up()
        apply_role(client, tmp_path_factory.mktemp(name))
        return Endpoint(lab, client)

    return endpoint


def apply_role(client: Client, directory: pathlib.Path, **variables: t.Any) -> str:
    """Role endpoint; what it said."""
    given = {"endpoint_identities": IDENTITIES, **{f"endpoint_{key}": value for key, value in variables.items()}}
    role = {"name": "fleetvpn.routing.endpoint"}
    done = play(client.host, {"ansible.builtin.include_role": role, "vars": given}, directory=directory)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout


class TestNetworkd:
    """systemd-networkd deletes what it did not make, unless it is told not to."""

    @pytest.fixture(scope="class")
    @classmethod
    def endpoint(cls, make: Make) -> Endpoint:
        endpoint = make("nd")
        own = zip(
            endpoint.client.outside, plan.lan(0), plan.in_lan(0, 1), plan.SIDE_NET, plan.in_lan(0, 254), strict=True
        )
        lines = ["[Match]", f"Name={UPLINK}"]
        for address, network, gateway, side, second in own:
            lines += ["[Network]", f"Address={address}/{plan.length(network)}", f"Gateway={gateway}"]
            lines += ["[Route]", f"Destination={side}", f"Gateway={second}"]
        endpoint.host.write(NETWORK, "\n".join([*lines, ""]))
        # Over an address without a broadcast address networkd 252 would stumble, without end.
        endpoint.host.run(["ip", "address", "flush", "scope", "global", "dev", UPLINK])
        endpoint.host.run(["systemctl", "enable", "--now", "systemd-networkd"])
        eventually(lambda: routable(endpoint.host), SOON)
        eventually(endpoint.is_right, SOON)
        return endpoint

    @pytest.fixture
    def dropin(self, endpoint: Endpoint, tmp_path: pathlib.Path) -> t.Iterator[None]:
        """With the role's drop-in, and a networkd that has read it."""
        apply_role(endpoint.client, tmp_path, networkd_dropin=True)
        endpoint.host.run(["systemctl", "restart", "systemd-networkd"])
        eventually(lambda: routable(endpoint.host) and endpoint.is_right(), SOON)
        yield
        endpoint.host.run(["rm", DROP_IN])
        endpoint.host.run(["systemctl", "restart", "systemd-networkd"])
        eventually(lambda: routable(endpoint.host) and endpoint.is_right(), SOON)

    ACTIONS: t.ClassVar[dict[str, str]] = {
        "reload": "networkctl reload",
        "restart": "systemctl restart systemd-networkd",
        "reconfigure": f"networkctl reconfigure {UPLINK}",
    }

    def test_without_the_watch_it_deletes_our_rules(self, endpoint: Endpoint) -> None:
        """The tests below can fail."""
        endpoint.host.run(["systemctl", "stop", "fleetvpn-endpoint-watch"])
        before = endpoint.rules()
        endpoint.host.shell(self.ACTIONS["reconfigure"])
        eventually(lambda: not endpoint.rules(), SOON)
        endpoint.host.run(["systemctl", "start", "fleetvpn-endpoint-watch"])
        eventually(lambda: endpoint.rules() == before, SOON)

    @pytest.mark.parametrize("check", CHECKS)
    @pytest.mark.parametrize("action", ACTIONS)
    def test_without_the_drop_in(self, endpoint: Endpoint, action: str, check: str) -> None:
        kept = endpoint.kept() if action == "reload" else contextlib.nullcontext()
        with endpoint.taken_through(check), kept:
            endpoint.host.shell(self.ACTIONS[action])
            eventually(lambda: routable(endpoint.host), SOON)

    def test_with_the_drop_in(self, endpoint: Endpoint, dropin: None) -> None:
        """Not one of our rules is deleted, so that no packet leaks, guard or not."""
        deleted = Deleted(endpoint.host)
        for action in self.ACTIONS.values():
            with endpoint.taken_through():
                endpoint.host.shell(action)
                eventually(lambda: routable(endpoint.host), SOON)
        assert deleted.end() == []

    def test_the_role_writes_and_removes_the_drop_in(self, endpoint: Endpoint, tmp_path: pathlib.Path) -> None:
        asked = ["systemctl", "show", "--value", "--property", "InvocationID", "systemd-networkd"]
        before = endpoint.host.run(asked).stdout
        said = apply_role(endpoint.client, tmp_path, networkd_dropin=True)
        assert "reads this when it starts the next time" in said
        assert "ManageForeignRoutingPolicyRules=no\nManageForeignRoutes=no\n" in endpoint.host.read(DROP_IN)
        assert re.search("changed=0 ", apply_role(endpoint.client, tmp_path, networkd_dropin=True))
        apply_role(endpoint.client, tmp_path)
        assert endpoint.host.run(["test", "-e", str(pathlib.Path(DROP_IN).parent)], check=False).returncode
        assert endpoint.host.run(asked).stdout == before

    @pytest.mark.parametrize("check", CHECKS)
    def test_netplan_apply(self, endpoint: Endpoint, check: str) -> None:
        own = [f"{a}/{plan.length(p)}" for a, p in zip(endpoint.client.outside, plan.lan(0), strict=True)]
        routes = [{"to": "default", "via": gateway} for gateway in plan.in_lan(0, 1)]
        pairs = zip(plan.SIDE_NET, plan.in_lan(0, 254), strict=True)
        routes += [{"to": side, "via": second} for side, second in pairs]
        ethernet = {"addresses": own, "routes": routes}
        network = {"network": {"version": 2, "renderer": "networkd", "ethernets": {UPLINK: ethernet}}}
        text = endpoint.host.read(NETWORK)
        endpoint.host.write("/etc/netplan/up0.yaml", json.dumps(network), 0o600)
        endpoint.host.run(["rm", NETWORK])
        # There is no udev in a container, and nothing that it would have to be told.
        endpoint.host.write("/usr/local/sbin/udevadm", "#!/bin/sh\n", 0o755)
        try:
            with endpoint.taken_through(check):
                endpoint.host.run(["netplan", "apply"])
                eventually(lambda: routable(endpoint.host), SOON)
        finally:
            endpoint.host.write(NETWORK, text)
            endpoint.host.shell("rm /etc/netplan/up0.yaml /run/systemd/network/*netplan*; networkctl reload")


def routable(host: Host) -> bool:
    """Whether networkd has configured the uplink."""
    return "routable" in host.run(["networkctl", "--no-pager", "--no-legend", "list", UPLINK], check=False).stdout


class TestNetworkManager:
    """NetworkManager leaves foreign rules; routes by its devices come and go with their addresses."""

    @pytest.fixture(scope="class")
    @classmethod
    def endpoint(cls, make: Make) -> Endpoint:
        endpoint = make("nm")
        networkmanager.start(endpoint.host, UPLINK)
        eventually(endpoint.is_right, SOON)
        return endpoint

    @pytest.mark.parametrize(
        "action",
        [
            f"nmcli connection up id {UPLINK}",
            f"nmcli device reapply {UPLINK}",
            f"nmcli connection down id {UPLINK}; nmcli connection up id {UPLINK}",
            "systemctl restart NetworkManager; nm-online -q",
        ],
    )
    def test_connections_up_reapplied_and_down(self, endpoint: Endpoint, action: str) -> None:
        with endpoint.taken_through(), endpoint.kept():
            endpoint.host.shell(action)

    def test_the_automatic_default_route_of_a_wireguard_profile(self, endpoint: Endpoint) -> None:
        """The kernel has no WireGuard that NetworkManager could make; rules and table as it writes them stand in."""
        table = "51900"
        lines = [
            "rule {} pref 30768 lookup main suppress_prefixlength 0 proto static",
            f"rule {{}} pref 30769 not fwmark {table} lookup {table} proto static",
            f"route {{}} default dev vpn0 table {table} proto static",
        ]
        with endpoint.taken_through(), endpoint.kept():
            for action in ("add", "del"):
                for family in ("-4", "-6"):
                    text = "".join(f"{line.format(action)}\n" for line in lines)
                    endpoint.host.run(["ip", family, "-batch", "-"], stdin=text)
                assert endpoint.is_right()


class TestOthers:
    """Daemons that need no network manager beside them."""

    @pytest.fixture(scope="class")
    @classmethod
    def endpoint(cls, make: Make) -> Endpoint:
        return make("mix")

    def test_ifdown_and_ifup(self, endpoint: Endpoint) -> None:
        lines = [f"auto {UPLINK}"]
        families = zip(("inet", "inet6"), endpoint.client.outside, plan.lan(0), plan.in_lan(0, 1), strict=True)
        for family, address, network, gateway in families:
            lines += [
                f"iface {UPLINK} {family} static",
                f" address {address}/{plan.length(network)}",
                f" gateway {gateway}",
            ]
        sides = [f" up ip route replace {s} via {v}" for s, v in zip(plan.SIDE_NET, plan.in_lan(0, 254), strict=True)]
        lines += [*sides, " dad-attempts 0"]
        endpoint.host.write("/etc/network/interfaces", "\n".join([*lines, ""]))
        with endpoint.taken_through():
            endpoint.host.shell(f"ip address flush scope global dev {UPLINK}; ifup {UPLINK}")
        with endpoint.taken_through(), endpoint.kept():
            endpoint.host.shell(f"ifdown {UPLINK}; ifup {UPLINK}")

    @pytest.mark.parametrize("check", CHECKS)
    def test_firewalld(self, endpoint: Endpoint, check: str) -> None:
        endpoint.host.write("/etc/protocols", pathlib.Path("/etc/protocols").read_text())  # of netbase
        # The second time it is no change, which this program calls an error.
        endpoint.host.run(["firewall-offline-cmd", "--set-default-zone", "trusted"], check=False)
        with endpoint.taken_through(check), endpoint.kept():
            endpoint.host.run(["systemctl", "start", "firewalld"])
            endpoint.host.run(["firewall-cmd", "--reload"])
            endpoint.host.run(["firewall-cmd", "--complete-reload"])
            endpoint.host.run(["systemctl", "stop", "firewalld"])

    @pytest.mark.parametrize("check", CHECKS)
    def test_flush_ruleset(self, endpoint: Endpoint, check: str) -> None:
        before = endpoint.host.run(["nft", "list", "ruleset"]).stdout
        with endpoint.taken_through(check):
            endpoint.host.run(["nft", "flush", "ruleset"])
            eventually(lambda: endpoint.host.run(["nft", "list", "ruleset"]).stdout == before, SOON)

    def test_strongswan(self, endpoint: Endpoint) -> None:
        """Its rule for table 220 stands ahead of ours, and its table has nothing but what goes into a tunnel."""
        with endpoint.taken_through(), endpoint.kept():
            endpoint.host.run(["systemctl", "start", "strongswan"])
            eventually(lambda: any(line.startswith("220:") for line in endpoint.theirs()), SOON)
            assert endpoint.is_right()
            warned = endpoint.host.run([PROGRAM, "apply"]).stderr
            assert "foreign rule ahead of ours: 220:" in warned
            endpoint.host.run(["systemctl", "stop", "strongswan"])

    @pytest.mark.parametrize("family", ["-4", "-6"])
    def test_rules_of_tailscale(self, endpoint: Endpoint, family: str) -> None:
        """As its daemon writes them, which is not here, and rewrites them when the network changes."""
        with endpoint.taken_through(), endpoint.kept():
            for action in ("add", "del", "add"):
                text = "".join(f"rule {action} {rule}\n" for rule in TAILSCALE)
                endpoint.host.run(["ip", family, "-batch", "-"], stdin=text)
                assert endpoint.is_right()
        endpoint.host.run(["ip", family, "-batch", "-"], stdin=text.replace("add", "del"))

    def test_routes_of_frr(self, endpoint: Endpoint) -> None:
        """In main, in a table of its own, and even in ours: they stay to the letter."""
        lines = [
            f"route add 192.0.2.{number}/32 dev {UPLINK} proto {number} table {table} metric 20"
            for number in FRR
            for table in ("main", "100", "2001")
        ]
        before = set(endpoint.theirs())
        with endpoint.taken_through(), endpoint.kept():
            endpoint.host.run(["ip", "-batch", "-"], stdin="\n".join([*lines, ""]))
        written = [line for line in endpoint.theirs() if line not in before]
        assert len(written) == len(lines)
        with endpoint.taken_through():
            endpoint.host.shell("ip link del vpn0")
            endpoint.client.up()
            endpoint.host.run([PROGRAM, "apply"])
        assert [line for line in endpoint.theirs() if line in written] == written
        endpoint.host.run(["ip", "-batch", "-"], stdin="\n".join([*lines, ""]).replace("add", "del"))

    @pytest.mark.parametrize("check", CHECKS)
    def test_rules_flushed_by_protocol(self, endpoint: Endpoint, check: str) -> None:
        """Somebody's clean-up script; the watch hears of it by a change of a device at the latest."""
        with endpoint.taken_through(check):
            endpoint.host.shell("ip rule flush proto 151; ip -6 rule flush proto 151; ip link set lo mtu 65535")
            endpoint.host.shell("ip link set lo mtu 65536")


WG_QUICK = """[Interface]
PrivateKey = {key}
Address = 198.51.100.77/32, 2001:db8:77::1/128
[Peer]
PublicKey = {public}
AllowedIPs = 0.0.0.0/0, ::/0
"""


@pytest.fixture
def namespace(lab: Lab) -> Endpoint:
    """A host without systemd, with a second VPN that is not declared: wg-quick's full tunnel."""
    client = lab.client(f"w{len(lab.clients)}", "standin")
    provide_pyroute2(client.host)
    client.up()
    keys = [
        subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip() for each in "ab"
    ]
    public = subprocess.run(["wg", "pubkey"], input=keys[1], capture_output=True, text=True, check=True).stdout.strip()
    client.host.write("/etc/wireguard/wg7.conf", WG_QUICK.format(key=keys[0], public=public), 0o600)
    return Endpoint(lab, client)


@pytest.mark.parametrize("first", ["wg-quick", "endpoint"])
def test_wg_quick_with_a_full_tunnel_of_somebody_else(namespace: Endpoint, first: str) -> None:
    """Its rules jump the queue, and are named; its clean-up deletes rules by content, and none of ours is meant."""
    host = namespace.host
    if first == "wg-quick":
        host.run(["wg-quick", "up", "wg7"])
    declare(host, identities=IDENTITIES)
    watch = Watch(host)
    with namespace.taken_through(), namespace.kept():
        if first == "endpoint":
            host.run(["wg-quick", "up", "wg7"])
            assert "dev: up0 expected, wg7 found" in declare(host, identities=IDENTITIES)["msg"]
        host.run(["wg-quick", "down", "wg7"])
    watch.end()
