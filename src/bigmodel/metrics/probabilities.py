"""How good predicted probabilities are: log loss, Brier score, expected calibration error."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bigmodel.metrics.base import SumMetric
from bigmodel.registry import EntryConfig, metrics
from bigmodel.spec import Classes, Flags, Target


class ProbabilityConfig(EntryConfig):
    """A figure of predicted probabilities."""


class _Mean(SumMetric):
    """The mean over samples of a number for each, and of labels over these too."""

    accepts = (Classes, Flags)

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum, and how many were added up, float64."""
        each = self.of(outputs.double(), targets)
        return torch.stack([each.sum(), torch.ones_like(each).sum()])

    def compute(self, sums: Tensor) -> dict[str, float]:
        total, count = sums.tolist()
        return {self.name: total / count if count else math.nan}

    def of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A number for each sample, or each label of each; outputs are float64."""
        raise NotImplementedError


@metrics.register("log_loss", ProbabilityConfig)
class LogLoss(_Mean):
    """Minus the logarithm of the probability given to what is true. Unlike the loss that is trained, it
    knows neither weights nor label smoothing."""

    directions: Mapping[str, str] = {"log_loss": "min"}
    undefined = "what is true was given the probability 0"

    def of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if isinstance(self.target, Classes):
            return F.cross_entropy(outputs, targets, reduction="none")
        return F.binary_cross_entropy_with_logits(outputs, targets.double(), reduction="none")


@metrics.register("brier", ProbabilityConfig)
class Brier(_Mean):
    """The squared difference between probabilities and what is true. Of two classes and of labels it is
    that of the positive one, 0 to 1; of more classes the sum over all of them, 0 to 2, as Brier (1950)
    has it and as scikit-learn's with `scale_by_half="auto"`."""

    directions: Mapping[str, str] = {"brier": "min"}

    def of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if isinstance(self.target, Flags):
            return (outputs.sigmoid() - targets) ** 2
        true = F.one_hot(targets, outputs.shape[1])
        total = ((outputs.softmax(1) - true) ** 2).sum(1)
        return total / 2 if self.target.output_size == 2 else total


class CalibrationConfig(EntryConfig):
    """How far confidence is from accuracy."""

    bins: int = Field(15, ge=1, description="equal intervals of the confidence, from 0 to 1")


@metrics.register("ece", CalibrationConfig)
class ExpectedCalibrationError(SumMetric):
    """The expected calibration error of the likeliest class: samples are put into bins of equal width by
    its probability, and the distances between accuracy and mean probability are weighted by how many
    samples a bin has. 15 bins ((m-1)/M, m/M], as Guo et al. (2017), "On Calibration of Modern Neural
    Networks", have it."""

    accepts = (Classes,)
    directions: Mapping[str, str] = {"ece": "min"}

    def __init__(self, config: CalibrationConfig, target: Target) -> None:
        super().__init__(config, target)
        self._bins = config.bins

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Samples, hits and confidences by bin, (3, bins) float64."""
        confidence, predicted = outputs.double().softmax(1).max(1)
        bins = (confidence * self._bins).ceil().long().clamp(1, self._bins) - 1
        each = torch.stack([torch.ones_like(confidence), (predicted == targets).double(), confidence])
        return torch.zeros(3, self._bins, dtype=each.dtype, device=each.device).index_add_(1, bins, each)

    def compute(self, sums: Tensor) -> dict[str, float]:
        samples, hits, confidences = sums
        total = float(samples.sum())
        return {"ece": float((hits - confidences).abs().sum()) / total if total else math.nan}
