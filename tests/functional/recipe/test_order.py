# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a plan is its safety: packets are sent after each single operation, in and out."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import RoutingError
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation

from tests.functional.recipe.conftest import Make
from tests.functional.recipe.hosts import CORP, INET, T_CORP, TUNNEL, TUNNEL_OWN, TUNNEL_STOP, Endpoint, Stepping, ask
from tests.lab import Capture
from tests.lab import addresses as plan

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
FULL: dict[str, t.Any] = {"unbound": "corp", "unbound_local": "main"}
POOLED = {**CORP, "pools": list(plan.OTHER_POOL)}


@dataclasses.dataclass
class Step:
    """What was seen after one operation."""

    text: str
    guarded: frozenset[int]  # families whose backstop stood
    astray: frozenset[int]  # families in which something from I left by the uplink
    cut: frozenset[str]  # outside addresses from which nothing left by the uplink


class Watcher:
    """Sends from every address after each operation, by old sockets and new ones."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.steps: list[Step] = []
        self._stack = contextlib.ExitStack()
        self._old: dict[str, socket.socket] = {}

    def __enter__(self) -> Watcher:
        for address in self._addresses():
            # Neighbours are known before, so that what is sent is seen at once.
            self.endpoint.lab.probe(self.endpoint.host, plan.ANYCAST[":" in address], "icmp", timeout=0.2)
            self._old[address] = self._stack.enter_context(self._bound(address, socket.SOCK_DGRAM))
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def kernel(self, real: Kernel) -> Stepping:
        """The kernel, watched."""
        return Stepping(real, self.look)

    def reordered(self, real: Kernel) -> Stepping:
        """The same operations in the opposite order."""
        return Stepping(real, self.look, lambda operations: list(reversed(operations)))

    def look(self, operation: Operation) -> None:
        """Send from all, and note which way it went."""
        endpoint = self.endpoint
        with Capture(endpoint.host, settle=0.0) as seen:
            for address in self._addresses():
                self._send(address)
        left = {address: seen.left_by(source=address) for address in self._addresses()}
        self.steps.append(
            Step(
                f"{operation.op} {operation.target.text()}",
                frozenset(family for family in endpoint.inside if self._has_backstop(family)),
                frozenset(family for family, a in endpoint.inside.items() if "up0" in left[a]),
                frozenset(address for address in endpoint.outside.values() if left[address] != {"up0"}),
            )
        )

    def leaks(self) -> list[str]:
        """Steps after which something from I left by the uplink while its backstop stood."""
        return [f"{step.text}: {sorted(step.astray)}" for step in self.steps if step.astray & step.guarded]

    def cuts(self) -> list[str]:
        """Steps after which O was cut off, or went by another device."""
        return [f"{step.text}: {sorted(step.cut)}" for step in self.steps if step.cut]

    def _addresses(self) -> list[str]:
        return [*self.endpoint.inside.values(), *self.endpoint.outside.values()]

    def _bound(self, address: str, kind: socket.SocketKind) -> socket.socket:
        opened = self.endpoint.host.socket(FAMILIES[6 if ":" in address else 4], kind)
        opened.setblocking(False)
        opened.bind((address, 0))
        return opened

    def _send(self, address: str) -> None:
        far = (plan.ANYCAST[":" in address], 7000)
        with contextlib.suppress(OSError):
            self._old[address].sendto(b"?\n", far)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with self._bound(address, kind) as opened, contextlib.suppress(OSError):
                opened.connect(far)
                opened.send(b"?\n")

    def _has_backstop(self, family: int) -> bool:
        rules = self.endpoint.host.ip_json(f"-{family}", "rule")
        inside = self.endpoint.inside[family]
        return any(r["src"] == inside and r.get("action") == "unreachable" for r in rules)


DECLARATIONS: dict[str, tuple[tuple[dict[str, t.Any], ...], dict[str, t.Any]]] = {
    "split": ((CORP, INET), {}),
    "full": ((CORP, INET), FULL),
    "pooled": ((POOLED, INET), {}),
}


@pytest.mark.parametrize("declared", DECLARATIONS)
@pytest.mark.parametrize("vpn", ["up", "down"])
@pytest.mark.parametrize("guard", [False, True], ids=["rules", "guard"])
def test_in_and_out(make: Make, declared: str, vpn: str, guard: bool) -> None:
    """With the VPN down the table has no default: then the backstop must stand before the rule that looks it up.

    The egress guard is there from the first operation to the last, so that with it not even that moment is open.
    """
    endpoint = make(mode="identity")
    identities, options = DECLARATIONS[declared]
    options = {**options, "strict_egress": "true" if guard else "false"}
    identities = ({**identities[0], "addresses": list(endpoint.inside.values())}, *identities[1:])
    if vpn == "down":
        for family, address in endpoint.inside.items():
            endpoint.ip(f"addr del {address}/{32 if family == 4 else 128} dev vpn0")
            endpoint.host.address("lo", f"{address}/{32 if family == 4 else 128}")
        endpoint.ip("link set vpn0 down")
    with Watcher(endpoint) as watcher:
        endpoint.apply(*identities, kernel=watcher.kernel, **options)
        came = len(watcher.steps)
        assert watcher.steps[0].astray == (set() if guard else {4, 6})
        assert not watcher.steps[-1].astray
        endpoint.remove(kernel=watcher.kernel)
    assert watcher.leaks() == []
    assert watcher.cuts() == []
    if guard:
        assert [step.text for step in watcher.steps if step.astray] == [watcher.steps[-1].text]
    if vpn == "up":
        # Once a socket's packets have gone by the tunnel they never go by the uplink while any of its rules stands.
        first = next(n for n, step in enumerate(watcher.steps) if not step.astray)
        assert not [step.text for step in watcher.steps[first:came] if step.astray]
    else:
        looks_up = next(step for step in watcher.steps if "lookup 2001" in step.text and "from 198.18" in step.text)
        assert 4 in looks_up.guarded
    # It is the last of an identity's rules to go: one operation for each family is all that comes after.
    guarded = [n for n, step in enumerate(watcher.steps) if step.guarded]
    assert not [s for s in watcher.steps[guarded[-1] :] if "lookup 2001" in s.text and "rule" in s.text]


def test_another_order_leaks(make: Make) -> None:
    """The rule first and its backstop last: I leaves by the uplink although its rule stands."""
    endpoint = make(mode="identity")
    corp = {**CORP, "addresses": list(endpoint.inside.values())}
    endpoint.ip("link set vpn0 down", f"addr del {endpoint.inside[4]}/32 dev vpn0")
    for family, address in endpoint.inside.items():
        endpoint.host.address("lo", f"{address}/{32 if family == 4 else 128}")
    with Watcher(endpoint) as watcher:
        endpoint.apply(corp, INET, kernel=watcher.reordered)
    astray = [f"lookup {T_CORP}" in step.text for step in watcher.steps if 4 in step.astray]
    assert True in astray


def test_an_exchange_of_the_inside_address(make: Make) -> None:
    endpoint = make(mode="identity")
    old = dict(endpoint.inside)
    endpoint.apply(CORP, INET)
    fresh = [plan.shifted(old[4], 2000), plan.shifted(old[6], 0x20000)]
    endpoint.client.renumber(fresh)
    endpoint.inside = {4: fresh[0], 6: fresh[1]}
    with Watcher(endpoint) as watcher:
        endpoint.apply(kernel=watcher.kernel)
    assert watcher.leaks() == []
    assert watcher.cuts() == []
    assert endpoint.wrong(endpoint.both(endpoint.identities)) == []


def test_from_split_to_full_and_back(make: Make) -> None:
    endpoint = make(mode="identity")
    endpoint.apply(CORP, INET)
    with Watcher(endpoint) as watcher:
        endpoint.apply(CORP, INET, kernel=watcher.kernel, **FULL)
        endpoint.apply(CORP, INET, kernel=watcher.kernel)
    assert len(watcher.steps) > 10
    assert [step.text for step in watcher.steps if step.astray] == []
    assert watcher.cuts() == []


class TestOpenSockets:
    """IPv6 sockets keep the route that they found until something tells them that rules or routes have changed."""

    @pytest.mark.parametrize("backstop", [True, False])
    @pytest.mark.parametrize("connected", [True, False])
    def test_they_follow_when_the_table_is_filled(self, make: Make, backstop: bool, connected: bool) -> None:
        endpoint = make(mode="identity")
        endpoint.apply({**CORP, "backstop": backstop}, INET)
        endpoint.ip(f"route flush table {T_CORP}", f"-6 route flush table {T_CORP}")
        with contextlib.ExitStack() as stack:
            opened = {a: stack.enter_context(self.opened(endpoint, a, connected)) for a in endpoint.inside.values()}
            with Capture(endpoint.host) as before:
                for address, each in opened.items():
                    self.send(each, address, connected)
            assert [before.left_by(source=a) for a in opened] == [set() if backstop else {"up0"}] * 2
            endpoint.apply()
            with Capture(endpoint.host) as after:
                for address, each in opened.items():
                    self.send(each, address, connected)
        assert [after.left_by(source=a) for a in opened] == [{"vpn0"}] * 2

    def opened(self, endpoint: Endpoint, address: str, connected: bool) -> socket.socket:
        opened = endpoint.host.socket(FAMILIES[6 if ":" in address else 4], socket.SOCK_DGRAM)
        opened.bind((address, 0))
        if connected:
            with contextlib.suppress(OSError):
                opened.connect((plan.ANYCAST[":" in address], 7000))
        return opened

    def send(self, opened: socket.socket, address: str, connected: bool) -> None:
        far = (plan.ANYCAST[":" in address], 7000)
        with contextlib.suppress(OSError):
            if connected:
                with contextlib.suppress(OSError):
                    opened.getpeername()
                    opened.send(b"?\n")
                    return
                opened.connect(far)
                opened.send(b"?\n")
            else:
                opened.sendto(b"?\n", far)


class TestFailure:
    """What fails half-way leaves the host as it was."""

    @pytest.mark.parametrize("after", [1, 7, 15])
    def test_a_kernel_that_refuses(self, make: Make, after: int) -> None:
        endpoint = make(mode="identity")
        before = endpoint.state()
        count = 0

        class Refusing:
            def __init__(self, real: Kernel) -> None:
                self._real = real

            def __getattr__(self, name: str) -> t.Any:
                return getattr(self._real, name)

            def apply(self, operations: t.Sequence[Operation]) -> None:
                nonlocal count
                count += 1
                self._real.apply(operations[:after] if count == 1 else operations)
                if count == 1:
                    self._real.apply([o.inverse() for o in reversed(operations[:after])])
                    raise RoutingError("no more")

        with pytest.raises(RoutingError):
            endpoint.apply(CORP, INET, kernel=Refusing)
        assert endpoint.state() == before

    def test_a_path_that_is_not_as_declared(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.ip(f"rule add pref 1500 from {endpoint.inside[4]} lookup main protocol static")
        before = endpoint.state()
        with pytest.raises(RoutingError, match="declared path"):
            endpoint.apply(CORP, INET)
        assert endpoint.state() == before


class TestFlushed:
    def test_a_flushed_table_does_not_leak(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply(CORP, INET)
        endpoint.ip(f"route flush table {T_CORP}", f"-6 route flush table {T_CORP}")
        errors = [
            endpoint.lab.probe(endpoint.host, plan.ANYCAST[f == 6], "tcp", source=a).error
            for f, a in endpoint.inside.items()
        ]
        assert errors == ["ENETUNREACH", "ENETUNREACH"]
        endpoint.apply()
        inside = [
            q for f, a in endpoint.inside.items() for q in ask(endpoint.host, plan.ANYCAST[f == 6], TUNNEL, a, source=a)
        ]
        assert endpoint.wrong(inside) == []

    def test_without_the_backstop_it_does(self, make: Make) -> None:
        endpoint = make(mode="identity")
        endpoint.apply(CORP, INET, strict_egress="false")
        endpoint.drop_rules(TUNNEL_STOP)
        endpoint.ip(f"route flush table {T_CORP}", f"-6 route flush table {T_CORP}")
        with endpoint.capture() as seen:
            for family, address in endpoint.inside.items():
                endpoint.lab.probe(endpoint.host, plan.ANYCAST[family == 6], "udp", source=address, timeout=0.1)
        for address in endpoint.inside.values():
            assert seen.left_by(source=address) == {"up0"}
        assert [r for r in endpoint.host.ip_json("rule") if r["priority"] == TUNNEL_OWN]
