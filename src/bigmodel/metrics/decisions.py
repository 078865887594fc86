"""How good decisions are, class by class: precision, recall, F1, balanced accuracy, the first k."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.metrics.base import SumMetric
from bigmodel.registry import EntryConfig, metrics
from bigmodel.spec import Classes, Flags, Target


class DecisionConfig(EntryConfig):
    """A figure of decisions."""


class _Decisions(SumMetric):
    """A figure of each class or label, which follows from how often it is true, predicted, and both.

    Of two classes it is that of the second; of more, and of labels, the mean over those of which it is
    defined, as scikit-learn's with `average="macro", zero_division=nan`.
    """

    accepts: tuple[type[Target], ...] = (Classes, Flags)
    decides = True
    figure = ""

    def __init__(self, config: EntryConfig, target: Target) -> None:
        super().__init__(config, target)
        self._binary = isinstance(target, Classes) and target.count == 2
        self._mean = self.figure if self._binary else f"macro_{self.figure}"
        self.directions = {self._mean: "max"}

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Truths, predictions and hits of each class, (3, count) int64."""
        if isinstance(self.target, Flags):
            predicted, true = outputs > 0, targets > 0.5
            return torch.stack([true, predicted, true & predicted]).sum(1)
        predictions = outputs.argmax(1)
        counts = torch.zeros(3, outputs.shape[1], dtype=torch.int64, device=outputs.device)
        ones = torch.ones_like(targets)
        counts[0].index_add_(0, targets, ones)
        counts[1].index_add_(0, predictions, ones)
        counts[2].index_add_(0, targets, (predictions == targets).long())
        return counts

    def compute(self, sums: Tensor) -> dict[str, float]:
        values = self.of(*sums.double())
        known = values[1:] if self._binary else values[~values.isnan()]
        return {self._mean: float(known.mean())}

    def by_class(self, sums: Tensor) -> dict[str, Tensor]:
        return {self.figure: self.of(*sums.double())}

    def of(self, truths: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:
        """The figure of each class, NaN if it is undefined."""
        raise NotImplementedError


@metrics.register("precision", DecisionConfig)
class Precision(_Decisions):
    """Hits / predictions: undefined for a class that is never predicted."""

    figure = "precision"
    undefined = "the model predicts none of it"

    def of(self, truths: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:  # noqa: ARG002
        return hits / predicted


@metrics.register("recall", DecisionConfig)
class Recall(_Decisions):
    """Hits / truths: undefined for a class that never occurs."""

    figure = "recall"
    undefined = "no sample is positive"

    def of(self, truths: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:  # noqa: ARG002
        return hits / truths


@metrics.register("f1", DecisionConfig)
class F1(_Decisions):
    """2 hits / (truths + predictions): undefined for a class that neither occurs nor is predicted."""

    figure = "f1"
    undefined = "no sample is positive, and none is predicted to be"

    def of(self, truths: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:
        return 2 * hits / (truths + predicted)


@metrics.register("balanced_accuracy", DecisionConfig)
class BalancedAccuracy(_Decisions):
    """The mean recall of the classes that occur, of two classes too."""

    accepts = (Classes,)
    figure = "recall"

    def __init__(self, config: EntryConfig, target: Target) -> None:
        super().__init__(config, target)
        self._binary, self._mean = False, "balanced_accuracy"
        self.directions = {self._mean: "max"}

    def of(self, truths: Tensor, predicted: Tensor, hits: Tensor) -> Tensor:  # noqa: ARG002
        return hits / truths


class TopKConfig(EntryConfig):
    """Whether the right class is among the first."""

    k: int = Field(3, ge=1, description="how many classes count as the first")


@metrics.register("top_k", TopKConfig)
class TopK(SumMetric):
    """The share of samples whose true class is among the k largest outputs. Of equal outputs those of
    the last classes come first, as in scikit-learn."""

    accepts = (Classes,)

    def __init__(self, config: TopKConfig, target: Target) -> None:
        super().__init__(config, target)
        self._k, self._figure = config.k, f"top{config.k}_accuracy"
        self.directions = {self._figure: "max"}

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Hits and samples."""
        own = outputs.gather(1, targets[:, None])
        later = torch.arange(outputs.shape[1], device=outputs.device) > targets[:, None]
        before = ((outputs > own) | ((outputs == own) & later)).sum(1)
        return torch.stack([(before < self._k).sum(), torch.full_like(before, 1).sum()])

    def compute(self, sums: Tensor) -> dict[str, float]:
        hits, samples = sums.tolist()
        return {self._figure: hits / samples if samples else math.nan}
