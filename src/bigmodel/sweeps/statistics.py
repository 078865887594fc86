"""How sure a sweep's figures are: means with intervals, and tests of whether two settings differ."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

Key = TypeVar("Key", bound=Hashable)

LEVEL = 0.95
"""Of the intervals; a difference is called significant at what is left, 0.05."""

UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True)
class Estimate:
    """The mean of several figures.

    Attributes:
        mean: of the figures.
        half_width: the 95 % interval of the mean is `mean ± half_width`; None for a single figure.
        n: how many figures there are.
        range: the least and the largest value that a figure can have.
    """

    mean: float
    half_width: float | None
    n: int
    range: tuple[float, float] = UNBOUNDED

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bounds of the interval, cut at the range; None for a single figure."""
        if self.half_width is None:
            return None
        least, most = self.range
        return max(self.mean - self.half_width, least), min(self.mean + self.half_width, most)

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None for a single figure."""
        return None if self.half_width is None else self.half_width / _quantile(self.n - 1)


@dataclass(frozen=True)
class Comparison:
    """Two settings, tested for a difference of their means.

    Attributes:
        kind: `paired` t-test of the same seeds or folds, or `welch` if they are not the same.
        difference: mean of the first less mean of the second.
        half_width: its 95 % interval is `difference ± half_width`.
        p: the probability of a difference at least as large if both were equally good; None if it cannot
            be computed, since the figures do not vary at all.
        n: pairs, or the figures of the smaller setting.
    """

    kind: Literal["paired", "welch"]
    difference: float
    half_width: float
    p: float | None
    n: int

    @property
    def reversed(self) -> Comparison:
        """The same, of the second with the first."""
        return replace(self, difference=-self.difference)

    @property
    def significant(self) -> bool:
        """Whether the difference is hardly luck."""
        return self.p is not None and self.p < 1 - LEVEL


def estimate(values: Sequence[float], within: tuple[float, float] = UNBOUNDED) -> Estimate:
    """The mean of `values` with its interval by Student's t distribution.

    Args:
        within: the range of such figures. The distribution knows none: the interval of accuracies near 1
            would reach beyond.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    half_width = None if n == 1 else _quantile(n - 1) * math.sqrt(_variance(values) / n)
    return Estimate(mean, half_width, n, within)


def compare(first: Mapping[Key, float], second: Mapping[Key, float]) -> Comparison | None:
    """Tests two settings for a difference: a paired t-test if both were run with the same seeds or
    folds, Welch's otherwise (https://doi.org/10.1093/biomet/34.1-2.28).

    Args:
        first, second: figures by what identifies a run within its setting, such as its seed.

    Returns:
        None if a setting has a single figure, which says nothing about luck.
    """
    n = min(len(first), len(second))
    if n < 2:
        return None
    difference = math.fsum(first.values()) / len(first) - math.fsum(second.values()) / len(second)
    if first.keys() == second.keys():
        differences = [first[key] - second[key] for key in first]
        return _tested("paired", difference, _variance(differences) / n, n - 1, n)
    a, b = (_variance(list(each.values())) / len(each) for each in (first, second))
    parts = a**2 / (len(first) - 1) + b**2 / (len(second) - 1)
    return _tested("welch", difference, a + b, (a + b) ** 2 / parts if parts else n - 1, n)


def selection_bias(errors: Sequence[Sequence[float]]) -> float:
    """By how much the lowest mean error in a cross-validation is too low, having been picked: the mean
    over folds of the error of the picked setting, less that of the setting which is best in the fold
    (Tibshirani and Tibshirani 2009, https://doi.org/10.1214/08-AOAS224).

    Args:
        errors: of each setting by fold; lower is better.
    """
    picked = min(errors, key=math.fsum)
    lowest = [min(fold) for fold in zip(*errors, strict=True)]
    return math.fsum(own - best for own, best in zip(picked, lowest, strict=True)) / len(picked)


def _tested(
    kind: Literal["paired", "welch"], difference: float, variance: float, freedom: float, n: int
) -> Comparison:
    """A comparison from the variance of the difference and its degrees of freedom."""
    error = math.sqrt(variance)
    if error <= 1e-12 * abs(difference) or not error:  # rounding, not spread
        return Comparison(kind, difference, 0.0, None, n)
    from scipy.special import stdtr

    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return Comparison(kind, difference, _quantile(freedom) * error, p, n)


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _quantile(freedom: float) -> float:
    # Not scipy.stats, whose import takes longer than many a job.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))
