"""How large a batch can be, and how fast: steps with ever more samples, until memory or time is up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from bigmodel.data.base import Batch
from bigmodel.data.batching.batches import Batches, BucketedBatches
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

_LONGEST = 5.0
"""Seconds that a step may take: nobody would wait for longer ones to be tried."""

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
        fits: the largest that is expected to fit, if larger ones were left out because they take long;
            None: it was tried, or memory is not known.
    """

    key: str
    unit: str
    trials: list[Trial]
    end: str
    fits: int | None = None

    @property
    def largest(self) -> Trial:
        """The largest that was tried."""
        return self.trials[-1]

    @property
    def fastest(self) -> Trial:
        """The smallest of those that are as fast as any, within what timing can tell."""
        most = max(trial.speed for trial in self.trials)
        return next(trial for trial in self.trials if trial.speed >= _AS_FAST * most)


def find_batch_sizes(run: Run) -> BatchSizes:
    """Does eager steps with batches of 1, 2, 4, … samples; or, where tokens bound a batch, of as many as
    the longest text has, and up.

    Nothing of the run is changed. On CUDA memory is used until it runs out. On a CPU a size is tried
    only if what the smaller ones needed lets expect that it fits.

    Raises:
        DeviceError: not even the smallest size fits.
        Stopped: the process was asked to stop.
    """
    in_tokens = isinstance(run.train, BucketedBatches) and run.train.max_tokens is not None
    key, unit = ("data.batch_tokens", "tokens") if in_tokens else ("data.batch_size", "samples")
    step, sizes = run.step, _sizes(run, tokens=in_tokens)
    trials: list[Trial] = []
    micro_batch, micro_tokens = step.accumulation.micro_batch, step.micro_tokens
    memory = PeakMemory(run.runtime.device)
    end, fits = "the whole training set is one batch", None
    try:
        with state_kept(step):
            for group in step.optimizer.param_groups:  # weights stay where they are
                group["lr"] = torch.zeros_like(rate) if torch.is_tensor(rate := group["lr"]) else 0.0
            for size in sizes:
                run.signals.check()
                if trials and (seconds := trials[-1].seconds * size / trials[-1].size) > _LONGEST:
                    end = f"a step with {size:,} {unit} would take about {seconds:.0f} seconds"
                    fits = _expected(trials[-1], sizes[-1], memory)
                    break
                if trials and (why := _too_large(trials[-1], size, unit, memory)):
                    end = why
                    break
                step.accumulation.micro_batch = size
                step.micro_tokens = size if in_tokens else None
                with report_progress(f"Steps with {size:,} {unit}"):
                    trial = _try(run, batches_of(run.train, size), size, unit, memory)
                if trial is None:
                    end = f"memory ran out with {size:,}"
                    break
                trials.append(trial)
    finally:
        step.accumulation.micro_batch, step.micro_tokens = micro_batch, micro_tokens
        memory.release()
    if not trials:
        raise DeviceError(f"find=batch_size: {end}, the smallest size. A smaller model may fit.")
    return BatchSizes(key, unit, trials, end, fits)


def batches_of(train: Batches, size: int) -> Batches:
    """The same samples in batches of `size` samples or, where tokens bound a batch, tokens."""
    if isinstance(train, BucketedBatches) and train.max_tokens is not None:
        return replace(train, batch_size=len(train), group=1, max_tokens=size)
    return replace(train, batch_size=size, group=1, drop_last=False)


def _sizes(run: Run, *, tokens: bool) -> list[int]:
    """Powers of two, then the whole training set. Of tokens, the first holds the longest text."""
    first, every, lengths = 1, len(run.train), run.train.part.lengths
    if tokens:
        assert lengths is not None
        first, every = 1 << (int(lengths.max()) - 1).bit_length(), int(lengths.sum())
    sizes = [first]
    while sizes[-1] < every:
        sizes.append(min(2 * sizes[-1], every))
    return sizes


def _too_large(last: Trial, size: int, unit: str, memory: PeakMemory) -> str:
    """Why a size cannot be tried, by what the size before it needed; empty if it can."""
    if not memory.runs_out_quietly or last.memory is None:
        return ""
    memory.release()
    needed, free = last.memory * size / last.size, free_memory()
    if needed <= _SHARE * free:
        return ""
    words = (f"{value / 2**30:.1f} GiB" for value in (needed, free))
    return "a step with {:,} {} would need about {} of the {} that are free".format(size, unit, *words)


def _expected(last: Trial, every: int, memory: PeakMemory) -> int | None:
    """The largest size that is expected to fit into memory, up to `every`."""
    if not memory.runs_out_quietly or last.memory is None:
        return None
    memory.release()
    size = last.size
    while size < every and last.memory * 2 * size / last.size <= _SHARE * free_memory():
        size *= 2
    return min(size, every)


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
        run.step.abandon()
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
    """Samples of a batch, or tokens without padding."""
    if unit == "samples":
        return len(batch)
    return float((batch.inputs != getattr(run.train.part, "pad", -1)).sum())
