"""Whether an engine does what the eager step does, and how much faster: tried before it is trusted."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engines.pieces import Pieces, given
from bigmodel.engines.whole import Given, Whole
from bigmodel.runtime import random_tensors, restore_generators
from bigmodel.step import Step

_TRIALS = 5
_CLOSE = {"figures": 1e-3, "update": 0.2}
"""How far an engine may be off in fp32, relatively: rounding alone. Loss and norm follow closely; of an
update, elements whose gradient is nothing but rounding may be anywhere (Adam scales it up)."""

_MIXED = 30
"""How many times as far in mixed precision, which keeps three decimal digits."""


class Verdict(NamedTuple):
    """What a trial has shown.

    Attributes:
        fault: how it differs from the eager step, in words; None: it does not.
        seconds: what a step takes; the quickest of a few.
    """

    fault: str | None
    seconds: float


def judged(engine: Pieces, batch: Batch, whole: Whole) -> Verdict:
    """Tries an engine; afterwards everything is as it was.

    Args:
        engine: to be tried.
        batch: to try it with.
        whole: the same step, for all that it changes.
    """
    step, example = engine.step, given(batch, engine.step)
    before = [weight.clone() for weight in whole.weights]
    with unchanged(step, whole):
        ours = engine.once(example).tolist()
        after = [weight.clone() for weight in whole.weights]
        seconds = min(_seconds(engine, example) for _ in range(_TRIALS))
    with unchanged(step, whole):
        theirs = step.figures(batch).tolist()
        fault = _difference(ours, theirs, after, whole.weights, before, _allowance(step))
    return Verdict(fault, seconds)


@contextmanager
def unchanged(step: Step, whole: Whole) -> Iterator[None]:
    """Whatever steps are done within it, afterwards everything is as it was."""
    before, random = [tensor.clone() for tensor in whole.changed], random_tensors()
    samples, updates = step.metrics.samples, 0 if step.ema is None else step.ema.updates
    try:
        yield
    finally:
        for tensor, old in zip(whole.changed, before, strict=True):
            tensor.copy_(old)
        restore_generators(random)
        step.metrics.count(samples - step.metrics.samples)
        if step.ema is not None:
            step.ema.updates = updates
        for parameter in step.model.parameters():
            parameter.grad = None


def _allowance(step: Step) -> float:
    return 1.0 if step.runtime.precision == "fp32" else _MIXED


def _seconds(engine: Pieces, example: Given) -> float:
    began = time.perf_counter()
    engine.once(example)
    if example.inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _difference(
    ours: list[float],
    theirs: list[float],
    after: list[Tensor],
    expected: Sequence[Tensor],
    before: list[Tensor],
    allowance: float,
) -> str | None:
    """Where the outcome of a step is not the expected one, in words."""
    for name, got, wanted in zip(("loss", "weight", "skip", "norm"), ours, theirs, strict=True):
        near = abs(got - wanted) <= allowance * _CLOSE["figures"] * max(abs(wanted), 1e-6)
        if not (near or got == wanted or (math.isnan(got) and math.isnan(wanted))):
            return f"{name} {got:.6g} instead of {wanted:.6g}"
    moved = wrong = 0.0
    for tensor, right, old in zip(after, expected, before, strict=False):
        moved += float((right.double() - old.double()).square().sum())
        wrong += float((right.double() - tensor.double()).square().sum())
    if not wrong <= (min(1.0, allowance * _CLOSE["update"]) ** 2) * moved:
        return f"an update that is {(wrong / max(moved, 1e-300)) ** 0.5:.2g} of its size off"
    return None
