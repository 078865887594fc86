"""Whether an engine does what the eager step does, and how much faster: tried before it is trusted."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import Pieces, given
from bigmodel.engine.functional_step import Whole
from bigmodel.engine.step import Step
from bigmodel.runtime.device import random_tensors, restore_generators

_TRIALS = 5
_CLOSE = 1e-3
"""How far loss and norm may be off in fp32, relatively: rounding alone."""

_PARTS = {"weights": 0.2, "averages": 0.2, "state": 0.02, "statistics": 0.02, "sums": 0.1}
"""How far what changes may be off, as a share of the change. Of weights, elements whose gradient is
nothing but rounding may be anywhere (Adam scales it up); of sums, a prediction may be a tie."""

_MIXED, _MOST = 30, 0.5
"""How many times as far in mixed precision, which keeps three decimal digits; no further than that."""


class Verdict(NamedTuple):
    """What a trial has shown.

    Attributes:
        fault: how it differs from the eager step, in words; None: it does not.
        seconds, eager: what a step takes by this engine and eagerly; medians of a few in turns.
    """

    fault: str | None
    seconds: float
    eager: float


def judged(engine: Pieces, batch: Batch, whole: Whole) -> Verdict:
    """Tries an engine; afterwards everything is as it was.

    Args:
        engine: to be tried.
        batch: to try it with.
        whole: the same step, for all that it changes.
    """
    step = engine.step
    before = {name: _copies(tensors) for name, tensors in whole.parts.items()}
    with unchanged(step, whole):
        share = 0.0 if step.ema is None else step.ema.next_share()
        example = given(batch, step, share)
        ours = engine.once(example).tolist()
        after = {name: _copies(tensors) for name, tensors in whole.parts.items()}
    with unchanged(step, whole):
        theirs = step.figures(batch).tolist()
        allowed = 1.0 if step.runtime.precision == "fp32" else _MIXED
        fault = _differing_figure(ours, theirs, allowed * _CLOSE)
        for name, tensors in whole.parts.items():
            bound = min(allowed * _PARTS[name], _MOST)
            fault = fault or _differing_part(name, before[name], after[name], tensors, bound)
    with unchanged(step, whole):
        works = [lambda: engine.once(example), lambda: step.figures(batch)]
        times = [[_seconds(work, batch) for work in works] for _ in range(_TRIALS)]
    ours_taken, eager_taken = (statistics.median(taken) for taken in zip(*times, strict=True))
    return Verdict(fault, ours_taken, eager_taken)


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


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


def _seconds(work: Callable[[], Tensor], batch: Batch) -> float:
    began = time.perf_counter()
    work()
    if batch.inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _differing_figure(ours: list[float], theirs: list[float], bound: float) -> str | None:
    """The first of a step's figures that is not the expected one, in words."""
    for name, got, wanted in zip(("loss", "weight", "skip", "norm"), ours, theirs, strict=True):
        near = abs(got - wanted) <= bound * max(abs(wanted), 1e-6)
        if not (near or got == wanted or (math.isnan(got) and math.isnan(wanted))):
            return f"{name} {got:.6g} instead of {wanted:.6g}"
    return None


def _differing_part(
    name: str, before: list[Tensor], ours: list[Tensor], theirs: list[Tensor], bound: float
) -> str | None:
    """Whether tensors have changed otherwise than expected, in words."""
    moved = wrong = 0.0
    for old, got, wanted in zip(before, ours, theirs, strict=True):
        moved += float((wanted.double() - old.double()).square().sum())
        wrong += float((wanted.double() - got.double()).square().sum())
    if wrong <= bound**2 * moved:
        return None
    what = "an update" if name == "weights" else f"{name} with a change"
    return f"{what} that is {(wrong / max(moved, 1e-300)) ** 0.5:.2g} of its size off"
