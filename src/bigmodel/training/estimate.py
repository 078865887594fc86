"""What a run will cost, from a few of its steps: time, memory and room on the disk."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import torch

from bigmodel.data.base import Batch
from bigmodel.data.batching.batches import Batches
from bigmodel.engine.base import Engine
from bigmodel.training.run import Run

WARM_UP, MOST, SECONDS = 2, 20, 2.0
"""Steps that are not counted, the most that are, and the time after which no more are done."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a run.

    Attributes:
        parameters: of the model.
        steps: optimizer steps in all.
        seconds: of training and evaluation, by eager steps; a compiled engine may take less.
        memory: bytes at the peak: that torch takes from the GPU, or of the process on a CPU.
        gpu_memory: bytes of the GPU that a run may take; None on a CPU.
        checkpoint: bytes of one checkpoint.
    """

    parameters: int
    steps: int
    seconds: float
    memory: int
    gpu_memory: int | None
    checkpoint: int


def estimate(run: Run) -> Estimate:
    """Times a few steps and evaluation batches of a run that is built and not used for anything else."""
    plan, model = run.plan, run.state.model
    engine = Engine(run.step)
    step = _per_batch(run, run.train, lambda batch: engine([batch], [1.0], measure=False))
    model.eval()
    validation = 0.0
    if run.val is not None:
        with torch.inference_mode():
            batch = _per_batch(run, run.val, lambda batch: model(batch.inputs))
        validation = batch * math.ceil(len(run.val) / run.val.batch_size)
    evaluations = math.ceil(plan.steps / plan.evaluate_every)
    groups, _ = run.state.save()
    return Estimate(
        parameters=run.summary.parameters,
        steps=plan.steps,
        seconds=plan.steps * step + evaluations * validation,
        memory=_peak_memory(run),
        gpu_memory=_gpu_memory(run),
        checkpoint=sum(tensor.nbytes for group in groups.values() for tensor in group.values()),
    )


def _per_batch(run: Run, batches: Batches, act: Callable[[Batch], object]) -> float:
    """Seconds that a batch takes, gathering it included: the median of a few."""
    times: list[float] = []
    began = time.perf_counter()
    with closing(_forever(batches)) as endless:
        for batch in itertools.islice(endless, WARM_UP + MOST):
            act(batch)
            if run.runtime.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            times.append(now - began)
            if len(times) > WARM_UP and sum(times) > SECONDS:
                break
            began = now
    counted = sorted(times[WARM_UP:] or times)
    return counted[len(counted) // 2]


def _forever(batches: Batches) -> Generator[Batch]:
    for epoch in itertools.count():
        yield from batches.epoch(epoch)


def _peak_memory(run: Run) -> int:
    if run.runtime.device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _gpu_memory(run: Run) -> int | None:
    """What other processes, and CUDA itself, leave of the GPU."""
    if run.runtime.device.type != "cuda":
        return None
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
