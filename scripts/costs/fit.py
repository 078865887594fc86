"""How fast a cost grows, and whether faster than the work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from costs.series import Series

SLACK = 0.15
"""By how much an exponent may lie above that of its work: caches that are too small for what grows, and
noise."""

ABOVE = {"bytes": 40e6, "seconds": 0.0, "whole": 1.0}
"""The least cost, beside that of a start, that says anything."""


@dataclass(frozen=True)
class Growth:
    """Exponents of cost ~ size ** exponent, over the upper half of the sizes.

    Attributes:
        cost: None: it is not seen to grow.
        work: what the work grows by between the same sizes.
    """

    cost: float | None
    work: float

    @property
    def faster(self) -> bool:
        """Whether the cost grows faster than the work."""
        return self.cost is not None and self.cost > self.work + SLACK


def growth(series: Series, points: Sequence[dict[str, Any]], what: str) -> Growth:
    """Of `seconds` or `bytes`."""
    known = [point for point in points if point[what] is not None]
    known = known[-max(3, -(-len(points) // 2)) :]
    least = ABOVE["whole" if what == "seconds" and series.batch is None else what]
    seen = [point for point in known if point[what] > least]
    demand = series.work if what == "seconds" else series.memory
    sizes = [float(point["size"]) for point in seen or known]
    work = exponent(sizes, [demand(int(size)) for size in sizes])
    return Growth(exponent(sizes, [point[what] for point in seen]), work if work is not None else 0.0)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The slope of the logarithms by least squares; None: of fewer than two points there is none."""
    if len(costs) < 2:
        return None
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle, height = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle) ** 2 for a in x)
    return sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / spread
