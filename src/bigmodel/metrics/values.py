"""Metrics of real values."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bigmodel.metrics.sums import Metrics, shape_error
from bigmodel.spec import Values


class ValueMetrics(Metrics):
    """mae and rmse in the target's own unit, and r2 = 1 - Σ error² / Σ (truth - mean truth)².

    With several outputs, the mean over them. Targets are standardised, that is, near 0 already, so that
    sums of squares in float64 lose nothing to cancellation. If all truths of an output are equal, its r2
    is undefined and left out of the mean, which is NaN if nothing is left (as scikit-learn's `r2_score`
    with `force_finite=False`).
    """

    counts_samples = True

    def __init__(self, target: Values, device: torch.device) -> None:
        # MPS has no float64
        precision = torch.float32 if device.type == "mps" else torch.float64
        # Σ |error|, Σ error², Σ truth, Σ truth², samples; NaN and infinity stay visible in the sums
        super().__init__(torch.zeros(5, target.count, dtype=precision, device=device))
        self._std = np.asarray(target.std, dtype=np.float64)

    def update(self, outputs: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        """See `Metrics.update`."""
        if outputs.shape != targets.shape or outputs.dim() != 2:
            raise shape_error(outputs, targets, tuple(targets.shape))
        truth = targets.to(self._sums.dtype)
        error = outputs.detach() - truth
        ones = self._ones(truth) if valid is None else torch.ones_like(truth)
        each = (error.abs(), error * error, truth, truth * truth, ones)
        new = torch.stack(each).sum(1)
        self._sums.add_(new if valid is None else torch.where(valid, new, 0))
        self.count(targets.shape[0])

    def _values(self, sums: Tensor) -> dict[str, float]:
        # By NumPy: of so few numbers, torch's operations take three times as long.
        absolute, squared, truth, truth_squared, counted = sums.double().numpy()
        count = np.maximum(counted, 1)
        with np.errstate(invalid="ignore", over="ignore"):  # sums may be NaN, infinite or very large
            spread = truth_squared - truth * truth / count
            # What rounding leaves of a spread of 0 is no spread.
            differs = spread > count * torch.finfo(self._sums.dtype).eps * truth_squared
            ratios = squared[differs] / spread[differs]
            return {
                "mae": float((absolute / count * self._std).mean()),
                "rmse": float((np.sqrt(squared / count) * self._std).mean()),
                "r2": float(1 - ratios.mean()) if ratios.size else math.nan,
            }
