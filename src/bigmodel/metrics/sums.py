"""The base of all metrics: sums on the device, fetched once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.spec import Classes, NextTokens, Target


class Metrics:
    """Running sums over samples, and the metrics that follow from them.

    Args:
        sums: zeros, on the device. With `counts_samples`, the last row counts samples.
    """

    counts_samples = False

    def __init__(self, sums: Tensor) -> None:
        self._count = 0
        self._kept_ones: dict[torch.Size, Tensor] = {}
        self._bind(sums)

    def _bind(self, sums: Tensor) -> None:
        """Makes `sums` the tensor to add to."""
        self._sums = sums

    @property
    def sums(self) -> Tensor:
        """The sums themselves; a caller that adds to them has to `count` the samples."""
        return self._sums

    def over(self, sums: Tensor) -> Self:
        """A copy that adds to `sums` instead; the original is left alone."""
        other = copy.copy(self)
        other._bind(sums)
        return other

    def summed(self, add_up: Callable[[Tensor], Tensor]) -> Self:
        """A copy over the sums of several processes; see `Ranks.sum`."""
        other = self.over(add_up(self._sums))
        other._count = int(
            add_up(torch.tensor(self._count))
        )  # on the host: nothing waits for the device
        return other

    def keep_on(self, keep: bool) -> None:
        """Resets the sums unless `keep`: of several processes that have loaded them, one keeps them."""
        if not keep:
            self.reset()

    @property
    def samples(self) -> int:
        """How many samples have been added."""
        return self._count

    def count(self, samples: int) -> None:
        """Records that so many samples were added to the sums."""
        self._count += samples

    def add(self, sums: Tensor, samples: int, valid: Tensor) -> None:
        """Adds the sums of so many samples, gathered by a copy made with `over`, if `valid` is true."""
        self._sums.add_(torch.where(valid, sums, 0))
        self.count(samples)

    def update(self, outputs: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        """Adds a batch. Never waits for the device.

        Args:
            outputs: the model's raw outputs, (batch, output_size).
            targets: (batch,) int64 for classes, (batch, count) for flags and values.
            valid: whether the batch counts, a bool on the device; None: it does.

        Raises:
            SpecError: the shapes do not go together; they are never broadcast.
        """
        raise NotImplementedError

    def compute(self, *, of_all: bool = True) -> dict[str, float]:
        """The metrics of all samples since the last reset, in one transfer; empty without samples.

        If the model gave NaN or infinity for any sample, every metric is NaN. A metric that is undefined
        for these samples, such as r2 when all true values are equal, is NaN by itself.

        Args:
            of_all: whether all samples have to count. If not, the metrics are those of the `valid`
                batches, and NaN if there was none.
        """
        if not self._count:
            return {}
        sums = self._sums.cpu()
        metrics, counted = self._values(sums), self._counted(sums)
        is_whole = counted == self._count if of_all else counted > 0
        return metrics if is_whole and bool(sums.isfinite().all()) else dict.fromkeys(metrics, math.nan)

    def reset(self) -> None:
        """Resets all sums."""
        self._sums.zero_()
        self._count = 0

    @property
    def confusion(self) -> Tensor | None:
        """The confusion matrix, truth by prediction, (classes, classes) int64; None if there is none."""
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far, as copies."""
        sums, count = self._sums.clone(), torch.tensor(self._count)
        if not self.counts_samples:
            return {"sums": sums, "count": count}
        return {"sums": sums[:-1], "counted": sums[-1], "count": count}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Loads what `state_dict` returned.

        Raises:
            ValueError: it is the state of metrics for another target.
        """
        own = self._sums[:-1] if self.counts_samples else self._sums
        if state["sums"].shape != own.shape:
            raise ValueError(
                f"metrics: sums of shape {tuple(state['sums'].shape)}, not {tuple(own.shape)}."
            )
        own.copy_(state["sums"])
        if self.counts_samples:  # in earlier versions all samples counted
            self._sums[-1].copy_(state.get("counted", state["count"]))
        self._count = int(state["count"])

    def _ones(self, like: Tensor) -> Tensor:
        """Cached ones of that shape, always of one dtype: an update takes microseconds. Not to be used
        when a graph is traced or captured."""
        if (ones := self._kept_ones.get(like.shape)) is None:
            ones = self._kept_ones[like.shape] = torch.ones_like(like)
        return ones

    def _counted(self, sums: Tensor) -> float:
        """How many samples count: those of valid batches for which the outputs are defined."""
        return float(sums[-1].min())

    def _values(self, sums: Tensor) -> dict[str, float]:
        raise NotImplementedError


def defined(outputs: Tensor, target: Target) -> Tensor:
    """Which samples have defined outputs, (…) bool: not those for which the model gives NaN or infinity.

    A logit of -infinity only makes a class or token impossible, unless all of them are.

    Args:
        outputs: raw, (…, output_size).
    """
    if isinstance(target, Classes | NextTokens):
        return outputs.amax(-1).isfinite()
    return outputs.isfinite().all(-1)


def counted(outputs: Tensor, target: Target, valid: Tensor | None) -> Tensor | None:
    """Which samples of a batch count, (batch,) bool: those with defined outputs in a `valid` batch.

    Returns:
        None if all of them count. On a CPU, where nothing has to be waited for, a single sum shows that
        for nearly every batch.
    """
    if valid is None and outputs.device.type == "cpu" and math.isfinite(outputs.sum().item()):
        return None
    is_defined = defined(outputs, target)
    return is_defined if valid is None else is_defined & valid


def shape_error(outputs: Tensor, targets: Tensor, expected: tuple[int, ...]) -> SpecError:
    return SpecError(
        f"metrics: outputs of shape {tuple(outputs.shape)} do not go with targets of shape"
        f" {tuple(targets.shape)}; expected outputs of shape {expected}."
    )
