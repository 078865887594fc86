"""How large a batch can be, and how fast: steps with ever more samples, until memory or time is up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch

from bigmodel.data.base import Batch
from bigmodel.data.batching.batches import Batches
from bigmodel.data.memory_check import free_memory
from bigmodel.errors import DeviceError, is_out_of_memory
from bigmodel.runtime.peak_memory import PeakMemory
from bigmodel.runtime.progress_messages import report_progress
from bigmodel.training.finders.kept_state import state_kept
from bigmodel.training.run import Run

_SHARE = 0.7
"""The share of the free memory of a CPU that a step is expected to need at most. Where it runs out, the
system ends processes without a word."""

_TIMED_SECONDS, _FEWEST, _MOST = 0.5, 2, 30
"""Steps of a size are timed for so long, but at least and at most so many."""

_LONGEST = 10.0
"""Seconds that a step may take; a size that would take longer is of no use, and is not tried."""

_AS_FAST = 0.95
"""The share of the highest speed that counts as the highest: of such sizes, the smallest is chosen."""


@dataclass(frozen=True)
class Trial:
    """Steps with batches of one size.

    Attributes:
        size: of a batch, in samples or tokens.
        speed: samples per second, or tokens without padding.
        seconds: of a step.
        memory: bytes that a step needs beside what the run holds in any case; None if unknown.
    """

    size: int
    speed: float
    seconds: float
    memory: int | None


@dataclass(frozen=True)
class BatchSizes:
    """What was found.

    Attributes:
        key: the setting that the sizes are of.
        unit: `samples` or `tokens`.
        trials: in order of size, not empty.
        end: why no larger size was tried, in words.
    """

    key: str
    unit: str
    trials: list[Trial]
    end: str

    @property
    def largest(self) -> Trial:
        return self.trials[-1]

    @property
    def fastest(self) -> Trial:
        """The smallest of those that are as fast as any, within what timing can tell."""
        most = max(trial.speed for trial in self.trials)
        return next(trial for trial in self.trials if trial.speed >= _AS_FAST * most)


def find_batch_sizes(
    run: Run, batches_of: Callable[[int], Batches], *, key: str, unit: str
) -> BatchSizes:
    """Does eager steps with batches of 1, 2, 4, … samples, or as many tokens as the longest text and up.

    Nothing of the run is changed. On CUDA memory is used until it runs out. On a CPU a size is tried
    only if what the smaller ones needed lets expect that it fits.

    Args:
        batches_of: the training set in batches of a size.
        key, unit: see `BatchSizes`.

    Raises:
        DeviceError: not even the smallest size fits.
        Stopped: the process was asked to stop.
    """
    step = run.step
    trials: list[Trial] = []
    micro_batch, micro_tokens = step.accumulation.micro_batch, step.micro_tokens
    memory = PeakMemory(run.runtime.device)
    end = "the whole training set is one batch"
    try:
        with state_kept(step):
            for group in step.optimizer.param_groups:  # weights stay where they are
                group["lr"] = torch.zeros_like(rate) if torch.is_tensor(rate := group["lr"]) else 0.0
            for size in _sizes(run, tokens=unit == "tokens"):
                run.signals.check()
                if why := _why_not(trials, size, unit, memory):
                    end = why
                    break
                step.accumulation.micro_batch = size
                step.micro_tokens = size if unit == "tokens" else None
                with report_progress(f"Steps with {size:,} {unit}"):
                    trial = _try(run, batches_of(size), size, unit, memory)
                if trial is None:
                    end = f"memory ran out with {size:,}"
                    break
                trials.append(trial)
    finally:
        step.accumulation.micro_batch, step.micro_tokens = micro_batch, micro_tokens
        memory.release()
    if not trials:
        raise DeviceError(f"find=batch_size: {end}, the smallest size. A smaller model may fit.")
    return BatchSizes(key, unit, trials, end)


def _sizes(run: Run, *, tokens: bool) -> Iterator[int]:
    """Powers of two, then the whole training set."""
    lengths = run.train.part.lengths
    if tokens:
        assert lengths is not None
        longest, every = int(lengths.max()), int(lengths.sum())
        first = 1 << (longest - 1).bit_length()
    else:
        first, every = 1, len(run.train)
    size = first
    while size < every:
        yield size
        size *= 2
    yield max(first, every)


def _why_not(trials: list[Trial], size: int, unit: str, memory: PeakMemory) -> str:
    """Why a size is not tried; empty if it is."""
    if not trials:
        return ""
    last = trials[-1]
    more = size / last.size
    if last.seconds * more > _LONGEST and len(trials) > 1:
        return f"a step with {size:,} {unit} would take about {last.seconds * more:.0f} seconds"
    if memory.runs_out_quietly and last.memory is not None:
        memory.release()
        free = free_memory()
        if last.memory * more > _SHARE * free:
            needed, most = (f"{value / 2**30:.1f} GiB" for value in (last.memory * more, free))
            return f"a step with {size:,} {unit} would need about {needed} of the {most} that are free"
    return ""


def _try(run: Run, batches: Batches, size: int, unit: str, memory: PeakMemory) -> Trial | None:
    """Steps with one size; None if memory ran out."""
    seconds: list[float] = []
    counts: list[float] = []
    try:
        memory.begin()
        _step(run, batches.largest())
        peak = memory.peak()
        with closing(_repeated(batches)) as repeated:
            began = time.perf_counter()
            while len(seconds) < _FEWEST or (
                len(seconds) < _MOST and time.perf_counter() - began < _TIMED_SECONDS
            ):
                batch = next(repeated)
                counts.append(_count(run, batch, unit))
                before = time.perf_counter()
                _step(run, batch)
                seconds.append(time.perf_counter() - before)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        run.step.abandon()
        return None
    except MemoryError:
        return None
    run.step.discard_step_metrics()
    speeds = [count / each for count, each in zip(counts, seconds, strict=True)]
    # Batches of texts differ in what they hold; equal ones only by what else the machine does.
    speed = sum(counts) / sum(seconds) if unit == "tokens" else statistics.median(speeds)
    return Trial(size, speed, statistics.median(seconds), peak)


def _step(run: Run, batch: Batch) -> None:
    run.step(batch)
    if batch.inputs.is_cuda:
        torch.cuda.synchronize()
    run.signals.check()


def _repeated(batches: Batches) -> Generator[Batch]:
    while True:
        with closing(batches.epoch(0)) as epoch:
            yield from epoch


def _count(run: Run, batch: Batch, unit: str) -> float:
    """Samples of a batch, or about how many tokens without padding."""
    per_sample = 1.0 if unit == "samples" else run.throughput.tokens or 1.0
    return len(batch) * per_sample
