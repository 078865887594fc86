"""Metrics of several targets at once: those of each, under its name."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bigmodel.metrics.classes import ClassMetrics
from bigmodel.metrics.sums import Metrics, shape_error
from bigmodel.metrics.values import ValueMetrics
from bigmodel.spec import Classes, Multitask


def split_outputs(outputs: Tensor, target: Multitask) -> list[Tensor]:
    """The outputs of each target, (batch, its output_size); of all: (batch, output_size)."""
    return [outputs[:, columns] for columns in target.slices]


def split_targets(targets: Tensor, target: Multitask) -> list[Tensor]:
    """Each target as if it were the only one: (batch,) int64 of classes, (batch, 1) of values; of all:
    (batch, count)."""
    return [
        column[:, 0].long() if isinstance(part, Classes) else column
        for part, column in zip(target.parts, torch.split(targets, 1, dim=1), strict=True)
    ]


class MultitaskMetrics(Metrics):
    """The metrics of each target, such as `price/mae` and `kind/accuracy`."""

    def __init__(self, target: Multitask, device: torch.device, light: bool = False) -> None:
        self._target = target
        self._parts: list[Metrics] = [
            ClassMetrics(part, device, light)
            if isinstance(part, Classes)
            else ValueMetrics(part, device)
            for part in target.parts
        ]
        # Counts are exact in the numbers that values are summed in, up to 2^53.
        precision = torch.float32 if device.type == "mps" else torch.float64
        size = sum(part.sums.numel() for part in self._parts)
        super().__init__(torch.zeros(size, dtype=precision, device=device))

    def _bind(self, sums: Tensor) -> None:
        super()._bind(sums)
        pairs = zip(self._parts, self._pieces(sums), strict=True)
        self._parts = [part.over(piece) for part, piece in pairs]

    def update(self, outputs: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        """See `Metrics.update`."""
        samples, target = targets.shape[0], self._target
        if outputs.shape != (samples, target.output_size) or targets.shape != (samples, target.count):
            raise shape_error(outputs, targets, (samples, target.output_size))
        split = split_outputs(outputs, target), split_targets(targets, target)
        for part, own, truths in zip(self._parts, *split, strict=True):
            part.update(own, truths, valid)
        self.count(samples)

    def _pieces(self, sums: Tensor) -> Iterator[Tensor]:
        sizes = [part.sums.numel() for part in self._parts]
        for part, piece in zip(self._parts, torch.split(sums, sizes), strict=True):
            yield piece.view(part.sums.shape)

    def _counted(self, sums: Tensor) -> float:
        pieces = zip(self._parts, self._pieces(sums), strict=True)
        return min(part._counted(piece) for part, piece in pieces)

    def _values(self, sums: Tensor) -> dict[str, float]:
        named = zip(self._target.names, self._parts, self._pieces(sums), strict=True)
        return {
            f"{name}/{key}": value
            for name, part, piece in named
            for key, value in part._values(piece).items()
        }
