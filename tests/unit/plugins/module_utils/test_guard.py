# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The egress guard as the recipe makes it: which sets, which chains, in which order."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._guard import decoded, script
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.guard import (
    ACCEPT,
    MARK,
    Chain,
    Guard,
    NamedSet,
    Piece,
    assemble,
    canonical,
    matching,
    rule,
    rule_text,
    table_of,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Link
from ansible_collections.fleetvpn.routing.plugins.module_utils._record import Record, guard_of, objects_from

from tests.unit.plugins.module_utils.hosts import INSIDE, OUTSIDE, UP1, H, Remembered, default, host, recipe

POOLED = {**INSIDE, "pools": ["10.8.0.0/16", "fd00:8::/48"]}
OTHER = {"name": "other", "interface": ["vpn1"], "gateway": ["none"], "addresses": ["10.8.0.7"]}
FREE = {**INSIDE, "backstop": False}


def guard(*identities: dict[str, t.Any], facts: t.Any = H, **options: t.Any) -> Guard:
    found = recipe(facts, identities or (OUTSIDE, INSIDE), **options).desired.guard
    assert found is not None
    return found


def rules(found: Guard, chain: str) -> list[str]:
    return [rule_text(each) for one in found.chains if one.name == chain for each in one.rules]


def elements(found: Guard) -> dict[str, tuple[str, ...]]:
    return {each.name: each.elements for each in found.sets}


class TestEgress:
    def test_is_one_chain_behind_source_nat(self) -> None:
        hooked = [(c.name, c.hook, c.priority, c.type, c.policy) for c in guard().chains if c.hook]
        assert hooked == [("egress", "postrouting", 300, "filter", "accept")]

    def test_uplinks_then_addresses_then_pools_then_sources_of_other_devices(self) -> None:
        assert rules(guard(OUTSIDE, POOLED, OTHER), "egress") == [
            "ip saddr @uplinks4 goto uplinks",
            "ip6 saddr @uplinks6 goto uplinks",
            "ip saddr @address_inside4 goto address_inside",
            "ip6 saddr @address_inside6 goto address_inside",
            "ip saddr @address_other4 goto address_other",
            "ip saddr @pool_inside4 goto pool_inside",
            "ip6 saddr @pool_inside6 goto pool_inside",
            "oifname @tunnels fib saddr type local fib saddr . oif type != local counter drop",
        ]

    def test_an_address_leaves_by_its_egress_and_inside_the_host(self) -> None:
        found = guard(local_networks=["auto", "10.44.0.0/16"])
        assert rules(found, "address_inside") == ['oifname "vpn0" accept', 'iifname "vpn0" accept', "goto elsewhere"]
        assert rules(found, "elsewhere") == [
            "oifname @internal accept",
            "ip daddr @internal4 accept",
            "counter drop",
        ]
        assert elements(found)["internal"] == ("br0", "lo")
        assert elements(found)["internal4"] == ("10.44.0.0/16",)

    def test_a_pool_spares_what_sits_on_the_device(self) -> None:
        assert rules(guard(OUTSIDE, POOLED), "pool_inside")[2:] == [
            "fib saddr . oif type local accept",
            "goto elsewhere",
        ]

    @pytest.mark.parametrize("where", [["any"], ["up0"]])
    def test_but_not_where_its_own_addresses_may_sit_on_an_uplink(self, where: list[str]) -> None:
        found = guard(OUTSIDE, {**POOLED, "address_interface": where, "addresses": ["10.8.0.5"]})
        assert rules(found, "pool_inside")[2:] == ["goto elsewhere"]

    def test_an_uplinks_address_enters_no_tunnel(self) -> None:
        assert rules(guard(), "uplinks") == ["oifname @tunnels counter drop"]
        assert elements(guard())["tunnels"] == ("vpn0",)
        assert elements(guard())["uplinks4"] == ("192.0.2.10",)

    def test_an_uplink_that_carries_a_tunnel_is_none(self) -> None:
        found = guard(OUTSIDE, {**POOLED, "interface": ["auto"], "address_interface": ["any"]})
        assert "tunnels" not in elements(found)
        assert rules(found, "uplinks") == []

    def test_neither_device_nor_address_is_needed(self) -> None:
        found = guard(POOLED, facts=host(links=H.links[:2], addresses=H.addresses[:3], tunnels={}))
        assert rules(found, "pool_inside") == ["fib saddr . oif type local accept", "goto elsewhere"]

    def test_old_addresses_are_still_guarded(self) -> None:
        last = Remembered(2002, "vpn0", ("198.51.100.9", "2001:db8:51::9"), retired=("198.51.100.8",))
        found = elements(guard(facts=host(remembered={"inside": last})))
        assert found["address_inside4"] == ("198.51.100.8/31", "198.51.100.10")
        assert found["address_inside6"] == ("2001:db8:51::9", "2001:db8:51::10")

    @pytest.mark.parametrize("name", ["@br", "tcp", "esp"])
    def test_a_name_that_nft_would_misread_is_left_out_and_said(self, name: str) -> None:
        bridge = Link(77, name, "bridge", up=True)
        found = recipe(host(links=(*H.links, bridge)), (OUTSIDE, INSIDE))
        assert elements(guard(facts=host(links=(*H.links, bridge))))["internal"] == ("br0", "lo")
        assert [text for text in found.warnings if f"device {name!a} is for nft no name" in text]
        with pytest.raises(InvalidInput, match="nft takes for something else"):
            guard(OUTSIDE, {**INSIDE, "interface": [name]}, facts=host(links=(*H.links, bridge), tunnels={}))

    def test_is_named_after_the_set(self) -> None:
        assert (table_of("main"), table_of("b-1")) == ("fleetvpn", "fleetvpn_b-1")


class TestAsked:
    @pytest.mark.parametrize("identities", [(OUTSIDE,), (OUTSIDE, FREE)], ids=["uplink", "free"])
    def test_none_without_a_backstop_to_hold(self, identities: tuple[dict[str, t.Any], ...]) -> None:
        assert recipe(H, identities).desired.guard is None

    @pytest.mark.parametrize("value", ["false", "False", False])
    def test_not_at_all(self, value: object) -> None:
        assert recipe(H, strict_egress=value).desired.guard is None

    @pytest.mark.parametrize("value", [None, "true", True])
    def test_by_default(self, value: object) -> None:
        assert recipe(H, strict_egress=value).desired.guard == guard()

    def test_something_else(self) -> None:
        with pytest.raises(InvalidInput, match="accepted: true, any, false"):
            recipe(H, strict_egress="often")

    def test_an_identity_without_a_backstop_is_free(self) -> None:
        found = guard({**OUTSIDE, "backstop": False}, POOLED)
        assert rules(found, "egress")[-3:-1] == ["ip saddr @free4 accept", "ip6 saddr @free6 accept"]
        assert elements(found)["free4"] == ("192.0.2.10",)
        assert "uplinks4" not in elements(found)

    def test_any_also_holds_what_nobody_declared(self) -> None:
        facts = host(links=[UP1], main=[default("up1", "192.168.1.1", 600)])
        found = guard(OUTSIDE, {**OUTSIDE, "name": "second", "interface": ["up1"]}, facts=facts, strict_egress="any")
        last = "oifname @outside fib saddr type local fib saddr . oif type != local counter drop"
        assert rules(found, "egress")[-1] == last
        assert elements(found)["outside"] == ("up0", "up1")


class TestIngress:
    def test_is_off(self) -> None:
        assert "ingress" not in {chain.name for chain in guard().chains}

    def test_by_the_egress_and_from_inside_the_host(self) -> None:
        found = guard(OUTSIDE, POOLED, strict_ingress=True)
        chain = next(chain for chain in found.chains if chain.name == "ingress")
        assert (chain.hook, chain.priority) == ("prerouting", -300)
        assert rules(found, "ingress")[::2] == [
            "ip daddr @uplinks4 accept",
            "ip daddr @address_inside4 goto to_address_inside",
            "ip daddr @pool_inside4 goto to_pool_inside",
        ]
        near = ['iifname "vpn0" accept', "iifname @internal accept"]
        assert rules(found, "to_address_inside") == [*near, "counter drop"]
        spared = ["fib daddr type != local accept", "fib daddr . iif type local accept"]
        assert rules(found, "to_pool_inside") == [*near, *spared, "counter drop"]

    def test_alone(self) -> None:
        found = guard(OUTSIDE, INSIDE, strict_egress=False, strict_ingress=True)
        assert [chain.name for chain in found.chains if chain.hook] == ["ingress"]


class TestValue:
    def test_every_set_that_is_asked_is_there(self) -> None:
        """And the other way round but for what another option would ask."""
        for options in ({}, {"strict_ingress": True}, {"strict_egress": "any"}):
            found = guard(OUTSIDE, POOLED, OTHER, **options)
            asked = {word[1:] for c in found.chains for r in c.rules for word in rule_text(r).split() if word[0] == "@"}
            assert asked <= set(elements(found))
            called = {r.split()[-1] for c in found.chains for r in rules(found, c.name) if "goto" in r}
            assert called <= {chain.name for chain in found.chains}

    def test_a_record_keeps_it(self) -> None:
        record = Record(objects=json.loads(json.dumps(objects_from([], [], guard()))))
        assert guard_of(record) == guard()
        assert guard_of(Record()) is None

    def test_pieces_of_others_join_it(self) -> None:
        more = Chain("answers", (rule(matching("oifname", "fvt0"), ACCEPT),), "output", 0)
        found = assemble("fleetvpn", [Piece((NamedSet.devices("none", []),), (more,))])
        assert found is not None
        assert [chain.name for chain in found.chains] == ["answers", MARK]
        assert found.sets == ()
        assert assemble("fleetvpn", [Piece()]) is None

    def test_counters_handles_and_order_make_no_difference(self) -> None:
        commands = json.loads(script("add", guard()))["nftables"][3:]
        listed = [command["add"] for command in commands]
        listed = [
            {"metainfo": {"version": "2"}},
            {"table": {"family": "inet", "name": "fleetvpn", "handle": 7}},
            *listed,
        ]
        for kind, content in ((k, c) for entry in listed for k, c in entry.items()):
            content.update({"handle": 9} if kind != "metainfo" else {})
        counted = json.loads(json.dumps(listed).replace('"counter": null', '"counter": {"packets": 5, "bytes": 9}'))
        sets = [entry for entry in counted if "set" in entry]
        assert decoded([*counted[:2], *(e for e in counted[2:] if e not in sets), *reversed(sets)]) == guard()

    def test_a_protocol_may_be_listed_by_number(self) -> None:
        named = matching("meta l4proto", "tcp")
        listed = {"match": {**named["match"], "right": 6}}
        assert canonical(listed) == canonical(named)

    @pytest.mark.parametrize("flags", ["saddr", ["saddr"]])
    def test_one_flag_may_stand_alone(self, flags: object) -> None:
        assert canonical({"fib": {"result": "type", "flags": flags}})["fib"]["flags"] == ["saddr"]
