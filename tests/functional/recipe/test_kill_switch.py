# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`unbound_backstop`: a full tunnel that is closed rather than open while its VPN is away, in both families."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import (
    CORP,
    INET,
    LEAVE,
    PIN_STOP,
    STOP,
    T_NONE,
    TUNNEL,
    UPLINK,
    Endpoint,
    Question,
    ask,
)
from tests.functional.recipe.test_full_tunnel import MARK, MARKED
from tests.lab import addresses as plan
from tests.lab.tunnel import wait_for

CLOSED: dict[str, t.Any] = {"unbound": "corp", "unbound_backstop": True}
DEVICE = "fleetvpn0"


@pytest.fixture
def endpoint(make: Make) -> Endpoint:
    endpoint = make(mode="identity")
    endpoint.masquerade()
    return endpoint


def errors(endpoint: Endpoint, **how: t.Any) -> dict[str, set[str]]:
    """What unbound sockets of each kind meet, far away; nothing of it may leave by the uplink."""
    with endpoint.capture() as seen:
        found = {
            f"{proto}{6 if at else 4}": {
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[at], proto, **{"timeout": 0.5, **how}).error
            }
            for at in (0, 1)
            for proto in ("tcp", "udp", "icmp")
        }
    assert [p for p in seen.seen(outgoing=True, dev="up0") if p.destination in plan.ANYCAST] == []
    return found


def outer(endpoint: Endpoint) -> list[Question]:
    """The tunnel's own packets, and sockets bound to the uplink: outside the kill switch."""
    return [
        q
        for family, address in endpoint.outside.items()
        for q in (
            *ask(endpoint.host, plan.ANYCAST[family == 6], UPLINK, address, mark=MARK),
            *ask(endpoint.host, plan.ANYCAST[family == 6], UPLINK, address, mark=MARK, source=address),
            *ask(endpoint.host, plan.ANYCAST[family == 6], UPLINK, address, dev="up0"),
        )
    ]


REFUSED = {
    "tcp4": {"EHOSTUNREACH"}, "udp4": {"EHOSTUNREACH"}, "icmp4": {"EHOSTUNREACH"},
    "tcp6": {"ECONNREFUSED"}, "udp6": {"EPERM"}, "icmp6": {"EPERM"},
}  # fmt: skip


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
@pytest.mark.parametrize("unbound_local", ["main", "none"])
@pytest.mark.parametrize("identities", [(MARKED, INET), (MARKED,)], ids=["both", "tunnel"])
def test_unbound_traffic_is_refused_while_the_vpn_is_down(
    endpoint: Endpoint, identities: tuple[dict[str, t.Any], ...], unbound_local: str, rp_filter: int
) -> None:
    endpoint.strict(rp_filter)
    endpoint.apply(*identities, **CLOSED, unbound_local=unbound_local)
    carried = endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))
    assert endpoint.wrong(carried, outer(endpoint), endpoint.both(endpoint.neighbourhood)) == []
    endpoint.ip("link set vpn0 down")
    assert errors(endpoint) == REFUSED
    assert endpoint.wrong(outer(endpoint)) == []
    endpoint.apply()
    assert errors(endpoint) == REFUSED
    assert not endpoint.apply().changed
    near = [
        q
        for at in (0, 1)
        for q in (
            *ask(endpoint.host, plan.CONTAINER[at], endpoint.container.name, plan.BRIDGE[at]),
            *ask(endpoint.container, plan.BRIDGE[at], endpoint.name, plan.CONTAINER[at]),
            *ask(endpoint.lab.hosts["nbr0"], endpoint.outside[6 if at else 4], endpoint.name),
            *ask(endpoint.container, plan.ANYCAST[at], UPLINK, endpoint.outside[6 if at else 4]),
        )
    ]
    if unbound_local == "main":
        near += [
            q for at in (0, 1) for q in ask(endpoint.host, plan.SIDE_HOST[at], "r2-0", endpoint.outside[6 if at else 4])
        ]
    assert endpoint.wrong(near, outer(endpoint)) == []
    endpoint.ip("link set vpn0 up")
    endpoint.host.address("vpn0", f"{endpoint.inside[6]}/128")  # which goes when a device goes down
    endpoint.apply()
    assert endpoint.wrong(carried) == []


@pytest.mark.parametrize("how", ["deleted", "never there", "address"])
def test_however_the_tunnel_is_missing(make: Make, how: str) -> None:
    endpoint = make(mode="identity", start=how != "never there")
    endpoint.apply(MARKED, INET, **CLOSED)
    if how == "deleted":
        endpoint.client.down()
    elif how == "address":
        endpoint.ip(*(f"addr del {a}/{128 if f == 6 else 32} dev vpn0" for f, a in endpoint.inside.items()))
    endpoint.apply()
    assert errors(endpoint) == REFUSED


@pytest.mark.parametrize("families", [(4,), (6,)])
@pytest.mark.parametrize("stated", [True, False])
def test_a_family_that_the_vpn_lacks_is_closed(make: Make, families: tuple[int, ...], stated: bool) -> None:
    endpoint = make(mode="identity", families=families)
    corp = {**MARKED, **({"families": [f"ipv{family}" for family in families]} if stated else {})}
    endpoint.apply(corp, INET, **CLOSED)
    assert endpoint.wrong(endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))) == []
    lacking = "6" if families == (4,) else "4"
    found = errors(endpoint)
    assert {kind: error for kind, error in found.items() if kind[-1] == lacking} == {
        kind: error for kind, error in REFUSED.items() if kind[-1] == lacking
    }
    # Left open on request: the same without the kill switch.
    endpoint.apply(corp, INET, unbound="corp")
    open_ = endpoint.unbound(int(lacking), UPLINK)
    assert endpoint.wrong(open_) == []


def test_forwarded_traffic_that_goes_along_is_refused_along(endpoint: Endpoint) -> None:
    endpoint.apply(MARKED, INET, **CLOSED, unbound_forwarded=["br0"])
    forwarded = [q for at in (0, 1) for q in ask(endpoint.container, plan.ANYCAST[at], TUNNEL)]
    assert endpoint.wrong(forwarded) == []
    endpoint.ip("link set vpn0 down")
    with endpoint.capture() as seen:
        found = {endpoint.lab.probe(endpoint.container, far, "tcp", timeout=0.5).error for far in plan.ANYCAST}
    assert "ENETUNREACH" in found
    assert not [p for p in seen.seen(outgoing=True, dev="up0") if p.destination in plan.ANYCAST]


class TestPins:
    def test_a_pinned_socket_is_refused_while_its_tunnel_is_down(self, endpoint: Endpoint) -> None:
        pins = [{"ipproto": proto, "sport": "5353"} for proto in ("udp", "tcp")]
        endpoint.apply({**CORP, "pin": pins}, INET)
        endpoint.ip("link set vpn0 down")
        found = errors_of(endpoint, sport=5353)
        assert found == {kind: error for kind, error in REFUSED.items() if "icmp" not in kind}
        assert endpoint.wrong(endpoint.both(endpoint.unbound)) == []
        endpoint.apply()
        assert errors_of(endpoint, sport=5353) == found
        endpoint.drop_rules(PIN_STOP)
        assert errors_of(endpoint, sport=5353, leaks=True) == {kind: {""} for kind in found}


def errors_of(endpoint: Endpoint, *, leaks: bool = False, **how: t.Any) -> dict[str, set[str]]:
    with endpoint.capture() as seen:
        found = {
            f"{proto}{6 if at else 4}": {
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[at], proto, timeout=0.5, **how).error
            }
            for at in (0, 1)
            for proto in ("tcp", "udp")
        }
    assert bool([p for p in seen.seen(outgoing=True, dev="up0") if p.destination in plan.ANYCAST]) == leaks
    return found


class TestWithout:
    def test_the_rules_unbound_traffic_leaks(self, endpoint: Endpoint) -> None:
        endpoint.apply(MARKED, INET, **CLOSED)
        endpoint.ip("link set vpn0 down")
        endpoint.drop_rules(STOP)
        assert endpoint.wrong(endpoint.both(endpoint.unbound)) == []

    def test_a_device_an_error_route_lets_ipv6_try_again(self, endpoint: Endpoint) -> None:
        endpoint.apply(MARKED, INET, **CLOSED)
        endpoint.ip("link set vpn0 down", f"-6 route del default dev {DEVICE} table {T_NONE}")
        endpoint.ip(f"-6 route add unreachable default table {T_NONE}")
        assert endpoint.wrong(endpoint.unbound(6)) == []

    def test_the_exemption_ipv4_takes_far_addresses_for_neighbours(self, endpoint: Endpoint) -> None:
        endpoint.apply(MARKED, INET, **CLOSED)
        bound = ask(endpoint.host, plan.ANYCAST[0], UPLINK, proto="udp", connected=False, dev="up0")
        for state in ("up", "down"):
            endpoint.ip(f"link set vpn0 {state}")
            assert endpoint.wrong(bound) == []
        endpoint.drop_rules(LEAVE)
        with endpoint.capture() as seen:
            endpoint.wrong(bound)
        assert seen.seen(proto="arp", destination=plan.ANYCAST[0], outgoing=True, dev="up0")

    def test_a_table_of_its_own_others_cannot_add_gateways(self, endpoint: Endpoint) -> None:
        endpoint.apply(MARKED, INET, **CLOSED)
        endpoint.ip("link set vpn0 down", "route del default")
        endpoint.drop_rules(STOP)
        endpoint.ip(f"rule add pref {STOP} from 0.0.0.0 iif lo unreachable")
        assert "invalid gateway" in endpoint.refused(f"route add default via {plan.in_lan(0, 1)[0]}")


class TestOthers:
    """Gateways that others add, link-local neighbours, and DHCP: as ever, VPN up and down."""

    GATEWAYS = plan.in_lan(0, 254)

    @pytest.mark.parametrize("vpn", ["up", "down"])
    @pytest.mark.parametrize("dev", ["", " dev up0"])
    def test_others_can_add_gateways(self, endpoint: Endpoint, vpn: str, dev: str) -> None:
        endpoint.apply(MARKED, INET, **CLOSED)
        endpoint.ip(f"link set vpn0 {vpn}")
        endpoint.ip(f"route add 10.60.0.0/16 via {self.GATEWAYS[0]}{dev}")
        endpoint.ip(f"-6 route add fd00:60::/64 via {self.GATEWAYS[1]}{dev}")
        endpoint.ip(f"route replace default via {self.GATEWAYS[0]}{dev}")
        for destination in ("10.60.0.0/16", "default"):
            assert [r["dev"] for r in endpoint.host.ip_json("route", "show", destination)] == ["up0"]
        endpoint.ip("route del default", f"route add default via {plan.in_lan(0, 1)[0]}{dev}")
        assert [r["dev"] for r in endpoint.host.ip_json("route", "show", "default")] == ["up0"]

    @pytest.mark.parametrize("vpn", ["up", "down"])
    def test_link_local_neighbours_are_reached_both_ways(self, endpoint: Endpoint, vpn: str) -> None:
        endpoint.apply(MARKED, INET, **CLOSED)
        endpoint.ip(f"link set vpn0 {vpn}")
        neighbour = endpoint.lab.hosts["nbr0"]
        ours, theirs = endpoint.link_local(endpoint.host, "up0"), endpoint.link_local(neighbour, "up0")
        out = ask(endpoint.host, f"{theirs}%{endpoint.host.index('up0')}", "", proto="icmp")
        back = ask(neighbour, f"{ours}%{neighbour.index('up0')}", "", proto="icmp")
        assert endpoint.wrong(out, back) == []


DNSMASQ = """
port=0
interface=up0
bind-interfaces
dhcp-range={address},{address},1h
dhcp-host={mac},{address}
dhcp-option=option:router,{router}
dhcp-leasefile={directory}/leases-{router}
"""


def test_a_dhcp_client_moves_the_uplink_to_another_gateway(endpoint: Endpoint, tmp_path: pathlib.Path) -> None:
    """A real client, while the kill switch holds: else the tunnel would never return."""
    endpoint.apply(MARKED, INET, **CLOSED)
    endpoint.ip("link set vpn0 down", f"addr del {endpoint.outside[4]}/24 dev up0")
    mac = endpoint.host.ip_json("link", "show", "up0")[0]["address"]
    server = endpoint.lab.hosts["nbr0"]
    for router in (plan.in_lan(0, 1)[0], plan.in_lan(0, 254)[0]):
        text = DNSMASQ.format(address=endpoint.outside[4], mac=mac, router=router, directory=tmp_path)
        (tmp_path / "dnsmasq.conf").write_text(text)
        command = ["dnsmasq", "--no-daemon", "--user=root", f"--conf-file={tmp_path}/dnsmasq.conf"]
        # As after a link that was lost: what the client had before is gone.
        endpoint.host.shell("ip route del default || true; rm -f /run/fvt-dhclient.*")
        started = [server.popen(command, stderr=subprocess.DEVNULL)]
        try:
            files = ["-lf", "/run/fvt-dhclient.leases", "-pf", "/run/fvt-dhclient.pid"]
            started.append(endpoint.host.popen(["dhclient", "-d", "-4", *files, "up0"], stderr=subprocess.DEVNULL))
            wait_for(lambda router=router: _default(endpoint) == [(router, "up0")], f"default by {router}", seconds=60)
            endpoint.apply()
            assert errors(endpoint) == REFUSED
            assert endpoint.wrong(ask(endpoint.host, router, "", proto="icmp", mark=MARK)) == []
        finally:
            for process in started:
                process.kill()
                process.wait()


def _default(endpoint: Endpoint) -> list[tuple[str | None, str]]:
    return [(r.get("gateway"), r["dev"]) for r in endpoint.host.ip_json("-4", "route", "show", "default")]


def test_a_real_tunnel_is_closed_before_and_after(make: Make) -> None:
    """wg-quick with `Table = off` and a mark: down, up, down, up."""
    endpoint = make(kind="wireguard", mode="identity", start=False)
    corp = {
        **CORP,
        "interface": ["wg0"],
        "pools": list(plan.WIREGUARD_POOL),
        "outer": {"fwmark": "0xca6c/0xffff"},
    }
    endpoint.host.shell("sed -i 's/^Table = off/Table = off\\nFwMark = 0xca6c/' /etc/wireguard/wg0.conf")
    endpoint.apply(corp, INET, **CLOSED, unbound_local="main")
    for _round in range(2):
        assert errors(endpoint) == REFUSED
        endpoint.client.up()
        endpoint.apply()
        assert endpoint.wrong(endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))) == []
        assert endpoint.wrong(endpoint.both(endpoint.identities)) == []
        endpoint.client.down()
        assert errors(endpoint) == REFUSED
        endpoint.apply()


class TestDevice:
    """The device that leads nowhere."""

    def test_it_has_no_addresses_and_goes_with_the_set(self, endpoint: Endpoint) -> None:
        before = endpoint.state()
        plan_ = endpoint.apply(MARKED, INET, **CLOSED).plan.as_result()
        assert plan_[0] == {"op": "add", "kind": "link", "family": None, "text": f"dev {DEVICE} addrgenmode none up"}
        (shown,) = endpoint.host.ip_json("addr", "show", "dev", DEVICE)
        assert (shown["addr_info"], "UP" in shown["flags"]) == ([], True)
        last = endpoint.remove().plan.as_result()[-2:]
        assert [(step["op"], step["kind"]) for step in last] == [("remove", "link"), ("remove", "guard")]
        assert endpoint.state() == before

    @pytest.mark.parametrize("how", ["link del fleetvpn0", "link set fleetvpn0 down"])
    def test_it_comes_back(self, endpoint: Endpoint, how: str) -> None:
        endpoint.apply(MARKED, INET, **CLOSED)
        endpoint.ip("link set vpn0 down")
        endpoint.apply()
        before = endpoint.state()
        endpoint.ip(how)
        endpoint.apply()
        assert endpoint.state() == before
        assert errors(endpoint) == REFUSED

    def test_it_is_no_network_of_the_host(self, endpoint: Endpoint) -> None:
        endpoint.apply(MARKED, INET, **CLOSED, local_networks=["auto", "fleetvpn*"])
        endpoint.apply()
        text = endpoint.ip("-6 route show table 2000", "-4 route show table 2000")
        assert DEVICE not in text

    def test_somebody_elses_is_not_taken(self, endpoint: Endpoint) -> None:
        endpoint.ip(f"link add {DEVICE} type bridge")
        before = endpoint.state()
        with pytest.raises(Conflict, match="fleetvpn0' is a device that somebody else has made"):
            endpoint.apply(MARKED, INET, **CLOSED)
        assert endpoint.state() == before


def test_on_and_off(endpoint: Endpoint) -> None:
    """From closed to open and back: everything is where it was."""
    endpoint.apply(MARKED, INET, unbound="corp")
    kept = endpoint.state()
    endpoint.apply(MARKED, INET, **CLOSED)
    endpoint.apply(MARKED, INET, unbound="corp")
    assert endpoint.state() == kept
