"""Temperatures that make probabilities as high as they turn out right.

Guo et al. (2017), "On Calibration of Modern Neural Networks".

Outputs are divided by a temperature before they become probabilities, so what is likeliest stays so. It
is the one of least log loss: one for classes, and one for each yes/no label, which is a question of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigmodel.spec import Classes, Target

_LEAST, _MOST = 0.01, 100.0  # of inverse temperatures
_FARTHEST = 1e4  # below the largest output; some are infinite
_ROUNDS = 60
_EXACT = 1e-9


def fit_temperatures(outputs: Tensor, targets: Tensor, target: Target) -> list[float]:
    """The temperature of classes, or of each label.

    One more sample is counted as wrong, with the second likeliest answer as its truth: if every sample
    is right, no finite temperature would be the best. Platt (1999) does the same for two classes.

    Args:
        outputs, targets: of all samples, as `WholeMetric.compute` has it.
    """
    if isinstance(target, Classes):
        return [_fit(outputs, targets)] if target.count > 1 else [1.0]
    pairs = zip(outputs.T, targets.T, strict=True)
    return [
        _fit(torch.stack([torch.zeros_like(one), one], dim=1), (true > 0.5).long())
        for one, true in pairs
    ]


def scale(outputs: Tensor, temperatures: Sequence[float] | None) -> Tensor:
    """Outputs (batch, output_size) divided by their temperatures; None: as they are."""
    if temperatures is None:
        return outputs
    return outputs.double() / torch.tensor(temperatures, dtype=torch.float64)


def _fit(logits: Tensor, true: Tensor) -> float:
    """The temperature of softmax(logits / T). In 1/T the log loss is convex: Newton's method, within
    a bracket."""
    logits = logits.double()
    logits = (logits - logits.amax(1, keepdim=True)).clamp(min=-_FARTHEST)
    own = logits.gather(1, true[:, None])[:, 0]
    other = logits.scatter(1, true[:, None], -torch.inf).amax(1)
    wrong = 1 / (len(own) + 2)
    aim = ((1 - wrong) * own + wrong * other).mean()
    low, high, inverse = _LEAST, _MOST, 1.0
    for _ in range(_ROUNDS):
        share = (inverse * logits).softmax(1)
        mean = (share * logits).sum(1)
        slope = float(mean.mean() - aim)
        bend = float(((share * logits * logits).sum(1) - mean * mean).mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / bend if bend > 0 else 0.0
        following = step if low < step < high else (low * high) ** 0.5
        if abs(following - inverse) <= _EXACT * inverse:
            break
        inverse = following
    return 1 / inverse
