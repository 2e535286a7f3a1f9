# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watch follows: uplinks, addresses, devices and bridges that change, each without a word to us."""

from __future__ import annotations

import json
import os
import typing as t

import pytest

from tests.functional.onhost import (
    FAR,
    GATEWAY,
    IDENTITIES,
    INSIDE,
    OUTSIDE,
    SECOND,
    TUNNEL,
    UPLINK,
    connect,
    declare,
    disconnect,
    eventually,
    rules,
    rules_from,
    status,
    way,
)
from tests.functional.watching import SOON, Watch, batch
from tests.lab import Host
from tests.lab.senders import no_leak, sending

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

T_LOC, T_OUTSIDE, T_INSIDE = "2000", "2001", "2002"
MOVED = "198.51.100.20"
POOL = "10.20.0.0/16"
DEVICES = {"outside": UPLINK, "inside": TUNNEL}
OTHER, OTHER_TUNNEL = "fvtup1", "fvtvpn1"


@pytest.fixture
def watch(host: Host) -> t.Iterator[Watch]:
    watch = Watch(host)
    yield watch
    watch.end()


def routes(host: Host, table: str, family: int = 4) -> list[str]:
    """A table, as ip shows it."""
    shown = host.run(["ip", f"-{family}", "route", "show", "table", table], check=False).stdout
    return [" ".join(line.split()) for line in shown.splitlines()]


def gateway(host: Host, table: str = T_OUTSIDE, family: int = 4) -> str:
    """The gateway of a table's default."""
    return next((line.split()[2] for line in routes(host, table, family) if line.startswith("default via")), "")


def verdicts(host: Host) -> dict[str, str]:
    """Of each identity."""
    return {entry["name"]: entry["verdict"] for entry in status(host)["sets"][0]["identities"]}


def add_uplink(host: Host, name: str, *lines: str) -> None:
    batch(host, f"link add {name} type veth peer name x{name}", f"link set x{name} up", f"link set {name} up", *lines)


class TestUplink:
    def test_another_gateway_under_the_same_address(self, host: Host, watch: Watch) -> None:
        """Nothing tells of it but a route event."""
        host.run(["ip", "route", "replace", "default", "via", "198.51.100.2", "dev", UPLINK])
        assert eventually(lambda: gateway(host) == "198.51.100.2") < SOON

    def test_another_address(self, host: Host, watch: Watch) -> None:
        # The old one first: the new one would be its secondary, and go with it.
        batch(host, f"addr del {OUTSIDE}/24 dev {UPLINK}", f"addr add {MOVED}/24 dev {UPLINK}")
        host.run(["ip", "route", "replace", "default", "via", GATEWAY, "dev", UPLINK])
        eventually(lambda: way(host, MOVED) == UPLINK and rules_from(host, OUTSIDE) == [])
        assert len(rules_from(host, MOVED)) == 3
        eventually(lambda: gateway(host) == GATEWAY)
        assert way(host, INSIDE) == TUNNEL

    def test_another_device(self, host: Host, watch: Watch) -> None:
        default = f"route add default via {GATEWAY} dev {OTHER} metric 9"
        add_uplink(host, OTHER, f"addr add {MOVED}/24 dev {OTHER}", default)
        batch(host, f"route del default dev {UPLINK}", f"addr del {OUTSIDE}/24 dev {UPLINK}")
        eventually(lambda: any(f"default via {GATEWAY} dev {OTHER} " in line for line in routes(host, T_OUTSIDE)))
        assert way(host, MOVED) == OTHER
        assert rules_from(host, OUTSIDE) == []

    def test_moves_into_the_pool_of_the_vpn(self, host: Host) -> None:
        inside = {"name": "inside", "interface": TUNNEL, "gateway": "none", "pools": [POOL]}
        declare(host, identities=[IDENTITIES[0], inside])
        watch = Watch(host)
        batch(host, f"addr del {OUTSIDE}/24 dev {UPLINK}", f"addr add 10.20.0.7/24 dev {UPLINK}")
        host.run(["ip", "route", "replace", "default", "via", "10.20.0.1", "dev", UPLINK])
        assert eventually(lambda: way(host, "10.20.0.7") == UPLINK) < SOON
        eventually(lambda: gateway(host) == "10.20.0.1")
        disconnect(host)
        eventually(lambda: status(host)["sets"][0]["identities"][1]["verdict"] == "pending")
        assert way(host, "10.20.0.7") == UPLINK
        watch.end()

    def test_rotates_its_temporary_addresses(self, host: Host, watch: Watch) -> None:
        short = {"use_tempaddr": 2, "temp_prefered_lft": 10, "temp_valid_lft": 14, "max_desync_factor": 0}
        host.sysctl(**{f"ipv6__conf__{UPLINK}__{key}": value for key, value in short.items()})
        batch(host, f"addr add 2001:db8:2::10/64 dev {UPLINK} mngtmpaddr", family=6)
        host.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:2::1", "dev", UPLINK])

        def temporary() -> set[str]:
            shown = json.loads(host.run(["ip", "-j", "-6", "addr", "show", "dev", UPLINK]).stdout)
            return {a["local"] for link in shown for a in link["addr_info"] if a.get("temporary")}

        def ruled() -> set[str]:
            return {line["src"] for line in host.ip_json("-6", "rule", "show") if line["priority"] == 2200}

        eventually(lambda: bool(temporary()) and temporary() <= ruled())
        first = temporary()
        # The next one comes before the first is no longer preferred, and that goes some seconds later.
        eventually(lambda: bool(temporary() - first) and temporary() <= ruled(), 20)
        eventually(lambda: not temporary() & first and temporary() <= ruled() and not first & ruled(), 30)


class TestTunnel:
    def test_recreated_under_its_name_at_once(self, host: Host, watch: Watch) -> None:
        before = host.index(TUNNEL)
        again = [f"link add {TUNNEL} type veth peer name fvtpeer1", "link set fvtpeer1 up", f"link set {TUNNEL} up"]
        batch(host, f"link del {TUNNEL}", *again, f"addr add {INSIDE}/32 dev {TUNNEL}")
        assert host.index(TUNNEL) != before
        assert eventually(lambda: way(host, INSIDE) == TUNNEL) < SOON
        eventually(lambda: status(host)["state"] == "proven")

    def test_an_old_address_keeps_its_backstop(self, host: Host, watch: Watch) -> None:
        batch(host, f"addr add {SECOND}/32 dev {TUNNEL}", f"addr del {INSIDE}/32 dev {TUNNEL}")
        eventually(lambda: way(host, SECOND) == TUNNEL)
        disconnect(host)
        eventually(lambda: status(host)["state"] == "pending")
        assert rules_from(host, INSIDE) == rules_from(host, SECOND) == ["lookup 2000", "lookup 2002", "unreachable"]

    def test_somebody_changes_its_group(self, host: Host, watch: Watch) -> None:
        host.run(["ip", "link", "set", TUNNEL, "group", "5"])
        eventually(lambda: host.ip_json("link", "show", TUNNEL)[0]["group"] == "151")
        eventually(lambda: bool(watch.lines()))
        assert watch.lines()[-1].endswith(f"put back group dev {TUNNEL} group 151")


class TestOneAddressOnTwoVpns:
    @pytest.fixture
    def host(self, make: t.Callable[[str], Host]) -> Host:
        host = make("h")
        connect(host, INSIDE)
        add_uplink(host, OTHER_TUNNEL, f"addr add 10.9.1.1/32 dev {OTHER_TUNNEL}")
        second = {"name": "another", "interface": OTHER_TUNNEL, "gateway": "none"}
        # The one that comes later stands first: the order of the declaration does not decide.
        self.identities = [IDENTITIES[0], second, IDENTITIES[1]]
        declare(host, identities=self.identities)
        return host

    def test_the_first_keeps_it_and_the_journal_says_so(self, host: Host) -> None:
        watch = Watch(host)
        host.run(["ip", "addr", "add", f"{INSIDE}/32", "dev", OTHER_TUNNEL])
        warning = f"main: {INSIDE} is on {TUNNEL} and on {OTHER_TUNNEL}: inside had it first and keeps it"
        eventually(lambda: warning in watch.lines())
        assert way(host, INSIDE) == TUNNEL
        assert way(host, "10.9.1.1") == OTHER_TUNNEL
        host.run(["ip", "addr", "add", f"{SECOND}/32", "dev", TUNNEL])
        assert eventually(lambda: way(host, SECOND) == TUNNEL) < SOON
        assert watch.end().count(warning) == 1

    def test_a_task_refuses_it_still(self, host: Host) -> None:
        host.run(["ip", "addr", "add", f"{INSIDE}/32", "dev", OTHER_TUNNEL])
        found = declare(host, identities=self.identities)
        assert found["failed"]
        assert INSIDE in found["msg"]


class TestCarrier:
    """Lost, while device and address stay. With the sysctl the kernel takes the device's routes for none."""

    ENDS: t.ClassVar[dict[str, str]] = {"outside": "fvtpeer0", "inside": "fvtpeer1"}

    @pytest.fixture
    def watch(self, host: Host) -> t.Iterator[Watch]:
        # Nobody answers there, so that otherwise nothing would be sent, leak or not.
        batch(host, f"neigh replace {GATEWAY} lladdr 02:00:00:00:00:99 dev {UPLINK}", f"link set {TUNNEL} arp off")
        watch = Watch(host)
        yield watch
        watch.end()

    @pytest.mark.parametrize("ignored", [0, 1])
    @pytest.mark.parametrize("name", ENDS)
    def test_nothing_leaks_and_it_is_proven_once_it_is_back(
        self, host: Host, watch: Watch, name: str, ignored: int
    ) -> None:
        host.sysctl(ipv4__conf__all__ignore_routes_with_linkdown=ignored)
        before = rules(host)
        with no_leak(host, INSIDE, devices=(UPLINK,)) as seen:
            for state in ("down", "up"):
                host.run(["ip", "link", "set", self.ENDS[name], state])
                eventually(lambda: host.carries(DEVICES[name]) == (state == "up"))  # noqa: B023
                eventually(watch.is_waiting)
                lost = ignored and state == "down"
                eventually(lambda: verdicts(host)[name] == ("wrong" if lost else "proven"))  # noqa: B023
                assert way(host, INSIDE) == ("none" if lost and name == "inside" else TUNNEL)
                assert rules(host) == before
        assert seen.left_by(source=INSIDE) == {TUNNEL}
        assert set(verdicts(host).values()) == {"proven"}

    def test_without_us_the_kernel_takes_the_uplink(self, host: Host, watch: Watch) -> None:
        """The test above can fail."""
        host.sysctl(ipv4__conf__all__ignore_routes_with_linkdown=1)
        identities = [IDENTITIES[0], {**IDENTITIES[1], "backstop": False}]
        declare(host, identities=identities)
        with sending(host, INSIDE) as seen:
            host.run(["ip", "link", "set", "fvtpeer1", "down"])
            eventually(lambda: UPLINK in seen.left_by(source=INSIDE))


class TestHostInternalNetworks:
    def test_a_bridge_comes_and_goes(self, host: Host, watch: Watch) -> None:
        batch(host, "link add fvtbr0 type bridge", "link set fvtbr0 up", "addr add 172.20.0.1/24 dev fvtbr0")
        wanted = "172.20.0.0/24 dev fvtbr0"
        eventually(lambda: any(line.startswith(wanted) for line in routes(host, T_LOC)))
        host.run(["ip", "link", "del", "fvtbr0"])
        eventually(lambda: routes(host, T_LOC) == [])

    HOSTILE = ((["@x", 'a"b'], ["@x"]), (["tcp", "a*", "-x", "b\udcff"], ["tcp", "b\udcff"]))

    @pytest.mark.parametrize(("names", "left_out"), HOSTILE, ids=ascii)
    def test_bridges_with_hostile_names(self, host: Host, names: list[str], left_out: list[str]) -> None:
        """All is followed, and the guard holds; a name that cannot be written in it is said."""
        watch = Watch(host)
        for number, name in enumerate(names):
            for what in (["link", "add", "name", name, "type", "bridge"], ["link", "set", "dev", name, "up"]):
                host.run(["ip", *what])
            host.run(["ip", "addr", "add", f"172.20.{number}.1/24", "dev", name])
        eventually(lambda: int(host.shell(f"ip route show table {T_LOC} | wc -l")) == len(names))
        batch(host, f"addr add {SECOND}/32 dev {TUNNEL}")
        eventually(lambda: way(host, SECOND) == TUNNEL)
        eventually(lambda: status(host)["state"] == "proven")
        assert SECOND in host.run(["nft", "list", "set", "inet", "fleetvpn", "address_inside4"]).stdout
        said = "".join(watch.end())
        assert [name for name in names if f"device {name!a} is for nft" in said] == left_out
        again = declare(host)
        assert (again.get("msg"), again["changed"]) == (None, False)

    def test_a_route_to_a_bridge_that_was_there(self, host: Host, watch: Watch) -> None:
        batch(host, "link add fvtbr0 type bridge", "link set fvtbr0 up", "addr add 172.20.0.1/24 dev fvtbr0")
        eventually(lambda: routes(host, T_LOC) != [])
        host.run(["ip", "route", "add", "10.244.0.0/16", "via", "172.20.0.9", "dev", "fvtbr0", "proto", "bird"])
        eventually(lambda: any(line.startswith("10.244.0.0/16") for line in routes(host, T_LOC)))
        host.run(["ip", "route", "add", "172.20.0.192/28", "via", GATEWAY, "proto", "bgp"])
        eventually(lambda: any(line.startswith("throw 172.20.0.192/28 ") for line in routes(host, T_LOC)))

    def test_a_pod_whose_device_and_route_come_together(self, host: Host) -> None:
        declare(host, local_networks=["fvtpod*"])
        watch = Watch(host)
        for number in range(5):
            name = f"fvtpod{number}"
            batch(host, f"link add {name} type veth peer name x{name}", f"link set x{name} up", f"link set {name} up",
                  f"route add 10.244.1.{number}/32 dev {name} proto boot")  # fmt: skip
            eventually(lambda: len(routes(host, T_LOC)) == number + 1, 10)  # noqa: B023
        watch.end()


def test_the_way_of_the_far_is_by_the_uplink_without_us(host: Host) -> None:
    """Or the tests above would prove nothing."""
    declare(host, state="absent")
    found = host.ip_json("route", "get", FAR, "from", INSIDE)
    assert found[0]["dev"] == UPLINK
