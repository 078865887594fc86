"""What all metrics share: sums on the device, fetched once."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.errors import SpecError


class Metrics:
    """Running sums over samples, and the figures that follow from them.

    Args:
        sums: zeros, on the device.
    """

    def __init__(self, sums: Tensor) -> None:
        self._sums = sums
        self._count = 0

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
