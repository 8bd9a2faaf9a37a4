"""Compare two things on a machine that is never quiet.

Absolute times on a shared machine drift by a third from one minute to the next. Two measurements made within
a few milliseconds of each other drift together, so their ratio holds still: A B, B A, A B, ..., and the
median of the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Pairs:
    """What came out: one number of each side for every pair, in the order they were taken."""

    left: list[float]
    right: list[float]

    @property
    def ratios(self) -> list[float]:
        """Left over right, pair by pair, smallest first."""
        return sorted(one / other for one, other in zip(self.left, self.right, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios, which is not the ratio of the medians."""
        return median(self.ratios)

    @property
    def spread(self) -> dict[str, float]:
        """How far the ratios lie apart: a single one says little on a busy machine, the middle half says much."""
        ratios = self.ratios
        return {
            "smallest ratio": ratios[0],
            "lower quartile": quantile(ratios, 0.25),
            "upper quartile": quantile(ratios, 0.75),
            "largest": ratios[-1],
            "pairs": len(ratios),
        }


def alternate(rounds: int, left: Callable[[], float], right: Callable[[], float]) -> Pairs:
    """Take `rounds` pairs; every second one begins with `right`. One more before them warms the caches."""
    left(), right()
    pairs = Pairs([], [])
    for number in range(rounds):
        sides = [(left, pairs.left), (right, pairs.right)]
        for measure, numbers in reversed(sides) if number % 2 else sides:
            numbers.append(measure())
    return pairs


def in_turn(rounds: int, sides: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Take `rounds` numbers of each side, in one order and then in the other. One more before them warms the caches."""
    numbers: dict[str, list[float]] = {name: [] for name in sides}
    for measure in sides.values():
        measure()
    for number in range(rounds):
        for name in reversed(sides) if number % 2 else sides:
            numbers[name].append(sides[name]())
    return numbers


def quantile(numbers: list[float], share: float) -> float:
    """The value below which `share` of the numbers lie; an actual one, not interpolated."""
    return sorted(numbers)[min(int(share * len(numbers)), len(numbers) - 1)]
