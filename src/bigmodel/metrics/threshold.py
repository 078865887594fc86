"""Decision thresholds of yes/no targets: found on scores, and applied to a model's outputs.

A threshold is kept as a cut of the log-odds: a sample is positive if its score is above the cut, 0 for a
probability of 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from bigmodel.metrics.ranking import Curve, curve, scores
from bigmodel.spec import Classes, Flags, Target

Maximised = Literal["accuracy", "balanced_accuracy", "f1"]
"""What a threshold can be chosen to maximise."""

_ROUNDING = 1e-12
_FARTHEST = 1e30  # of scores, which may be infinite


def is_yes_no(target: Target) -> bool:
    """Whether decisions about a target have thresholds: it has two classes, or labels."""
    return isinstance(target, Flags) or (isinstance(target, Classes) and target.count == 2)


def best_cuts(outputs: Tensor, targets: Tensor, target: Target, maximised: Maximised) -> list[float]:
    """The cut of each label, or of the second of two classes, that maximises a figure of it.

    Of equally good cuts it is the one nearest to 0, the middle between two scores, or 0 itself if it
    lies between them. It is 0 where the figure is undefined.

    Args:
        outputs, targets: of all samples, as `WholeMetric.compute` has it.
    """
    pairs = scores(outputs, targets, target)
    return [_best_cut(curve(_finite(score), positive), maximised) for score, positive in pairs]


def move(outputs: Tensor, cuts: Sequence[float] | None, target: Target) -> Tensor:
    """Outputs whose decisions have the thresholds: the largest is the class, one above 0 sets a label.

    Args:
        outputs: raw, (batch, output_size); they are left as they are.
        cuts: None: nothing is moved.
    """
    if cuts is None:
        return outputs
    precision = torch.float32 if outputs.device.type == "mps" else torch.float64
    by = torch.tensor(cuts, dtype=precision, device=outputs.device)
    if isinstance(target, Classes):
        by = torch.cat([by.new_zeros(1), by])
    return outputs.to(precision) - by


def thresholds(cuts: Sequence[float] | None, target: Target) -> dict[str, float]:
    """The probabilities above which a sample is positive, by label or by the second class's name."""
    if cuts is None or not isinstance(target, Classes | Flags):
        return {}
    names = target.names[-len(cuts) :]
    return {name: _sigmoid(cut) for name, cut in zip(names, cuts, strict=True)}


def _best_cut(points: Curve, maximised: Maximised) -> float:
    positives, negatives = points.positives, points.negatives
    none = points.hits.new_zeros(1)  # the first cut is above all scores
    hits = torch.cat([none, points.hits]).double()
    alarms = torch.cat([none, points.false_alarms]).double()
    match maximised:
        case "accuracy":
            values = (hits + negatives - alarms) / (positives + negatives)
        case "f1":
            values = 2 * hits / (positives + hits + alarms)
        case "balanced_accuracy":
            values = (hits / positives + (negatives - alarms) / negatives) / 2
    if not positives or bool(values.isnan().any()):
        return 0.0
    falling = points.scores.double()
    above = torch.cat([falling[:1] + 2, falling])
    below = torch.cat([falling, falling[-1:] - 2])
    cuts = torch.where((above > 0) & (below <= 0), 0.0, (above + below) / 2)
    best = cuts[values >= values.max() - _ROUNDING]
    return float(best[best.abs().argmin()])


def _finite(score: Tensor) -> Tensor:
    return score.double().clamp(-_FARTHEST, _FARTHEST)


def _sigmoid(cut: float) -> float:
    return 1 / (1 + math.exp(-cut)) if cut > 0 else math.exp(cut) / (1 + math.exp(cut))
