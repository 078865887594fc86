"""Metrics of classes, and of labels that do not exclude each other."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.metrics.sums import Metrics, counted, shape_error
from bigmodel.spec import Classes, Flags

CONFUSION_LIMIT = 1024
"""With more classes, three counts for each class replace the confusion matrix, of 8 MiB here."""


class ClassMetrics(Metrics):
    """accuracy, top5_accuracy (if there are more than 5 classes) and macro_f1.

    The prediction is the class of the largest output. macro_f1 is the mean of F1 = 2 TP / (2 TP + FP +
    FN) over the classes that occur as truth or prediction.
    """

    def __init__(self, target: Classes, device: torch.device, light: bool = False) -> None:
        self._classes = target.count
        self._square = target.count <= CONFUSION_LIMIT
        size = target.count * (target.count if self._square else 3)
        super().__init__(torch.zeros(size + 1, dtype=torch.int64, device=device))
        self._target = target
        self._top5 = target.count > 5 and not light

    def _bind(self, sums: Tensor) -> None:
        super()._bind(sums)
        # One tensor, so that one transfer fetches everything: counts, then hits among the first five.
        self._counts, self._top5_hits = sums[:-1], sums[-1]

    def update(self, outputs: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        """See `Metrics.update`."""
        samples = targets.shape[0]
        if outputs.shape != (samples, self._classes) or targets.dim() != 1:
            raise shape_error(outputs, targets, (samples, self._classes))
        predictions, mask = outputs.argmax(1), counted(outputs, self._target, valid)
        ones = (self._ones(targets) if mask is None else mask).to(self._counts.dtype)
        if self._square:
            cells = torch.add(predictions, targets, alpha=self._classes)
            self._counts.index_add_(0, cells, ones)
        else:
            truths, predicted, hits = self._counts.view(3, -1)
            truths.index_add_(0, targets, ones)
            predicted.index_add_(0, predictions, ones)
            hits.index_add_(0, targets, ones * (predictions == targets))
        if self._top5:
            first = outputs.detach().topk(5, dim=1, sorted=False).indices
            found = first == targets.unsqueeze(1)
            self._top5_hits.add_((found if mask is None else found & mask.unsqueeze(1)).sum())
        self.count(samples)

    @property
    def confusion(self) -> Tensor | None:
        """See `Metrics.confusion`; a copy."""
        return self._counts.view(self._classes, -1).clone() if self._square else None

    def _counted(self, sums: Tensor) -> float:
        """See `Metrics`: each sample that counts has one true class."""
        return float(sums[:-1].sum() if self._square else sums[: self._classes].sum())

    def _values(self, sums: Tensor) -> dict[str, float]:
        counts = sums[:-1].view(-1, self._classes).double()
        if self._square:
            truths, predicted, hits = counts.sum(1), counts.sum(0), counts.diagonal()
        else:
            truths, predicted, hits = counts
        count = max(1.0, self._counted(sums))
        values = {"accuracy": float(hits.sum()) / count}
        if self._top5:
            values["top5_accuracy"] = int(sums[-1]) / count
        values["macro_f1"] = _macro_f1(hits, truths, predicted)
        return values


class FlagMetrics(Metrics):
    """accuracy, the share of single labels that are right, and macro_f1, the mean of F1 over all labels.

    A label is predicted if its output is above 0. The F1 of a label that is neither set nor predicted
    for any sample is undefined and left out of the mean, as scikit-learn does with `zero_division=nan`.
    The mean over no label is NaN.
    """

    counts_samples = True

    def __init__(self, target: Flags, device: torch.device) -> None:
        # truths, predictions, hits, samples
        super().__init__(torch.zeros(4, target.count, dtype=torch.int64, device=device))
        self._target = target

    def update(self, outputs: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        """See `Metrics.update`."""
        if outputs.shape != targets.shape or outputs.dim() != 2:
            raise shape_error(outputs, targets, tuple(targets.shape))
        predicted, true, mask = outputs > 0, targets > 0.5, counted(outputs, self._target, valid)
        ones = torch.ones_like(predicted)
        if mask is not None:
            predicted, true, ones = (flags & mask.unsqueeze(1) for flags in (predicted, true, ones))
        self._sums.add_(torch.stack((true, predicted, true & predicted, ones)).sum(1))
        self.count(targets.shape[0])

    def _values(self, sums: Tensor) -> dict[str, float]:
        truths, predicted, hits, _ = sums.double()
        wrong = float((truths + predicted - 2 * hits).mean()) / max(1.0, self._counted(sums))
        return {"accuracy": 1.0 - wrong, "macro_f1": _macro_f1(hits, truths, predicted)}


def _macro_f1(hits: Tensor, truths: Tensor, predicted: Tensor) -> float:
    """The mean of 2 TP / (truths + predictions) over the classes or labels that have either."""
    occurring = truths + predicted > 0
    return float((2 * hits / (truths + predicted))[occurring].mean())
