"""Engines that run a whole step as one piece, made for batches of one shape, many in a row.

The piece changes weights, optimizer state, averages and sums in place, and returns its metrics. A batch
of another shape, such as an epoch's smaller last one, is done by torch's operations on the same tensors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.base import Engine
from bigmodel.engine.functional_step import StepInputs
from bigmodel.engine.step import Step
from bigmodel.optim.schedulers import apply
from bigmodel.runtime.device import to_device

COMPILED_STEP = "compiled step"
"""What a profile calls a step that is one piece, without phases of its own."""

MAX_CALL_SECONDS = 0.05
"""How long a call may take: signals and the progress bar are handled between two calls."""


class FixedShapeEngine(Engine):
    """Calls `run_step` for each batch.

    Args:
        step: whose tensors it works on.
        example: a batch of the shapes that the piece was made for.
    """

    def __init__(self, step: Step, example: Batch) -> None:
        super().__init__(step)
        self._layout = [layout(tensor) for tensor in example]
        self._device = example.inputs.device

    def run_step(self, inputs: StepInputs) -> Tensor:
        """Does one step; returns its metrics, (4,) float32, as `FunctionalStep` does."""
        raise NotImplementedError

    def run_steps(self, batches: Sequence[Batch], rates: Tensor) -> Tensor:
        """Does a step with each batch.

        Args:
            batches: of the right shapes.
            rates: (steps, groups + 1) float64: each step's `StepInputs.rates`.

        Returns:
            Their metrics, (steps, 4) float32.
        """
        metrics = torch.empty(len(batches), 4, device=self._device)
        for row, batch, own_rates in zip(metrics, batches, rates.unbind(), strict=True):
            row.copy_(self.run_step(StepInputs(*batch, own_rates)))
        return metrics

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """See `Engine.__call__`."""
        step, count = self.step, self._count_fitting(batches)
        too_large = step.accumulation.micro_batch < len(batches[0])  # memory ran out before
        if count == 0 or too_large or step.accumulation.losses:
            return super().__call__(batches, factors, measure)
        step.last_micro_batch = len(batches[0])
        rates = self._rates(factors[:count])
        step.updating, began = True, time.perf_counter()
        with step.phase(COMPILED_STEP):
            metrics = self.run_steps(batches[:count], rates)
        step.updating = False
        if count > 1 and self._device.type == "cpu":  # a step costs less among many than alone
            self.set_step_time((time.perf_counter() - began) / count)
        apply(step.optimizer, factors[count - 1])
        step.add_step_metrics(metrics, count * len(batches[0]))
        if measure and count == len(batches):
            step.accumulation.grad_norm = metrics[-1, 3]
        return count

    def set_step_time(self, seconds: float) -> None:
        """Allows as many steps in a call as `MAX_CALL_SECONDS` holds."""
        self.steps_per_call = max(1, int(MAX_CALL_SECONDS / max(seconds, 1e-9)))

    def _count_fitting(self, batches: Sequence[Batch]) -> int:
        """How many of the first batches have the right shapes. All but the last are alike."""
        if [layout(tensor) for tensor in batches[0]] != self._layout:
            return 0
        return len(batches) - ([layout(tensor) for tensor in batches[-1]] != self._layout)

    def _rates(self, factors: Sequence[float]) -> Tensor:
        """The steps' rates, as `run_steps` takes them, sent to the device in one transfer."""
        ema, groups = self.step.ema, self.step.optimizer.param_groups
        rates = np.empty((len(factors), len(groups) + 1))
        rates[:, :-1] = np.multiply.outer(factors, [group["initial_lr"] for group in groups])
        rates[:, -1] = 0.0 if ema is None else [ema.next_share() for _ in factors]
        return to_device(torch.from_numpy(rates), self._device)


def step_inputs(batch: Batch, step: Step, share: float = 0.0) -> StepInputs:
    """A batch with the learning rates as they are now.

    Args:
        share: by which averages move towards the model, 0 to 1.
    """
    rates = [*(float(group["lr"]) for group in step.optimizer.param_groups), share]
    return StepInputs(*batch, torch.tensor(rates, dtype=torch.float64, device=batch.inputs.device))


def layout(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype]:
    """Shape, strides and dtype: all that compiled code relies on."""
    return tensor.shape, tensor.stride(), tensor.dtype
