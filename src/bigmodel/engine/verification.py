"""Checks that an engine computes what the eager step computes, and times both."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import FixedShapeEngine, step_inputs
from bigmodel.engine.functional_step import FunctionalStep, StepTensors, is_step_count
from bigmodel.engine.step import Step
from bigmodel.runtime import rng

_TIMED_STEPS = 5
_METRICS_RTOL = 1e-3
"""Relative tolerance of loss and norm in fp32, for rounding alone."""

_TOLERANCES = {
    "weights": 0.2,
    "averages": 0.2,
    "optimizer_state": 0.02,
    "buffers": 0.02,
    "metric_sums": 0.1,
}
"""How large the difference may be, as a share of the change. A weight whose gradient is nothing but
rounding may go anywhere, since Adam scales it up; of the sums, a prediction may be a tie."""

_MIXED_FACTOR, _MAX_TOLERANCE = 30, 0.5
"""In mixed precision, which keeps three decimal digits: factor on the tolerances, and their bound."""


class Verification(NamedTuple):
    """The outcome of a comparison with the eager step.

    Attributes:
        fault: how the engine differs from the eager step, in words; None if it does not.
        seconds, eager_seconds: time of a step by this engine and eagerly; medians, measured in turns.
    """

    fault: str | None
    seconds: float
    eager_seconds: float


def verify(engine: FixedShapeEngine, batch: Batch, function: FunctionalStep) -> Verification:
    """Compares an engine with the eager step, and times both; the state is restored.

    Args:
        batch: the batch to run both on.
        function: the same step; it names all tensors that the step changes.
    """
    step, tensors = engine.step, function.tensors
    tolerance = 1.0 if step.runtime.precision == "fp32" else _MIXED_FACTOR
    before = _copies(tensors)
    with state_restored(step, function):
        inputs = step_inputs(batch, step, 0.0 if step.ema is None else step.ema.next_share())
        metrics = engine.run_step(inputs).tolist()
        after = _copies(tensors)
    with state_restored(step, function):
        expected = step.full_batch_step(batch).tolist()
        fault = _metrics_fault(metrics, expected, tolerance * _METRICS_RTOL)
        for kind, share in _TOLERANCES.items():
            bound = min(tolerance * share, _MAX_TOLERANCE)
            fault = fault or _tensors_fault(kind, before, after, tensors, bound)
    with state_restored(step, function):
        calls = [lambda: engine.run_step(inputs), lambda: step.full_batch_step(batch)]
        times = [[_seconds(call, batch) for call in calls] for _ in range(_TIMED_STEPS)]
    seconds, eager_seconds = (statistics.median(column) for column in zip(*times, strict=True))
    return Verification(fault, seconds, eager_seconds)


@contextmanager
def state_restored(step: Step, function: FunctionalStep) -> Iterator[None]:
    """Restores the state that steps within it change."""
    changed = function.tensors.changed
    before, random = {name: tensor.clone() for name, tensor in changed.items()}, rng.torch_states()
    samples, updates = step.metrics.samples, 0 if step.ema is None else step.ema.updates
    try:
        yield
    finally:
        for name, tensor in changed.items():
            tensor.copy_(before[name])
        rng.restore_torch(random)
        step.metrics.count(samples - step.metrics.samples)
        if step.ema is not None:
            step.ema.updates = updates
        for parameter in step.model.parameters():
            parameter.grad = None


def _copies(tensors: StepTensors) -> StepTensors:
    return tensors.unflatten(tensor.clone() for tensor in tensors.flatten())


def _seconds(call: Callable[[], Tensor], batch: Batch) -> float:
    began = time.perf_counter()
    call()
    if batch.inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _metrics_fault(metrics: list[float], expected: list[float], rtol: float) -> str | None:
    """The first of a step's metrics that differs from the expected one, in words."""
    for name, got, wanted in zip(("loss", "weight", "skip", "norm"), metrics, expected, strict=True):
        is_close = abs(got - wanted) <= rtol * max(abs(wanted), 1e-6)
        if not (is_close or got == wanted or (math.isnan(got) and math.isnan(wanted))):
            return f"{name} {got:.6g} instead of {wanted:.6g}"
    return None


def _tensors_fault(
    kind: str, before: StepTensors, after: StepTensors, expected: StepTensors, bound: float
) -> str | None:
    """How far the tensors of a kind are from what the eager step makes of them, in words."""
    change = error = 0.0
    old, got = getattr(before, kind), getattr(after, kind)
    for name, wanted in getattr(expected, kind).items():
        if kind == "optimizer_state" and is_step_count(name):
            continue  # a large count would hide everything else
        change += float((wanted.double() - old[name].double()).square().sum())
        error += float((wanted.double() - got[name].double()).square().sum())
    # Written so that NaN is a fault.
    if error <= bound**2 * change:
        return None
    what = "an update" if kind == "weights" else f"{kind.replace('_', ' ')} with a change"
    return f"{what} that is {(error / max(change, 1e-300)) ** 0.5:.2g} of its size off"
