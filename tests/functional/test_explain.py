# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walk through rules and routes against the kernel that makes it.

FLEETVPN_EXAMPLES is the number of random states to try, 25 unless set; each is asked 80 flows.
"""

from __future__ import annotations

import collections
import os
import pathlib
import random
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._explain import explain
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel, open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import DSCP_SINCE, Rule, _at_least
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.state import Flow
from ansible_collections.fleetvpn.routing.plugins.module_utils._paths import walk
from ansible_collections.fleetvpn.routing.plugins.module_utils._walks import as_lines, read_scene, walks

from tests.functional import states
from tests.functional.endpoints import FAR, FAR6, IDENTITIES, INSIDE, TUNNEL, UPLINK, ensure, namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

EXAMPLES = int(os.environ.get("FLEETVPN_EXAMPLES", "25"))
FLOWS = 40  # of each family


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_the_walk_comes_to_what_the_kernel_answers(seed: int) -> None:
    rng = random.Random(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    with states.state(rng) as netns, open_kernel(netns) as kernel:
        more(rng, kernel)
        for family in (4, 6):
            scene = read_scene(kernel, family)
            for flow in states.flows(rng, kernel, family, FLOWS):
                found = explain(scene, flow)
                answer = kernel.lookup(flow)
                assert found.agrees(answer), f"{flow}: {answer} by the kernel, {found}"
                outcomes[found.steps[-1].outcome] += 1
    assert sum(outcomes.values()) == 2 * FLOWS


def more(rng: random.Random, kernel: Kernel) -> None:
    """What ip(8) of Debian 12 cannot say, and a sysctl that makes routes without carrier not count."""
    if _at_least(os.uname().release, DSCP_SINCE):
        rules = [Rule(f, rng.randint(1, 1000), dscp=d, table=2001, protocol=77) for f in (4, 6) for d in (0, 4, 12)]
        kernel.apply([Operation("add", rule) for rule in rng.sample(rules, 3)])
    if rng.random() < 0.3:
        for family in ("ipv4", "ipv6"):
            for device in ("fvta", "fvtb"):
                knob = pathlib.Path(f"/proc/sys/net/{family}/conf/{device}/ignore_routes_with_linkdown")
                knob.write_text("1", encoding="ascii")


def test_every_outcome_is_among_the_random_states() -> None:
    """Else the property above would say little."""
    outcomes = {"no match", "nop", "goto", "goto without target", "no route", "suppressed", "throw", "found", "error"}
    seen: set[str] = set()
    for seed in range(60):
        if seen >= outcomes:
            return
        rng = random.Random(seed)
        with states.state(rng) as netns, open_kernel(netns) as kernel:
            for family in (4, 6):
                scene = read_scene(kernel, family)
                flows = states.flows(rng, kernel, family, FLOWS)
                seen |= {step.outcome for flow in flows for step in explain(scene, flow).steps}
    pytest.fail(f"never seen: {', '.join(sorted(outcomes - seen))}")


def told(netns: str, flow: Flow) -> list[str]:
    with open_kernel(netns) as kernel:
        return [" ".join(line.split()) for entry in walks(kernel, walk(kernel, flow)) for line in as_lines(entry)]


def test_an_identity_and_its_backstop() -> None:
    with namespace(*UPLINK, *TUNNEL) as netns:
        ensure(netns, identities=IDENTITIES)
        lines = told(netns, Flow(4, FAR, source=INSIDE))
        assert lines[0] == f"lookup with source {INSIDE}"
        assert "0: from all lookup 255 no route" in lines
        uplink = "2200: from 192.0.2.10 iif lo lookup 254 suppress_prefixlength 1 suppress_ifgroup 151"
        assert f"{uplink} no match: from is {INSIDE}" in lines
        assert lines[-2].startswith(f"2301: from {INSIDE} iif lo lookup 2002 found: default dev vpn0 table 2002")
        assert lines[-1] == "the kernel says so: dev vpn0 table 2002"


@pytest.mark.parametrize("to", [FAR, FAR6])
def test_both_lookups_of_a_socket_without_a_source(to: str) -> None:
    with namespace(*UPLINK, *TUNNEL) as netns:
        ensure(netns, identities=IDENTITIES)
        lines = told(netns, Flow(6 if ":" in to else 4, to))
        assert [line for line in lines if line.startswith("lookup")] == [
            "lookup without a source",
            f"lookup with source {'2001:db8:2::10' if ':' in to else '192.0.2.10'}",
        ]
        assert any("no match: no source yet" in line for line in lines)
        assert any("suppressed: the prefix is not longer than 1" in line for line in lines)
        assert not any("differ" in line for line in lines)


def test_where_the_kernel_does_otherwise_it_is_said() -> None:
    """A packet that comes in where nothing is forwarded: the rules have a way for it."""
    with namespace(*UPLINK, *TUNNEL) as netns, open_kernel(netns) as kernel:
        for name, value in (("ip_forward", "0"), ("conf/all/rp_filter", "1")):
            pathlib.Path("/proc/sys/net/ipv4", name).write_text(value, encoding="ascii")
        flow = Flow(4, FAR, source="10.9.9.9", iif="vpn0")
        (entry,) = walks(kernel, walk(kernel, flow))
        assert not entry["agrees"]
        assert entry["expected"][0]["dev"] == "up0"
        assert (
            as_lines(entry)[-1]
            == "  the two differ: via 192.0.2.1 dev up0 table 254 by the rules, unreachable by the kernel"
        )


def test_a_bound_ipv6_socket_takes_no_other_device() -> None:
    """The kernel's answer to a request with a source may be another device; no socket gets that."""
    with namespace(*UPLINK, *TUNNEL) as netns, open_kernel(netns) as kernel:
        flow = Flow(6, FAR6, source="2001:db8:51::10", oif="vpn0")
        (entry,) = walks(kernel, walk(kernel, flow))
        assert (entry["agrees"], entry["answer"]["type"]) == (True, "unreachable")
        assert t.cast(str, entry["steps"][-1]["route"]).startswith("default via")
