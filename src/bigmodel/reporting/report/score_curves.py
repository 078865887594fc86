"""ROC and precision–recall curves, and how well probabilities are calibrated, from scores and truths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Curve:
    """A curve, from left to right for ROC, from recall 0 for precision.

    Attributes:
        x, y: its points.
        area: under it; of precision over recall, the average precision.
    """

    x: list[float]
    y: list[float]
    area: float


@dataclass(frozen=True)
class Bin:
    """Samples of about the same probability.

    Attributes:
        low, high: the range of probabilities.
        confidence: their mean probability.
        share: the share of them that is so.
        count: how many there are.
    """

    low: float
    high: float
    confidence: float
    share: float
    count: int


def roc_curve(scores: Floats, positive: Marks) -> Curve | None:
    """True over false positive rate for each threshold, with the area under it (AUC); None if all
    samples are positive, or none.

    Args:
        scores: (samples,), higher for more likely positive.
        positive: (samples,).

    Source: Fawcett 2006, An introduction to ROC analysis, doi:10.1016/j.patrec.2005.10.010.
    """
    true, false = _counts(scores, positive)
    if not len(true) or true[-1] == 0 or false[-1] == 0:
        return None
    x, y = np.concatenate([[0], false / false[-1]]), np.concatenate([[0], true / true[-1]])
    return Curve(x.tolist(), y.tolist(), float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2))


def precision_recall_curve(scores: Floats, positive: Marks) -> Curve | None:
    """Precision over recall for each threshold, with the average precision: the mean of precisions,
    weighted by the recall that each adds. None if no sample is positive.

    Args:
        scores, positive: see `roc_curve`.
    """
    true, false = _counts(scores, positive)
    if not len(true) or true[-1] == 0:
        return None
    precision, recall = true / (true + false), true / true[-1]
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Curve([0.0, *recall.tolist()], [float(precision[0]), *precision.tolist()], area)


def reliability_bins(confidence: Floats, correct: Marks, count: int = 10) -> list[Bin]:
    """Samples by probability, in ranges of equal width; those without samples are left out.

    Args:
        confidence: (samples,) probabilities.
        correct: (samples,) whether what had that probability was so.
        count: ranges from 0 to 1.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    places = np.minimum((confidence * count).astype(int), count - 1)
    bins = []
    for place in np.unique(places).tolist():
        chosen = places == place
        mean, share = float(confidence[chosen].mean()), float(correct[chosen].mean())
        bins.append(Bin(place / count, (place + 1) / count, mean, share, int(chosen.sum())))
    return bins


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error: the mean distance of probability and share over all samples."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.confidence - each.share) for each in bins) / total


def _counts(scores: Floats, positive: Marks) -> tuple[Floats, Floats]:
    """True and false positives at each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(scores) else np.array([], int)
    true = np.cumsum(positive, dtype=np.float64)[last]
    return true, last + 1.0 - true
