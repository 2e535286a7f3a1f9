# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How figures are made of measurements."""

from __future__ import annotations

import pytest

from tests.bench.__main__ import line
from tests.bench.figures import Figure, in_turn


def figure(*values: float, aim: float | None = 1.4) -> Figure:
    return Figure("key", "one", "other", values, aim)


def test_the_median_is_held_to_the_aim_and_the_spread_is_of_the_middle_half() -> None:
    found = figure(1.0, 1.1, 1.2, 1.3, 9.0)
    assert (found.median, found.spread, found.met) == (1.2, (1.1, 1.3), True)
    assert figure(1.5).met is False
    assert figure(1.5, aim=None).met is None


def test_one_value_has_no_spread() -> None:
    assert figure(2.0).spread == (2.0, 2.0)


def test_a_line_says_whether_the_aim_is_met() -> None:
    assert line(figure(1.0)).endswith("at most 1.4: met")
    assert line(figure(1.5)).endswith("at most 1.4: NOT MET")
    assert "at most" not in line(figure(1.5, aim=None))


def test_two_things_are_measured_in_turn_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def measured(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop(0)

    one, other = [9.0, 2.0, 6.0], [1.0, 1.0, 2.0]
    assert in_turn(lambda: measured("one", one), lambda: measured("other", other), 2) == pytest.approx((2.0, 3.0))
    assert order == ["one", "other"] * 3
