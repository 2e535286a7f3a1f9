# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The question of the whole project, asked of each client: does the reply arrive, and by which device did it leave?"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from . import addresses as plan
from .capture import Capture
from .host import Host, family_of
from .probes import Answer, Probe
from .topology import UPLINK
from .tunnel import Client

PROTOCOLS = ("icmp", "tcp", "udp")


@dataclasses.dataclass(frozen=True)
class Row:
    """One question to one client."""

    client: str
    kind: str
    question: str  # "Internet -> I" or "corporate -> O"
    family: int
    proto: str
    arrived: bool
    left_by: frozenset[str]  # the devices by which replies left the client
    expected: str  # the device by which they should

    @property
    def right(self) -> bool:
        """The reply arrived, and left by the device it should and by nothing else."""
        return self.arrived and self.left_by == {self.expected}


@dataclasses.dataclass(frozen=True)
class _Question:
    client: Client
    text: str
    asker: Host
    asking: tuple[str, str]
    address: str
    proto: str
    expected: str

    def probe(self) -> Probe:
        return Probe(self.asker, self.address, self.proto)

    def row(self, answer: Answer, capture: Capture) -> Row:
        proto = "icmp6" if self.proto == "icmp" and ":" in self.address else self.proto
        left = {
            packet.dev
            for packet in capture.seen(outgoing=True, source=self.address, proto=proto)
            if packet.destination in self.asking
        }
        family = family_of(self.address)
        told = (self.client.name, self.client.tunnel.kind, self.text, family, self.proto)
        return Row(*told, answer.ok, frozenset(left), self.expected)


def table(rows: t.Sequence[Row]) -> str:
    """The rows for people to read, one line per client and question, what went astray in words."""
    lines = []
    for client, question in dict.fromkeys((row.client, row.question) for row in rows):
        own = [row for row in rows if (row.client, row.question) == (client, question)]
        wrong = [row for row in own if not row.right]
        verdict = f"{len(own) - len(wrong)} of {len(own)} right"
        lines.append(f"{client:<8} {own[0].kind:<10} {question:<15} {verdict:<16} {_astray(wrong)}".rstrip())
    return "\n".join(lines)


def _astray(rows: t.Sequence[Row]) -> str:
    """By which devices wrong replies left, and whether they arrived all the same."""
    told = {
        f"reply by {'+'.join(sorted(row.left_by)) or 'no device'} instead of {row.expected}"
        f"{'' if row.arrived else ', lost'}"
        for row in rows
    }
    return "; ".join(sorted(told))


def survey(
    clients: t.Sequence[Client],
    outside: Host,
    corporate: Host,
    ask: t.Callable[[t.Sequence[Probe]], list[Answer]],
) -> list[Row]:
    """All questions to all clients, at once."""
    questions = [question for client in clients for question in _questions(client, outside, corporate)]
    with contextlib.ExitStack() as stack:
        captures = {client.name: stack.enter_context(Capture(client.host)) for client in clients}
        answers = ask([question.probe() for question in questions])
    return [
        question.row(answer, captures[question.client.name])
        for question, answer in zip(questions, answers, strict=True)
    ]


def _questions(client: Client, outside: Host, corporate: Host) -> t.Iterator[_Question]:
    tunnel = client.tunnel.device
    for proto in PROTOCOLS:
        for address in client.inside:
            yield _Question(client, "Internet -> I", outside, plan.OUTSIDE_HOST, address, proto, tunnel)
        for address in client.outside:
            yield _Question(client, "corporate -> O", corporate, plan.CORPORATE_HOST, address, proto, UPLINK)
