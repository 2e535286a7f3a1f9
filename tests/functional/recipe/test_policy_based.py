# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policy-based IPsec: the inside address on the uplink (strongSwan) or on lo (Libreswan), and no device of a tunnel.

The routing is proven by packets. The policies are real ones, with `level use`: the kernel sends in clear what it has no
key for, so that the way of a packet can be seen where the kernel has no ESP.
"""

from __future__ import annotations

import typing as t

import pytest

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import Endpoint, Question, ask
from tests.lab import addresses as plan

INSIDE = {4: "10.30.0.5", 6: "fd00:30::5"}
WIDTH = {4: 32, 6: 128}
IPSEC: dict[str, t.Any] = {
    "name": "inside",
    "tunnel": {"type": "ipsec", "connection": "hq"},
    "pools": ["10.30.0.0/16", "fd00:30::/64"],
}
OUTSIDE: dict[str, t.Any] = {"name": "outside", "interface": ["auto"]}
SAID = {"interface": ["auto"], "address_interface": ["any"]}
NOWHERE = {4: "192.0.2.99", 6: "2001:db8:99::99"}


@pytest.fixture(params=["up0", "lo"])
def endpoint(make: Make, request: pytest.FixtureRequest) -> Endpoint:
    """An endpoint without another tunnel, the inside addresses on a device that is none of a tunnel; the Internet knows
    the way to them.
    """
    endpoint = make(start=False)
    for family, address in INSIDE.items():
        endpoint.host.address(str(request.param), f"{address}/{WIDTH[family]}")
        way = ["via", endpoint.outside[family], "dev", "lan0"]
        endpoint.lab.router.run(["ip", f"-{family}", "route", "replace", address, *way])
    return endpoint


def policy(endpoint: Endpoint, family: int, to: str) -> None:
    """As charon writes it, but for the mode: in that of a tunnel the kernel sends nothing that it has no key for."""
    between = ["src", endpoint.outside[family], "dst", plan.GATEWAY[family == 6]]
    template = ["tmpl", *between, "proto", "esp", "reqid", "1", "mode", "transport", "level", "use"]
    source = f"{INSIDE[family]}/{WIDTH[family]}"
    endpoint.host.run(["ip", "xfrm", "policy", "add", "src", source, "dst", to, "dir", "out", *template])


def questions(endpoint: Endpoint) -> list[Question]:
    """Of the Internet to the inside address, and back."""
    found = []
    for family, address in INSIDE.items():
        far = plan.OUTSIDE_HOST[family == 6]
        found += ask(endpoint.lab.outside, address, endpoint.name, far)
        found += ask(endpoint.host, far, endpoint.lab.outside.name, address, source=address)
        found += ask(endpoint.container, address, endpoint.name, plan.CONTAINER[family == 6])
    return found


@pytest.mark.parametrize("said", [{}, SAID], ids=["found", "said"])
def test_it_leaves_by_the_uplinks_gateway_and_takes_nothing_from_the_uplinks_identity(
    endpoint: Endpoint, said: dict[str, t.Any]
) -> None:
    for family, to in zip(INSIDE, plan.CORPORATE):
        policy(endpoint, family, to)
    result = endpoint.apply(OUTSIDE, {**IPSEC, **said})
    assert [entry["verdict"] for entry in result.proof.identities] == ["proven", "proven"]
    with endpoint.lab.capture(endpoint.host) as seen:
        assert endpoint.wrong(questions(endpoint)) == []
    for address in INSIDE.values():
        far = [
            packet.dev
            for packet in seen.packets(outgoing=True)
            if packet.source == address and packet.destination in plan.OUTSIDE_HOST
        ]
        assert set(far) == {"up0"}
    mine = [
        q
        for f, own in endpoint.outside.items()
        for q in ask(endpoint.lab.outside, own, endpoint.name, plan.OUTSIDE_HOST[f == 6])
    ]
    assert endpoint.wrong(mine) == []


def test_without_the_gateway_it_reaches_nobody(endpoint: Endpoint) -> None:
    endpoint.apply(OUTSIDE, IPSEC)
    table = next(entry["table"] for entry in endpoint.apply().proof.identities if entry["name"] == "inside")
    for family, address in INSIDE.items():
        endpoint.ip(f"-{family} route replace default dev up0 src {address} table {table}")
    assert len(endpoint.wrong(questions(endpoint))) > len(questions(endpoint)) // 3


# Devices that a kernel makes, if it can: of route-based IPsec, and of WireGuard as networkd and NetworkManager have it.
DEVICES = {
    "xfrm": ("ipsec", ["dev", "up0", "if_id", "7"]),
    "vti": ("ipsec", ["local", "192.0.2.1", "remote", "192.0.2.2", "key", "7"]),
    "vti6": ("ipsec", ["local", "2001:db8:77::1", "remote", "2001:db8:77::2", "key", "7"]),
    "wireguard": ("wireguard", []),
}


@pytest.mark.parametrize("kind", DEVICES)
def test_a_device_that_the_kernel_makes_is_the_egress(make: Make, kind: str) -> None:
    endpoint = make(start=False)
    tunnel, options = DEVICES[kind]
    made = endpoint.host.run(["ip", "link", "add", "vpn0", "type", kind, *options], check=False)
    if made.returncode:
        pytest.skip(f"THIS KERNEL HAS NO DEVICE OF TYPE {kind}, so that none was an egress: {made.stderr.strip()}")
    endpoint.host.up("vpn0")
    endpoint.host.address("vpn0", *(f"{address}/{WIDTH[family]}" for family, address in INSIDE.items()))
    before = endpoint.state()
    result = endpoint.apply(OUTSIDE, {**IPSEC, "tunnel": {"type": tunnel}, "interface": ["vpn0"]})
    assert [entry["verdict"] for entry in result.proof.identities] == ["proven", "proven"]
    for family, address in INSIDE.items():
        assert "dev vpn0 " in endpoint.ip(f"-{family} route get {plan.OUTSIDE_HOST[family == 6]} from {address}")
    endpoint.remove()
    assert endpoint.state() == before


class TestPolicies:
    """Real policies of the kernel, and what is said of them."""

    def test_of_none_everything_is_in_clear(self, endpoint: Endpoint) -> None:
        found = endpoint.apply(OUTSIDE, IPSEC)
        said = [
            f"identity inside: no IPsec policy covers {a}: all that it sends leaves up0 in clear"
            for a in INSIDE.values()
        ]
        assert sorted(found.warnings) == sorted(said)
        assert {e["name"]: e["verdict"] for e in found.proof.identities} == {"outside": "proven", "inside": "pending"}

    def test_of_a_split_tunnel_the_rest_is(self, endpoint: Endpoint) -> None:
        for family, to in zip(INSIDE, plan.CORPORATE):
            policy(endpoint, family, to)
        found = endpoint.apply(OUTSIDE, IPSEC).warnings
        said = [
            f"identity inside: IPsec policies cover {a} towards {to} only: what it sends elsewhere leaves up0 in clear"
            for a, to in zip(INSIDE.values(), plan.CORPORATE)
        ]
        assert sorted(found) == sorted(said)

    @pytest.mark.parametrize("selectors", [("0.0.0.0/0", "::/0"), ("0.0.0.0/1 128.0.0.0/1", "::/1 8000::/1")])
    def test_of_a_full_tunnel_nothing_is(self, endpoint: Endpoint, selectors: tuple[str, str]) -> None:
        for family, several in zip(INSIDE, selectors):
            for to in several.split():
                policy(endpoint, family, to)
        assert endpoint.apply(OUTSIDE, IPSEC).warnings == ()
        assert endpoint.wrong(questions(endpoint)) == []

    def test_of_another_address_or_an_interface_do_not_count(self, endpoint: Endpoint) -> None:
        between = f"tmpl src {endpoint.outside[4]} dst {plan.GATEWAY[0]} proto esp mode transport level use"
        endpoint.host.run(f"ip xfrm policy add src 10.30.0.6/32 dst 0.0.0.0/0 dir out {between}".split())
        endpoint.host.run(
            f"ip xfrm policy add src 10.30.0.5/32 dst 0.0.0.0/0 dir out {between} if_id 7".split(), check=False
        )
        endpoint.host.run(f"ip xfrm policy add src 10.30.0.5/32 dst 0.0.0.0/0 dir fwd {between}".split())
        endpoint.host.run(["ip", "xfrm", "policy", "add", "src", "10.30.0.0/16", "dst", "10.0.0.0/8", "dir", "out"])
        assert any(f"no IPsec policy covers {INSIDE[4]}" in text for text in endpoint.apply(OUTSIDE, IPSEC).warnings)

    def test_packets_leave_encrypted(self, endpoint: Endpoint) -> None:
        family, keys = 4, f"0x{'11' * 20}"
        ends = ["src", endpoint.outside[family], "dst", plan.GATEWAY[0]]
        state = [
            "proto",
            "esp",
            "spi",
            "0x100",
            "reqid",
            "1",
            "mode",
            "tunnel",
            "aead",
            "rfc4106(gcm(aes))",
            keys,
            "128",
        ]
        made = endpoint.host.run(["ip", "xfrm", "state", "add", *ends, *state], check=False)
        if made.returncode:
            pytest.skip(f"THIS KERNEL HAS NO ESP, so that no packet was seen encrypted: {made.stderr.strip()}")
        policy(endpoint, family, "0.0.0.0/0")
        endpoint.apply(OUTSIDE, IPSEC)
        with endpoint.lab.capture(endpoint.host) as seen:
            endpoint.lab.probe(endpoint.host, plan.OUTSIDE_HOST[0], "udp", source=INSIDE[4], timeout=0.3)
        assert not seen.left_by(source=INSIDE[4], destination=plan.OUTSIDE_HOST[0])
        assert seen.left_by(source=endpoint.outside[4], destination=plan.GATEWAY[0]) == {"up0"}
