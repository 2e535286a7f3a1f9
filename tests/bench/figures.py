# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A figure: several measurements of one thing, mostly ratios, with what they are held to."""

from __future__ import annotations

import dataclasses
import statistics
import typing as t


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured. Ratios do not depend on it as long as it is large enough for what is fixed not to count."""

    hosts: int = 100
    many_hosts: int = 1000
    forks: int = 10
    rounds: int = 7
    routes: int = 500_000
    rules: int = 2_000
    own: int = 200
    many: int = 10_000
    events: int = 100
    packets: int = 100_000
    identities: tuple[int, ...] = (2, 20, 200)


# Proves that everything can be measured, in a minute. What it says of speed is not worth printing.
QUICK = Size(
    hosts=2,
    many_hosts=3,
    forks=2,
    rounds=1,
    routes=1_000,
    rules=20,
    own=20,
    many=40,
    events=2,
    packets=1_000,
    identities=(2, 4),
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """What was measured. C(aim) is the most that the median may be; without one it is published alone."""

    key: str
    what: str
    against: str
    values: tuple[float, ...]
    aim: float | None = None
    unit: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """Lower and upper quartile."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        lower, _median, upper = statistics.quantiles(self.values, n=4, method="inclusive")
        return lower, upper

    @property
    def met(self) -> bool | None:
        """Whether the aim is met, if there is one."""
        return None if self.aim is None else self.median <= self.aim

    def as_result(self) -> dict[str, t.Any]:
        """For the file."""
        return {
            **dataclasses.asdict(self),
            "median": self.median,
            "spread": list(self.spread),
            "met": self.met,
        }


def in_turn(one: t.Callable[[], float], other: t.Callable[[], float], rounds: int) -> tuple[float, ...]:
    """The ratios of two measurements, one after the other in each round, so that both meet the same machine.

    The first round fills caches and does not count.
    """
    return tuple(one() / other() for _round in range(rounds + 1))[1:]
