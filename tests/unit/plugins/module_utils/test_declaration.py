# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator may write in identities and the other options of endpoint, and the line that refuses the rest."""

from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.declaration import Declaration, Numbers
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.fields import table_id
from ansible_collections.fleetvpn.routing.plugins.module_utils._parse import parse_declaration

# The list itself: who takes a name out of the code's has to take it out here.
RESERVED = ("keep", "auto", "any", "none", "main", "local", "default")
UP: dict[str, t.Any] = {"name": "outside", "interface": ["up0"]}


def parse(*identities: dict[str, t.Any], **options: t.Any) -> Declaration:
    return parse_declaration("main", {"identities": list(identities), **options}, Numbers(), table_id)


def test_an_address_may_carry_the_length_that_ip_prints() -> None:
    assert parse({"name": "a", "addresses": ["192.0.2.10/24", "2001:db8::1/64"]}).identities[0].addresses == (
        "192.0.2.10",
        "2001:db8::1",
    )


@pytest.mark.parametrize(("gateway", "tunnel", "expected"), [(["none"], None, True), (["auto"], None, False)])
def test_who_is_who(gateway: list[str], tunnel: None, expected: bool) -> None:
    assert parse({**UP, "gateway": gateway, "tunnel": tunnel}).identities[0].by_tunnel is expected


@pytest.mark.parametrize(
    ("change", "line"),
    [
        *(
            ({"name": word}, f"identities[0].name: '{word}' is a reserved name; accepted: a letter")
            for word in RESERVED
        ),
        ({"name": "../x"}, "identities[0].name: '../x' is no name"),
        ({"name": ""}, "identities[0].name: '' is no name"),
        ({"interface": None}, "identities[0]: 'outside' has nothing to be found by; accepted: at least one of"),
        ({"interface": ["a b"]}, "identities[0].interface: 'a b' is no device name"),
        ({"interface": ["auto", "up0"]}, "identities[0].interface: ['auto', 'up0'] stands alone"),
        ({"pools": ["10.0.0.1/8"]}, "identities[0].pools: '10.0.0.1/8' has host bits set; accepted: 10.0.0.0/8"),
        ({"pools": ["0.0.0.0/0"]}, "identities[0].pools: '0.0.0.0/0' covers every address"),
        ({"pools": ["10.0.0.0/8"]}, "identities[0].pools: '10.0.0.0/8' is of no use to an uplink"),
        ({"addresses": ["nonsense"]}, "identities[0].addresses: 'nonsense' is no IP address"),
        ({"addresses": ["192.0.2.1/99"]}, "identities[0].addresses: '192.0.2.1/99' has no valid length"),
        ({"addresses": ["192.0.2.1/abc"]}, "identities[0].addresses: '192.0.2.1/abc' has no valid length"),
        ({"addresses": ["2001:db8::1/129"]}, "identities[0].addresses: '2001:db8::1/129' has no valid length"),
        ({"gateway": ["192.0.2.1/24"]}, "identities[0].gateway: '192.0.2.1/24' is no IP address"),
        ({"gateway": ["192.0.2.1", "192.0.2.2"]}, "identities[0].gateway: '192.0.2.2' is a second gateway"),
        ({"gateway": ["auto", "192.0.2.1"]}, "identities[0].gateway: ['auto', '192.0.2.1'] stands alone"),
        (
            {"addresses": ["192.0.2.10"], "gateway": ["2001:db8::1"]},
            "identities[0].gateway: '2001:db8::1' is of a family in which the identity has no address",
        ),
        (
            {"tunnel": {"type": "openvpn"}, "pools": ["10.8.0.0/16"], "gateway": ["2001:db8::1"]},
            "identities[0].gateway: '2001:db8::1' is of a family in which the identity has no address",
        ),
        (
            {"families": ["ipv4"], "gateway": ["2001:db8::1"]},
            "identities[0].gateway: '2001:db8::1' is of a family in which the identity has no address",
        ),
        ({"addresses": ["192.0.2.10"], "families": ["ipv6"]}, "identities[0].families: 'ipv6' has an IPv4 address"),
        ({"table": "main"}, "identities[0].table: 254 is a table of the kernel"),
        ({"table": "0"}, "identities[0].table: '0' is no routing table"),
        ({"priority": 32766}, "identities[0].priority: 32766 belongs to a rule of the kernel"),
        ({"priority": 0}, "identities[0].priority: 0 is no priority"),
        ({"outer": {"fwmark": "0x100/0xff"}}, "identities[0].outer.fwmark: '0x100/0xff'"),
        ({"tunnel": {"type": "carrier-pigeon"}}, "identities[0].tunnel.type: 'carrier-pigeon' is no known tunnel type"),
        ({"tunnel": {"type": "wireguard", "connection": "../wg0"}}, "identities[0].tunnel.connection: '../wg0' is no"),
        ({"pin": [{}]}, "identities[0].pin[0]: selects nothing; accepted: ipproto with sport, uidrange, or both"),
        ({"pin": [{"sport": "53"}]}, "identities[0].pin[0].sport: '53' needs a protocol that has ports"),
        ({"pin": [{"ipproto": "udp", "sport": "0"}]}, "identities[0].pin[0].sport: '0' is not in range"),
        ({"pin": [{"uidrange": "0-99"}]}, "identities[0].pin[0].uidrange: '0-99' holds user 0"),
        ({"pin": [{"ipproto": "smoke"}]}, "identities[0].pin[0].ipproto: 'smoke' is no IP protocol"),
        (
            {"pin": [{"ipproto": "udp", "sport": "1-99"}, {"ipproto": "udp", "sport": "53", "uidrange": "5-5"}]},
            "identities[0].pin[1]: 'uidrange 5-5 ipproto udp sport 53' selects what a pin of identity outside selects",
        ),
        ({"destinations": ["10.0.0.1/8"]}, "identities[0].destinations: '10.0.0.1/8' has host bits set"),
        ({"mtu": -1}, "identities[0].mtu: -1 is not in range; accepted: 1280 to 65520"),
        ({"mtu": 1279, "families": ["ipv6"]}, "identities[0].mtu: 1279 is not in range; accepted: 1280 to 65520"),
        ({"mtu": 67, "families": ["ipv4"]}, "identities[0].mtu: 67 is not in range; accepted: 68 to 65520"),
        ({"mtu": 70000}, "identities[0].mtu: 70000 is not in range"),
        ({"mtu": 99999999999}, "identities[0].mtu: 99999999999 is not in range"),
        ({"advmss": -1}, "identities[0].advmss: -1 is not in range; accepted: 1 to 65495"),
        ({"advmss": 65496}, "identities[0].advmss: 65496 is not in range"),
    ],
)
def test_one_line_names_field_value_and_what_would_do(change: dict[str, t.Any], line: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse({**UP, **change})
    assert refused.value.line().startswith(line)
    assert "\n" not in refused.value.line()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "239.255.255.250/32", "ff02::1", "255.255.255.255"])
def test_what_no_device_has_is_no_address(address: str) -> None:
    with pytest.raises(InvalidInput, match=r"identities\[0\]\.addresses: '.*' is no address of a device; accepted: "):
        parse({**UP, "addresses": [address]})


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        *(
            (pool, "holds what has no address yet")
            for pool in ("0.0.0.0/1", "0.0.0.0/8", "0.0.0.0", "::/1", "::", "::/96")
        ),
        *((pool, "holds no address of a device") for pool in ("224.0.0.0/4", "239.1.0.0/16", "ff00::/8", "ff02::1")),
        ("255.255.255.255", "holds no address of a device"),
    ],
)
def test_what_no_device_has_is_no_pool(pool: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=rf"identities\[0\]\.pools: '{pool}' {why}; accepted: "):
        parse({**UP, "gateway": ["none"], "pools": [pool]})


def test_a_pool_may_be_wide() -> None:
    pools = ["10.0.0.0/8", "128.0.0.0/1", "64.0.0.0/2", "2000::/3", "fd00::/8", "8000::/1"]
    assert parse({**UP, "gateway": ["none"], "pools": pools}).identities[0].pools == tuple(pools)


@pytest.mark.parametrize("name", ["\u00e9" * 8, "a\0b", "\ud800", "a" * 16, ".", "..", "a b", "a/b", "a:b", ""])
@pytest.mark.parametrize("key", ["interface", "address_interface"])
def test_a_device_has_a_name_that_the_kernel_takes(key: str, name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^identities\[0\]\.{key}: .*is no device name; accepted: 1 to 15 bytes"):
        parse({**UP, key: [name]})


@pytest.mark.parametrize("name", ["\u00e9" * 7, "en*", "wl?", "up[01]", "a" * 15])
def test_names_and_patterns_of_devices(name: str) -> None:
    assert parse({**UP, "interface": [name]}, local_networks=[name]).identities[0].interface == (name,)


@pytest.mark.parametrize(
    "name", ["a" * 201, "\u00e9" * 101, "a" * 5000, "a\0b", "\ud800", "a/b", ".", "..", "", "a\nb"]
)
def test_a_connection_has_the_name_of_a_file(name: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"^identities\[0\]\.tunnel\.connection: .*is no connection name; accepted: "
    ):
        parse({**UP, "tunnel": {"type": "wireguard", "connection": name}})


@pytest.mark.parametrize("name", ["a" * 200, "\u00e9" * 100, "Corp VPN"])
def test_connections(name: str) -> None:
    tunnel = parse({**UP, "tunnel": {"type": "wireguard", "connection": name}}).identities[0].tunnel
    assert tunnel is not None
    assert tunnel.connection == name


@pytest.mark.parametrize(
    ("one", "other", "line"),
    [
        ({"name": "a"}, {"name": "a"}, "identities[1].name: 'a' is claimed by identity a already"),
        (
            {"addresses": ["192.0.2.1"]},
            {"addresses": ["192.0.2.1/24"]},
            "identities[1].addresses: '192.0.2.1' is claimed by identity one already",
        ),
        ({"table": "3000"}, {"table": "3000"}, "identities[1].table: 3000 is claimed by identity one already"),
        (
            {"pin": [{"ipproto": "udp", "sport": "50-60"}]},
            {"pin": [{"uidrange": "5-9"}]},
            "identities[1].pin[0]: 'uidrange 5-9' selects what a pin of identity one selects",
        ),
        ({"priority": 2200}, {"priority": 2200}, "identities[1].priority: 2200 is claimed by identity one already"),
        (
            {"pools": ["10.0.0.0/8"], "gateway": ["none"]},
            {"pools": ["10.1.0.0/16"], "gateway": ["none"]},
            "identities[1].pools: '10.1.0.0/16' overlaps 10.0.0.0/8 of identity one",
        ),
    ],
)
def test_two_identities_share_nothing(one: dict[str, t.Any], other: dict[str, t.Any], line: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse({**UP, "name": "one", **one}, {**UP, "name": "other", **other})
    assert refused.value.line().startswith(line)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"local_networks": ["172.20.0.1/24"]}, "local_networks[0]: '172.20.0.1/24' has host bits set"),
        ({"local_networks": ["a b"]}, "local_networks[0]: 'a b' is no network"),
        ({"local_networks": ["a\0b"]}, "local_networks[0]: 'a\\x00b' is no network"),
        (
            {"local_networks": ["\u00e9" * 8]},
            "local_networks[0]: '\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9' is no network",
        ),
        ({"local_networks": [".."]}, "local_networks[0]: '..' is no network"),
        ({"mark": "0x100"}, "mark: '0x100' has no mask; accepted: MARK/MASK such as"),
        ({"mark": "0/0xff"}, "mark: '0/0xff' is what every packet has"),
        ({"mark": "0x100/0xff"}, "mark: '0x100/0xff' has bits outside its mask"),
        ({"unbound_backstop": True}, "unbound_backstop: True would close what main decides; accepted: unbound with"),
        ({"tables": [{"name": "x", "id": 254}]}, "tables[0].name: 'x' cannot name table 254"),
        (
            {"tables": [{"name": "x", "id": 3000}, {"name": "x", "id": 3001}]},
            "tables[1].name: 'x' names two tables",
        ),
        ({"rules": [{"priority": 5, "from": "10.0.0.1/8"}]}, "rules[0].from: '10.0.0.1/8' has host bits set"),
        ({"rules": [{"priority": 5, "from": "10.0.0.0/8", "table": "nowhere"}]}, "rules[0].table: 'nowhere' is no"),
        ({"routes": [{"dst": "10.0.0.0/8", "gateway": "10.0.0.1", "nexthops": [{"dev": "a"}]}]}, "routes[0]"),
        ({"routes": [{"dst": "10.0.0.0/8", "dev": "a"}, {"dst": "10.0.0.0/8", "dev": "b"}]}, "routes[1]: "),
    ],
)
def test_the_other_options_are_held_to_the_same(options: dict[str, t.Any], line: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(UP, **options)
    assert refused.value.line().startswith(line)


def test_following_needs_a_mark_of_its_own() -> None:
    followed = {**UP, "follow_connections": True}
    with pytest.raises(InvalidInput, match="identity outside: follow_connections: True needs a mark"):
        parse(followed)
    refused = re.escape("mark: '0x1000000/0xf000000' has bits of outer.fwmark of identity outside")
    for bits in ("0x5000000/0xff000000", "0xa1b2c3d"):
        with pytest.raises(InvalidInput, match=refused):
            parse({**followed, "outer": {"fwmark": bits}}, mark="0x1000000/0xf000000")
    assert parse({**followed, "outer": {"fwmark": "0xca6c"}}, mark="0x1000000/0xf000000").mark == (0x1000000, 0xF000000)


@pytest.mark.parametrize(("mtu", "families"), [(68, ["ipv4"]), (1280, ["ipv4", "ipv6"]), (65520, ["ipv6"])])
def test_an_mtu_is_what_the_families_allow(mtu: int, families: list[str]) -> None:
    assert parse({**UP, "mtu": mtu, "families": families}).identities[0].mtu == mtu


def test_pins_that_no_packet_matches_twice_go_together() -> None:
    one = {**UP, "name": "one", "pin": [{"ipproto": "udp", "sport": "53"}, {"ipproto": "tcp", "sport": "53"}]}
    other = {**UP, "name": "other", "pin": [{"ipproto": "udp", "sport": "54-60"}]}
    assert [len(identity.pin) for identity in parse(one, other).identities] == [2, 1]


def test_a_rule_may_use_a_table_that_the_declaration_names() -> None:
    rules = [{"priority": 5, "from": "10.0.0.0/8", "table": "mine"}]
    assert parse(UP, tables=[{"name": "mine", "id": 3000}], rules=rules).rules[0].table == 3000
