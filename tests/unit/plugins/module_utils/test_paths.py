# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows as they are written, answers as they are compared. That the kernel answers so is for the functional tests."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _paths
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._model import fields
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Address, Flow, Link, Path
from ansible_collections.fleetvpn.routing.plugins.module_utils._paths import (
    Answer,
    Expect,
    IdentityPaths,
    PathSpec,
    parse_flow,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._questions import Questions

INSIDE = IdentityPaths("inside", ("198.51.100.10", "2001:db8:51::10", "198.51.100.11"), ("wg0",), (2000,))
OUTSIDE = IdentityPaths("outside", ("192.0.2.10",), ("up0",), (2001,), ("192.0.2.1",))
IDENTITIES = (INSIDE, OUTSIDE)
FAR4 = "203.0.113.5"
FAR6 = "2001:db8:ffff::5"
UP = Path("unicast", "up0", "192.0.2.1", "192.0.2.10", 254)
TUNNEL = Path("unicast", "wg0", None, "198.51.100.10", 2000)
LOCAL = Path("local", "lo", table=255)
NOWHERE = Path("unreachable", errno=101)


def parse(entry: dict[str, t.Any], **options: t.Any) -> PathSpec:
    return parse_flow(entry, "paths[0]", IDENTITIES, table, **options)


def table(value: object, field: str) -> int:
    return 2000 if value == "corp" else fields.table_id(value, field)


def refusal(entry: dict[str, t.Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_flow(entry, "paths[0]", IDENTITIES)
    return caught.value.line()


class Answers:
    """A kernel that is asked and gives the answers that were put in; it stands for no real one."""

    def __init__(self, answers: dict[str | None, Path], addresses: t.Sequence[Address] = ()) -> None:
        self.answers = answers
        self.asked: list[Flow] = []
        self._addresses = list(addresses)

    def lookup(self, flow: Flow) -> Path:
        self.asked.append(flow)
        if flow.to in self.answers:
            return self.answers[flow.to]
        return self.answers[flow.source]

    def addresses(self) -> list[Address]:
        return self._addresses

    def links(self) -> list[Link]:
        return [Link(1, "lo", up=True), Link(2, "up0", up=True), Link(3, "wg0", up=True)]


def walk(answers: dict[str | None, Path], flow: Flow, addresses: t.Sequence[Address] = ()) -> Answer:
    return _paths.walk(t.cast("t.Any", Answers(answers, addresses)), flow)


# --- what may be written ---------------------------------------------------------------------------------------------


def test_every_option() -> None:
    found = parse(
        {
            "from": "198.51.100.10", "to": FAR4, "oif": "wg0", "fwmark": "0x1", "uid": 1000, "ipproto": "TCP",
            "sport": "443", "dport": 65535,
            "expect": {"identity": "inside", "dev": "wg0", "gateway": "none", "table": "corp", "src": "198.51.100.10",
                       "type": "unicast"},
        }
    )  # fmt: skip
    assert found.flows == (Flow(4, FAR4, "198.51.100.10", None, "wg0", 1, 1000, 6, 443, 65535),)
    assert found.expect == Expect("inside", "wg0", "none", 2000, "198.51.100.10", "unicast")
    assert (found.field, found.family, found.identity, found.unchanged) == ("paths[0]", 4, None, False)


def test_all_that_is_not_written_may_be_there_as_none() -> None:
    """As Ansible hands over the options of a list of dictionaries."""
    entry = dict.fromkeys(("from", "iif", "oif", "fwmark", "uid", "ipproto", "sport", "dport", "expect"))
    assert parse({**entry, "to": FAR4}) == parse({"to": FAR4})


def test_nothing_expected() -> None:
    for nothing in (None, {}, {"dev": None}):
        assert parse({"to": FAR4, "expect": nothing}).expect is None


def test_a_name_stands_for_every_address_of_the_family() -> None:
    assert [each.source for each in parse({"from": "inside", "to": FAR4}).flows] == ["198.51.100.10", "198.51.100.11"]
    assert [each.source for each in parse({"from": "inside", "to": FAR6}).flows] == ["2001:db8:51::10"]
    nothing = parse({"from": "outside", "to": FAR6})
    assert (nothing.flows, nothing.identity) == ((), "outside")


def test_addresses_become_canonical() -> None:
    found = parse({"from": "2001:DB8:51:0::10", "to": "2001:0db8:ffff::5", "expect": {"src": "2001:DB8::1"}})
    assert found.flows == (Flow(6, FAR6, "2001:db8:51::10"),)
    assert found.expect == Expect(src="2001:db8::1")


def test_unchanged_only_where_there_is_a_before() -> None:
    assert parse({"to": FAR4, "expect": "unchanged"}, unchanged_allowed=True).unchanged
    assert "paths[0].expect: 'unchanged' has no before" in refusal({"to": FAR4, "expect": "unchanged"})


@pytest.mark.parametrize(
    ("entry", "field", "value", "accepted"),
    [
        ({}, "to", None, "an address"),
        ({"to": "203.0.113.0/24"}, "to", "203.0.113.0/24", "an address"),
        ({"to": "fe80::1%up0"}, "to", "fe80::1%up0", "an address"),
        ({"to": "host.example"}, "to", "host.example", "an address"),
        ({"to": 5}, "to", 5, "an address"),
        ({"to": FAR4, "from": "nobody"}, "from", "nobody", "an address, or an identity: inside, outside"),
        ({"to": FAR4, "from": "198.51.100.10/32"}, "from", "198.51.100.10/32", "an address, or an identity"),
        ({"to": FAR4, "from": "2001:db8:51::10"}, "from", "2001:db8:51::10", "ipv4"),
        ({"to": FAR4, "form": "x"}, "form", None, "from, to, iif"),
        ({"to": FAR4, "explain": True}, "explain", None, "from, to, iif"),
        ({"to": FAR4, "oif": "a name that is far too long"}, "oif", "a name that is far too long", "15 bytes"),
        ({"to": FAR4, "fwmark": "0x1/0xff"}, "fwmark", "0x1/0xff", "0 to 4294967295"),
        ({"to": FAR4, "fwmark": 4294967296}, "fwmark", 4294967296, "0 to 4294967295"),
        ({"to": FAR4, "uid": "root"}, "uid", "root", "0 to 4294967294"),
        ({"to": FAR4, "uid": True}, "uid", True, "0 to"),
        ({"to": FAR4, "ipproto": "sctp"}, "ipproto", "sctp", "tcp, udp, icmp"),
        ({"to": FAR4, "ipproto": "ipv6-icmp"}, "ipproto", "ipv6-icmp", "tcp, udp, icmp"),
        ({"to": FAR6, "ipproto": "icmp"}, "ipproto", "icmp", "tcp, udp, ipv6-icmp"),
        ({"to": FAR4, "sport": 53}, "sport", 53, "ipproto tcp or udp"),
        ({"to": FAR4, "ipproto": "icmp", "dport": 53}, "dport", 53, "ipproto tcp or udp"),
        ({"to": FAR4, "ipproto": "udp", "dport": "1-2"}, "dport", "1-2", "1 to 65535"),
        ({"to": FAR4, "ipproto": "udp", "dport": 0}, "dport", 0, "1 to 65535"),
        ({"to": FAR4, "from": "10.0.0.1", "iif": "lo"}, "iif", "lo", "no iif"),
        ({"to": FAR4, "iif": "br0"}, "from", None, "another host"),
        ({"to": FAR4, "iif": "br0", "from": "inside"}, "from", "inside", "another host"),
        ({"to": FAR4, "iif": "br0", "from": "10.0.0.1", "oif": "up0"}, "oif", "up0", "either iif or oif"),
        ({"to": FAR4, "iif": "br0", "from": "10.0.0.1", "uid": 0}, "uid", 0, "either iif or uid"),
        ({"to": FAR4, "expect": "wg0"}, "expect", "wg0", "a dictionary of identity, dev"),
        ({"to": FAR4, "expect": {"device": "wg0"}}, "expect.device", None, "identity, dev"),
        ({"to": FAR4, "expect": {"identity": "nobody"}}, "expect.identity", "nobody", "inside, outside"),
        ({"to": FAR4, "expect": {"gateway": "gw"}}, "expect.gateway", "gw", "an address"),
        ({"to": FAR4, "expect": {"table": "nosuch"}}, "expect.table", "nosuch", "main"),
        ({"to": FAR4, "expect": {"table": 0}}, "expect.table", 0, "main"),
        ({"to": FAR4, "expect": {"src": "2001:db8::1"}}, "expect.src", "2001:db8::1", "ipv4"),
        ({"to": FAR4, "expect": {"type": "lost"}}, "expect.type", "lost", "unicast, local"),
    ],
)
def test_refused_with_field_value_and_accepted(
    entry: dict[str, t.Any], field: str, value: object, accepted: str
) -> None:
    line = refusal(entry)
    assert line.startswith(f"paths[0].{field}: {'' if value is None else repr(value)}"), line
    assert accepted in line.partition("accepted: ")[2], line


# --- two lookups -----------------------------------------------------------------------------------------------------


def test_without_a_source_the_second_lookup_decides() -> None:
    static = dataclasses.replace(UP, gateway="192.0.2.254")
    second = dataclasses.replace(UP, src=None, table=2001)
    found = walk({None: static, "192.0.2.10": second}, Flow(4, FAR4, oif="up0"))
    assert found.decided == dataclasses.replace(second, src="192.0.2.10")
    assert found.unconnected == static
    assert found.source == "192.0.2.10"


def test_the_second_lookup_keeps_all_but_the_source() -> None:
    kernel = Answers({None: UP, "192.0.2.10": UP})
    flow = Flow(4, FAR4, None, None, "up0", 1, 1000, 17, 5, 6)
    _paths.walk(t.cast("t.Any", kernel), flow)
    assert kernel.asked == [flow, dataclasses.replace(flow, source="192.0.2.10")]


@pytest.mark.parametrize("flow", [Flow(4, FAR4, "192.0.2.10"), Flow(4, FAR4, "10.0.0.9", iif="br0")])
def test_with_a_source_or_from_elsewhere_there_is_one_lookup(flow: Flow) -> None:
    found = walk({flow.source: dataclasses.replace(UP, src="192.0.2.99")}, flow)
    assert found.second is None
    assert found.decided.src == flow.source, "what the kernel would have chosen is not what the packet carries"


def test_an_error_ends_ipv4() -> None:
    assert walk({None: NOWHERE}, Flow(4, FAR4)) == Answer(Flow(4, FAR4), NOWHERE)


def test_after_an_error_ipv6_tries_the_sources_of_the_host() -> None:
    out = Path("unicast", "up0", "fe80::1", None, 2001)
    addresses = [
        Address(6, "2001:db8::7", 64, "up0", tentative=True),
        Address(6, "fe80::7", 64, "up0", scope=253),
        Address(4, "192.0.2.10", 24, "up0"),
        Address(6, "2001:db8::8", 64, "up0"),
        Address(6, "2001:db8::9", 64, "up0"),
    ]
    found = walk({None: NOWHERE, "2001:db8::8": NOWHERE, "2001:db8::9": out}, Flow(6, FAR6), addresses)
    assert found.decided == found.unconnected == dataclasses.replace(out, src="2001:db8::9")
    blocked = walk({None: NOWHERE, "2001:db8::8": NOWHERE, "2001:db8::9": NOWHERE}, Flow(6, FAR6), addresses)
    assert blocked.decided == NOWHERE


# --- verdicts --------------------------------------------------------------------------------------------------------


def verdict(
    entry: dict[str, t.Any], answer: Answer | Path, identities: t.Sequence[IdentityPaths] = IDENTITIES
) -> tuple[str | None, tuple[str, ...]]:
    spec = parse({"to": FAR4, **entry})
    if isinstance(answer, Path):
        answer = Answer(spec.flows[0], answer, source=spec.flows[0].source or answer.src)
    found = _paths.check(spec, answer, identities)
    return found.status, found.differs


@pytest.mark.parametrize(
    ("expect", "differs"),
    [
        ({"dev": "wg0"}, "dev: wg0 expected, up0 found"),
        ({"gateway": "none"}, "gateway: none expected, 192.0.2.1 found"),
        ({"gateway": "192.0.2.254"}, "gateway: 192.0.2.254 expected, 192.0.2.1 found"),
        ({"table": "corp"}, "table: 2000 expected, 254 found"),
        ({"src": "198.51.100.10"}, "src: 198.51.100.10 expected, 192.0.2.10 found"),
        ({"type": "unreachable"}, "type: unreachable expected, unicast found"),
        ({"identity": "inside"}, "identity: inside expected, outside (dev up0) found"),
    ],
)
def test_what_differs(expect: dict[str, t.Any], differs: str) -> None:
    assert verdict({"expect": expect}, UP) == ("wrong", (differs,))


def test_as_expected() -> None:
    every = {"identity": "outside", "dev": "up0", "gateway": "192.0.2.1", "table": "main", "src": "192.0.2.10"}
    assert verdict({"expect": {**every, "type": "unicast"}}, UP) == ("proven", ())
    assert verdict({"expect": {"identity": "inside", "gateway": "none"}}, TUNNEL) == ("proven", ())
    assert verdict({"expect": {"type": "unreachable"}}, NOWHERE) == ("proven", ())
    assert verdict({}, UP) == (None, ())


@pytest.mark.parametrize("expect", [{"dev": "up0"}, {"table": "main"}, {"gateway": "none"}, {"identity": "outside"}])
def test_an_error_is_named(expect: dict[str, t.Any]) -> None:
    status, (differs,) = verdict({"expect": expect}, NOWHERE)
    assert (status, differs.endswith("expected, unreachable found")) == ("wrong", True), differs


def test_by_a_device_that_is_no_egress() -> None:
    local = dataclasses.replace(TUNNEL, dev="br0")
    status, differs = verdict({"expect": {"identity": "inside"}}, local)
    assert (status, differs) == ("wrong", ("identity: inside expected, no identity (dev br0) found",))


def test_identities_on_one_device_are_told_apart() -> None:
    second = IdentityPaths("second", ("192.0.2.20",), ("up0",), (2002,), ("192.0.2.2",))
    several = (*IDENTITIES, second)
    by_table = dataclasses.replace(UP, table=2002)
    by_gateway = dataclasses.replace(UP, gateway="192.0.2.2", src=None)
    by_source = dataclasses.replace(UP, gateway=None, src="192.0.2.20")
    for path in (by_table, by_gateway, by_source):
        assert _paths._leaves_by(path, several) == ["second"]
    assert _paths._leaves_by(Path("unicast", "up0"), several) == ["outside", "second"]


def test_pending_while_the_egress_is_gone_and_the_backstop_answers() -> None:
    gone = (dataclasses.replace(INSIDE, devices=()), OUTSIDE)
    expect = {"expect": {"identity": "inside"}}
    assert verdict({"from": "198.51.100.10", **expect}, NOWHERE, gone)[0] == "pending"
    assert verdict({"from": "inside", "expect": {"dev": "wg0"}}, NOWHERE, gone)[0] == "pending"
    assert verdict({"from": "198.51.100.10", **expect}, UP, gone)[0] == "wrong", "it leaks"
    assert verdict({"from": "198.51.100.10", **expect}, NOWHERE)[0] == "wrong", "the egress is there"
    assert verdict({"from": "192.0.2.10", "expect": {"dev": "up0"}}, NOWHERE, gone)[0] == "wrong", "another's flow"


def both(first: Path, second: Path, **flow: t.Any) -> Answer:
    found = Flow(**{"family": 4, "to": FAR4, **flow})
    return Answer(found, first, second, first.src)


def test_the_lookup_of_unconnected_sockets_counts() -> None:
    expect = {"expect": {"dev": "up0"}}
    assert verdict(expect, both(TUNNEL, UP))[1] == ("first lookup: dev: up0 expected, wg0 found",)
    assert verdict(expect, both(UP, TUNNEL))[1] == ("dev: up0 expected, wg0 found",)
    assert verdict(expect, both(TUNNEL, UP, ipproto=17))[0] == "wrong"
    assert verdict(expect, both(TUNNEL, UP, ipproto=6))[0] == "proven", "TCP over IPv4 always connects"
    assert verdict(expect, both(TUNNEL, UP, ipproto=6, family=6, to=FAR6))[0] == "wrong"


def test_tables_and_gateways_of_both_lookups_may_differ() -> None:
    answer = both(UP, dataclasses.replace(UP, table=2001, gateway=None))
    assert verdict({"expect": {"dev": "up0", "table": 2001, "gateway": "none"}}, answer) == ("proven", ())


def test_unchanged() -> None:
    before = both(UP, UP)
    assert _paths.compare(before, both(UP, dataclasses.replace(UP, table=2001))) == ()
    moved = both(UP, dataclasses.replace(UP, gateway="192.0.2.254"))
    assert _paths.compare(before, moved) == ("gateway: 192.0.2.1 before, 192.0.2.254 now",)
    assert _paths.compare(before, moved, without_neighbours={"up0"}) == ()
    into_tunnel = both(TUNNEL, UP)
    assert "first lookup: dev: up0 before, wg0 now" in _paths.compare(before, into_tunnel)
    assert "type: unicast before, unreachable now" in _paths.compare(before, Answer(before.flow, NOWHERE))


def test_a_gateway_on_a_tunnel_means_nothing() -> None:
    links = [Link(1, "lo", arptype=772), Link(2, "up0"), Link(3, "tun0", arptype=65534), Link(4, "ppp0", arptype=512)]
    assert _paths.without_neighbours(links) == {"lo", "tun0", "ppp0"}


@pytest.mark.parametrize(
    ("now", "verdict", "differs"),
    [
        (UP, "proven", []),
        (dataclasses.replace(UP, gateway="192.0.2.254"), "wrong", ["gateway: 192.0.2.1 before, 192.0.2.254 now"]),
        (None, "pending", ["has no answer now: its source or device is not there"]),
    ],
)
def test_the_same_flow_is_asked_before_and_after(now: Path | None, verdict: str, differs: list[str]) -> None:
    kernel = Answers({"192.0.2.10": UP})
    local = {"192.0.2.10"}
    ask = kernel.lookup
    kernel.lookup = lambda flow: LOCAL if flow.to in local else ask(flow)  # type: ignore[method-assign]
    entry = {"from": "192.0.2.10", "to": FAR4, "expect": "unchanged"}
    questions = Questions(t.cast("t.Any", kernel), [("paths[0]", entry)], IDENTITIES, table)
    if now is None:
        local.clear()
    else:
        kernel.answers["192.0.2.10"] = now
    (found,) = questions.after()
    assert (found["verdict"], found["differs"]) == (verdict, differs)
    assert found["before"] == {
        "dev": "up0",
        "gateway": "192.0.2.1",
        "src": "192.0.2.10",
        "table": 254,
        "type": "unicast",
    }


# --- results ---------------------------------------------------------------------------------------------------------


def entries(
    entry: dict[str, t.Any], answers: dict[str | None, Path], identities: t.Sequence[IdentityPaths] = IDENTITIES
) -> list[dict[str, t.Any]]:
    spec = parse_flow({"to": FAR4, **entry}, "paths[0]", identities, fields.table_id)
    return _paths.answer_all(t.cast("t.Any", Answers(answers)), [spec], identities)


def test_an_entry() -> None:
    second = dataclasses.replace(UP, table=2001, src=None)
    (found,) = entries({"expect": {"dev": "wg0"}, "fwmark": "0x10"}, {None: UP, "192.0.2.10": second})
    assert found == {
        "identity": "outside", "family": 4, "flow": "203.0.113.5 mark 0x10", "from": None, "to": FAR4,
        "dev": "up0", "gateway": "192.0.2.1", "src": "192.0.2.10", "table": 2001, "type": "unicast",
        "unconnected": {"dev": "up0", "gateway": "192.0.2.1", "src": "192.0.2.10", "table": 254, "type": "unicast"},
        "verdict": "wrong", "before": None,
        "differs": ["dev: wg0 expected, up0 found", "first lookup: dev: wg0 expected, up0 found"],
    }  # fmt: skip


def test_an_entry_for_each_address() -> None:
    answers: dict[str | None, Path] = {"198.51.100.10": TUNNEL, "198.51.100.11": TUNNEL}
    spec = parse_flow({"from": "inside", "to": FAR4, "expect": {"identity": "inside"}}, "paths[0]", IDENTITIES)
    kernel = Answers(answers)

    def lookup(flow: Flow) -> Path:
        return LOCAL if flow.to in answers else answers[flow.source]

    kernel.lookup = lookup  # type: ignore[method-assign]
    found = _paths.answer_all(t.cast("t.Any", kernel), [spec], IDENTITIES)
    assert [(each["from"], each["verdict"]) for each in found] == [
        ("198.51.100.10", "proven"),
        ("198.51.100.11", "proven"),
    ]


@pytest.mark.parametrize(
    ("entry", "answers", "status", "why"),
    [
        ({"from": "192.0.2.77"}, {"192.0.2.77": UP}, "wrong", "192.0.2.77 is not an address of this host now"),
        ({"from": "198.51.100.10"}, {"198.51.100.10": UP}, "pending", "is not an address of this host now"),
        ({"from": "10.0.0.9", "iif": "up0"}, {"10.0.0.9": LOCAL}, "wrong", "is an address of this host"),
        ({"oif": "nosuch0"}, {}, "wrong", "oif: there is no device nosuch0"),
        ({"iif": "nosuch0", "from": "10.0.0.9"}, {}, "wrong", "iif: there is no device nosuch0"),
    ],
)
def test_an_answer_that_proves_nothing_is_not_given(
    entry: dict[str, t.Any], answers: dict[str | None, Path], status: str, why: str
) -> None:
    (found,) = entries({**entry, "expect": {"dev": "up0"}}, answers)
    assert (found["verdict"], found["dev"], found["type"]) == (status, None, None)
    assert why in found["differs"][0]
    (silent,) = entries(entry, answers)
    assert silent["verdict"] is None


def test_an_identity_without_address_is_pending() -> None:
    gone = (dataclasses.replace(INSIDE, addresses=()), OUTSIDE)
    (found,) = entries({"from": "inside", "expect": {"identity": "inside"}}, {}, gone)
    assert (found["identity"], found["verdict"]) == ("inside", "pending")
    assert found["differs"] == ["from: inside has no ipv4 address now"]


def test_what_fails_a_task() -> None:
    required = (dataclasses.replace(INSIDE, required=True), OUTSIDE)
    found = [
        {"identity": name, "verdict": status}
        for name in ("inside", "outside")
        for status in ("proven", "pending", "wrong", None)
    ]
    assert _paths.failing(found, IDENTITIES) == [found[2], found[6]]
    assert _paths.failing(found, required) == [found[1], found[2], found[6]]


def test_devices_that_are_down_are_no_egress() -> None:
    links = [Link(1, "wg0", up=False), Link(2, "up0", up=True)]
    assert _paths.present(INSIDE, links).devices == ()
    assert _paths.present(OUTSIDE, links).devices == ("up0",)


def test_a_flow_in_words() -> None:
    flow = Flow(4, FAR4, "10.0.0.1", None, "up0", 255, 0, 6, 1, 2)
    assert _paths.text(flow) == "203.0.113.5 from 10.0.0.1 oif up0 mark 0xff uid 0 ipproto tcp sport 1 dport 2"
