# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What module endpoint refuses once it has seen the host: in one line, and with nothing changed."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import RoutingError

from tests.functional.conftest import ip
from tests.functional.endpoints import (
    FAR,
    GATEWAY,
    IDENTITIES,
    INSIDE,
    INSIDE6,
    OUTSIDE,
    STATE,
    TUNNEL,
    UPLINK,
    device,
    ensure,
    files,
    namespace,
    state,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

COLLECTIONS = pathlib.Path(__file__).parents[2] / "build" / "collections"
MODULE = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.fleetvpn.routing.plugins.modules.endpoint import main
with patch_module_args(json.load(sys.stdin)):
    main()
"""
OUTSIDE_ONE, INSIDE_ONE = IDENTITIES
SECOND = device("up1", "198.18.7.10/24")


@pytest.fixture
def netns() -> t.Iterator[str]:
    with namespace(*UPLINK, *TUNNEL) as name:
        yield name


def route(**params: t.Any) -> dict[str, t.Any]:
    return {"routes": [{"table": "900", **params}]}


def rule(**params: t.Any) -> dict[str, t.Any]:
    return {"rules": [{"priority": 1800, **params}]}


def identities(*changes: dict[str, t.Any]) -> dict[str, t.Any]:
    """The usual two, each with its changes."""
    return {"identities": [{**one, **change} for one, change in zip(IDENTITIES, changes, strict=True)]}


# What is asked for, and the field, value and a part of what would be accepted.
REFUSED: dict[str, tuple[dict[str, t.Any], str, object, str]] = {
    "unknown device": (route(dst="10.1.0.0/16", dev="fvtnot"), "routes[0].dev", "fvtnot", "up0"),
    "unknown device of a next hop": (
        route(dst="10.1.0.0/16", nexthops=[{"dev": "up0"}, {"dev": "fvtnot"}]),
        "routes[0].nexthops[1].dev",
        "fvtnot",
        "vpn0",
    ),
    "gateway not reachable": (route(dst="10.1.0.0/16", gateway=FAR), "routes[0].gateway", FAR, "onlink"),
    "gateway not reachable by the device": (
        route(dst="10.1.0.0/16", gateway=GATEWAY, dev="vpn0"),
        "routes[0].gateway",
        GATEWAY,
        "vpn0",
    ),
    "IPv6 gateway not reachable": (
        route(dst="2001:db8:99::/48", gateway="2001:db8:77::1"),
        "routes[0].gateway",
        "2001:db8:77::1",
        "onlink",
    ),
    "source not local": (
        route(dst="10.1.0.0/16", dev="up0", src="192.0.2.99"),
        "routes[0].src",
        "192.0.2.99",
        "an address of this host",
    ),
    "host bits": (route(dst="10.1.0.1/16", dev="up0"), "routes[0].dst", "10.1.0.1/16", "10.1.0.0/16"),
    "unknown table": (route(dst="10.1.0.0/16", dev="up0", table="fvt-none"), "routes[0].table", "fvt-none", ""),
    "goto nowhere": (rule(family="ipv4", action="goto", goto=1900), "rules[0].goto", 1900, "an ipv4 rule that exists"),
    "goto a rule of the other family": (
        {"rules": [{"priority": 1800, "family": "ipv4", "action": "goto", "goto": 1900},
                   {"priority": 1900, "family": "ipv6", "action": "nop"}]},
        "rules[0].goto",
        1900,
        "an ipv4 rule",
    ),
    "goto backwards": (rule(family="ipv4", action="goto", goto=1700), "rules[0].goto", 1700, ""),
    "gateway of a family without address": (
        identities({"gateway": [GATEWAY, "2001:db8:2::1"], "families": ["ipv4"]}, {}),
        "identities[0].gateway",
        "2001:db8:2::1",
        "an IPv4 address",
    ),
    "gateway of a family that the device lacks": (
        {"identities": [{"name": "second", "interface": ["up1"], "gateway": ["198.18.7.1", "2001:db8:7::1"]}]},
        "identity second: gateway",
        "2001:db8:7::1",
        "an IPv4 address",
    ),
    "address never seen": (
        identities({"addresses": ["192.0.2.99"]}, {}),
        "identity outside: addresses",
        "192.0.2.99",
        "an address",
    ),
    "address on two devices": (
        {"identities": [{"name": "both", "interface": ["up0", "twin"], "gateway": [GATEWAY]}]},
        "identities",
        OUTSIDE,
        "one device",
    ),
    "priority outside its part of the block": (
        identities({}, {"priority": 2100}),
        "identity inside: priority",
        2100,
        "2300 to 2597",
    ),
    "unbound by nobody": ({"unbound": "nobody"}, "unbound", "nobody", "keep, outside, inside"),
    "tunnel without device": (
        {"identities": [{"name": "inside", "tunnel": {"type": "openvpn"}, "pools": ["10.8.0.0/16"]}]},
        "identities[0].tunnel",
        "openvpn",
        "connection",
    ),
    "no gateway to be found": (
        {"identities": [{"name": "second", "interface": ["up1"]}]},
        "identity second: gateway",
        "auto",
        "none",
    ),
    "destinations of two identities": (
        identities({"destinations": ["10.1.0.0/16"]}, {"destinations": ["10.1.0.0/16"]}),
        "identities[1].destinations",
        f"10.1.0.0/16 dev vpn0 table 254 scope 253 src {INSIDE} metric 151",
        "one route",
    ),
    "route in the way of an identity's own": (
        route(dst="0.0.0.0/0", dev="up0", table="2002"),
        "routes[0]",
        "default dev up0 table 2002 scope 253",
        "one route",
    ),
    "unsafe set": ({"set": "../main"}, "set", "../main", "letters"),
    "namespace": ({"netns": "fvt-unknown"}, "netns", "fvt-unknown", "the name of a network namespace"),
}  # fmt: skip
MORE_DEVICES = {
    "gateway of a family that the device lacks": SECOND,
    "no gateway to be found": SECOND,
    "address on two devices": device("twin", f"{OUTSIDE}/24"),
}


@pytest.mark.parametrize("applied", [False, True], ids=["at first", "with a set"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_nothing_changed(netns: str, name: str, applied: bool) -> None:
    params, field, value, accepted = REFUSED[name]
    ip("-n", netns, lines=["", *MORE_DEVICES.get(name, [])])
    if applied:
        ensure(netns)
    before = state(netns), files(netns)
    for check in (True, False):
        with pytest.raises(RoutingError) as caught:
            ensure(**{"netns": netns, "check": check, **params})
        refused = caught.value
        assert (refused.field, refused.value) == (field, value)
        assert refused.accepted is not None
        assert accepted in refused.accepted
        assert "\n" not in refused.line()
        assert (state(netns), files(netns)) == before


class TestLocalRule:
    @pytest.mark.parametrize("family", ["-4", "-6"])
    @pytest.mark.parametrize("place", [2500, None])
    def test_must_stand_in_front(self, netns: str, family: str, place: int | None) -> None:
        if place:
            ip("-n", netns, family, "rule", "add", "pref", str(place), "lookup", "local")
        ip("-n", netns, family, "rule", "del", "pref", "0")
        before = state(netns)
        with pytest.raises(RoutingError, match="table local must stand ahead") as caught:
            ensure(netns)
        assert caught.value.accepted
        assert state(netns) == before
        assert files(netns) == []

    def test_may_be_moved_as_long_as_it_stands_in_front(self, netns: str) -> None:
        ip("-n", netns, "rule", "add", "pref", "1000", "lookup", "local")
        ip("-n", netns, "rule", "del", "pref", "0")
        assert ensure(netns).changed


class TestHost:
    """The whole module in a process of its own, on hosts that lack something."""

    def run(self, netns: str, *prefix: str, path: str | None = None, **env: str) -> dict[str, t.Any]:
        before = state(netns), files(netns)
        done = subprocess.run(
            [*prefix, sys.executable, "-c", MODULE],
            input=json.dumps({"identities": IDENTITIES, "netns": netns}),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, str(COLLECTIONS)])), **env},
            capture_output=True,
            text=True,
            check=False,
        )
        found: dict[str, t.Any] = json.loads(done.stdout)
        assert found["failed"]
        assert "\n" not in found["msg"]
        assert "Traceback" not in done.stdout + done.stderr
        assert (state(netns), files(netns)) == before
        return found

    def test_without_privilege(self, netns: str) -> None:
        found = self.run(netns, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", HOME="/tmp")
        assert found["error"] == "NotPermitted"
        assert found["accepted"] == "root"

    def test_without_the_capability(self, netns: str) -> None:
        dropped = "-net_admin,-sys_admin"
        found = self.run(netns, "setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}")
        assert found["error"] == "NotPermitted"
        assert found["field"]

    @pytest.mark.parametrize(
        ("package", "found"),
        [({"pyroute2/__init__.py": "raise ImportError", "pyroute2-9.9.9.dist-info/METADATA": ""}, "none"),
         ({"pyroute2/__init__.py": "", "pyroute2-0.6.9.dist-info/METADATA": ""}, "0.6.9")],
        ids=["missing", "too old"],
    )  # fmt: skip
    def test_without_pyroute2(self, netns: str, tmp_path: pathlib.Path, package: dict[str, str], found: str) -> None:
        for name, text in package.items():
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text(f"{text}\n")
        refused = self.run(netns, path=str(tmp_path))
        assert refused["error"] == "MissingDependency"
        assert (refused["field"], refused["value"]) == ("pyroute2", found)
        assert refused["accepted"].startswith("pyroute2 0.7.2 or later")


@pytest.mark.parametrize(("number", "what"), [("2000", "local"), ("2001", "outside")])
def test_a_table_in_use_is_given_to_no_other(netns: str, number: str, what: str) -> None:
    ensure(netns)
    before = state(netns), files(netns)
    with pytest.raises(RoutingError, match=f"for {what} already") as caught:
        ensure(netns, **identities({}, {"table": number}))
    assert (caught.value.field, caught.value.value) == ("identities[1].table", int(number))
    assert (state(netns), files(netns)) == before


GOTO = {"priority": 1800, "family": "ipv4", "action": "goto", "goto": 1900}
TARGET = {"priority": 1900, "family": "ipv4", "action": "nop"}


def test_a_goto_needs_a_rule_that_stays(netns: str) -> None:
    ensure(netns, rules=[GOTO, TARGET])
    before = state(netns), files(netns)
    with pytest.raises(RoutingError, match="leads to no rule") as caught:
        ensure(netns, rules=[GOTO])
    assert caught.value.field == "rules[0].goto"
    assert (state(netns), files(netns)) == before


def test_a_goto_may_lead_to_a_rule_that_nobody_prunes(netns: str) -> None:
    ensure(netns, rules=[GOTO, TARGET])
    ensure(netns, rules=[GOTO], prune=False)
    assert "[unresolved]" not in " ".join(state(netns))


def test_nothing_of_a_failed_change_stays(netns: str) -> None:
    """A path that is stated and wrong takes back what was applied."""
    ensure(netns, identities=[INSIDE_ONE])
    before = state(netns), (STATE / netns / "sets.d" / "main.json").read_text()
    stated = [{"from": INSIDE, "to": FAR, "expect": {"dev": "up0"}}, {"from": INSIDE6, "to": "2001:db8:9::1"}]
    with pytest.raises(RoutingError, match="up0 expected, vpn0 found"):
        ensure(netns, paths=stated, identities=[OUTSIDE_ONE, {**INSIDE_ONE, "pools": ["10.8.0.0/16"]}])
    assert (state(netns), (STATE / netns / "sets.d" / "main.json").read_text()) == before


def test_required_and_pending_fails_and_is_taken_back(netns: str) -> None:
    ip("-n", netns, "link", "set", "vpn0", "down")
    before = state(netns)
    with pytest.raises(RoutingError, match="inside is required and pending"):
        ensure(netns, **identities({}, {"required": True}))
    assert state(netns) == before
    assert files(netns) == []
