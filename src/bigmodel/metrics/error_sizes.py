"""How large errors of real values are: quantiles, and in per cent."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.metrics.base import SumMetric, WholeMetric
from bigmodel.registry import EntryConfig, metrics
from bigmodel.spec import Target, Values


class QuantileConfig(EntryConfig):
    """Quantiles of absolute errors."""

    quantiles: list[float] = Field([0.5, 0.9], min_length=1, description="each between 0 and 1")


@metrics.register("error_quantiles", QuantileConfig)
class ErrorQuantiles(WholeMetric):
    """Quantiles of absolute errors in the target's own unit, `error_p50` (the median) and `error_p90`;
    interpolated linearly between two samples. With several values, the mean over them."""

    accepts = (Values,)

    def __init__(self, config: QuantileConfig, target: Target) -> None:
        super().__init__(config, target)
        assert isinstance(target, Values)
        self._std = torch.tensor(target.std, dtype=torch.float64)
        self._levels = {f"error_p{100 * level:g}": level for level in config.quantiles}
        self.directions = dict.fromkeys(self._levels, "min")

    def compute(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        return {name: float(value.mean()) for name, value in self.by_class(outputs, targets).items()}

    def by_class(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        errors = ((outputs.double() - targets.double()).abs() * self._std).sort(0).values
        found = {}
        for name, level in self._levels.items():  # torch.quantile takes no more than 2²⁴ numbers
            place = level * (len(errors) - 1)
            below, above = errors[math.floor(place)], errors[math.ceil(place)]
            found[name] = below + (above - below) * (place - math.floor(place))
        return found


class PercentageConfig(EntryConfig):
    """Errors in proportion to what is true."""


_ROUNDING = 1e-6
"""Standardised values are float32: what is closer to 0 than this part of mean and deviation is 0."""


@metrics.register("mape", PercentageConfig)
class MAPE(SumMetric):
    """The mean of |error| / |true value|, 1 for 100 %; undefined if a true value is 0. With several
    values, the mean over them."""

    accepts = (Values,)
    directions: Mapping[str, str] = {"mape": "min"}
    undefined = "one of its true values is 0"

    def __init__(self, config: PercentageConfig, target: Target) -> None:
        super().__init__(config, target)
        assert isinstance(target, Values)
        self._mean = torch.tensor(target.mean, dtype=torch.float64)
        self._std = torch.tensor(target.std, dtype=torch.float64)

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Proportions, samples, and true values that are 0, of each value: (3, count)."""
        mean, std = self._mean.to(outputs.device), self._std.to(outputs.device)
        truth = targets.double() * std + mean
        is_zero = truth.abs() <= _ROUNDING * (mean.abs() + std)
        error = (outputs.double() - targets.double()).abs() * std
        share = error / truth.abs().masked_fill(is_zero, 1.0)
        return torch.stack([share, torch.ones_like(share), is_zero.double()]).sum(1)

    def compute(self, sums: Tensor) -> dict[str, float]:
        share, samples, zeros = sums
        return {"mape": math.nan if zeros.any() else float((share / samples).mean())}
