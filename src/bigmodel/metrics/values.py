"""Figures of real values."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.metrics.base import Metrics, misfit
from bigmodel.spec import Values


class ValueMetrics(Metrics):
    """mae and rmse in the target's own unit, and r2 = 1 - Σ error² / Σ (truth - mean truth)².

    Of several outputs, the mean over them. Targets come standardised, that is, shifted near 0 already,
    so that sums of squares in float64 lose nothing to cancellation. Where all truths are equal, r2 is 1
    for predictions without error and 0 otherwise.
    """

    def __init__(self, target: Values, device: torch.device) -> None:
        # MPS has no float64
        precision = torch.float32 if device.type == "mps" else torch.float64
        super().__init__(torch.zeros(4, target.count, dtype=precision, device=device))
        self._std = torch.tensor(target.std, dtype=torch.float64)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """See `Metrics.update`."""
        if outputs.shape != targets.shape or outputs.dim() != 2:
            raise misfit(outputs, targets, tuple(targets.shape))
        truth = targets.to(self._sums.dtype)
        error = outputs.detach() - truth
        self._sums.add_(torch.stack((error.abs(), error * error, truth, truth * truth)).sum(1))
        self.count(targets.shape[0])

    def _figures(self, sums: Tensor) -> dict[str, float]:
        count = self._count
        absolute, squared, truth, truth_squared = sums.double()
        spread = truth_squared - truth * truth / count
        # what rounding leaves of a spread of 0
        spread[spread <= count * torch.finfo(self._sums.dtype).eps * truth_squared] = 0.0
        r2 = torch.where(spread > 0, 1 - squared / spread, (squared == 0).double())
        return {
            "mae": float((absolute / count * self._std).mean()),
            "rmse": float(((squared / count).sqrt() * self._std).mean()),
            "r2": float(r2.mean()),
        }
