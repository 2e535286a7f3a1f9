# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The egress guard: what would still leave by a wrong device is dropped, and on request what comes in by one.

Rules route, and the guard makes the promise true where they are not asked: for sockets bound to a device, for packets
whose source is changed after routing, for sources that the kernel chooses itself, and when somebody flushed the rules.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import InvalidInput
from .._model.declaration import Declaration
from .._model.fields import family_of
from .._model.guard import (
    ACCEPT,
    COUNTER,
    DROP,
    Chain,
    NamedSet,
    Piece,
    Statement,
    device,
    is_device_to_nft,
    jump,
    matching,
    rule,
)
from .facts import LOOPBACK
from .ways import Way, may_sit_on

BEHIND_SOURCE_NAT = 300  # where the source is the one that leaves
BEFORE_TRACKING = -300  # where the destination is the one that came
PROTOCOLS = {4: "ip", 6: "ip6"}
UPLINKS, TUNNELS, INTERNAL, OUTSIDE, ELSEWHERE, FREE = (
    "uplinks", "tunnels", "internal", "outside", "elsewhere", "free",
)  # fmt: skip
DROPPED = (COUNTER, DROP)


@dataclasses.dataclass(frozen=True)
class Ground:
    """What the guard has to know of a host."""

    ways: tuple[Way, ...]
    carriers: tuple[str, ...]  # devices of uplinks
    internal: tuple[str, ...]  # host-internal devices
    networks: tuple[str, ...]  # prefixes that are declared to be host-internal

    @property
    def uplinks(self) -> list[Way]:
        """The ways of uplinks that are held to their devices."""
        return [way for way in self.ways if not way.identity.by_tunnel and way.identity.backstop]

    @property
    def tunnels(self) -> list[Way]:
        """All ways of tunnels."""
        return [way for way in self.ways if way.identity.by_tunnel]

    @property
    def guarded(self) -> list[Way]:
        """The ways of tunnels that are held to their devices."""
        return [way for way in self.tunnels if way.identity.backstop]


def guard_pieces(declaration: Declaration, ground: Ground) -> list[Piece]:
    """What the options C(strict_egress) and C(strict_ingress) ask for."""
    maker = _Maker(ground)
    generic = declaration.strict_egress == "any"
    egress = maker.egress(generic=generic) if declaration.strict_egress != "false" else ()
    ingress = maker.ingress() if declaration.strict_ingress else ()
    return [Piece(tuple(maker.sets), (*egress, *ingress))]


def unnamed(ground: Ground) -> list[str]:
    """A warning for each host-internal device that nft cannot be told of. An egress of that kind is refused."""
    for name in (*(way.device for way in ground.ways if way.device), *ground.carriers):
        if not is_device_to_nft(name):
            raise InvalidInput(
                "is a name that nft takes for something else",
                field="interface",
                value=name,
                accepted="another name of the device",
            )
    left_out = [name for name in ground.internal if not is_device_to_nft(name)]
    why = "is for nft no name of a device, so that the egress guard drops what an inside address sends there"
    return [f"host-internal device {name!a} {why}" for name in left_out]


class _Maker:
    """Makes the chains of one host."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.sets = [each for each in _sets(ground) if each.elements]
        self._names = {each.name for each in self.sets}

    def egress(self, *, generic: bool) -> tuple[Chain, ...]:
        """What leaves: an uplink's addresses first, for a hotel's network may lie inside a pool; exact before pools."""
        guarded = self._ground.guarded
        if not (guarded or generic):
            return ()
        devices = [TUNNELS, *([OUTSIDE] if generic else [])]
        rules = [
            *self._held("saddr", UPLINKS, jump(UPLINKS)),
            *(r for way in guarded for r in self._held("saddr", _exact(way), jump(_exact(way)))),
            *(r for way in guarded for r in self._held("saddr", _pool(way), jump(_pool(way)))),
            *self._held("saddr", FREE, ACCEPT),
            *(_elsewhere_local(name) for name in devices if name in self._names),
        ]
        return (
            Chain("egress", tuple(rules), "postrouting", BEHIND_SOURCE_NAT),
            Chain(UPLINKS, self._towards_tunnels()),
            *(Chain(_exact(way), _leaving(way)) for way in guarded),
            *(
                Chain(_pool(w), _leaving(w, _spared("saddr . oif", w, self._ground)))
                for w in guarded
                if w.identity.pools
            ),
            Chain(ELSEWHERE, self._internal_or_nowhere()),
        )

    def ingress(self) -> tuple[Chain, ...]:
        """What comes in: for a tunnel's address by its egress or from inside the host alone."""
        tunnels = self._ground.tunnels
        if not tunnels:
            return ()
        rules = [
            *self._held("daddr", UPLINKS, ACCEPT),
            *(r for way in tunnels for r in self._held("daddr", _exact(way), jump(f"to_{_exact(way)}"))),
            *(r for way in tunnels for r in self._held("daddr", _pool(way), jump(f"to_{_pool(way)}"))),
        ]
        forwarded = rule(matching("fib daddr type", "local", equal=False), ACCEPT)
        return (
            Chain("ingress", tuple(rules), "prerouting", BEFORE_TRACKING),
            *(Chain(f"to_{_exact(way)}", _arriving(way)) for way in tunnels),
            *(
                Chain(f"to_{_pool(way)}", _arriving(way, (forwarded, *_spared("daddr . iif", way, self._ground))))
                for way in tunnels
                if way.identity.pools
            ),
        )

    def _held(self, field: str, name: str, verdict: Statement) -> list[str]:
        """A rule for each family in which the set has members."""
        families = {family: ip for family, ip in PROTOCOLS.items() if f"{name}{family}" in self._names}
        return [rule(matching(f"{ip} {field}", f"@{name}{family}"), verdict) for family, ip in families.items()]

    def _towards_tunnels(self) -> tuple[str, ...]:
        return (rule(matching("oifname", f"@{TUNNELS}"), *DROPPED),) if TUNNELS in self._names else ()

    def _internal_or_nowhere(self) -> tuple[str, ...]:
        return (
            rule(matching("oifname", f"@{INTERNAL}"), ACCEPT),
            *self._held("daddr", INTERNAL, ACCEPT),
            rule(*DROPPED),
        )


def _sets(ground: Ground) -> tuple[NamedSet, ...]:
    uplinks = [address for way in ground.uplinks for address in way.addresses]
    free = [each for way in ground.ways if not way.identity.backstop for each in (*way.addresses, *way.identity.pools)]
    devices = {way.device for way in ground.guarded if way.device} - set(ground.carriers)
    return (
        *_by_family(UPLINKS, uplinks),
        *(each for way in ground.tunnels for each in _by_family(_exact(way), (*way.addresses, *way.retired))),
        *(each for way in ground.tunnels for each in _by_family(_pool(way), way.identity.pools)),
        *_by_family(FREE, free),
        *_by_family(INTERNAL, ground.networks),
        NamedSet.devices(INTERNAL, (LOOPBACK, *filter(is_device_to_nft, ground.internal))),
        NamedSet.devices(OUTSIDE, ground.carriers),
        NamedSet.devices(TUNNELS, devices),
    )


def _by_family(name: str, prefixes: t.Sequence[str]) -> list[NamedSet]:
    own = {family: [prefix for prefix in prefixes if family_of(prefix) == family] for family in PROTOCOLS}
    return [NamedSet.addresses(f"{name}{family}", family, found) for family, found in own.items()]


def _exact(way: Way) -> str:
    return f"address_{way.key}"


def _pool(way: Way) -> str:
    return f"pool_{way.key}"


def _by(key: str, way: Way) -> list[str]:
    return [rule(matching(key, device(way.device)), ACCEPT)] if way.device else []


def _leaving(way: Way, spared: tuple[str, ...] = ()) -> tuple[str, ...]:
    """By its egress, or it came in by it: then it is a peer's and no leak of ours."""
    return (*_by("oifname", way), *_by("iifname", way), *spared, rule(jump(ELSEWHERE)))


def _arriving(way: Way, spared: tuple[str, ...] = ()) -> tuple[str, ...]:
    return (*_by("iifname", way), rule(matching("iifname", f"@{INTERNAL}"), ACCEPT), *spared, rule(*DROPPED))


def _spared(what: str, way: Way, ground: Ground) -> tuple[str, ...]:
    """An address that sits on the very device is that one's, unless the identity's own may sit on an uplink."""
    roams = way.identity.address_interface == ("any",) or any(may_sit_on(way.identity, d) for d in ground.carriers)
    return () if roams else (rule(matching(f"fib {what} type", "local"), ACCEPT),)


def _elsewhere_local(devices: str) -> str:
    """A source of this host that is not on the device by which it would leave."""
    return rule(
        matching("oifname", f"@{devices}"),
        matching("fib saddr type", "local"),
        matching("fib saddr . oif type", "local", equal=False),
        *DROPPED,
    )
