# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is foreseen against what comes: the plan is carried out, and the same kernel is asked again.

FLEETVPN_EXAMPLES is the number of random states and plans to try, 25 unless set; each is asked 100 flows.
"""

from __future__ import annotations

import collections
import os
import pathlib
import random
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _netns
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import NotPermitted, RoutingError
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel, open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Flow
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_copy import Copied, Scratch
from ansible_collections.fleetvpn.routing.plugins.module_utils._paths import obstacle, walk
from ansible_collections.fleetvpn.routing.plugins.module_utils._plan import Plan
from ansible_collections.fleetvpn.routing.plugins.module_utils._whatif import MOST_ADDRESSES, Forecast, foresee

from tests.functional import states
from tests.functional.conftest import ip
from tests.functional.endpoints import FAR, FAR6, INSIDE, INSIDE6, OUTSIDE, OUTSIDE6, TUNNEL, UPLINK, namespace, state

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

EXAMPLES = int(os.environ.get("FLEETVPN_EXAMPLES", "25"))
FLOWS = 50  # of each family
OURS = 151
judged: collections.Counter[str] = collections.Counter()


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_what_is_foreseen_comes(seed: int) -> None:
    rng = random.Random(seed)
    with states.state(rng, tuned=True) as netns, open_kernel(netns) as kernel:
        plan = states.plan(rng, kernel)
        flows = [flow for family in (4, 6) for flow in states.flows(rng, kernel, family, FLOWS)]
        before = state(netns)
        forecast = foresee(kernel, plan, flows)
        assert state(netns) == before
        assert refusal(kernel, plan) == forecast.unavailable
        if forecast.unavailable:
            return
        for flow, foreseen in forecast.flows.items():
            judged["no" if foreseen.unjudged else "yes"] += 1
            if not foreseen.unjudged:
                judged["changed"] += foreseen.before != foreseen.planned
                assert (foreseen.planned, foreseen.obstacle) == answer(kernel, flow), flow


def test_enough_was_judged() -> None:
    """Behind the property, of which this says how much it says."""
    if not judged:
        pytest.skip("the property was not run")
    assert judged["yes"] > 9 * judged["no"]
    assert judged["yes"] >= 80 * EXAMPLES
    assert judged["changed"] > judged["yes"] / 10


def refusal(kernel: Kernel, plan: Plan) -> str | None:
    """Why the kernel does not take the plan, if it does not."""
    try:
        kernel.apply(plan.operations)
    except RoutingError as refused:
        return refused.line()
    return None


def answer(kernel: Kernel, flow: Flow) -> tuple[t.Any, str | None]:
    why = obstacle(kernel, flow, {link.name for link in kernel.links()})
    return (None, why) if why else (walk(kernel, flow), None)


def by_tunnel(family: int, source: str) -> list[Operation]:
    """What comes from an address goes by vpn0."""
    width, scope, everywhere = (32, 253, "0.0.0.0/0") if family == 4 else (128, 0, "::/0")
    return [
        Operation("add", Route(family, everywhere, 2002, dev="vpn0", scope=scope, protocol=OURS)),
        Operation("add", Rule(family, 2301, table=2002, src=f"{source}/{width}", iif="lo", protocol=OURS)),
    ]


PLAN = Plan((*by_tunnel(4, INSIDE), *by_tunnel(6, INSIDE6)))
ASKED = (Flow(4, FAR, INSIDE), Flow(6, FAR6, INSIDE6), Flow(4, FAR), Flow(6, FAR6), Flow(4, FAR, oif="vpn0"))


def devices(forecast: Forecast) -> list[tuple[str | None, str | None]]:
    """By which device each flow leaves, and would leave."""
    told = []
    for foreseen in forecast.flows.values():
        assert foreseen.unjudged is None
        told.append(tuple(found and found.decided.dev for found in (foreseen.before, foreseen.planned)))
    return told  # type: ignore[return-value]


def test_an_identity() -> None:
    with namespace(*UPLINK, *TUNNEL) as netns, open_kernel(netns) as kernel:
        found = devices(foresee(kernel, PLAN, ASKED))
        assert found == [("up0", "vpn0"), ("up0", "vpn0"), ("up0", "up0"), ("up0", "up0"), ("vpn0", "vpn0")]


def test_the_thread_is_back_where_it_was() -> None:
    with namespace(*UPLINK, *TUNNEL) as netns:
        before = os.stat(_netns.THIS_NETNS).st_ino
        with open_kernel(netns) as kernel:
            inside = os.stat(_netns.THIS_NETNS).st_ino
            foresee(kernel, PLAN, ASKED)
            assert os.stat(_netns.THIS_NETNS).st_ino == inside
            refused = Plan((Operation("add", Rule(4, 5, action="goto", goto=4)),))
            assert "Backward goto" in str(foresee(kernel, refused, ASKED).unavailable)
            assert os.stat(_netns.THIS_NETNS).st_ino == inside != before
        assert os.stat(_netns.THIS_NETNS).st_ino == before


@pytest.mark.parametrize("knob", ["0", "1"])
def test_a_device_without_carrier(knob: str) -> None:
    """Its routes count, unless a sysctl says that they do not."""
    with namespace(*UPLINK, *TUNNEL, "link set xvpn0 down") as netns, open_kernel(netns) as kernel:
        for family in ("ipv4", "ipv6"):
            path = pathlib.Path(f"/proc/sys/net/{family}/conf/vpn0/ignore_routes_with_linkdown")
            path.write_text(knob, encoding="ascii")
        wait_for_carrier(kernel)
        found = devices(foresee(kernel, PLAN, ASKED[:2]))
        assert found == [("up0", "up0" if knob == "1" else "vpn0")] * 2
        kernel.apply(PLAN.operations)
        assert [walk(kernel, flow).decided.dev for flow in ASKED[:2]] == [after for _before, after in found]


def wait_for_carrier(kernel: Kernel) -> None:
    for _try in range(100):
        if not next(link for link in kernel.links() if link.name == "vpn0").carrier:
            return
        time.sleep(0.05)
    raise AssertionError


def test_what_is_not_copied_is_not_judged() -> None:
    """A route by a nexthop object; and a dead gateway, which IPv6 passes over where a copy would not know of it."""
    with namespace(*UPLINK, *TUNNEL) as netns, open_kernel(netns) as kernel:
        ip("-n", netns, "nexthop", "add", "id", "7", "via", "192.0.2.1", "dev", "up0")
        ip("-n", netns, "route", "add", "203.0.113.0/24", "nhid", "7")
        ip("-n", netns, "-6", "route", "add", "2001:db8:9::/48", "via", "2001:db8:2::7", "dev", "up0")
        ip("-n", netns, "-6", "neigh", "add", "2001:db8:2::7", "dev", "up0", "nud", "failed")
        forecast = foresee(kernel, PLAN, [Flow(4, FAR, OUTSIDE), Flow(6, FAR6, OUTSIDE6), Flow(4, "9.9.9.9", OUTSIDE)])
        by_object, by_neighbour, plain = forecast.flows.values()
        assert by_object.unjudged == "203.0.113.0/24 nhid 7 table 254 cannot be copied"
        assert (by_object.planned, plain.unjudged) == (None, None)
        assert by_neighbour.unjudged is not None
        assert by_neighbour.unjudged.startswith("the copy says via 2001:db8:2::7 dev up0")


def test_beside_a_huge_table_little_is_copied() -> None:
    """What a foreign table of 100,000 routes answers today is known, and what it would answer to others is not."""
    with namespace(*UPLINK, *TUNNEL) as netns, open_kernel(netns) as kernel:
        many = [f"route add 100.{n >> 16}.{n >> 8 & 255}.{n & 255} dev up0 table 900" for n in range(100_000)]
        ip(
            "-n",
            netns,
            lines=[*many, "route add 9.9.9.0/24 via 192.0.2.7 dev up0 table 900", "rule add pref 3000 lookup 900"],
        )
        known, other = Flow(4, "9.9.9.9", OUTSIDE), Flow(4, FAR, INSIDE)
        begun = time.process_time()
        forecast = foresee(kernel, PLAN, [known, other, Flow(4, "9.9.9.9", oif="up0")])
        cost = time.process_time() - begun
        before, planned = forecast.flows[known].before, forecast.flows[known].planned
        assert before == planned
        assert planned is not None
        assert (planned.decided.gateway, planned.decided.table) == ("192.0.2.7", 900)
        assert forecast.flows[other].planned is not None, "the rule of the plan stands ahead of that table"
        ahead = Plan((*PLAN.operations, Operation("add", Rule(4, 2000, table=900, protocol=OURS))))
        assert "so many routes" in str(foresee(kernel, ahead, [Flow(4, "8.8.8.8", INSIDE)]).flows.popitem()[1].unjudged)
        assert "bound socket" in str(list(forecast.flows.values())[2].unjudged)
        assert cost < 0.35


def test_without_the_right_to_make_a_namespace_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise NotPermitted("may not make a network namespace")

    with namespace(*UPLINK, *TUNNEL) as netns, open_kernel(netns) as kernel:
        monkeypatch.setattr(_netns, "_unshare", refused)
        forecast = foresee(kernel, PLAN, ASKED)
        assert "may not make a network namespace" in str(forecast.unavailable)
        assert [each.planned for each in forecast.flows.values()] == [None] * len(ASKED)


KILLED = """
import os, signal
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_scratch
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Link
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_copy import Copied
with open_scratch() as (kernel, scratch):
    scratch.load(Copied((Link(2, "up0", up=True, carrier=True),), (), (), (), {}))
    assert {link.name for link in kernel.links()} == {"lo", "up0", "peer0"}
    print(os.stat("/proc/thread-self/ns/net").st_ino, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_after_sigkill() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -9, done.stderr
    command = ["lsns", "--type", "net", "--noheadings", "--output", "NS"]
    left = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() not in left.stdout.split()


def test_of_many_devices_and_addresses_few_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers' cables without an address are not met by a flow; of a device's many addresses the first count."""
    ports = [
        line for n in range(20) for line in (f"link add fvtp{n} type veth peer name fvtq{n}", f"link set fvtp{n} up")
    ]
    many = [f"address add 10.96.{n}.1/32 dev up0" for n in range(200)]
    copied: list[Copied] = []
    real = Scratch.load

    def load(self: Scratch, content: Copied) -> t.Any:
        copied.append(content)
        return real(self, content)

    with namespace(*UPLINK, *TUNNEL, *ports, *many) as netns, open_kernel(netns) as kernel:
        monkeypatch.setattr(Scratch, "load", load)
        last = Flow(4, FAR, "10.96.199.1")
        found = foresee(kernel, PLAN, [*ASKED, last])
        assert devices(found)[:2] == [("up0", "vpn0"), ("up0", "vpn0")]
        assert found.flows[last].planned is not None
    assert {link.name for link in copied[0].links} == {"lo", "up0", "vpn0"}
    addresses = [each.address for each in copied[0].addresses if (each.dev, each.family) == ("up0", 4)]
    assert len(addresses) <= MOST_ADDRESSES + 1
    assert "10.96.199.1" in addresses
