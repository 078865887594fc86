"""Engines to which a step is one piece that only has to be called, many times in a row.

It changes weights, optimizer's state, averages and sums in place, and gives its figures. Whatever does
not fit the piece, such as an epoch's last and smaller batch, is done by torch's operations, on the same
tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.base import Engine
from bigmodel.engine.functional_step import Given
from bigmodel.engine.step import Step
from bigmodel.optim.schedulers import apply
from bigmodel.runtime.device import sent

COMPILED_STEP = "compiled step"
"""What a profile calls a step that is one piece, without phases of its own."""

CALL = 0.05
"""Seconds that a call may take: signals and the progress bar are looked after between two."""


class Pieces(Engine):
    """Calls `once` for each batch.

    Args:
        step: whose tensors it works on.
        like: a batch of the shapes that the piece was made for.
    """

    def __init__(self, step: Step, like: Batch) -> None:
        super().__init__(step)
        self._like = [form(tensor) for tensor in like]
        self._device = like.inputs.device

    def once(self, given: Given) -> Tensor:
        """One step and nothing else; gives its figures, (4,) float32, as `Whole` does."""
        raise NotImplementedError

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """See `Engine.__call__`."""
        step, count = self.step, self._fitting(batches)
        too_large = step.accumulation.micro_batch < len(batches[0])  # memory ran out meanwhile
        if count == 0 or too_large or step.accumulation.losses:
            return super().__call__(batches, factors, measure)
        step.at_once = len(batches[0])
        numbers = self._numbers(factors[:count])
        figures = torch.empty(count, 4, device=self._device)
        step.updating = True
        with step.phase(COMPILED_STEP):
            for row, (inputs, targets), own in zip(figures, batches[:count], numbers, strict=True):
                row.copy_(self.once(Given(inputs, targets, own)))
        step.updating = False
        apply(step.optimizer, factors[count - 1])
        step.note(figures, count * len(batches[0]))
        if measure and count == len(batches):
            step.accumulation.grad_norm = figures[-1, 3]
        return count

    def pace(self, seconds: float) -> None:
        """A step takes so long: as many are done in a call as are over soon."""
        self.reach = max(1, int(CALL / max(seconds, 1e-9)))

    def _fitting(self, batches: Sequence[Batch]) -> int:
        """How many of the first batches have the right shapes. Those that come together are alike, but
        for the last."""
        if [form(tensor) for tensor in batches[0]] != self._like:
            return 0
        return len(batches) - ([form(tensor) for tensor in batches[-1]] != self._like)

    def _numbers(self, factors: Sequence[float]) -> Sequence[Tensor]:
        """Each step's learning rates and share of the averages; see `Given`."""
        ema, groups = self.step.ema, self.step.optimizer.param_groups
        bases = torch.tensor([group["initial_lr"] for group in groups], dtype=torch.float64)
        shares = [0.0 if ema is None else ema.next_share() for _ in factors]
        columns = (
            torch.outer(torch.tensor(factors, dtype=torch.float64), bases),
            torch.tensor(shares, dtype=torch.float64),
        )
        return sent(torch.column_stack(columns), self._device).unbind()


def given(batch: Batch, step: Step, share: float = 0.0) -> Given:
    """What a step is given, with the rates as they are now.

    Args:
        share: how far averages move towards the model, 0 to 1.
    """
    numbers = [*(float(group["lr"]) for group in step.optimizer.param_groups), share]
    return Given(*batch, torch.tensor(numbers, dtype=torch.float64, device=batch.inputs.device))


def form(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype]:
    """Shape, strides and number format: all that compiled code relies on."""
    return tensor.shape, tensor.stride(), tensor.dtype
