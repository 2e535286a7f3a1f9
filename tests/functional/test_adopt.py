# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand-made rules and routes that a set takes over: on a real kernel, and with packets that run through it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict, VerificationError
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._netns import inside

from tests.functional import endpoints
from tests.functional.conftest import ip
from tests.functional.endpoints import (
    FAR,
    FAR6,
    GATEWAY,
    IDENTITIES,
    INSIDE,
    INSIDE6,
    TUNNEL,
    UPLINK,
    ensure,
    namespace,
    received,
    state,
    tap_all,
)
from tests.functional.recipe.hosts import Stepping

if t.TYPE_CHECKING:
    from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

# As a script behind a VPN client has it.
HAND_MADE = [
    f"rule add pref 1500 from {INSIDE} lookup 100",
    "route add default dev vpn0 table 100",
    f"-6 rule add pref 1500 from {INSIDE6} lookup 100",
    "-6 route add default dev vpn0 table 100",
]
DECLARED: dict[str, t.Any] = {
    "identities": [],
    "rules": [{"priority": 1500, "from": address, "table": "100"} for address in (INSIDE, INSIDE6)],
    "routes": [{"dst": "default", "family": family, "dev": "vpn0", "table": "100"} for family in ("ipv4", "ipv6")],
}
# ip gives its rules no owner, and its routes `boot`.
SCRIPT = {"0": 2, "3": 2}
RULES = {"identities": [], "rules": DECLARED["rules"]}


@pytest.fixture
def netns() -> t.Iterator[str]:
    with namespace(*UPLINK, *TUNNEL, *HAND_MADE) as name:
        yield name


def held(netns: str) -> dict[str, int]:
    """What stands at the priority and in the table of the script, with how many have each owner."""
    found = [line for line in state(netns) if line.startswith("1500:") or " table 100 " in line]
    owners = [line.partition(" proto ")[2].split()[0] for line in found]
    return {owner: owners.count(owner) for owner in owners}


def test_all_of_it_is_taken_over_and_once(netns: str) -> None:
    assert held(netns) == SCRIPT
    done = ensure(netns, **DECLARED, adopt=True)
    assert done.changed
    assert done.warnings == []
    assert held(netns) == {"151": 4}
    assert not ensure(netns, **DECLARED, adopt=True).changed
    assert not ensure(netns, **DECLARED).changed


def test_check_mode_announces_it_and_the_diff_tells_the_owner(netns: str) -> None:
    before = state(netns)
    announced = ensure(netns, check=True, **DECLARED, adopt=True)
    assert state(netns) == before
    done = ensure(netns, **DECLARED, adopt=True)
    assert announced.plan == done.plan
    assert (announced.before, announced.after) == (done.before, done.after)
    assert f"1500:\tfrom {INSIDE} lookup 100 proto 0\n" in done.before
    assert f"1500:\tfrom {INSIDE} lookup 100\n" in done.after
    assert "default dev vpn0 table 100 scope 253 proto 3\n" in done.before
    assert done.plan is not None
    steps = [(step["op"], step["kind"], step["family"]) for step in done.plan]
    assert steps == [("replace", "route", "ipv4"), ("replace", "route", "ipv6"),
                     ("add", "rule", "ipv4"), ("add", "rule", "ipv6"),
                     ("remove", "rule", "ipv4"), ("remove", "rule", "ipv6")]  # fmt: skip


def test_unasked_a_rule_is_named_and_stays_and_a_route_is_refused(netns: str) -> None:
    done = ensure(netns, **RULES)
    assert [text for text in done.warnings if "foreign twin (protocol 0)" in text]
    assert held(netns) == {**SCRIPT, "151": 2}
    with pytest.raises(Conflict, match="stands in the way") as caught:
        ensure(netns, **DECLARED)
    assert "adopt: true" in str(caught.value.accepted)
    assert held(netns) == {**SCRIPT, "151": 2}


def test_what_was_named_before_can_be_taken_over_later(netns: str) -> None:
    ensure(netns, **RULES)
    assert ensure(netns, **DECLARED, adopt=True).changed
    assert held(netns) == {"151": 4}


def test_it_is_taken_over_where_nothing_is_pruned(netns: str) -> None:
    ensure(netns, **DECLARED, adopt=True, prune=False)
    assert held(netns) == {"151": 4}


def test_what_was_taken_over_goes_with_the_set(netns: str) -> None:
    ensure(netns, **DECLARED, adopt=True)
    ensure(netns, identities=[], state="absent")
    assert held(netns) == {}


def test_a_change_that_fails_puts_back_what_was_there(netns: str) -> None:
    before = state(netns)
    wrong = [{"from": INSIDE, "to": FAR, "expect": {"dev": "up0"}}]
    with pytest.raises(VerificationError):
        ensure(netns, **DECLARED, adopt=True, paths=wrong, what_if="skip")
    assert state(netns) == before


def test_a_route_that_leads_elsewhere_is_no_twin(netns: str) -> None:
    ip("-n", netns, "route", "replace", "default", "via", GATEWAY, "dev", "up0", "table", "100")
    before = state(netns)
    with pytest.raises(Conflict, match="stands in the way"):
        ensure(netns, **DECLARED, adopt=True)
    assert state(netns) == before


def test_one_of_several_routes_of_a_key_is_no_twin(netns: str) -> None:
    """The kernel would exchange all of them for ours."""
    ip("-n", netns, "-6", "route", "append", "default", "dev", "up0", "table", "100")
    before = state(netns)
    with pytest.raises(Conflict, match="stands in the way"):
        ensure(netns, **DECLARED, adopt=True)
    assert state(netns) == before


def test_an_identity_takes_over_the_table_that_a_script_filled(netns: str) -> None:
    outside, tunnel = IDENTITIES
    done = ensure(netns, identities=[outside, {**tunnel, "table": "100"}], adopt=True)
    (found,) = [each for each in done.values["identities"] if each["name"] == "inside"]
    assert (found["table"], found["verdict"]) == (100, "proven")
    routes = [line for line in state(netns) if "default dev vpn0 table 100" in line]
    assert all(" proto 151 " in f"{line} " for line in routes)
    assert len(routes) == 2


def test_a_twin_without_an_owner_that_came_behind_ours(netns: str) -> None:
    """A delete that names no protocol takes the first that is equal: ours."""
    ensure(netns, **DECLARED, adopt=True)
    for family, address in ((4, f"{INSIDE}/32"), (6, f"{INSIDE6}/128")):
        with open_kernel(netns) as kernel:
            kernel.apply([Operation("add", Rule(family, 1500, src=address, table=100))])
    assert held(netns) == {"151": 4, "0": 2}
    ensure(netns, **DECLARED, adopt=True)
    assert held(netns) == {"151": 4}


class Stream:
    """Packets from the inside addresses, as fast as they can be sent; each that cannot be is an error."""

    def __init__(self, netns: str) -> None:
        self.sent = 0
        self.errors: list[str] = []
        self.devices: dict[str, int] = {}
        self._netns, self._over = netns, threading.Event()
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stream:
        self._thread.start()
        assert self._running.wait(10)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with inside(self._netns), tap_all() as tap:
            four, six = (socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6))
            with four, six:
                four.bind((INSIDE, 0))
                six.bind((INSIDE6, 0))
                while not self._over.is_set():
                    self._send(four, FAR)
                    self._send(six, FAR6)
                    self._count(tap)
                    self._running.set()

    def _send(self, by: socket.socket, to: str) -> None:
        try:
            by.sendto(b"?", (to, 7))
            self.sent += 1
        except OSError as error:
            self.errors.append(str(error))

    def _count(self, tap: socket.socket) -> None:
        for source, _to, dev in received(tap):
            if source in (INSIDE, INSIDE6):
                self.devices[dev] = self.devices.get(dev, 0) + 1


def test_no_packet_is_lost_or_astray_while_it_is_taken_over(netns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped: list[Operation] = []

    def look(operation: Operation) -> None:
        stepped.append(operation)
        time.sleep(0.05)  # packets after each operation

    @contextlib.contextmanager
    def stepping(name: str | None) -> t.Iterator[Kernel]:
        with open_kernel(name) as kernel:
            yield t.cast("Kernel", Stepping(kernel, look))

    monkeypatch.setattr(endpoints, "open_kernel", stepping)
    with Stream(netns) as stream:
        ensure(netns, **DECLARED, adopt=True)
        assert held(netns) == {"151": 4}
    assert len(stepped) == 6
    assert stream.errors == []
    assert stream.sent > 100
    assert stream.devices == {"vpn0": stream.sent}
