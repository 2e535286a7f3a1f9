# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module endpoint killed at any moment: the next run mends it, and what has been guarded once stays guarded.

A socket bound to the inside address sends all the time, one packet after another. From the first of them that met a
backstop or left by the tunnel, none may leave by the uplink.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.synchronize
import os
import random
import signal
import socket
import struct
import sys
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._netns import inside
from ansible_collections.fleetvpn.routing.plugins.modules import endpoint

from tests.functional.conftest import ip
from tests.functional.endpoints import (
    FAR,
    FAR6,
    IDENTITIES,
    INSIDE,
    INSIDE6,
    STATE,
    TUNNEL,
    UPLINK,
    ensure,
    files,
    namespace,
    state,
)
from tests.module_args import patch_module_args

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

KILLS = 50  # for each state of the tunnel
FORK = multiprocessing.get_context("fork")
PORT = 7
SECOND = "198.51.100.11"
PAUSE = 0.0001
APPLYING = 0.01  # about how long the part of a run takes that changes something, in seconds
# From the kernel's headers; Python has no names for them.
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS, IP_FREEBIND = 33, 263, 6, 15
OUTSIDE_ONE, INSIDE_ONE = IDENTITIES[0], {**IDENTITIES[1], "addresses": [INSIDE, INSIDE6]}
FIRST = {"identities": [OUTSIDE_ONE, INSIDE_ONE]}
MORE = {
    "identities": [OUTSIDE_ONE, {**INSIDE_ONE, "destinations": ["10.88.0.0/16"]}],
    "rules": [{"priority": 1800, "from": "10.99.0.0/24", "table": "900"}],
    "routes": [{"dst": "10.98.0.0/16", "dev": "up0", "table": "900"}],
}
OTHER_TABLE = {"identities": [OUTSIDE_ONE, {**INSIDE_ONE, "table": "2500", "pools": ["198.51.100.0/24"]}]}
OTHER_PRIORITY = {"identities": [OUTSIDE_ONE, {**INSIDE_ONE, "priority": 2400, "mtu": 1400}]}
OTHER_ADDRESSES = {"identities": [{**INSIDE_ONE, "addresses": [INSIDE, INSIDE6, SECOND]}]}
# What the killed run asks for, and the next one: on a host without rules, and (all but the first) on one that has them.
CASES: tuple[tuple[dict[str, t.Any], dict[str, t.Any]], ...] = (
    (FIRST, FIRST),
    (OTHER_TABLE, OTHER_TABLE),
    (OTHER_PRIORITY, OTHER_PRIORITY),
    (OTHER_ADDRESSES, OTHER_ADDRESSES),
    (MORE, FIRST),
)


# -- the module in a process of its own


def start(netns: str, params: t.Mapping[str, t.Any]) -> int:
    """The whole module in a child of this process, which has imported it already; its id."""
    child = os.fork()
    if child:
        return child
    try:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 -- for the rest of this process
        with patch_module_args({"identities": IDENTITIES, "netns": netns, **params}):
            endpoint.main()
    except SystemExit as done:
        os._exit(int(done.code or 0))
    finally:
        os._exit(99)


def run_time(netns: str, params: t.Mapping[str, t.Any]) -> float:
    """How long an undisturbed run takes, in seconds."""
    begun = time.monotonic()
    assert os.waitpid(start(netns, params), 0)[1] == 0
    return time.monotonic() - begun


def run_killed(netns: str, params: t.Mapping[str, t.Any], delay: float, *, begun: bool) -> bool:
    """Whether the run was still under way when it was killed: C(delay) seconds after its start, or (C(begun)) after it
    wrote down what it is about to change.
    """
    child = start(netns, params)
    ended = False
    while begun and not ended and not (STATE / netns / "sets.d" / "main.pending").exists():
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        time.sleep(PAUSE)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


# -- the sender


@dataclasses.dataclass(frozen=True)
class Packet:
    """One that was sent from the inside address: its number, and the device, or nothing if it was refused."""

    number: int
    device: str | None


class Sender:
    """A process that sends from a bound socket until the context ends, in both families by turns."""

    def __init__(self, netns: str) -> None:
        self._netns = netns
        self._stop = FORK.Event()
        self._number = FORK.Value("Q", 0)
        self._mine, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_send, args=(netns, self._stop, self._number, theirs))
        with inside(netns):
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(3))
            self._tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        self._left: dict[int, list[Packet]] = {4: [], 6: []}

    def __enter__(self) -> Sender:
        self._process.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._process.join(10)
        self._tap.close()

    def number(self) -> int:
        """That of a packet which has not been sent yet."""
        return int(self._number.value) + 1

    def packets(self) -> dict[int, list[Packet]]:
        """All that were sent, by family, in their order. Ends the sending."""
        self._stop.set()
        refused = self._mine.recv()
        self.collect()
        dropped = struct.unpack("II", self._tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        assert dropped == 0, "the capture was too slow"
        found = {family: [*left, *(Packet(n, None) for n in refused[family])] for family, left in self._left.items()}
        return {family: sorted(packets, key=lambda packet: packet.number) for family, packets in found.items()}

    def collect(self) -> None:
        """Take what has been captured, before it is too much for the socket."""
        for family, packet in self._captured():
            self._left[family].append(packet)

    def _captured(self) -> t.Iterator[tuple[int, Packet]]:
        while True:
            try:
                data, (name, protocol, kind, *_rest) = self._tap.recvfrom(128)
            except BlockingIOError:
                return
            length = {0x0800: 20, 0x86DD: 40}.get(protocol)
            if kind == socket.PACKET_OUTGOING and length and data[length + 2 : length + 4] == struct.pack("!H", PORT):
                yield 4 if length == 20 else 6, Packet(struct.unpack_from("!Q", data, length + 8)[0], name)


def _send(netns: str, stop: multiprocessing.synchronize.Event, count: t.Any, results: t.Any) -> None:
    refused: dict[int, list[int]] = {4: [], 6: []}
    with contextlib.ExitStack() as stack:
        stack.enter_context(inside(netns))
        sockets = [(4, _bound(stack, INSIDE), FAR), (6, _bound(stack, INSIDE6), FAR6)]
        while not stop.is_set():
            count.value = number = count.value + 1
            for family, made, to in sockets:
                try:
                    made.sendto(struct.pack("!Q", number), (to, PORT))
                except OSError:
                    refused[family].append(number)
            time.sleep(PAUSE)
    results.send(refused)


def _bound(stack: contextlib.ExitStack, source: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    made = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    made.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)  # the address goes away with its device
    made.bind((source, 0))
    return made


def leaked(packets: t.Sequence[Packet], rounds: t.Sequence[tuple[int, int]]) -> list[Packet]:
    """Those that left by the uplink after one that was guarded in the same round, which starts with a host without
    rules and ends before they are removed. Numbers are in the order of sending, so that no clock has to be believed.
    """
    found: list[Packet] = []
    for first, last in rounds:
        sent = [packet for packet in packets if first <= packet.number < last]
        guarded = next((packet.number for packet in sent if packet.device != "up0"), sys.maxsize)
        found += [packet for packet in sent if packet.number > guarded and packet.device == "up0"]
    return found


# -- the tests

Settled = tuple[list[str], dict[str, t.Any], list[str]]


def settled(netns: str) -> Settled:
    """What a run leaves: the kernel's state, the record without its author, the files."""
    record = json.loads((STATE / netns / "sets.d" / "main.json").read_text())
    left = [name for name in files(netns) if "generations" not in name and not name.endswith(".new")]
    return sorted(state(netns)), {**record, "meta": None}, left


def host(tunnel: str) -> contextlib.AbstractContextManager[str]:
    """One whose tunnel is C(up) or C(down)."""
    return namespace(*UPLINK, *TUNNEL, f"address add {SECOND}/32 dev vpn0", f"link set vpn0 {tunnel}")


def prepare(netns: str, asked: t.Mapping[str, t.Any]) -> None:
    """The state from which a run that asks for this starts."""
    ensure(netns, state="absent")
    if asked is not FIRST:
        ensure(netns, **FIRST)


def undisturbed(tunnel: str, asked: t.Mapping[str, t.Any], then: t.Mapping[str, t.Any]) -> tuple[Settled, float]:
    """What is left when nobody is killed, and how long a run takes."""
    times = []
    with host(tunnel) as netns:
        for _run in range(3):
            prepare(netns, asked)
            times.append(run_time(netns, asked))
        ensure(netns, **then)
        return settled(netns), min(times)


@pytest.mark.parametrize(("tunnel", "ways"), [("up", {"up0", "vpn0"}), ("down", {"up0", None})])
def test_a_killed_run_is_mended_by_the_next_and_leaks_nothing(tunnel: str, ways: set[str | None]) -> None:
    chance = random.Random(151)
    expected = [undisturbed(tunnel, *case) for case in CASES]
    killed, half, rounds = 0, 0, []
    with host(tunnel) as netns, Sender(netns) as sender:
        for number in range(3 * KILLS):  # some runs end before they are killed
            if killed == KILLS:
                break
            (asked, then), (result, seconds) = CASES[number % len(CASES)], expected[number % len(CASES)]
            ensure(netns, state="absent")
            assert files(netns) == []
            first = sender.number()
            prepare(netns, asked)
            begun = number % 2 == 1
            delay = chance.uniform(0, APPLYING if begun else seconds)
            killed += run_killed(netns, asked, delay, begun=begun)
            half += "sets.d/main.pending" in files(netns)
            ensure(netns, **then)
            assert settled(netns) == result, f"after kill {number}"
            rounds.append((first, sender.number()))
            sender.collect()
        packets = sender.packets()
    assert killed == KILLS
    assert half > KILLS / 5
    for family, sent in packets.items():
        assert {packet.device for packet in sent} >= ways
        assert leaked(sent, rounds) == [], f"IPv{family}"


@pytest.mark.parametrize(("backstop", "leaks"), [(True, False), (False, True)])
def test_without_a_backstop_the_leak_is_seen(backstop: bool, leaks: bool) -> None:
    identities = [OUTSIDE_ONE, {**INSIDE_ONE, "backstop": backstop}]
    with host("up") as netns, Sender(netns) as sender:
        first = sender.number()
        ensure(netns, identities=identities)
        time.sleep(0.1)
        ip("-n", netns, "link", "set", "vpn0", "down")
        time.sleep(0.1)
        last = sender.number()
        packets = sender.packets()
    for sent in packets.values():
        assert bool(leaked(sent, [(first, last)])) == leaks
