# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real playbooks over real ssh, with plans that cut the controller off, and with plans that do not."""

from __future__ import annotations

import os
import time
import typing as t

import pytest

from tests.functional.fleet import Clock, Fleet, inside, outside, outside6, state
from tests.lab import Lab
from tests.lab import addresses as plan
from tests.lab.tunnel import Client

pytestmark = [
    pytest.mark.long,
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

TIMEOUT = 4
BY_INSIDE = range(18, 24)
CONTROLLER, NET = plan.OUTSIDE_HOST[0], plan.OUTSIDE_NET[0]
CONTROLLER6, NET6 = plan.OUTSIDE_HOST[1], plan.OUTSIDE_NET[1]
ROUTER, SECOND, NEIGHBOUR = (plan.in_lan(0, last)[0] for last in (1, 254, 200))
NOBODY, NOBODY_TOO = (plan.in_lan(0, last)[0] for last in (251, 252))
NOBODY6 = plan.in_lan(0, 251)[1]
OUTSIDE: dict[str, t.Any] = {"name": "outside", "interface": ["up0"]}
INSIDE: dict[str, t.Any] = {"name": "inside", "interface": ["vpn0"], "gateway": ["none"]}
BASE = {"identities": [OUTSIDE, INSIDE]}
INTO_TUNNEL = [{"family": "ipv4", "dst": "default", "dev": "vpn0", "table": "900"}]


def rule(**selectors: t.Any) -> dict[str, t.Any]:
    """What a careless hand adds to a good declaration: a rule ahead of it."""
    return {**BASE, "rules": [{"priority": 100, "family": "ipv4", **selectors}]}


def route(**attributes: t.Any) -> dict[str, t.Any]:
    """Or a route in main."""
    return {**BASE, "routes": [{"dst": NET, **attributes}]}


def uplink(**changed: t.Any) -> dict[str, t.Any]:
    """Or an uplink that is not as it is declared."""
    return {"identities": [{**OUTSIDE, **changed}, INSIDE]}


def inner(**changed: t.Any) -> dict[str, t.Any]:
    """Or a tunnel."""
    return {"identities": [OUTSIDE, {**INSIDE, **changed}]}


# What the kernel can know, with what it says. O stands for the host's outside address.
KNOWN: dict[str, dict[str, t.Any]] = {
    "backstop on the management address": rule(**{"from": "O", "action": "unreachable"}),
    "blackhole for it": rule(**{"from": "O", "action": "blackhole"}),
    "prohibit for it": rule(**{"from": "O", "action": "prohibit"}),
    "prohibit for its LAN": rule(**{"from": plan.lan(0)[0], "action": "prohibit"}),
    "wrong table for it": {**rule(**{"from": "O", "table": "900"}), "routes": INTO_TUNNEL},
    "wrong table for the controller": {**rule(to=CONTROLLER, table="900"), "routes": INTO_TUNNEL},
    "wrong table for all but a net": {
        **rule(**{"not": True, "to": "10.0.0.0/8", "table": "900"}),
        "routes": INTO_TUNNEL,
    },
    "rule on port 22": rule(ipproto="tcp", sport="22", action="unreachable"),
    "port 22 into the tunnel": {**rule(ipproto="tcp", sport="22", table="900"), "routes": INTO_TUNNEL},
    "rule on the controller's ports": rule(ipproto="tcp", dport="1024-65534", action="unreachable"),
    "rule on TCP": rule(ipproto="tcp", action="blackhole"),
    "rule on root": rule(uidrange="0-0", action="unreachable"),
    "rule on what has no mark": rule(fwmark="0x0/0xff", action="unreachable"),
    "rule on what is sent here": rule(iif="lo", action="prohibit"),
    "rule on everything": rule(action="unreachable"),
    "a jump behind main": rule(goto=32767, action="goto"),
    "main without defaults, then nothing": {
        **BASE,
        "rules": [
            {"priority": 100, "family": "ipv4", "table": "main", "suppress_prefixlength": 1},
            {"priority": 101, "family": "ipv4", "action": "unreachable"},
        ],
    },
    "route to nowhere": route(dst=f"{CONTROLLER}/32", dev="up0"),
    "route to nobody": route(gateway=NOBODY),
    "two ways to nobody": route(nexthops=[{"gateway": NOBODY, "dev": "up0"}, {"gateway": NOBODY_TOO, "dev": "up0"}]),
    "unreachable route": route(type="unreachable"),
    "blackhole route": route(type="blackhole"),
    "prohibit route": route(type="prohibit"),
    "prohibit for the controller's net": rule(to=NET, action="prohibit"),
    "dead gateway": uplink(gateway=[NOBODY]),
    "another router that was not declared": route(gateway=SECOND),
}
# What only reality tells: gateways that are there and lead nowhere.
REAL: dict[str, dict[str, t.Any]] = {
    "a router that filters": uplink(gateway=[SECOND]),
    "a neighbour that does not forward": uplink(gateway=[NEIGHBOUR]),
    "a router that filters, with a rule for UDP": {
        **uplink(gateway=[SECOND]),
        "rules": [{"priority": 90, "from": "O", "ipproto": "udp", "action": "nop"}],
    },
    "a neighbour that drops, without a tunnel": {"identities": [{**OUTSIDE, "gateway": [NEIGHBOUR]}]},
}
CUTTING = {**KNOWN, **REAL}
KEPT = 18  # of them leave each identity its declared path, so that nobody but the controller finds out
# The same for a controller that comes by IPv6.
CUTTING6: dict[str, dict[str, t.Any]] = {
    "rule on port 22": rule(family="ipv6", ipproto="tcp", sport="22", action="unreachable"),
    "route to nobody": route(dst=NET6, gateway=NOBODY6),
}
# What leaves the controller its way, each another change of the good declaration. Clients whose numbers leave 1 when
# divided by 3, and those of BY_INSIDE, have a full tunnel, and answer at O only by the identity outside.
HARMLESS: dict[str, dict[str, t.Any]] = {
    "the inside identity goes": {"identities": [OUTSIDE]},
    "pools are added": inner(pools=["10.9.0.0/16"]),
    "the outside identity goes": {"identities": [INSIDE]},
    "an identity is added": {
        "identities": [OUTSIDE, INSIDE, {"name": "more", "interface": ["vpn9"], "gateway": ["none"]}]
    },
    "an identity is renamed": inner(name="corporate"),
    "the set goes": {"state": "absent"},
    "no backstop inside": inner(backstop=False),
    "no backstop outside": uplink(backstop=False),
    "only IPv4 inside": inner(families=["ipv4"]),
    "only IPv4 outside": uplink(families=["ipv4"]),
    "other priorities": {**BASE, "numbers": {"priority_base": 3000}},
    "another priority of one": uplink(priority=2250),
    "another table inside": inner(table="2600"),
    "another table of one": uplink(table="2500"),
    "another table and priority inside": inner(table="2600", priority=2350),
    "a prohibited net": {**BASE, "routes": [{"dst": "10.7.0.0/16", "type": "prohibit"}]},
    "two ways to elsewhere": {
        **BASE,
        "routes": [{"dst": "10.7.0.0/16", "nexthops": [{"gateway": g, "dev": "up0"} for g in (ROUTER, SECOND)]}],
    },
    "another port": rule(ipproto="tcp", sport="8443", action="unreachable"),
    "destinations inside": inner(destinations=["10.9.0.0/16"]),
    "a rule for others": rule(**{"from": "10.7.0.0/16", "action": "unreachable"}),
    "a rule for UDP": rule(ipproto="udp", dport="4500", table="main"),
    "a rule for another user": rule(uidrange="4999-4999", action="prohibit"),
    "a rule for a mark": rule(fwmark="0x7/0xff", action="blackhole"),
    "a rule that does nothing": rule(action="nop"),
    "a jump to it": {
        **BASE,
        "rules": [
            {"priority": 100, "family": "ipv4", "goto": 110, "action": "goto"},
            {"priority": 110, "family": "ipv4", "action": "nop"},
        ],
    },
    "main without defaults first, for elsewhere": rule(to="10.7.0.0/16", table="main", suppress_prefixlength=0),
    "a route to elsewhere": {**BASE, "routes": [{"dst": "10.7.0.0/16", "gateway": SECOND}]},
    "an unreachable net": {**BASE, "routes": [{"dst": "10.7.0.0/16", "type": "unreachable"}]},
    "the second router in another table": {**BASE, "routes": [{"dst": "default", "gateway": SECOND, "table": "900"}]},
    "a blackhole in another table": {
        **BASE,
        "routes": [{"family": "ipv4", "dst": "default", "type": "blackhole", "table": "900"}],
    },
}


def test_there_are_thirty() -> None:
    assert (len(CUTTING), len(HARMLESS)) == (30, 30)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Fleet]:
    """Thirty clients in one LAN, whose second router drops what goes to the controller."""
    with Lab() as lab:
        clients = [lab.client(f"c{number}", "standin", mode=mode(number)) for number in range(len(CUTTING))]
        lab.start()
        second, _neighbour = lab.lan(0)
        second.route(NET, type="blackhole")
        made = Fleet(lab, tmp_path_factory.mktemp("f"))
        made.manage(*(client.host for client in clients))
        assert made.works(clients) == {client.name for client in clients}
        yield made


def mode(number: int) -> str:
    """Those that are asked at their inside address answer, without policy routing, only from a full tunnel."""
    return "full" if number in BY_INSIDE else ("split", "full", "identity")[number % 3]


def filled(value: t.Any, client: Client) -> t.Any:
    """A plan with the client's own address."""
    if isinstance(value, dict):
        return {key: filled(item, client) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, client) for item in value]
    return client.outside[0] if value == "O" else value


def said(result: dict[str, t.Any]) -> str:
    """What a result says, in short."""
    return f"{result.get('msg')} {result.get('confirm')} {result.get('warnings')}"


def refused(result: dict[str, t.Any], client: Client, version: int = 0) -> bool:
    """Whether it is a refusal that names the replies to the controller, and the way that they would have."""
    flow = f"{plan.OUTSIDE_HOST[version]} from {client.outside[version]} ipproto tcp sport 22 "
    why = "would cut off the connection that manages this host: its replies would have "
    return (
        result.get("field") == "management path"
        and result["value"].startswith(flow)
        and f"{result['value']}' {why}" in result["msg"]
    )


def lost(result: dict[str, t.Any]) -> bool:
    """Whether the controller did not come back."""
    return bool(result.get("unreachable")) or result.get("field") == "confirm"


def in_time(took: t.Collection[float]) -> bool:
    """Whether all of them waited for their time to pass, and not much longer."""
    # Thirty interpreters wake up at one time; how many more want to run is not theirs to know.
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    return min(took) > TIMEOUT - 1 and max(took) <= TIMEOUT + 2 * busy


class TestHarmless:
    """Plans that leave the controller its way, in several ways of being connected; then thirty different ones."""

    def test_outside_asymmetric_before_and_symmetric_after(self, fleet: Fleet) -> None:
        clients = fleet.lab.clients[:18]
        before = {client.name: fleet.connections(client) for client in clients}
        full = [client for client in clients if client.mode == "full"]
        assert full
        with fleet.lab.capture(full[0].host) as seen:
            assert fleet.works(full[:1])
        assert "vpn0" in seen.left_by(source=full[0].outside[0], destination=CONTROLLER)
        told = fleet.play({client.name: outside(client, plan=BASE) for client in clients})
        for client in clients:
            result = told.of(client.name)
            assert result.get("changed"), result
            assert result["confirm"]["state"] == "confirmed", result
            # The module ran by the connection that was left open; the confirmation needed a new one.
            assert fleet.connections(client) > before[client.name]
        with fleet.lab.capture(full[0].host) as seen:
            assert fleet.works(full[:1])
        assert seen.left_by(source=full[0].outside[0], destination=CONTROLLER) == {"up0"}

    def test_over_the_inside_address(self, fleet: Fleet) -> None:
        clients = [fleet.lab.clients[number] for number in BY_INSIDE]
        told = fleet.play({client.name: inside(client, plan=BASE) for client in clients})
        assert {told.of(client.name)["confirm"]["state"] for client in clients} == {"confirmed"}

    def test_through_a_jump_host(self, fleet: Fleet) -> None:
        # With a socket of its own: later tests are to find no connection that comes from the jump host.
        through = f"{fleet.jump(fleet.lab.clients[0])} -o ControlPath={fleet._directory}/jump-%h"
        clients = fleet.lab.clients[24:27]
        told = fleet.play({c.name: outside(c, plan=BASE, ansible_ssh_common_args=through) for c in clients})
        assert {told.of(client.name)["confirm"]["state"] for client in clients} == {"confirmed"}

    def test_one_after_the_other(self, fleet: Fleet) -> None:
        clients = fleet.lab.clients[27:29]
        told = fleet.play({client.name: outside(client, plan=BASE) for client in clients}, forks=1)
        assert {told.of(client.name)["confirm"]["state"] for client in clients} == {"confirmed"}

    def test_delegated_and_in_a_loop(self, fleet: Fleet) -> None:
        client = fleet.lab.clients[29]
        task = {
            "fleetvpn.routing.endpoint": {
                "set": "{{ item }}",
                "rules": [{"priority": "{{ 1000 + index }}", "from": "10.{{ index }}.0.0/16", "table": "901"}],
            },
            "loop": ["one", "two", "three"],
            "loop_control": {"index_var": "index"},
            "delegate_to": client.name,
        }
        told = fleet.play({client.name: outside(client)}, task=task)
        results = told.of(client.name)["results"]
        assert [result["confirm"]["state"] for result in results] == ["confirmed"] * 3
        assert fleet.play({client.name: outside(client, plan=BASE)}).of(client.name)["changed"]

    def test_a_local_connection_proves_nothing(self, fleet: Fleet) -> None:
        result = fleet.play({"here": {"ansible_connection": "local", "plan": BASE}}).of("here")
        assert result["field"] == "confirm.by"
        assert "accepted: probe, with an address and port that the host must reach, or none" in result["msg"]

    def test_a_second_run_makes_no_connection_but_its_own(self, fleet: Fleet) -> None:
        clients = fleet.lab.clients[:3]
        before = [fleet.connections(client) for client in clients]
        told = fleet.play({client.name: outside(client, plan=BASE) for client in clients})
        assert not any(told.of(client.name)["changed"] for client in clients)
        assert all(fleet.connections(client) - earlier <= 1 for client, earlier in zip(clients, before, strict=True))

    def test_thirty_different_ones(self, fleet: Fleet) -> None:
        fleet.play({client.name: outside(client, plan=BASE) for client in fleet.lab.clients})
        asked = dict(zip(HARMLESS, fleet.lab.clients, strict=True))
        told = fleet.play({client.name: outside(client, plan=HARMLESS[name]) for name, client in asked.items()})
        results = {name: told.of(client.name) for name, client in asked.items()}
        assert {
            name: said(r) for name, r in results.items() if (r.get("confirm") or {}).get("state") != "confirmed"
        } == {}
        assert fleet.works(fleet.lab.clients) == {client.name for client in fleet.lab.clients}


class TestCutting:
    """All of them start from the good declaration."""

    before: t.ClassVar[dict[str, list[str]]] = {}

    def test_from_a_good_state(self, fleet: Fleet) -> None:
        told = fleet.play({client.name: outside(client, plan=BASE) for client in fleet.lab.clients})
        for client in fleet.lab.clients:
            assert not told.of(client.name).get("failed"), told.of(client.name)
            self.before[client.name] = state(client)

    def test_what_the_kernel_can_know_is_refused_before_any_change_with_the_path(self, fleet: Fleet) -> None:
        asked = dict(zip(KNOWN, fleet.lab.clients, strict=False))
        with Clock(fleet.lab.clients) as clock:
            told = fleet.play(
                {
                    client.name: outside(client, plan={**filled(KNOWN[name], client), "confirm": {"timeout": 60}})
                    for name, client in asked.items()
                }
            )
        results = {name: told.of(client.name) for name, client in asked.items()}
        assert clock.armed == {}  # once the change was made, what is asked then would refuse them too
        assert {name: said(results[name]) for name, client in asked.items() if not refused(results[name], client)} == {}
        assert [name for name, client in asked.items() if state(client) != self.before[client.name]] == []
        assert fleet.works(fleet.lab.clients) == {client.name for client in fleet.lab.clients}

    def test_without_the_check_all_are_undone_in_time_and_the_same_ssh_works_again(self, fleet: Fleet) -> None:
        asked = dict(zip(CUTTING, fleet.lab.clients, strict=True))
        with Clock(fleet.lab.clients) as clock:
            told = fleet.play(
                {
                    client.name: outside(
                        client,
                        plan={
                            **filled(CUTTING[name], client),
                            "what_if": "skip",
                            "confirm": {"timeout": TIMEOUT},
                        },
                    )
                    for name, client in asked.items()
                }
            )
            time.sleep(1)
        results = {name: told.of(client.name) for name, client in asked.items()}
        # Where the declared path of an identity is wrong too, that is seen once the change is made, and at once.
        kept = [name for name, result in results.items() if result.get("field") != "paths"]
        wrong = {name: said(results[name]) for name in results.keys() - kept}
        assert {name: text for name, text in wrong.items() if "does not give the declared path" not in text} == {}
        assert {name: said(results[name]) for name in kept if not lost(results[name])} == {}
        assert set(REAL) <= set(kept)
        assert len(kept) >= KEPT
        assert [name for name in kept if asked[name].name not in clock.armed] == []
        took = {name: clock.gone[asked[name].name] - clock.armed[asked[name].name] for name in kept}
        print(
            f"{len(took)} of {len(CUTTING)} undone after {min(took.values()):.1f} to {max(took.values()):.1f} s,"
            f" the others at once; {TIMEOUT + 2} s at most are meant, on a machine without other work"
        )
        assert [name for name, client in asked.items() if state(client) != self.before[client.name]] == []
        assert fleet.works(fleet.lab.clients) == {client.name for client in fleet.lab.clients}
        assert in_time(took.values()), took


class TestIPv6:
    """A controller that comes by the other family: the good declaration, and plans that cut it off."""

    before: t.ClassVar[dict[str, list[str]]] = {}

    def test_asymmetric_before_and_symmetric_after(self, fleet: Fleet) -> None:
        clients = fleet.lab.clients[: len(CUTTING6)]
        full = next(client for client in clients if client.mode == "full")
        fleet.play({client.name: outside(client, plan={"state": "absent"}) for client in clients})
        with fleet.lab.capture(full.host) as seen:
            assert fleet.works([full], family=6)
        assert "vpn0" in seen.left_by(source=full.outside[1], destination=CONTROLLER6)
        told = fleet.play({client.name: outside6(client, plan=BASE) for client in clients})
        assert [told.of(client.name)["confirm"]["state"] for client in clients] == ["confirmed"] * len(clients)
        with fleet.lab.capture(full.host) as seen:
            assert fleet.works([full], family=6)
        assert seen.left_by(source=full.outside[1], destination=CONTROLLER6) == {"up0"}
        self.before.update((client.name, state(client)) for client in clients)

    def test_what_cuts_it_off_is_refused(self, fleet: Fleet) -> None:
        asked = dict(zip(CUTTING6, fleet.lab.clients, strict=False))
        with Clock(fleet.lab.clients) as clock:
            told = fleet.play({c.name: outside6(c, plan=CUTTING6[name]) for name, c in asked.items()})
        assert clock.armed == {}
        assert {n: said(told.of(c.name)) for n, c in asked.items() if not refused(told.of(c.name), c, 1)} == {}
        assert [name for name, client in asked.items() if state(client) != self.before[client.name]] == []

    def test_without_the_check_it_is_undone_in_time(self, fleet: Fleet) -> None:
        asked = dict(zip(CUTTING6, fleet.lab.clients, strict=False))
        more = {"what_if": "skip", "confirm": {"timeout": TIMEOUT}}
        with Clock(fleet.lab.clients) as clock:
            told = fleet.play({c.name: outside6(c, plan={**CUTTING6[name], **more}) for name, c in asked.items()})
            time.sleep(1)
        assert {n: said(told.of(c.name)) for n, c in asked.items() if not lost(told.of(c.name))} == {}
        took = {name: clock.gone[client.name] - clock.armed[client.name] for name, client in asked.items()}
        assert [name for name, client in asked.items() if state(client) != self.before[client.name]] == []
        assert fleet.works(list(asked.values()), family=6) == {client.name for client in asked.values()}
        assert in_time(took.values()), took
