"""How well scores rank: the area under the ROC curve, and average precision.

Both are exact: all scores are sorted, and samples of equal score count as one point of the curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bigmodel.metrics.base import WholeMetric
from bigmodel.registry import EntryConfig, metrics
from bigmodel.spec import Classes, Flags, Target


class Curve(NamedTuple):
    """What is found if all samples with at least a score are called positive.

    Attributes:
        scores: the distinct scores, falling.
        hits, false_alarms: positive and negative samples with at least that score, int64.
    """

    scores: Tensor
    hits: Tensor
    false_alarms: Tensor

    @property
    def positives(self) -> int:
        return int(self.hits[-1])

    @property
    def negatives(self) -> int:
        return int(self.false_alarms[-1])


def curve(scores: Tensor, positive: Tensor) -> Curve:
    """The curve of scores (samples,) and of which samples are positive, (samples,) bool."""
    falling, order = scores.sort(descending=True)
    last = torch.ones_like(falling, dtype=torch.bool)  # of its equals
    last[:-1] = falling[1:] != falling[:-1]
    places = last.nonzero()[:, 0]
    hits = positive[order].cumsum(0)[places]
    return Curve(falling[places], hits, places + 1 - hits)


def auc(points: Curve) -> float:
    """The area under the ROC curve, by trapezia; NaN without a positive or without a negative sample."""
    if not (points.positives and points.negatives):
        return math.nan
    hits = torch.cat([points.hits.new_zeros(1), points.hits]).double()
    width = points.false_alarms.diff(prepend=points.false_alarms.new_zeros(1)).double()
    area = (width * (hits[1:] + hits[:-1]) / 2).sum()
    return float(area) / points.positives / points.negatives


def average_precision(points: Curve) -> float:
    """Σ (recallₙ - recallₙ₋₁) precisionₙ, without interpolation; NaN without a positive sample."""
    if not points.positives:
        return math.nan
    precision = points.hits / (points.hits + points.false_alarms).double()
    gained = points.hits.diff(prepend=points.hits.new_zeros(1)).double()
    return float((gained * precision).sum()) / points.positives


def scores(outputs: Tensor, targets: Tensor, target: Target) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores and which samples are positive, for each class or label.

    Of two classes it is the second alone, scored by the difference of the outputs, which orders as its
    probability does, and does not round to 1. More classes are scored by their probabilities, one
    against the rest.
    """
    if isinstance(target, Flags):
        yield from zip(outputs.T, (targets > 0.5).T, strict=True)
    elif target.output_size == 2:
        yield difference(outputs), targets == 1
    else:
        for index, probability in enumerate(outputs.double().softmax(1).T):
            yield probability, targets == index


def difference(outputs: Tensor) -> Tensor:
    """The log-odds of the second of two classes, (samples,) float64."""
    first, second = outputs.double().unbind(1)
    return second - first


class RankingConfig(EntryConfig):
    """A figure of how well scores rank."""


class _Ranking(WholeMetric):
    """A figure of each class's curve; the mean over the classes of which it is defined."""

    accepts = (Classes, Flags)

    def by_class(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        curves = (curve(*pair) for pair in scores(outputs, targets, self.target))
        values = torch.tensor([self.of(points) for points in curves], dtype=torch.float64)
        return {self.name: values} if len(values) == self.target.output_size else {}

    def compute(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        curves = (curve(*pair) for pair in scores(outputs, targets, self.target))
        return {self.name: mean_of_defined([self.of(points) for points in curves])}

    def of(self, points: Curve) -> float:
        raise NotImplementedError


@metrics.register("auc", RankingConfig)
class AUC(_Ranking):
    """The area under the ROC curve: of two classes that of the second; of more, and of labels, the mean
    over each against the rest. A class that no sample or every sample has is left out of the mean."""

    directions: Mapping[str, str] = {"auc": "max"}
    undefined = "its samples are all of one class"

    def of(self, points: Curve) -> float:
        return auc(points)


@metrics.register("average_precision", RankingConfig)
class AveragePrecision(_Ranking):
    """The average precision, the area under the precision-recall curve by steps: of two classes that of
    the second; of more, and of labels, the mean over those that a sample has."""

    directions: Mapping[str, str] = {"average_precision": "max"}
    undefined = "no sample is positive"

    def of(self, points: Curve) -> float:
        return average_precision(points)


def mean_of_defined(values: list[float]) -> float:
    """The mean of the values that are not NaN; NaN of none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
