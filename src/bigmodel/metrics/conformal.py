"""Split conformal prediction: intervals and sets that hold the truth as often as was asked.

Scores of n samples that the model was not trained on say how far off it is. With a probability of at
least `level`, a new sample that is drawn as they were has a score of at most their ⌈(n + 1) · level⌉-th
smallest, however good or bad the model (Vovk, Gammerman and Shafer, 2005; Lei et al., 2018,
"Distribution-Free Predictive Inference for Regression").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GROUPS = 10
GROUP_SIZE = 100
"""The most groups of similar predictions that have a width of their own, and their least samples."""

_SLACK = 1e-5
"""Added to bounds: the last bits of a prediction depend on the others in its batch."""


def least_samples(level: float) -> int:
    """How many scores a level needs: with fewer no bound is certain enough."""
    return math.ceil(level / (1 - level) - 1e-9)


def highest_level(samples: int) -> float:
    """The highest level that so many scores allow."""
    return samples / (samples + 1)


def bound(scores: Tensor, level: float) -> float:
    """The score that a new sample's does not exceed, with a probability of at least `level`.

    Args:
        scores: (samples,), at least `least_samples(level)`.
    """
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return float(scores.double().kthvalue(max(rank, 1)).values)


def value_scores(outputs: Tensor, targets: Tensor) -> Tensor:
    """The absolute error of each value, (samples, count)."""
    return (outputs.double() - targets.double()).abs()


def intervals(predicted: Tensor, known: Tensor, scores: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds, (samples, count) float64, each column for itself.

    Errors often grow with what is predicted, as those of prices. So predictions are grouped by their
    size, and each group has a width of its own: Mondrian conformal regression (Boström and Johansson,
    2020).

    Args:
        predicted: (samples, count), of new samples.
        known: (calibration samples, count), predictions for those that the scores are of.
        scores: `value_scores` of them.
    """
    predicted = predicted.double()
    new, old, errors = (each.T.contiguous() for each in (predicted, known.double(), scores))
    columns = zip(new, old, errors, strict=True)
    half = torch.stack([_half_widths(*column, level) for column in columns], dim=1)
    return predicted - half, predicted + half


def _half_widths(predicted: Tensor, known: Tensor, scores: Tensor, level: float) -> Tensor:
    size = max(GROUP_SIZE, 5 * least_samples(level))
    falling = range(max(1, min(GROUPS, len(known) // size)), 0, -1)
    for count in falling:  # equal predictions may leave a group too small
        edges = known.sort().values[[len(known) * n // count for n in range(1, count)]]
        group = torch.bucketize(known, edges, right=True)
        if count == 1 or int(group.bincount(minlength=count).min()) >= least_samples(level):
            break
    bounds = torch.tensor([bound(scores[group == n], level) for n in range(count)]).double()
    return bounds[torch.bucketize(predicted, edges, right=True)] + _SLACK


def class_scores(outputs: Tensor, targets: Tensor) -> Tensor:
    """Minus the logarithm of the true class's probability, (samples, 1)."""
    return -outputs.double().log_softmax(1).gather(1, targets[:, None])


def class_sets(outputs: Tensor, predicted: Tensor, scores: Tensor, level: float) -> Tensor:
    """Which classes are in the set of each sample, (samples, classes) bool.

    A set holds every class of at least a certain probability, the same for all samples: of all ways to
    reach a level these sets are the smallest (Sadinle, Lei and Wasserman, 2019, "Least Ambiguous
    Set-Valued Classifiers With Bounded Error Levels"). The predicted class is always in it, so that no
    set is empty: a model that is right more often than asked has sets of one class.

    Args:
        outputs: raw, (samples, classes).
        predicted: (samples,) int64, the class that is predicted.
        scores: `class_scores` of calibration samples.
    """
    most = bound(scores[:, 0], level) + _SLACK
    return (-outputs.double().log_softmax(1) <= most).scatter(1, predicted[:, None], True)
