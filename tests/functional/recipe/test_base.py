# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The heart: every identity leaves by its own way, everything nearby is still reached, and all of it goes again."""

from __future__ import annotations

import re

import pytest

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import (
    CORP,
    INET,
    TUNNEL,
    TUNNEL_LOCAL,
    TUNNEL_OWN,
    TUNNEL_STOP,
    UPLINK_MAIN,
    UPLINK_OWN,
    Endpoint,
    ask,
)
from tests.lab import addresses as plan


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
class TestBase:
    def test_every_reply_leaves_by_its_way(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.apply(CORP, INET)
        assert endpoint.wrong(
            endpoint.both(endpoint.identities),
            endpoint.both(endpoint.neighbourhood),
            endpoint.both(endpoint.unbound),
        ) == []  # fmt: skip

    def test_nothing_with_the_inside_address_leaves_by_another_device(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.apply(CORP, INET)
        with endpoint.capture() as seen:
            endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood))
        for address in endpoint.inside.values():
            assert seen.left_by(source=address) == {"vpn0", "br0", "c0"}
        for address in endpoint.outside.values():
            assert seen.left_by(source=address) == {"up0", "br0", "c0"}


class TestWithout:
    """The same questions when one measure is missing: which of them go astray."""

    def test_the_recipe(self, endpoint: Endpoint) -> None:
        astray = endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood))
        assert len([text for text in astray if text.startswith(f"{endpoint.name} {endpoint.inside[4]}")]) == 3
        assert [text for text in astray if text.startswith("out ")]
        assert [text for text in astray if text.startswith("corp ")]

    @pytest.mark.parametrize(
        ("priorities", "victim"),
        [
            ([TUNNEL_LOCAL], "container"),
            ([TUNNEL_OWN, TUNNEL_STOP], "inside"),
            ([UPLINK_OWN], "outside"),
            ([UPLINK_MAIN], "container"),
        ],
    )
    def test_one_kind_of_rule(self, endpoint: Endpoint, priorities: list[int], victim: str) -> None:
        endpoint.apply(CORP, INET)
        endpoint.drop_rules(*priorities)
        for family, at in ((4, 0), (6, 1)):
            asker = {
                "container": f"{endpoint.container.name}  -> ",
                "inside": f"{endpoint.name} {endpoint.inside[family]} -> {plan.ANYCAST[at]}",
                "outside": f"{endpoint.name} {endpoint.outside[family]} -> {plan.ANYCAST[at]}",
            }[victim]
            astray = endpoint.wrong(endpoint.identities(family), endpoint.neighbourhood(family))
            assert [text for text in astray if text.startswith(asker)], (astray, asker)

    def test_the_backstop_alone_keeps_the_inside_address_off_the_uplink(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        endpoint.drop_rules(TUNNEL_OWN)
        errors = [
            endpoint.lab.probe(endpoint.host, plan.ANYCAST[family == 6], "tcp", source=endpoint.inside[family]).error
            for family in (4, 6)
        ]
        assert errors == ["ENETUNREACH", "ENETUNREACH"]


class TestSecondRun:
    def test_changes_nothing(self, endpoint: Endpoint) -> None:
        assert endpoint.apply(CORP, INET).changed
        before = endpoint.state()
        assert not endpoint.apply().changed
        assert endpoint.state() == before

    def test_check_mode_announces_what_happens(self, endpoint: Endpoint) -> None:
        endpoint.params = {"identities": [CORP, INET]}
        announced = endpoint.announce().plan
        assert announced == endpoint.apply().plan
        assert endpoint.announce().plan.empty

    def test_missing_objects_come_back(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        before = endpoint.state()
        endpoint.drop_rules(TUNNEL_OWN, UPLINK_OWN)
        endpoint.ip("route flush table 2001", "-6 route flush table 2002", "link set vpn0 group 0")
        assert endpoint.state() != before
        endpoint.apply()
        assert sorted(endpoint.state().splitlines()) == sorted(before.splitlines())

    def test_what_nobody_asks_for_in_our_block_goes(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        before = endpoint.state()
        endpoint.ip(*(f"rule add pref {TUNNEL_OWN} from 10.0.0.{n} lookup 2001 protocol 151" for n in (1, 2, 3)))
        endpoint.apply()
        assert endpoint.state() == before


class TestForeign:
    FOREIGN = (
        "rule add pref 5210 fwmark 0x80000/0xff0000 lookup 52 protocol 3",
        "rule add pref 100 to 10.99.0.0/16 lookup main protocol static",
        "-6 rule add pref 5270 lookup 52",
        "route add 10.98.0.0/16 dev vpn0 protocol bird",
        "route add default dev vpn0 table 52",
        "-6 route add 2001:db8:98::/48 dev up0 metric 7 table 52 protocol zebra",
        "route add blackhole 10.97.0.0/16 protocol bgp",
    )

    def test_everything_is_as_before_when_all_is_removed(self, endpoint: Endpoint) -> None:
        endpoint.ip(*self.FOREIGN, "link set vpn0 group 7")
        before = endpoint.state()
        endpoint.apply(CORP, INET, unbound="corp", unbound_local="main")
        assert endpoint.state() != before
        endpoint.remove()
        assert endpoint.state() == before
        assert not endpoint.remove().changed

    def test_foreign_objects_are_untouched_to_the_letter(self, endpoint: Endpoint) -> None:
        endpoint.ip(*self.FOREIGN)
        before = _foreign(endpoint.state())
        endpoint.apply(CORP, INET)
        # The group of a tunnel's device is the one thing of others that is written.
        assert _foreign(endpoint.state()) == before

    def test_a_twin_is_reported_and_survives(self, endpoint: Endpoint) -> None:
        twin = f"rule add pref {TUNNEL_OWN} from {endpoint.inside[4]} iif lo lookup 2001 protocol static"
        endpoint.ip(twin)
        before = endpoint.state()
        found = endpoint.apply({**CORP, "table": "2001"}, INET)
        assert [text for text in found.warnings if "twin" in text]
        assert endpoint.wrong(endpoint.both(endpoint.identities)) == []
        endpoint.remove()
        assert endpoint.state() == before


def _foreign(state: str) -> list[str]:
    others = re.sub(r"^table inet fleetvpn \{$.*?^\}$", "", state, flags=re.MULTILINE | re.DOTALL)
    return [line for line in others.splitlines() if line and not _ours(line)]


def _ours(line: str) -> bool:
    return "proto fleetvpn" in line or "proto 151" in line or line.startswith("vpn0 ")


class TestAddresses:
    def test_several_inside_addresses(self, endpoint: Endpoint) -> None:
        more = {4: plan.shifted(endpoint.inside[4], 2000), 6: plan.shifted(endpoint.inside[6], 0x20000)}
        for family, length in ((4, 32), (6, 128)):
            endpoint.host.address("vpn0", f"{more[family]}/{length}")
            endpoint.lab.gateway.route(f"{more[family]}/{length}", dev=f"s-{endpoint.name}")
        endpoint.apply(CORP, INET)
        second = [
            question
            for family, at in ((4, 0), (6, 1))
            for question in [
                *ask(endpoint.host, plan.ANYCAST[at], TUNNEL, more[family], source=more[family]),
                *ask(endpoint.lab.outside, more[family], endpoint.name, plan.OUTSIDE_HOST[at]),
                *ask(endpoint.container, more[family], endpoint.name, plan.CONTAINER[at]),
            ]
        ]
        assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood), second) == []

    def test_several_outside_addresses(self, endpoint: Endpoint) -> None:
        more = {4: plan.in_lan(0, 230)[0], 6: plan.in_lan(0, 230)[1]}
        endpoint.host.address("up0", f"{more[4]}/24", f"{more[6]}/64")
        endpoint.apply(CORP, INET)
        second = [
            question
            for family, at in ((4, 0), (6, 1))
            for question in [
                *ask(endpoint.lab.corporate, more[family], endpoint.name, plan.CORPORATE_HOST[at]),
                *ask(endpoint.lab.hosts["nbr0"], more[family], endpoint.name),
            ]
        ]
        assert endpoint.wrong(endpoint.both(endpoint.identities), second) == []
        endpoint.ip(f"addr del {more[4]}/24 dev up0", f"addr del {more[6]}/64 dev up0")

    @pytest.mark.parametrize("family", [4, 6])
    def test_one_family_alone(self, make: Make, family: int) -> None:
        endpoint = make(families=(family,))
        endpoint.apply(CORP, INET)
        assert endpoint.wrong(endpoint.identities(family), endpoint.neighbourhood(family)) == []
        other, at = (6, 1) if family == 4 else (4, 0)
        elsewhere = ask(endpoint.host, plan.ANYCAST[at], "inet", endpoint.outside[other])
        outside = ask(endpoint.lab.corporate, endpoint.outside[other], endpoint.name, plan.CORPORATE_HOST[at])
        assert endpoint.wrong(elsewhere, outside) == []
        assert [r for r in endpoint.host.ip_json(f"-{other}", "rule") if r["priority"] == TUNNEL_OWN] == []

    @pytest.mark.parametrize("family", [4, 6])
    def test_one_family_declared(self, endpoint: Endpoint, family: int) -> None:
        endpoint.apply(*({**each, "families": [f"ipv{family}"]} for each in (CORP, INET)))
        other = 10 - family
        assert endpoint.wrong(endpoint.identities(family), endpoint.neighbourhood(family)) == []
        assert [r for r in endpoint.host.ip_json(f"-{other}", "rule") if 2000 <= r["priority"] < 3000] == []


class TestTwoTunnels:
    """Each has its own; the address of one lies in the pool of the other, and still leaves by its own."""

    @pytest.mark.parametrize("order", [1, -1])
    def test_each_leaves_by_its_own(self, endpoint: Endpoint, order: int) -> None:
        far = {4: plan.shifted(endpoint.inside[4], 3000), 6: plan.shifted(endpoint.inside[6], 0x30000)}
        gateway, peer, via = endpoint.lab.gateway, f"t-{endpoint.name}", ["10.8.0.1", "fd08::1"]
        endpoint.lab.link(endpoint.host, "vpn1", gateway, peer)
        for family, at, length in ((4, 0, 32), (6, 1, 128)):
            endpoint.host.address("vpn1", f"{far[family]}/{length}")
            gateway.address(peer, f"{via[at]}/{length}")
            gateway.route(f"{far[family]}/{length}", dev=peer)
        second = {"name": "lab", "tunnel": {"type": "openvpn"}, "interface": ["vpn1"], "gateway": via}
        pooled = {**CORP, "pools": list(plan.OTHER_POOL)}
        endpoint.apply(*[pooled, second, INET][::order])
        with endpoint.capture() as seen:
            questions = [
                question
                for family, at in ((4, 0), (6, 1))
                for question in (
                    *ask(endpoint.host, plan.ANYCAST[at], TUNNEL, far[family], source=far[family]),
                    *ask(endpoint.lab.outside, far[family], endpoint.name, plan.OUTSIDE_HOST[at]),
                    *ask(endpoint.container, far[family], endpoint.name, plan.CONTAINER[at]),
                )
            ]
            assert endpoint.wrong(questions, endpoint.both(endpoint.identities)) == []
        for family in (4, 6):
            assert seen.left_by(source=far[family]) == {"vpn1", "br0", "c0"}
            assert seen.left_by(source=endpoint.inside[family]) == {"vpn0"}


class TestKernelsOwnAnswers:
    """Resets, errors, echo replies and handshakes without a socket are sent by the kernel, from the address asked."""

    CLOSED = 7999

    @pytest.mark.parametrize("rp_filter", [0, 1])
    def test_they_leave_by_the_way_of_their_address(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.host.sysctl(ipv6__icmp__ratelimit=0)
        endpoint.apply(CORP, INET)
        corporate, outside = endpoint.lab.corporate, endpoint.lab.outside
        pairs = [
            *((host, address) for address in endpoint.inside.values() for host in (outside, endpoint.container)),
            *((host, address) for address in endpoint.outside.values() for host in (corporate, endpoint.container)),
        ]
        refused = [
            endpoint.lab.probe(host, address, kind, port=self.CLOSED, timeout=0.5).error
            for host, address in pairs
            for kind in ("tcp", "udp")
        ]
        assert set(refused) == {"ECONNREFUSED"}
        assert endpoint.wrong([q for host, address in pairs for q in ask(host, address, "", proto="icmp")]) == []

    def test_syn_cookies(self, endpoint: Endpoint) -> None:
        endpoint.host.sysctl(ipv4__tcp_syncookies=2)
        endpoint.apply(CORP, INET)
        inside = [q for a in endpoint.inside.values() for q in ask(endpoint.lab.outside, a, endpoint.name, proto="tcp")]
        assert endpoint.wrong(inside) == []


class TestMasqueradedContainers:
    @pytest.mark.parametrize("rp_filter", [0, 1])
    def test_they_reach_what_the_vpn_pushed_and_the_internet(self, endpoint: Endpoint, rp_filter: int) -> None:
        endpoint.strict(rp_filter)
        endpoint.masquerade()
        endpoint.apply(CORP, INET)
        for family, at in ((4, 0), (6, 1)):
            pushed = ask(endpoint.container, plan.CORPORATE_HOST[at], "corp", endpoint.inside[family])
            internet = ask(endpoint.container, plan.ANYCAST[at], "inet", endpoint.outside[family])
            assert endpoint.wrong(pushed, internet) == []


def test_numbers_that_are_stated(endpoint: Endpoint) -> None:
    endpoint.apply(
        {**CORP, "table": "70000", "priority": 8400},
        {**INET, "table": "300", "priority": 8250},
        numbers={"priority_base": 8000, "table_base": 4000, "protocol": 199, "group": 77},
    )
    assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
    rules = endpoint.host.ip_json("-d", "rule")
    assert {rule["priority"] for rule in rules if rule.get("table") in ("70000", "300")} >= {8401, 8251}
    assert {link["ifname"] for link in endpoint.host.ip_json("link") if link["group"] == "77"} == {"vpn0"}
    endpoint.remove()
    assert not [rule for rule in endpoint.host.ip_json("rule") if 8000 <= rule["priority"] < 9000]
