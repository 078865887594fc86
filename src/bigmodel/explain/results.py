"""What methods find: numbers, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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
        baseline: what the inputs are compared with, in words; empty: with nothing, so that there are no
            scores (NaN).
        complete: whether `values` of a sample add up to score less baseline score.
        tokens: of each sample the pieces of its text, if the parts are those; as many as there are
            numbers that are not NaN.
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
        low, high: what 80 % of the samples' curves lie between, each moved to the same mean; of
            probabilities between 0 and 1: (values,).
        numbers: the values as numbers, or empty if they are words.
    """

    name: str
    output: str
    values: tuple[str, ...]
    mean: Tensor
    low: Tensor
    high: Tensor
    numbers: tuple[float, ...] = field(default=())


AttentionOf = Literal["input", "source", "target", "target to source"]
"""What attends to what: positions of the input to each other; in translation those of the source, those
of the target, and those of the target to those of the source."""


@dataclass(frozen=True)
class AttentionMap:
    """The weights of one layer of attention for one sample.

    Attributes:
        name: of the layer in the model, such as `blocks.0.attention`.
        of: what attends to what.
        weights: (heads, queries, keys) float32 on the CPU; each row adds up to 1.
        queries, keys: the labels of the positions that attend, and of those that are attended to.
    """

    name: str
    of: AttentionOf
    weights: Tensor
    queries: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class AttentionMaps:
    """The maps of all layers, for each sample."""

    samples: tuple[tuple[AttentionMap, ...], ...]


@dataclass(frozen=True)
class LogitLens:
    """What each layer of a language model says after each token of a text.

    Layers are the embedding, then each block.

    Attributes:
        layers: their names.
        inputs: the tokens that are read, (positions,) words.
        truths: the token that follows each; empty where it is unknown.
        best: the likeliest next tokens, likeliest first: [layer][position][rank].
        probabilities: theirs, (layers, positions, top).
        truth_probabilities: of the token that follows, (layers, positions); NaN where it is unknown.
        ranks: of the token that follows, from 1, (layers, positions); 0 where it is unknown.
        entropy: of each layer's distribution, in nats, (layers, positions).
    """

    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    truths: tuple[str, ...]
    best: tuple[tuple[tuple[str, ...], ...], ...]
    probabilities: Tensor
    truth_probabilities: Tensor
    ranks: Tensor
    entropy: Tensor


Result = Attributions | Importances | tuple[Dependence, ...]
TextResult = Attributions | AttentionMaps | tuple[LogitLens, ...]
"""Of texts, and of attention over anything."""
