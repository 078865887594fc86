"""Whether bf16 is faster than fp32 on this processor and agrees with it, tried out once for the run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.step import Step
from bigmodel.errors import first_line, is_out_of_memory
from bigmodel.models.base import eval_mode
from bigmodel.runtime import rng, torch_internals
from bigmodel.runtime.device import Precision

_PAIRS = 5
"""Passes in each format that are timed, in turns."""

TRIAL_PASSES = 2 * (_PAIRS + 2)
"""How many forward and backward passes a trial takes."""

_MAX_RATIO = 0.9
"""bf16 takes at most this share of fp32's time: less would be noise, and fewer digits for nothing."""

_LOSS_RTOL, _GRADIENT_RTOL = 0.005, 0.1
"""How much may differ, as a share: five times the largest difference of losses, and twice that of
gradients, in small networks of all families with 64 samples. A number in bf16 is off by up to 0.4 %, but
errors average out over samples; where more remains, as in a batch of a few, fp32 is needed."""


class _Pass(NamedTuple):
    """One forward and backward pass: sum of the losses, gradients (float32, flat) and seconds."""

    loss: float
    gradient: Tensor
    seconds: float


def faster_precision(step: Step, batch: Batch) -> tuple[Precision, str]:
    """The format in which to train on, with a sentence that says why. The state stays as it is.

    Args:
        step: in fp32 on a CPU, between two updates; leaves it in fp32.
        batch: of which at most a micro-batch is used.
    """
    batch = batch.rows(slice(step.micro_batch_size(batch)))
    try:
        with eval_mode(step.model):  # the formats draw different numbers for dropout
            full, half = (_pass(step, batch, name) for name in _FORMATS)
        # The first two choose kernels.
        times = [[_pass(step, batch, name).seconds for name in _FORMATS] for _ in range(1 + _PAIRS)][1:]
    except Exception as error:
        if is_out_of_memory(error):  # as a step would, for which there is a way out
            raise
        return "fp32", f"fp32 is used: bf16 fails ({first_line(error, type(error).__name__)})"
    fault = _fault(full, half)
    full_ms, half_ms = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    figures = f"Forward and backward take {half_ms:.3g} ms in bf16 and {full_ms:.3g} ms in fp32"
    if half_ms > _MAX_RATIO * full_ms:
        return "fp32", f"{figures}: fp32 is used"
    if fault is not None:
        return "fp32", f"{figures}, but {fault}: fp32 is used"
    return "bf16", f"{figures}, and losses agree ({half.loss:.6g} and {full.loss:.6g}): bf16 is used"


_FORMATS: tuple[Precision, Precision] = ("fp32", "bf16")


def _pass(step: Step, batch: Batch, precision: Precision) -> _Pass:
    """A pass from the same state, random numbers included, as every other."""
    step.use_precision(precision)
    parameters = [p for p in step.model.parameters() if p.requires_grad]
    with _state_kept(step):
        began = time.perf_counter()
        _, total = step.forward(*batch)
        torch_internals.backward(total, torch.ones_like(total))
        seconds = time.perf_counter() - began
        gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    return _Pass(float(total.detach()), gradient, seconds)


@contextmanager
def _state_kept(step: Step) -> Iterator[None]:
    """Restores what a pass changes: running statistics and other buffers, gradients, random numbers."""
    buffers = list(step.model.buffers())
    before, random = [buffer.clone() for buffer in buffers], rng.torch_states()
    try:
        yield
    finally:
        step.use_precision("fp32")
        with torch.no_grad():
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)
        rng.restore_torch(random)
        for parameter in step.model.parameters():
            parameter.grad = None


def _fault(full: _Pass, half: _Pass) -> str | None:
    """How far bf16 is from fp32, in words; None if they agree."""
    if not abs(half.loss - full.loss) <= _LOSS_RTOL * abs(full.loss):  # so that NaN is a fault
        return f"the loss is {half.loss:.6g} instead of {full.loss:.6g}"
    error, norm = float((half.gradient - full.gradient).norm()), float(full.gradient.norm())
    if not error <= _GRADIENT_RTOL * norm:
        return f"the gradient is off by {error / max(norm, 1e-30):.2g} of its norm"
    return None
