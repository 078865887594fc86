"""The metrics of steps, kept on the device until they are needed: fetching them waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_Single = tuple[Tensor, Tensor, Tensor | int]
_Numbers = tuple[float, float, float]


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


class StepMetricsList(Sequence[StepMetrics]):
    """The metrics of steps, in order; an array for each, as a step of a small model takes less time than
    an object in Python.

    Args:
        losses, weights: (steps,) float64; see `StepMetrics`.
        updated: (steps,) bool.
    """

    def __init__(
        self, losses: NDArray[np.float64], weights: NDArray[np.float64], updated: NDArray[np.bool_]
    ) -> None:
        self.losses, self.weights, self.updated = losses, weights, updated

    def __len__(self) -> int:
        return len(self.losses)

    @overload
    def __getitem__(self, index: int) -> StepMetrics: ...
    @overload
    def __getitem__(self, index: slice) -> StepMetricsList: ...
    def __getitem__(self, index: int | slice) -> StepMetrics | StepMetricsList:
        losses, weights, updated = self.losses[index], self.weights[index], self.updated[index]
        if isinstance(index, slice):
            return StepMetricsList(losses, weights, updated)
        return StepMetrics(float(losses), float(weights), bool(updated))


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

    def drain(self) -> StepMetricsList:
        """Returns all of them as numbers, in a few transfers, and empties the buffer."""
        groups = [_fetched(list(group)) for _, group in groupby(self._entries, type)]
        totals, weights, found_inf = np.concatenate([np.empty((0, 3)), *groups]).T
        losses = np.full_like(totals, np.nan)
        with np.errstate(invalid="ignore", over="ignore"):  # they may be infinite
            np.divide(totals, weights, out=losses, where=weights != 0)
        self.clear()
        return StepMetricsList(losses, weights, found_inf == 0)

    def clear(self) -> None:
        """Discards all metrics."""
        self._entries.clear()


def _fetched(entries: list[Any]) -> NDArray[np.float64]:
    """Total, weight and found_inf of each step, (steps, 3); each metric is fetched in one transfer."""
    if isinstance(entries[0], Tensor):
        return torch.cat(entries)[:, :3].double().cpu().numpy()
    if isinstance(entries[0][0], float):
        return np.asarray(entries)
    totals, flags, weights = zip(*entries, strict=True)
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    fetched = iter(torch.stack(tensors).tolist() if tensors else [])
    numbers = [float(next(fetched) if isinstance(weight, Tensor) else weight) for weight in weights]
    return np.column_stack([torch.stack(totals).tolist(), numbers, torch.stack(flags).tolist()])
