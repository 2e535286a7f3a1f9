# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An endpoint of the lab with the collection applied to it, and questions that tell by which way a packet went."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.fleetvpn.routing.plugins.module_utils._converge import Request, Result, converge
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import Kernel, open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._surroundings import Host as Surroundings

from tests.lab import Answer, Capture, Client, Host, Lab, Probe
from tests.lab import addresses as plan

# Who answers at the address that the Internet's router and the VPN gateway both own tells which way a packet took.
UPLINK, TUNNEL = "inet", "gw"
SOCKETS: tuple[dict[str, t.Any], ...] = (
    {"proto": "tcp"},
    {"proto": "udp"},
    {"proto": "udp", "connected": False},
)
# Answers come within milliseconds; waiting is for those that never come. On a busy machine one may come late, so that
# what timed out is asked once more, with more patience: a wrong path is as wrong the second time.
WAIT, PATIENCE = 0.5, 2.0
CORP: dict[str, t.Any] = {"name": "corp", "tunnel": {"type": "wireguard"}, "interface": ["vpn0"]}
INET: dict[str, t.Any] = {"name": "inet", "interface": ["up0"]}
BASE, LAST = 2000, 2999
# Where the rules of each kind stand, and the tables that the first run of a set with CORP and INET takes.
OUTER, BOUND, UPLINK_MAIN, UPLINK_OWN, TUNNEL_LOCAL, TUNNEL_OWN, TUNNEL_STOP = 2000, 2100, 2200, 2201, 2300, 2301, 2302
EXEMPT, LEAVE, PAIR, PIN_NEAR, PIN, PIN_STOP = 2299, 2984, 2985, 2986, 2987, 2988
NEAR, MIDDLE, FAR, STOP = 2992, 2993, 2994, 2995
FOLLOW, BARRED, BEHIND_MAIN = 2050, 2990, 34768
T_LOC, T_CORP, T_INET, T_NONE = 2000, 2001, 2002, 2003


MASQUERADE = """
table inet fvt {
    chain out {
        type nat hook postrouting priority srcnat;
        iifname br0 oifname != br0 masquerade
    }
}
"""


@dataclasses.dataclass(frozen=True)
class Question:
    """A probe, who must answer it, and the source that must be seen there."""

    probe: Probe
    name: str
    seen: str | None = None

    def complaint(self, answer: Answer) -> str | None:
        """What is not as it should be."""
        if answer.ok and self.probe.proto == "icmp":
            return None
        if answer.ok and answer.name == self.name and self.seen in (None, answer.seen):
            return None
        met = f"{answer.name} saw {answer.seen}" if answer.ok else answer.error
        probe = self.probe
        kind = "sendto" if probe.proto == "udp" and not probe.connected else probe.proto
        asker = f"{probe.host.name} {probe.source or probe.dev or ''}"
        return f"{asker} -> {probe.to} {kind}: {met}, not {self.name} {self.seen}"


def wrong(lab: Lab, questions: t.Sequence[Question]) -> list[str]:
    """What went astray, all asked at once."""
    answers = lab.probes([question.probe for question in questions])
    late = [n for n, answer in enumerate(answers) if answer.error == "TIMEOUT"]
    again = lab.probes([dataclasses.replace(questions[n].probe, timeout=PATIENCE) for n in late])
    for n, answer in zip(late, again, strict=True):
        answers[n] = answer
    found = (question.complaint(answer) for question, answer in zip(questions, answers, strict=True))
    return [text for text in found if text is not None]


def ask(host: Host, to: str, name: str, seen: str | None = None, **how: t.Any) -> list[Question]:
    """The same question by each kind of socket, or by the one that C(proto) names."""
    kinds = [{}] if "proto" in how else SOCKETS
    return [Question(Probe(host, to, **{"timeout": WAIT, **kind, **how}), name, seen) for kind in kinds]


Wrapped = t.Callable[[Kernel], t.Any]  # what a test puts around the kernel


class Stepping:
    """A kernel that carries out one operation at a time and lets somebody look after each."""

    def __init__(
        self, kernel: Kernel, look: t.Callable[[Operation], None], order: t.Callable[..., t.Any] = list
    ) -> None:
        self._kernel, self._look, self._order = kernel, look, order

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._kernel, name)

    def apply(self, operations: t.Sequence[Operation]) -> None:
        for operation in self._order(operations):
            self._kernel.apply([operation])
            self._look(operation)


def _plain(kernel: Kernel) -> Kernel:
    return kernel


class Endpoint:
    """A client of the lab whose tunnel is up, and what the collection does to it."""

    def __init__(self, lab: Lab, client: Client) -> None:
        self.lab, self.client, self.host = lab, client, client.host
        self.inside = {_family(a): a for a in client.inside}
        self.outside = {_family(a): a for a in client.outside}
        self.families = tuple(self.inside)
        self.params: dict[str, t.Any] = {}

    @property
    def name(self) -> str:
        """The host's name, with which it answers."""
        return self.host.name

    @property
    def container(self) -> Host:
        """The container on its bridge."""
        assert self.client.container
        return self.client.container

    @property
    def pod(self) -> Host:
        """The pod behind its device without addresses."""
        assert self.client.pod
        return self.client.pod

    # -- the collection -------------------------------------------------------------------------------------------

    def apply(self, *identities: t.Mapping[str, t.Any], kernel: Wrapped = _plain, **params: t.Any) -> Result:
        """Converge to a declaration; without identities to the last one."""
        if identities or params:
            self.params = {"identities": list(identities), **params}
        return self._converge(kernel, Request("main", self.params))

    def remove(self, *, kernel: Wrapped = _plain) -> Result:
        """State absent."""
        return self._converge(kernel, Request("main", {}, absent=True))

    def announce(self) -> Result:
        """Check mode, with the last declaration."""
        return self._converge(_plain, Request("main", self.params, dry_run=True))

    def _converge(self, kernel: Wrapped, request: Request) -> Result:
        with open_kernel(self.host.namespace) as real:
            surroundings = Surroundings(real, self.host.namespace, persistent=False)
            return converge(kernel(real), surroundings, request)

    # -- the host -------------------------------------------------------------------------------------------------

    def ip(self, *commands: str) -> str:
        """ip(8), one call for each command."""
        return self.host.shell("\n".join(f"ip {command}" for command in commands))

    def refused(self, command: str) -> str:
        """The error of an ip(8) command that must fail."""
        done = self.host.run(["ip", *command.split()], check=False)
        assert done.returncode, f"ip {command} was accepted"
        return done.stderr

    def drop_rules(self, *priorities: int) -> None:
        """Take all rules of these priorities away, as somebody else might: the measure that a test is about."""
        for family in ("-4", "-6"):
            found = [r["priority"] for r in self.host.ip_json(family, "rule") if r["priority"] in priorities]
            if found:
                self.ip(*(f"{family} rule del pref {priority}" for priority in found))

    def state(self) -> str:
        """Rules, routes, groups and nftables, as a person would compare them; without what ages and counts."""
        shown = [f"-d {family} {what}" for family in ("-4", "-6") for what in ("rule", "route show table all")]
        text = self.ip(*shown)
        lines = [" ".join(w for w in line.split() if not w.endswith("sec")) for line in text.splitlines()]
        tables = self.host.run(["nft", "-s", "list", "ruleset"]).stdout
        return "\n".join([*lines, tables, *(f"{link['ifname']} {link['group']}" for link in self.host.ip_json("link"))])

    def strict(self, value: int) -> None:
        """rp_filter of all devices."""
        self.host.sysctl(ipv4__conf__all__rp_filter=value)

    def masquerade(self) -> None:
        """What containers send out takes the address of the device that it leaves by."""
        self.host.run(["nft", "-f", "-"], stdin=MASQUERADE)

    def link_local(self, host: Host, device: str) -> str:
        """The link-local IPv6 address of a device."""
        shown = host.ip_json("-6", "addr", "show", "dev", device, "scope", "link")
        return str(next(info["local"] for entry in shown for info in entry.get("addr_info", ()) if info))

    def capture(self) -> Capture:
        """Everything that passes its devices."""
        return self.lab.capture(self.host, settle=0.02)

    # -- questions ------------------------------------------------------------------------------------------------

    def wrong(self, *questions: t.Sequence[Question]) -> list[str]:
        """What went astray of all these."""
        return wrong(self.lab, [question for group in questions for question in group])

    def both(self, make: t.Callable[[int], t.Sequence[Question]]) -> list[Question]:
        """The questions of both families, or of those that the tunnel has."""
        return [question for family in self.families for question in make(family)]

    def identities(self, family: int) -> list[Question]:
        """Bound sockets leave by their identity; unbound ones are not asked."""
        far = plan.ANYCAST[family == 6]
        return [
            *ask(self.host, far, TUNNEL, self.inside[family], source=self.inside[family]),
            *ask(self.host, far, UPLINK, self.outside[family], source=self.outside[family]),
        ]

    def unbound(self, family: int, name: str = UPLINK, source: str | None = None) -> list[Question]:
        """Unbound sockets, by the uplink unless told otherwise."""
        seen = source or (self.outside if name == UPLINK else self.inside)[family]
        return ask(self.host, plan.ANYCAST[family == 6], name, seen)

    def neighbourhood(self, family: int) -> list[Question]:
        """What reaches it from all sides, and what it reaches nearby."""
        at = int(family == 6)
        inside, outside = self.inside[family], self.outside[family]
        container, bridge = plan.CONTAINER[at], plan.BRIDGE[at]
        neighbour = self.lab.hosts["nbr0"]
        return [
            *ask(self.container, inside, self.name, container),
            *ask(self.container, outside, self.name, container),
            *ask(self.container, bridge, self.name, container),
            *ask(self.host, container, self.container.name, inside, source=inside),
            *ask(self.host, container, self.container.name, outside, source=outside),
            *ask(self.host, container, self.container.name, bridge),
            *ask(self.host, outside, self.name, inside, source=inside),
            *ask(self.host, inside, self.name, outside, source=outside),
            *ask(neighbour, outside, self.name, plan.in_lan(0, 200)[at]),
            *ask(self.lab.gateway, inside, self.name),
            *ask(self.lab.outside, inside, self.name, plan.OUTSIDE_HOST[at]),
            *ask(self.lab.router, outside, self.name),
            *ask(self.lab.corporate, outside, self.name, plan.CORPORATE_HOST[at]),
        ]


def _family(address: str) -> int:
    return 6 if ":" in address else 4
