"""What steps gave, kept on the device until it is asked for: fetching waits for the device."""

from __future__ import annotations

import math
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

_One = tuple[Tensor, Tensor, Tensor | int]


class StepFigures(NamedTuple):
    """What one step gave.

    Attributes:
        loss: mean loss of the batch, before the update.
        weight: what that mean was divided by (samples, or the sum of their weights).
        updated: whether the weights were updated; not where the loss or a gradient was NaN or infinite.
            In fp16 only the loss counts: its scaling makes gradients overflow now and then, on purpose.
    """

    loss: float
    weight: float
    updated: bool = True


class Undrained:
    """The figures of steps, in order, until they are drained."""

    def __init__(self) -> None:
        self._kept: list[_One | Tensor] = []

    def add(self, total: Tensor, unfit: Tensor, weight: Tensor | int) -> None:
        """Those of one step: the sum of the losses, 1 where the update was left out, else 0, and what to
        divide the sum by."""
        self._kept.append((total, unfit, weight))

    def add_block(self, figures: Tensor) -> None:
        """Those of several steps, (steps, 4): sum, weight, unfitness, norm of the gradient."""
        self._kept.append(figures)

    def drain(self) -> list[StepFigures]:
        """All of them, as numbers; a few transfers for many steps."""
        figures: list[StepFigures] = []
        for _, group in groupby(self._kept, type):
            figures += [
                StepFigures(total / weight if weight else math.nan, weight, not bad)
                for total, weight, bad in _fetched(list(group))
            ]
        self.forget()
        return figures

    def forget(self) -> None:
        """Throws them away."""
        self._kept.clear()


def _fetched(figures: list[_One | Tensor]) -> list[tuple[float, ...]]:
    """Sum, weight and unfitness of some steps of one kind; each is fetched in one transfer."""
    together = [block for block in figures if isinstance(block, Tensor)]
    if together:
        return [tuple(row) for row in torch.cat(together)[:, :3].tolist()]
    sums, unfit, weights = zip(*figures, strict=True)
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    fetched = iter(torch.stack(tensors).tolist() if tensors else [])
    plain = [float(next(fetched) if isinstance(weight, Tensor) else weight) for weight in weights]
    return list(zip(torch.stack(sums).tolist(), plain, torch.stack(unfit).tolist(), strict=True))
