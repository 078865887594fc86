"""What all metrics share: sums on the device, fetched once."""

from __future__ import annotations

import copy
import math
from typing import Self

import torch
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.spec import Classes, NextTokens, Target


class Metrics:
    """Running sums over samples, and the figures that follow from them.

    Args:
        sums: zeros, on the device. With `counts_samples`, the last row counts samples.
    """

    counts_samples = False

    def __init__(self, sums: Tensor) -> None:
        self._count = 0
        self._kept_ones: dict[torch.Size, Tensor] = {}
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

    def add(self, sums: Tensor, samples: int, fit: Tensor) -> None:
        """Adds what metrics `over` such sums have added up of so many samples, where `fit` says so."""
        self._sums.add_(torch.where(fit, sums, 0))
        self.count(samples)

    def update(self, outputs: Tensor, targets: Tensor, fit: Tensor | None = None) -> None:
        """Adds a batch. Never waits for the device.

        Args:
            outputs: the model's raw outputs, (batch, output_size).
            targets: (batch,) int64 for classes, (batch, count) for flags and values.
            fit: whether the batch is to count, a bool on the device; None: it is.

        Raises:
            SpecError: the shapes do not go together; they are never broadcast.
        """
        raise NotImplementedError

    def compute(self, *, of_all: bool = True) -> dict[str, float]:
        """The figures of all samples since the last reset, fetched at once; none without samples.

        Where the model has given NaN or infinity for a single one of them, every figure is NaN. A figure
        that the samples leave undefined, such as r2 where all truths are equal, is NaN alone.

        Args:
            of_all: whether all samples have to count; without, the figures are those of batches that
                were `fit`, and NaN where none was.
        """
        if not self._count:
            return {}
        sums = self._sums.cpu()
        figures, counted = self._figures(sums), self._counted(sums)
        is_whole = counted == self._count if of_all else counted > 0
        return figures if is_whole and bool(sums.isfinite().all()) else dict.fromkeys(figures, math.nan)

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
        sums, count = self._sums.clone(), torch.tensor(self._count)
        if not self.counts_samples:
            return {"sums": sums, "count": count}
        return {"sums": sums[:-1], "counted": sums[-1], "count": count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError: it is the state of metrics for another target.
        """
        own = self._sums[:-1] if self.counts_samples else self._sums
        if state["sums"].shape != own.shape:
            raise ValueError(
                f"metrics: sums of shape {tuple(state['sums'].shape)}, not {tuple(own.shape)}."
            )
        own.copy_(state["sums"])
        if self.counts_samples:  # an earlier version's counted all
            self._sums[-1].copy_(state.get("counted", state["count"]))
        self._count = int(state["count"])

    def _ones(self, like: Tensor) -> Tensor:
        """Ones of that shape, always of one dtype, which are made once: an update takes microseconds.
        Not for what is traced or captured."""
        if (ones := self._kept_ones.get(like.shape)) is None:
            ones = self._kept_ones[like.shape] = torch.ones_like(like)
        return ones

    def _counted(self, sums: Tensor) -> float:
        """How many samples are in the sums: those that were fit, with outputs that are defined."""
        return float(sums[-1].min())

    def _figures(self, sums: Tensor) -> dict[str, float]:
        raise NotImplementedError


def defined(outputs: Tensor, target: Target) -> Tensor:
    """Which samples a model says anything of, (…) bool: none for which it gives NaN or infinity.

    Of classes and tokens, one of -infinity is only impossible, as long as another is not.

    Args:
        outputs: raw, (…, output_size).
    """
    if isinstance(target, Classes | NextTokens):
        return outputs.amax(-1).isfinite()
    return outputs.isfinite().all(-1)


def counted(outputs: Tensor, target: Target, fit: Tensor | None) -> Tensor | None:
    """Which samples of a batch count, (batch,) bool: those that are defined, where the batch is `fit`.

    Returns:
        None where all do, which a CPU tells by a single sum for nearly every batch: nobody waits there.
    """
    if fit is None and outputs.device.type == "cpu" and math.isfinite(outputs.sum().item()):
        return None
    known = defined(outputs, target)
    return known if fit is None else known & fit


def misfit(outputs: Tensor, targets: Tensor, expected: tuple[int, ...]) -> SpecError:
    return SpecError(
        f"metrics: outputs of shape {tuple(outputs.shape)} do not go with targets of shape"
        f" {tuple(targets.shape)}; expected outputs of shape {expected}."
    )
