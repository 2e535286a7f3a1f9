# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever fails, at whichever call: the state is the one of before or the one of after, and nothing in between.

The kernel is the real one. What is injected is what it, the socket, nft or the disk could answer.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import json
import os
import pathlib
import random
import socket
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _guard, _netlink_apply, _netlink_socket
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import RoutingError
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Sysctl
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_socket import NetlinkSocket, Refused
from ansible_collections.fleetvpn.routing.plugins.module_utils._netns import inside
from ansible_collections.fleetvpn.routing.plugins.module_utils._recipe.facts import NOWHERE_DEVICE

from tests.functional.conftest import ip
from tests.functional.endpoints import IDENTITIES, INSIDE, INSIDE6, STATE, TUNNEL, UPLINK, ensure, namespace, tables

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

INJECTIONS = 500
SPARE = 40
REFUSALS = (errno.EPERM, errno.ENOBUFS, errno.ENODEV, errno.EINTR, errno.ENOMEM)
LOST = (errno.ENOBUFS, errno.EINTR)
DISK = (errno.ENOSPC, errno.EIO, errno.EROFS)
# What can be answered to each kind of call; to the others, that the socket is closed.
NUMBERS = {
    "request": REFUSALS,
    "send": LOST,
    "answer lost": LOST,
    "disk": DISK,
    "nft": (errno.EPERM, errno.EINVAL),
    "nft ends too late": (errno.ETIMEDOUT,),
    "sysctl": (errno.EACCES, errno.EINVAL),
}
FEW = ("nft", "nft ends too late", "sysctl")  # of so few calls that all of their failures are tried
FIRST: dict[str, t.Any] = {"identities": [IDENTITIES[0], {**IDENTITIES[1], "addresses": [INSIDE, INSIDE6]}]}
MORE: dict[str, t.Any] = {
    "identities": [
        IDENTITIES[0],
        {
            **IDENTITIES[1],
            "addresses": [INSIDE, INSIDE6],
            "table": "2500",
            "destinations": ["10.88.0.0/16"],
            "pools": ["10.89.0.0/16"],
            "mtu": 1400,
        },
    ],
    "unbound": "inside",
    "unbound_backstop": True,
    "sysctls": ["rp_filter", "arp"],
    "rules": [{"priority": 1800, "from": "10.99.0.0/24", "table": "900"}],
    "routes": [{"dst": "10.98.0.0/16", "dev": "up0", "table": "900"}],
}
ABSENT: dict[str, t.Any] = {"identities": None, "state": "absent"}
STEPS = ((ABSENT, FIRST), (FIRST, MORE), (MORE, FIRST), (FIRST, ABSENT))
FOREIGN = (
    "rule add pref 1500 from 10.77.0.0/16 lookup 77 protocol 77",
    "route add 10.77.0.0/16 dev up0 table 77 proto 77",
    "-6 rule add pref 1500 from fd77::/64 lookup 77 protocol 77",
)


class Faults:
    """Counts calls of each kind, and makes one of them fail."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.kind, self.at, self.number, self.happened = "", 0, 0, False

    def arm(self, kind: str, at: int, number: int) -> None:
        """Let call C(at) of a kind fail."""
        self.counts.clear()
        self.kind, self.at, self.number, self.happened = kind, at, number, False

    def due(self, kind: str) -> bool:
        """Called with each call."""
        self.counts[kind] += 1
        if kind == self.kind and self.counts[kind] == self.at:
            self.happened = True
            return True
        return False


class Faulty:
    """A socket that fails when it is told to."""

    def __init__(self, sock: socket.socket, faults: Faults) -> None:
        self._sock, self._faults = sock, faults

    def send(self, data: bytes) -> int:
        if self._faults.due("send"):
            raise OSError(self._faults.number, os.strerror(self._faults.number))
        if self._faults.due("closed before a request"):
            self._sock.close()
        return self._sock.send(data)

    def recv(self, size: int) -> bytes:
        if self._faults.due("answer lost"):
            self._sock.recv(size)
            raise OSError(self._faults.number, os.strerror(self._faults.number))
        if self._faults.due("closed before an answer"):
            self._sock.close()
        return self._sock.recv(size)

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    made = Faults()
    real_open, real_tell = _netlink_socket._open, NetlinkSocket.tell
    monkeypatch.setattr(_netlink_socket, "_open", lambda: Faulty(real_open(), made))

    def tell(self: NetlinkSocket, requests: t.Sequence[bytearray]) -> list[Refused | None]:
        """The kernel goes on behind a request that it refuses."""
        refused = {at for at, _request in enumerate(requests) if made.due("request")}
        answers = iter(real_tell(self, [request for at, request in enumerate(requests) if at not in refused]))
        return [Refused(made.number) if at in refused else next(answers) for at in range(len(requests))]

    monkeypatch.setattr(NetlinkSocket, "tell", tell)
    monkeypatch.setattr(_guard, "_run", _failing_nft(_guard._run, made))
    real_change = _netlink_apply.change_sysctl

    def change_sysctl(wanted: Sysctl) -> Refused | None:
        return Refused(made.number) if made.due("sysctl") else real_change(wanted)

    monkeypatch.setattr(_netlink_apply, "change_sysctl", change_sysctl)
    for name in ("open", "fsync", "replace", "link", "unlink", "mkdir", "fchmod"):
        monkeypatch.setattr(os, name, _failing(getattr(os, name), name, made))
    return made


def _failing(real: t.Callable[..., t.Any], name: str, faults: Faults) -> t.Callable[..., t.Any]:
    def call(*arguments: t.Any, **options: t.Any) -> t.Any:
        ours = name in ("fsync", "fchmod") or str(arguments[0]).startswith(str(STATE))
        if ours and faults.due("disk"):
            raise OSError(faults.number, os.strerror(faults.number))
        return real(*arguments, **options)

    return call


def _failing_nft(real: t.Callable[..., bytes], faults: Faults) -> t.Callable[..., bytes]:
    """nft fails, or is given up after it has done its work."""

    def run(arguments: t.Sequence[str], commands: bytes = b"") -> bytes:
        if faults.due("nft"):
            raise Refused(faults.number)
        listed = real(arguments, commands)
        if faults.due("nft ends too late"):
            raise Refused(faults.number)
        return listed

    return run


def everything(netns: str) -> tuple[list[str], dict[str, t.Any]]:
    """The kernel's state, and the records without when and by whom."""
    records = {
        path.name: {**json.loads(path.read_text()), "meta": None} for path in (STATE / netns / "sets.d").glob("*.json")
    }
    lines = "rule show", "route show table all"
    listed = [ip("-n", netns, family, "-N", "-d", lines=lines) for family in ("-4", "-6")]
    # What the kernel adds by itself, some time after a device came up, is left out.
    kernel = [line for text in listed for line in text.splitlines() if "ff00::/8" not in line]
    return sorted([*kernel, *devices(netns), *tables(netns).values(), *sysctls(netns)]), records


def devices(netns: str) -> list[str]:
    """All that ip shows of them. One of our own that was made again has another number and address, and may count."""
    found = json.loads(ip("-n", netns, "-d", "-j", "link", "show"))
    return [json.dumps(_own(link) if link["ifname"] == NOWHERE_DEVICE else link) for link in found]


def _own(link: dict[str, t.Any]) -> dict[str, t.Any]:
    kept = {key: link[key] for key in ("ifname", "group", "inet6_addr_gen_mode")}
    return {**kept, "kind": link["linkinfo"]["info_kind"], "up": "UP" in link["flags"]}


def sysctls(netns: str) -> list[str]:
    """Those of the devices that are declared, and those that count for all."""
    with inside(netns):
        paths = [
            path
            for name in ("all", "up0", "vpn0")
            for path in pathlib.Path("/proc/sys/net").glob(f"ipv[46]/conf/{name}/*")
        ]
        return [f"{path} {path.read_text()}" for path in paths if path.name != "stable_secret"]  # not to be read


def injections(faults: Faults, netns: str) -> list[tuple[int, str, int, int]]:
    """The step, the kind of call, which of them, and the error: drawn from all that there are."""
    every = []
    for step, (before, after) in enumerate(STEPS):
        ensure(netns, **before)
        faults.arm("", 0, 0)
        ensure(netns, **after)
        for kind, count in faults.counts.items():
            numbers = NUMBERS.get(kind, (errno.EBADF,))
            every += [(step, kind, at + 1, number) for at in range(count) for number in numbers]
    few = [each for each in every if each[1] in FEW]
    others = [each for each in every if each[1] not in FEW]
    drawn = [*few, *random.Random(151).sample(others, INJECTIONS + SPARE - len(few))]
    print(f"{len(drawn)} of {len(every)} possible injections, {collections.Counter(each[1] for each in drawn)}")
    return sorted(drawn)


def test_no_failure_leaves_anything_in_between(faults: Faults) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    with namespace(*UPLINK, *TUNNEL, *FOREIGN) as netns:
        drawn = injections(faults, netns)
        begun = time.monotonic()
        for step, group in itertools.groupby(drawn, key=lambda entry: entry[0]):
            before, after = STEPS[step]
            faults.arm("", 0, 0)
            ensure(netns, **after)
            wanted = everything(netns)
            ensure(netns, **before)
            earlier = everything(netns)
            for _step, kind, at, number in group:
                faults.arm(kind, at, number)
                failed = False
                with contextlib.suppress(RoutingError):
                    failed = True
                    ensure(netns, **after)
                    failed = False
                happened = faults.happened
                faults.arm("", 0, 0)
                if not happened:  # with the generations that there are by now, fewer calls are needed
                    ensure(netns, **before)
                    continue
                found = everything(netns)
                where = f"step {step}, {kind} {at}, {errno.errorcode[number]}, {'failed' if failed else 'went on'}"
                if found == earlier:
                    outcomes["failed, as before" if failed else "as before"] += 1
                    assert failed, where
                    continue
                assert found == wanted, where
                outcomes["failed, done" if failed else "done"] += 1
                ensure(netns, **before)
                assert everything(netns) == earlier, where
        print(f"{dict(outcomes)} in {time.monotonic() - begun:.0f} s")
        assert sum(outcomes.values()) >= INJECTIONS
        assert outcomes["failed, as before"] > INJECTIONS / 2
        assert "10.77.0.0/16" in ip("-n", netns, "rule", "show")
