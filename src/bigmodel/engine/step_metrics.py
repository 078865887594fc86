"""The metrics of steps, kept on the device until they are needed: fetching them waits for the device."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

_Single = tuple[Tensor, Tensor, Tensor | int]
_Numbers = tuple[float, ...]


class StepMetrics(NamedTuple):
    """The metrics of one step.

    Attributes:
        loss: mean loss of the batch, before the update.
        weight: what that mean was divided by (samples, or the sum of their weights).
        updated: whether the weights were updated; they are not if the loss or a gradient is NaN or
            infinite. In fp16 only the loss counts, since scaling makes gradients overflow on purpose.
    """

    loss: float
    weight: float
    updated: bool = True


class StepMetricsBuffer:
    """The metrics of steps, in order, until they are drained."""

    def __init__(self) -> None:
        self._entries: list[_Single | _Numbers | Tensor] = []

    def add(self, total: Tensor, found_inf: Tensor, weight: Tensor | int) -> None:
        """Adds the metrics of one step.

        Args:
            total: the sum of the losses.
            found_inf: 1 if the update was skipped, else 0.
            weight: what to divide the sum by.
        """
        if total.device.type == "cpu":
            # As numbers: a few bytes kept of each step break up the memory that its large tensors leave,
            # so that the next step's no longer fit there, and a process grows with every step.
            self._entries.append((float(total), float(weight), float(found_inf)))
        else:
            self._entries.append((total, found_inf, weight))

    def add_block(self, metrics: Tensor) -> None:
        """Adds the metrics of several steps, (steps, 4): total, weight, found_inf, gradient norm."""
        self._entries.append(metrics)

    def drain(self) -> list[StepMetrics]:
        """Returns all of them as numbers, in a few transfers, and empties the buffer."""
        metrics: list[StepMetrics] = []
        for _, group in groupby(self._entries, type):
            metrics += [
                StepMetrics(total / weight if weight else math.nan, weight, not found_inf)
                for total, weight, found_inf in _fetched(list(group))
            ]
        self.clear()
        return metrics

    def clear(self) -> None:
        """Discards all metrics."""
        self._entries.clear()


def _fetched(entries: list[Any]) -> list[_Numbers]:
    """Total, weight and found_inf of each step; each metric is fetched in one transfer."""
    blocks = [block for block in entries if isinstance(block, Tensor)]
    if blocks:
        return [tuple(row) for row in torch.cat(blocks)[:, :3].tolist()]
    if isinstance(entries[0][0], float):
        return entries
    totals, flags, weights = zip(*entries, strict=True)
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    fetched = iter(torch.stack(tensors).tolist() if tensors else [])
    numbers = [float(next(fetched) if isinstance(weight, Tensor) else weight) for weight in weights]
    return list(zip(torch.stack(totals).tolist(), numbers, torch.stack(flags).tolist(), strict=True))
