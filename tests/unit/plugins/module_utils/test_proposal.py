# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proposed for a host, and what is left to somebody who knows it."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.declaration import Numbers
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.fields import table_id
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Address, Link, Policy
from ansible_collections.fleetvpn.routing.plugins.module_utils._parse import parse_declaration
from ansible_collections.fleetvpn.routing.plugins.module_utils._proposal import Proposal, propose
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe.facts import Facts
from ansible_collections.fleetvpn.routing.plugins.module_utils._seen import Seen
from ansible_collections.fleetvpn.routing.plugins.module_utils._tunnels.client import TABLE_OFF, Client

INNER, OUTER, OUTER2, GATEWAY, GATEWAY2 = "198.51.100.10", "192.0.2.10", "198.18.7.10", "192.0.2.1", "198.18.7.1"
UP0, UP1 = Link(2, "up0", up=True), Link(3, "up1", up=True)
WG0, TUN0 = Link(4, "wg0", "wireguard", 65534, up=True), Link(5, "tun0", "tun", 65534, up=True)
ON_UP0, ON_UP1 = Address(4, OUTER, 24, "up0"), Address(4, OUTER2, 24, "up1")
ON_WG0, ON_TUN0 = Address(4, INNER, 24, "wg0"), Address(4, "198.51.101.10", 24, "tun0")
DEFAULT = Route(4, "0.0.0.0/0", gateway=GATEWAY, dev="up0")
BY_WG0 = Route(4, "0.0.0.0/0", 100, dev="wg0")
BY_UP1 = Route(4, "0.0.0.0/0", 101, gateway=GATEWAY2, dev="up1")
BY_SOURCE = Rule(4, 32765, src=f"{INNER}/32", table=100)
PLAIN = Facts((UP0, WG0), (ON_UP0, ON_WG0), (DEFAULT,))
WIREGUARD = {"wg0": Client("wg0", "wireguard", "wg-quick", "wg0", "wg0")}
OUTSIDE = {"name": "outside", "interface": "auto"}
INSIDE = {"name": "inside", "tunnel": {"type": "wireguard", "connection": "wg0"}}


def proposed(facts: Facts = PLAIN, *rules: Rule, tables: t.Sequence[Route] = (), **more: t.Any) -> Proposal:
    held = {route.table: [each for each in tables if each.table == route.table] for route in tables}
    found = propose(Seen(facts, rules, held, **{"clients": WIREGUARD, **more}))
    # Whatever is proposed, the module takes it.
    parse_declaration("main", _as_options(found.declaration), Numbers(), table_id)
    return found


def _as_options(declaration: dict[str, t.Any]) -> dict[str, t.Any]:
    lists = ("interface", "address_interface", "gateway")
    return {
        "identities": [
            {key: [value] if key in lists and isinstance(value, str) else value for key, value in each.items()}
            for each in declaration["identities"]
        ]
    }


def identities(*given: t.Any, **more: t.Any) -> list[dict[str, t.Any]]:
    return t.cast("list[dict[str, t.Any]]", proposed(*given, **more).declaration["identities"])


def facts(*links: Link, addresses: t.Sequence[Address], main: t.Sequence[Route] = (DEFAULT,), **more: t.Any) -> Facts:
    return Facts(links, tuple(addresses), tuple(main), **more)


class TestUplinks:
    def test_one_is_found_at_each_run(self) -> None:
        assert identities() == [OUTSIDE, INSIDE]
        assert proposed().remarks == ()

    def test_each_of_two_has_an_identity(self) -> None:
        second = dataclasses.replace(DEFAULT, dev="up1", gateway=GATEWAY2, metric=200)
        host = facts(UP0, UP1, addresses=[ON_UP0, ON_UP1], main=[DEFAULT, second])
        assert identities(host) == [{"name": n, "interface": n} for n in ("up0", "up1")]

    def test_a_lease_makes_one(self) -> None:
        host = facts(UP0, UP1, addresses=[ON_UP0, ON_UP1], leases={"up1": (GATEWAY2,)})
        assert identities(host) == [{"name": n, "interface": n} for n in ("up0", "up1")]

    def test_what_only_a_hand_made_table_knows_is_stated(self) -> None:
        host = facts(UP0, UP1, addresses=[ON_UP0, ON_UP1])
        found = identities(host, Rule(4, 32765, src=f"{OUTER2}/32", table=101), tables=[BY_UP1])
        assert found[1] == {"name": "up1", "interface": "up1", "gateway": [GATEWAY2]}

    def test_a_family_without_a_gateway_is_left_out_and_asked_for(self) -> None:
        six = Address(6, "2001:db8:7::10", 64, "up1")
        second = dataclasses.replace(DEFAULT, dev="up1", gateway=GATEWAY2, metric=200)
        found = proposed(facts(UP0, UP1, addresses=[ON_UP0, ON_UP1, six], main=[DEFAULT, second]))
        assert [each.get("families") for each in found.declaration["identities"]] == [None, ["ipv4"]]
        assert "up1: up1 has addresses of IPv6 and no gateway is known there" in found.remarks[0]

    def test_one_without_a_gateway_is_asked_for(self) -> None:
        found = proposed(facts(UP0, UP1, WG0, addresses=[ON_UP0, ON_UP1, ON_WG0]))
        assert found.declaration["identities"] == [OUTSIDE, INSIDE]
        assert [remark for remark in found.remarks if remark.startswith(f"up1 has {OUTER2}/24, and no gateway")]

    def test_a_full_tunnel_is_none(self) -> None:
        everything = [dataclasses.replace(BY_WG0, table=254, dst=half) for half in ("0.0.0.0/1", "128.0.0.0/1")]
        found = proposed(dataclasses.replace(PLAIN, main=(DEFAULT, *everything)))
        assert found.declaration["identities"] == [OUTSIDE, INSIDE]
        assert found.remarks == ("main sends what has chosen no source by wg0, and it stays so (unbound: keep)",)

    def test_a_device_like_a_tunnel_that_alone_has_the_default(self) -> None:
        ppp = Link(6, "ppp0", "ppp", 512, up=True)
        default = dataclasses.replace(DEFAULT, dev="ppp0", gateway=None)
        found = proposed(facts(ppp, addresses=[Address(4, OUTER, 32, "ppp0")], main=[default]), clients={})
        assert found.declaration["identities"] == [OUTSIDE]
        assert "outside: ppp0 looks like a tunnel" in found.remarks[0]

    def test_a_host_without_any(self) -> None:
        found = proposed(facts(addresses=[], main=[]))
        assert found.declaration == {"identities": []}
        assert [remark.partition(":")[0] for remark in found.remarks] == ["no uplink was found", "no tunnel was found"]


class TestTunnels:
    def test_each_of_two_has_its_devices_name(self) -> None:
        host = facts(UP0, WG0, TUN0, addresses=[ON_UP0, ON_WG0, ON_TUN0])
        clients = {**WIREGUARD, "tun0": Client("tun0", "openvpn", "openvpn", "corp", "tun0")}
        assert [each["name"] for each in identities(host, clients=clients)] == ["outside", "wg0", "tun0"]

    def test_a_device_that_is_not_found_again_is_stated(self) -> None:
        host = facts(UP0, TUN0, addresses=[ON_UP0, ON_TUN0])
        found = identities(host, clients={"tun0": Client("tun0", "openvpn", None, None, None)})
        assert found[1] == {"name": "inside", "tunnel": {"type": "openvpn"}, "interface": "tun0"}

    def test_pools_are_asked_for_or_taken_from_a_rule(self) -> None:
        host = facts(UP0, TUN0, addresses=[ON_UP0, ON_TUN0])
        clients = {"tun0": Client("tun0", "openvpn", "openvpn", "corp", "tun0")}
        assert "state as pools where the VPN gives its addresses from (tun0 has 198.51.101.10/24)" in str(
            proposed(host, clients=clients).remarks
        )
        pool = Rule(4, 32765, src="198.51.101.0/24", table=100)
        found = proposed(host, pool, tables=[dataclasses.replace(BY_WG0, dev="tun0")], clients=clients)
        assert found.declaration["identities"][1]["pools"] == ["198.51.101.0/24"]
        assert "state as pools" not in str(found.remarks)

    def test_what_nobody_is_known_to_run(self) -> None:
        host = facts(UP0, TUN0, addresses=[ON_UP0, ON_TUN0])
        found = proposed(host, clients={"tun0": Client("tun0", "overlay", None, "tun0", "tun0")})
        assert found.declaration["identities"][1]["tunnel"] == {"type": "overlay", "connection": "tun0"}
        assert "it is not known what makes tun0" in found.remarks[0]

    def test_wg_quick_that_would_take_over(self) -> None:
        rules = [
            Rule(4, 32764, table=254, suppress_prefixlength=0),
            Rule(4, 32765, invert=True, fwmark=0xCA6C, table=100),
        ]
        client = dataclasses.replace(WIREGUARD["wg0"], needs=(TABLE_OFF,))
        found = proposed(PLAIN, *rules, tables=[BY_WG0], clients={"wg0": client})
        assert "inside: wg0 has a peer with /0" in found.remarks[0]
        assert ["is wg-quick's" in remark for remark in found.remarks[1:]] == [True, True]

    def test_an_address_that_sits_elsewhere(self) -> None:
        host = facts(UP0, WG0, addresses=[ON_UP0, Address(4, INNER, 32, "lo")])
        found = identities(host, BY_SOURCE, tables=[BY_WG0])
        assert found[1] == {**INSIDE, "addresses": [INNER], "address_interface": "any"}

    def test_ipsec_by_policies(self) -> None:
        host = facts(UP0, addresses=[ON_UP0, Address(4, INNER, 32, "up0")])
        found = identities(host, policies=[Policy(f"{INNER}/32", "10.0.0.0/8"), Policy("0.0.0.0/0", "10.0.0.0/8")])
        assert (found[1]["tunnel"], found[1]["addresses"]) == ({"type": "ipsec"}, [INNER])

    def test_a_name_that_no_identity_may_have(self) -> None:
        strange = [Link(7, "0.5", "tun", 65534, up=True), TUN0]
        held = [ON_UP0, ON_TUN0, Address(4, INNER, 32, "0.5")]
        names = [each["name"] for each in identities(facts(UP0, *strange, addresses=held), clients={})]
        assert names == ["outside", "dev_0_5", "tun0"]


class TestHandMadeRules:
    def test_one_that_an_identity_replaces_is_named_with_the_way_out(self) -> None:
        found = proposed(PLAIN, BY_SOURCE, tables=[BY_WG0])
        assert found.declaration == {"identities": [OUTSIDE, INSIDE]}
        assert f"`ip -4 rule del pref 32765 from {INNER} lookup 100`" in found.remarks[0]

    @pytest.mark.parametrize(
        ("priority", "more"),
        [
            (32765, {}),
            (3000, {}),
            (2999, {"numbers": {"priority_base": 1999}}),
            (1500, {"numbers": {"priority_base": 500}}),
            (1001, {"numbers": {"priority_base": 1}}),
            (1000, {"adopt": True}),
        ],
    )
    def test_the_set_is_asked_first_or_says_the_same(self, priority: int, more: dict[str, t.Any]) -> None:
        found = proposed(PLAIN, dataclasses.replace(BY_SOURCE, priority=priority), tables=[BY_WG0])
        table = {"table": "100"} if "adopt" in more else {}
        assert found.declaration == {"identities": [OUTSIDE, {**INSIDE, **table}], **more}

    @pytest.mark.parametrize(
        "rule",
        [
            Rule(4, 1500, fwmark=5, table=100),
            Rule(4, 1500, src=f"{INNER}/32", dst="10.0.0.0/8", table=100),
            Rule(4, 1500, src="203.0.113.7/32", table=100),
            Rule(4, 1500, src=f"{INNER}/32", table=77),
            Rule(4, 1500, src=f"{INNER}/32", action="unreachable"),
        ],
    )
    def test_one_that_says_something_else_stays(self, rule: Rule) -> None:
        found = proposed(PLAIN, rule, tables=[BY_WG0])
        assert "numbers" not in found.declaration
        assert "says what no identity can, and stays; it is asked ahead of" in found.remarks[-1]

    def test_a_device_that_only_such_a_rule_makes_a_tunnel(self) -> None:
        host = facts(UP0, UP1, addresses=[ON_UP0, Address(4, INNER, 32, "up1")])
        found = proposed(host, BY_SOURCE, tables=[dataclasses.replace(BY_WG0, dev="up1")], clients={})
        assert found.declaration["identities"][1] == {"name": "inside", "interface": "up1", "gateway": "none"}
