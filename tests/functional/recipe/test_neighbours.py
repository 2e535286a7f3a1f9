# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real VPN clients beside the recipe, and hosts whose rules do not stand where the recipe needs them."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import RoutingError
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe import rules as recipe_rules

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import BASE, CORP, INET, LAST, TUNNEL, UPLINK, Endpoint, ask
from tests.lab import addresses as plan

POOLS = {"wireguard": plan.WIREGUARD_POOL, "openvpn": plan.OPENVPN_POOL}
DEVICES = {"wireguard": "wg0", "openvpn": "tun0"}


def tunnel(kind: str) -> dict[str, t.Any]:
    return {
        "name": "corp",
        "tunnel": {"type": kind},
        "interface": [DEVICES[kind]],
        "pools": list(POOLS[kind]),
    }


def ours(endpoint: Endpoint) -> list[int]:
    rules = [rule for family in ("-4", "-6") for rule in endpoint.host.ip_json(family, "rule")]
    return [rule["priority"] for rule in rules if BASE <= rule["priority"] <= LAST]


@pytest.mark.parametrize("kind", ["wireguard", "openvpn"])
class TestDaemons:
    @pytest.mark.parametrize("rp_filter", [0, 1])
    def test_recipe_first_then_the_vpn(self, make: Make, kind: str, rp_filter: int) -> None:
        endpoint = make(kind=kind, start=False)
        endpoint.strict(rp_filter)
        endpoint.apply(tunnel(kind), INET)
        before = ours(endpoint)
        with endpoint.capture() as seen:
            endpoint.client.up()
            for family, address in endpoint.inside.items():
                assert not endpoint.lab.probe(
                    endpoint.host, plan.ANYCAST[family == 6], "tcp", source=address, timeout=0.2
                )
        for address in endpoint.inside.values():
            assert "up0" not in seen.left_by(source=address)
        endpoint.apply()
        assert endpoint.wrong(
            endpoint.both(endpoint.identities),
            endpoint.both(endpoint.neighbourhood),
            endpoint.both(endpoint.unbound),
        ) == []  # fmt: skip
        endpoint.client.down()
        assert set(before) <= set(ours(endpoint))

    def test_without_the_recipe_replies_go_astray(self, make: Make, kind: str) -> None:
        endpoint = make(kind=kind)
        questions = endpoint.both(
            lambda family: [
                *ask(endpoint.lab.outside, endpoint.inside[family], endpoint.name, proto="tcp"),
                *ask(endpoint.lab.corporate, endpoint.outside[family], endpoint.name, proto="tcp"),
            ]
        )
        assert len(endpoint.wrong(questions)) == len(questions)


class TestWgQuick:
    """Its clean-up deletes every rule with `suppress_prefixlength 0`, whoever made it."""

    def apply(self, make: Make) -> Endpoint:
        endpoint = make(kind="wireguard", mode="full")
        endpoint.apply(tunnel("wireguard"), INET, unbound="corp", unbound_local="main")
        return endpoint

    def test_its_clean_up_leaves_our_rules_alone(self, make: Make) -> None:
        endpoint = self.apply(make)
        before = ours(endpoint)
        endpoint.client.down()
        assert ours(endpoint) == before

    def test_with_a_suppressor_of_zero_it_does_not(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recipe_rules, "SUPPRESS", 0)
        endpoint = self.apply(make)
        before = ours(endpoint)
        endpoint.client.down()
        assert len(ours(endpoint)) < len(before)

    def test_full_tunnel_without_its_own_rules(self, make: Make) -> None:
        """`Table = off`: ours is the full tunnel, and the marked packets of the daemon stay outside."""
        endpoint = make(kind="wireguard", mode="identity")
        marked = {**tunnel("wireguard"), "outer": {"fwmark": "0xca6c/0xffff"}}
        endpoint.host.run(["wg", "set", "wg0", "fwmark", "0xca6c"])
        endpoint.apply(marked, INET, unbound="corp", unbound_local="main")
        unbound = endpoint.both(lambda family: endpoint.unbound(family, TUNNEL))
        assert endpoint.wrong(unbound, endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []


class TestWgQuickRoutes:
    """wg-quick with `Table = auto`: what it routes by itself."""

    @pytest.mark.parametrize("rp_filter", [0, 1])
    def test_allowed_ips_that_are_not_everything(self, make: Make, rp_filter: int) -> None:
        endpoint = make(kind="wireguard", mode="auto")
        endpoint.strict(rp_filter)
        endpoint.apply(tunnel("wireguard"), INET)
        corporate = [
            question
            for family, at in ((4, 0), (6, 1))
            for question in (
                *ask(endpoint.lab.corporate, endpoint.inside[family], endpoint.name, plan.CORPORATE_HOST[at]),
                *ask(endpoint.lab.corporate, endpoint.outside[family], endpoint.name, plan.CORPORATE_HOST[at]),
                *ask(endpoint.host, plan.CORPORATE_HOST[at], "corp", endpoint.inside[family]),
                *ask(endpoint.container, endpoint.inside[family], endpoint.name, plan.CONTAINER[at]),
            )
        ]
        assert endpoint.wrong(corporate, endpoint.both(endpoint.unbound)) == []
        with endpoint.capture() as seen:
            for address in endpoint.inside.values():
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[":" in address], "udp", source=address, timeout=0.1)
        for address in endpoint.inside.values():
            assert "up0" not in seen.left_by(source=address)

    def test_everything_after_the_recipe_jumps_the_queue_and_is_told(self, make: Make) -> None:
        """Its rules land in front of ours, and no order of ours mends that."""
        endpoint = make(kind="wireguard", mode="full", start=False)
        endpoint.apply(tunnel("wireguard"), INET)
        before = ours(endpoint)
        endpoint.client.up()
        with endpoint.capture() as seen:
            with pytest.raises(RoutingError, match="inet"):
                endpoint.apply()
            for address in endpoint.inside.values():
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[":" in address], "udp", source=address, timeout=0.1)
        for address in endpoint.inside.values():
            assert "up0" not in seen.left_by(source=address)
        endpoint.client.down()
        assert set(before) <= set(ours(endpoint))


class TestPreflight:
    @pytest.mark.parametrize("family", [4, 6])
    def test_a_local_rule_behind_ours_is_refused(self, endpoint: Endpoint, family: int) -> None:
        endpoint.ip(f"-{family} rule add pref 32765 lookup local", f"-{family} rule del pref 0")
        before = endpoint.state()
        with pytest.raises(RoutingError) as refused:
            endpoint.apply(CORP, INET)
        assert "local" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert endpoint.state() == before

    def test_because_the_hosts_own_addresses_would_be_sought_in_the_tunnel(self, endpoint: Endpoint) -> None:
        endpoint.apply(CORP, INET)
        for family in endpoint.families:
            endpoint.ip(f"-{family} rule add pref 32765 lookup local", f"-{family} rule del pref 0")
        with endpoint.capture() as seen:
            for family, address in endpoint.inside.items():
                outside = endpoint.outside[family]
                endpoint.lab.probe(endpoint.host, outside, "udp", source=address, timeout=0.1)
        for family, address in endpoint.inside.items():
            assert seen.left_by(source=address, destination=endpoint.outside[family]) == {"vpn0"}

    def test_a_foreign_rule_ahead_is_named(self, endpoint: Endpoint) -> None:
        endpoint.ip("rule add pref 1234 to 10.99.0.0/16 lookup main protocol static")
        found = endpoint.apply(CORP, INET)
        assert [text for text in found.warnings if "ahead" in text and "1234" in text]

    def test_one_address_on_two_devices_is_refused(self, endpoint: Endpoint) -> None:
        endpoint.ip("link add fvtx type bridge", "link set fvtx up", f"addr add {endpoint.inside[4]}/32 dev fvtx")
        before = endpoint.state()
        with pytest.raises(RoutingError, match=endpoint.inside[4]):
            endpoint.apply(CORP, {"name": "other", "interface": ["fvtx"], "gateway": ["none"]}, INET)
        with pytest.raises(RoutingError, match="sits on several devices"):
            endpoint.apply(CORP, INET)  # also where nobody declares the second one
        assert endpoint.state() == before


def test_removal_restores_what_was_before(make: Make) -> None:
    """Before and after a life of the recipe, the same questions have the same answers."""
    endpoint = make()
    sides = [question for side in plan.SIDE_HOST for question in ask(endpoint.host, side, "r2-0")]
    questions = [*endpoint.both(endpoint.unbound), *sides]
    state = endpoint.state()
    assert endpoint.wrong(questions) == []
    endpoint.apply(CORP, INET, unbound="corp")
    assert [text for text in endpoint.wrong(questions) if UPLINK in text]
    endpoint.remove()
    assert endpoint.state() == state
    assert endpoint.wrong(questions) == []
