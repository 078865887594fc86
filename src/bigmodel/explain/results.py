"""What methods find: numbers, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Attributions:
    """How much each part of an input added to what a model says of it, for each sample.

    Attributes:
        method: as in `names.METHODS`.
        values: (samples, *parts) float32 on the CPU: a number for each column, (channel, row, column of
            an image), (step, feature), or token. NaN where a sample has no such part, such as padding.
        names: of the columns, or empty.
        explained: the index of the output, (samples,) int64.
        scores: what is explained, (samples,); see `subject.scores`.
        baseline_scores: the same for the baseline, (samples,).
        baseline: what the inputs are compared with, in words.
        complete: whether `values` of a sample add up to score less baseline score.
        tokens: of each sample, if the parts are tokens; as many as there are numbers that are not NaN.
    """

    method: str
    values: Tensor
    explained: Tensor
    scores: Tensor
    baseline_scores: Tensor
    baseline: str
    complete: bool
    names: tuple[str, ...] = ()
    tokens: tuple[tuple[str, ...], ...] = ()

    @property
    def gaps(self) -> Tensor:
        """How far each sample's sum is from the difference of its scores, relative to it: (samples,)."""
        difference = self.scores - self.baseline_scores
        sums = self.values.flatten(1).nansum(1)
        return (sums - difference).abs() / difference.abs().clamp(min=1e-12)


@dataclass(frozen=True)
class Importances:
    """How much a figure depends on each column.

    Attributes:
        figure: its name, such as `accuracy` or `loss`.
        value: of the figure on the samples as they are.
        names: of the columns, the most important first.
        drops: how much worse the figure is without the column's information, on average: (columns,).
        low, high: 95 % intervals of that, (columns,); NaN if the figure is defined for too few rows.
        samples: how many there were.
    """

    figure: str
    value: float
    names: tuple[str, ...]
    drops: Tensor
    low: Tensor
    high: Tensor
    samples: int


@dataclass(frozen=True)
class Dependence:
    """What the model says on average if a column has this value or that.

    Attributes:
        name: of the column.
        output: the class, label or value that is predicted.
        values: its values, as a person reads them, in order.
        mean: of the samples' predictions at each value: (values,).
        low, high: what 80 % of the samples' curves lie between, each moved to the same mean: (values,).
        numbers: the values as numbers, or empty if they are words.
    """

    name: str
    output: str
    values: tuple[str, ...]
    mean: Tensor
    low: Tensor
    high: Tensor
    numbers: tuple[float, ...] = field(default=())


Result = Attributions | Importances | tuple[Dependence, ...]
