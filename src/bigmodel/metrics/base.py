"""What all metrics share: sums on the device, fetched once."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from bigmodel.errors import SpecError


class Metrics:
    """Running sums over samples, and the figures that follow from them.

    Args:
        sums: zeros, on the device.
    """

    def __init__(self, sums: Tensor) -> None:
        self._count = 0
        self._bind(sums)

    def _bind(self, sums: Tensor) -> None:
        """Adds up into `sums` from now on."""
        self._sums = sums

    @property
    def sums(self) -> Tensor:
        """The sums themselves: whoever adds to them has to `count` the samples."""
        return self._sums

    def over(self, sums: Tensor) -> Self:
        """Metrics like these that add up into `sums`; these are left alone."""
        other = copy.copy(self)
        other._bind(sums)
        return other

    @property
    def samples(self) -> int:
        """How many samples have been added up."""
        return self._count

    def count(self, samples: int) -> None:
        """Notes that the sums have grown by so many samples."""
        self._count += samples

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Adds a batch. Never waits for the device.

        Args:
            outputs: the model's raw outputs, (batch, output_size).
            targets: (batch,) int64 for classes, (batch, count) for flags and values.

        Raises:
            SpecError: the shapes do not go together; they are never broadcast.
        """
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        """The figures of all samples since the last reset, fetched at once; none without samples."""
        return self._figures(self._sums.cpu()) if self._count else {}

    def reset(self) -> None:
        """Forgets all samples."""
        self._sums.zero_()
        self._count = 0

    @property
    def confusion(self) -> Tensor | None:
        """Counts, truth by prediction, (classes, classes) int64; None where they are not kept."""
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far, as copies."""
        return {"sums": self._sums.clone(), "count": torch.tensor(self._count)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError: it is the state of metrics for another target.
        """
        if state["sums"].shape != self._sums.shape:
            raise ValueError(
                f"metrics: sums of shape {tuple(state['sums'].shape)}, not {tuple(self._sums.shape)}."
            )
        self._sums.copy_(state["sums"])
        self._count = int(state["count"])

    def _figures(self, sums: Tensor) -> dict[str, float]:
        raise NotImplementedError


def misfit(outputs: Tensor, targets: Tensor, expected: tuple[int, ...]) -> SpecError:
    return SpecError(
        f"metrics: outputs of shape {tuple(outputs.shape)} do not go with targets of shape"
        f" {tuple(targets.shape)}; expected outputs of shape {expected}."
    )
