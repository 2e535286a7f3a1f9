# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins: sockets that cannot bind an address, told by port or user. The lab's servers answer from port 7000."""

from __future__ import annotations

import json
import typing as t

import pytest

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import (
    CORP,
    INET,
    PAIR,
    PIN,
    PIN_NEAR,
    T_CORP,
    TUNNEL,
    UPLINK,
    Endpoint,
    Question,
    ask,
)
from tests.lab import addresses as plan

PORT, OTHER, SERVED = 5353, 5354, 7000
PINNED: dict[str, t.Any] = {
    **CORP,
    "pin": [
        {"ipproto": "udp", "sport": str(PORT)},
        {"ipproto": "tcp", "sport": f"{PORT}"},
        {"ipproto": "udp", "sport": str(SERVED)},
        {"ipproto": "tcp", "sport": str(SERVED)},
    ],
}
NOBODY = 65534
# A daemon that gives up root: the user of a socket is that of its creation.
DAEMON = f"""
import json, os, socket, sys
def name(opened):
    opened.settimeout(2)
    opened.sendto(b"?", (sys.argv[1], 7000))
    return json.loads(opened.recv(2048))["name"]
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
before = socket.socket(family, socket.SOCK_DGRAM)
os.setuid({NOBODY})
print(json.dumps([name(before), name(socket.socket(family, socket.SOCK_DGRAM))]))
"""


@pytest.fixture
def endpoint(make: Make) -> Endpoint:
    return make(mode="identity")


def pinned(endpoint: Endpoint, family: int) -> list[Question]:
    """The pinned port by the tunnel, another one by the uplink."""
    far = plan.ANYCAST[family == 6]
    return [
        *ask(endpoint.host, far, TUNNEL, endpoint.inside[family], sport=PORT),
        *ask(endpoint.host, far, UPLINK, endpoint.outside[family], sport=OTHER),
        *ask(endpoint.host, far, UPLINK, endpoint.outside[family], sport=PORT, source=endpoint.outside[family]),
        *ask(endpoint.host, far, UPLINK, endpoint.outside[family], sport=PORT, dev="up0"),
    ]


def near(endpoint: Endpoint, family: int) -> list[Question]:
    at = int(family == 6)
    return ask(endpoint.host, plan.CONTAINER[at], endpoint.container.name, plan.BRIDGE[at], sport=PORT)


def one_by_one(endpoint: Endpoint, questions: t.Sequence[Question]) -> list[str]:
    """Sockets of one port cannot ask at the same time."""
    return [text for question in questions for text in endpoint.wrong([question])]


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_a_port_leaves_by_its_identity_and_nothing_else_does(endpoint: Endpoint, rp_filter: int) -> None:
    endpoint.strict(rp_filter)
    endpoint.apply(PINNED, INET)
    assert (
        one_by_one(endpoint, endpoint.both(lambda family: [*pinned(endpoint, family), *near(endpoint, family)])) == []
    )
    # What answers from a pinned port to whoever asked it, by any address.
    assert endpoint.wrong(endpoint.both(endpoint.identities), endpoint.both(endpoint.neighbourhood)) == []
    assert endpoint.apply().changed is False


def test_the_kernels_answer_is_part_of_the_proof(endpoint: Endpoint) -> None:
    found = endpoint.apply(PINNED, INET)
    flows = {p["flow"]: (p["dev"], p["verdict"]) for p in found.proof.paths if p["from"] is None}
    assert len(flows) == 8
    assert set(flows.values()) == {("vpn0", "proven")}


def test_a_pin_of_an_uplink_under_a_full_tunnel(endpoint: Endpoint) -> None:
    pins = {"pin": [{"ipproto": kind, "sport": str(PORT)} for kind in ("udp", "tcp")]}
    endpoint.apply(CORP, {**INET, **pins}, unbound="corp")
    questions = []
    for family in (4, 6):
        at = int(family == 6)
        questions += ask(endpoint.host, plan.ANYCAST[at], UPLINK, endpoint.outside[family], sport=PORT)
        questions += ask(endpoint.host, plan.ANYCAST[at], TUNNEL, endpoint.inside[family], sport=OTHER)
        # Main's specific routes, as for everything of an uplink.
        questions += ask(endpoint.host, plan.SIDE_HOST[at], "r2-0", endpoint.outside[family], sport=PORT)
    assert one_by_one(endpoint, questions) == []


@pytest.mark.parametrize("family", [4, 6])
def test_a_user_is_that_of_the_sockets_creation(endpoint: Endpoint, family: int) -> None:
    endpoint.apply({**CORP, "pin": [{"uidrange": f"{NOBODY}-{NOBODY}"}]}, INET)
    done = endpoint.host.run(["/usr/bin/python3", "-c", DAEMON, plan.ANYCAST[family == 6]])
    assert json.loads(done.stdout) == [UPLINK, TUNNEL]
    assert endpoint.wrong(endpoint.unbound(family), endpoint.neighbourhood(family)) == []


class TestWithout:
    def test_source_zero_answers_of_the_port_die(self, endpoint: Endpoint) -> None:
        endpoint.apply(PINNED, INET)
        endpoint.drop_rules(PIN_NEAR, PIN)
        to_bridge = [
            ask(endpoint.container, plan.BRIDGE[at], endpoint.name, plan.CONTAINER[at], proto="udp") for at in (0, 1)
        ]
        assert endpoint.wrong(*to_bridge) == []
        for family in ("-4", "-6"):
            endpoint.ip(f"{family} rule add pref {PIN_NEAR - 3} iif lo ipproto udp sport {SERVED} lookup {T_CORP}")
        assert len(endpoint.wrong(*to_bridge)) == 2

    def test_the_halves_ipv6_with_a_source_is_drawn(self, endpoint: Endpoint) -> None:
        endpoint.apply(PINNED)
        assert endpoint.wrong(endpoint.neighbourhood(6)) == []
        endpoint.drop_rules(PAIR)
        astray = endpoint.wrong(endpoint.neighbourhood(6))
        assert [text for text in astray if text.startswith(f"nbr0  -> {endpoint.outside[6]}")]

    def test_networks_of_the_host_ahead_a_container_is_sought_in_the_tunnel(self, endpoint: Endpoint) -> None:
        endpoint.apply(PINNED, INET)
        endpoint.drop_rules(PIN_NEAR)
        questions = endpoint.both(lambda family: near(endpoint, family))
        assert len(one_by_one(endpoint, questions)) == len(questions)


def test_without_a_pin_the_port_is_unbound(endpoint: Endpoint) -> None:
    endpoint.apply(CORP, INET)
    questions = [q for at in (0, 1) for q in ask(endpoint.host, plan.ANYCAST[at], UPLINK, sport=PORT)]
    assert one_by_one(endpoint, questions) == []
