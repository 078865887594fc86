"""The figure that a run is judged by, of outputs that are there already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bigmodel.losses import Loss
from bigmodel.metrics import ChosenMetrics, default_monitor, metric_names, metrics_for
from bigmodel.metrics.threshold import move
from bigmodel.spec import Target


@dataclass(frozen=True)
class Figure:
    """A figure of a model's outputs.

    Attributes:
        name: such as `accuracy` or `loss`.
        better: which way it is better.
        target: what is predicted.
        loss: of the run, on the CPU.
        chosen: metrics of the run beside the usual ones.
        cuts: decision thresholds; see `metrics.threshold`.
    """

    name: str
    better: Literal["min", "max"]
    target: Target
    loss: Loss
    chosen: ChosenMetrics
    cuts: Sequence[float] | None = None

    @classmethod
    def monitored(
        cls,
        name: str,
        target: Target,
        loss: Loss,
        chosen: ChosenMetrics,
        cuts: Sequence[float] | None = None,
    ) -> Figure:
        """The figure that chose a run's best weights.

        Args:
            name: as in `trainer.checkpoint.monitor`: `val/auc`, `auto`. One that a set has not, such as
                `train/loss` of its own, stands for the loss.
        """
        ways = metric_names(target) | chosen.directions
        plain = default_monitor(target) if name == "auto" else name.rpartition("/")[2]
        plain = plain if plain in ways else "loss"
        better: Literal["min", "max"] = "max" if ways[plain] == "max" else "min"
        return cls(plain, better, target, loss, chosen, cuts)

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """The figure, of (samples, output_size) raw outputs; NaN if it is not defined for them."""
        with torch.inference_mode():
            if self.name == "loss":
                return float(self.loss(outputs, targets) / self.loss.normaliser(targets))
            decided = move(outputs, self.cuts, self.target).float()
            if self.name in self.chosen.directions:
                self.chosen.reset()
                self.chosen.update(outputs, targets, decided)
                values = self.chosen.compute([self.chosen.gathered()]).values
                self.chosen.reset()
            else:
                metrics = metrics_for(self.target, "cpu")
                metrics.update(decided, targets)
                values = metrics.compute()
        return values.get(self.name, math.nan)

    def drop(self, before: float, after: float) -> float:
        """By how much it has become worse."""
        return before - after if self.better == "max" else after - before
