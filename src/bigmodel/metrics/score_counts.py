"""How many samples have which score, of those that are of a class and those that are not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bigmodel.metrics.classes import CONFUSION_LIMIT
from bigmodel.spec import Classes, Flags, Target

STEPS = 201
"""Steps of a probability, from 0 to 1."""

_MOST_APART = 20  # classes or labels that are counted each for itself


class ScoreCounts:
    """Counts samples by the probability that a model gives to a class or label: what a curve of
    precision over recall is drawn from.

    Of two classes the second is counted, of up to 20 each, of more all pairs of sample and class
    together. Counts stay on the device, and those of several processes can be added.

    Args:
        target: what is predicted.
        device: the model's.

    Attributes:
        counts: (classes, 2, steps) int64: those that are of the class, then those that are not. A sample
            is at the step below its probability.
    """

    def __init__(self, target: Classes | Flags, device: torch.device) -> None:
        self._target = target
        self._two = isinstance(target, Classes) and target.count == 2
        self._apart = 1 if self._two or target.count > _MOST_APART else target.count
        self.counts = torch.zeros(self._apart, 2, STEPS, dtype=torch.int64, device=device)

    @staticmethod
    def of(target: Target, device: torch.device) -> ScoreCounts | None:
        """None if the target has no classes or labels, or too many."""
        if not isinstance(target, Classes | Flags) or target.count > CONFUSION_LIMIT:
            return None
        return ScoreCounts(target, device)

    @property
    def names(self) -> tuple[str, ...]:
        """What is counted: classes or labels."""
        if self._two:
            return self._target.names[1:]
        return self._target.names if self._apart > 1 else ("all",)

    def by_name(self, add_up: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """The counts of each class or label, (2, steps); `add_up` adds those of several processes."""
        return dict(zip(self.names, add_up(self.counts), strict=True))

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Adds a batch. Never waits for the device.

        Args:
            outputs: the model's raw outputs, (batch, classes).
            targets: (batch,) int64 for classes, (batch, labels) for labels.
        """
        outputs = outputs.detach().float()
        if isinstance(self._target, Classes):
            scores = outputs.softmax(1)
            negative = torch.ones_like(scores, dtype=torch.int64).scatter_(1, targets[:, None], 0)
        else:
            scores, negative = outputs.sigmoid(), (targets <= 0.5).long()
        if self._two:
            scores, negative = scores[:, 1:], negative[:, 1:]
        # of NaN, too: what is counted then is not used
        steps = scores.nan_to_num().mul(STEPS - 1).long().clamp_(0, STEPS - 1)
        cells = negative.mul(STEPS).add_(steps)
        if self._apart > 1:
            cells += torch.arange(self._apart, device=cells.device).mul(2 * STEPS)
        cells = cells.flatten()
        self.counts.view(-1).index_add_(0, cells, torch.ones_like(cells))
