"""What a sweep would run, before it runs: a table of its jobs and their costs, and the sums."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from bigmodel.errors import counted
from bigmodel.reporting.formatting import aligned, duration
from bigmodel.reporting.terminal import write_line
from bigmodel.runtime.escaping import escape_line

MOST_ROWS = 40
"""Jobs that are listed; of more, the first and the last."""


@dataclass(frozen=True)
class JobCost:
    """What a job is expected to take.

    Attributes:
        memory: bytes, of the GPU if it runs on one.
        disk: bytes.
        gpu_memory: bytes that jobs may take of their GPU; None on a CPU.
    """

    parameters: int
    steps: int
    seconds: float
    memory: int
    disk: int
    gpu_memory: int | None = None


@dataclass(frozen=True)
class PlannedJob:
    """A job that would run.

    Attributes:
        changes: what it sets that others do not, in one line.
        cost: None if it was not measured.
    """

    number: int
    changes: str
    cost: JobCost | None


def print_plan(
    jobs: Sequence[PlannedJob],
    at_a_time: int,
    room: int | None,
    *,
    per_gpu: int = 1,
    stream: TextIO | None = None,
) -> None:
    """Prints the jobs, and what all of them take together.

    Args:
        at_a_time: how many run at the same time.
        room: bytes of memory there is for them on a CPU; None: unknown.
        per_gpu: how many share a GPU.
        stream: what to write to; None is standard output.
    """
    stream = sys.stdout if stream is None else stream
    half = MOST_ROWS // 2
    shown = [*jobs] if len(jobs) <= MOST_ROWS else [*jobs[:half], *jobs[-half:]]
    table = [("job", "changes", "parameters", "steps", "time", "memory", "disk"), *map(_cells, shown)]
    lines = aligned(table)
    if len(jobs) > MOST_ROWS:
        lines.insert(half + 1, f"… {len(jobs) - MOST_ROWS:,} more …")
    lines += [*_totals(jobs, at_a_time), *_shortage(jobs, at_a_time, room, per_gpu)]
    for line in lines:
        write_line(stream, line)


def _cells(job: PlannedJob) -> tuple[str, ...]:
    cost = job.cost
    if cost is None:
        return str(job.number), escape_line(job.changes), "", "", "not measured", "", ""
    return (
        str(job.number),
        escape_line(job.changes),
        f"{cost.parameters:,}",
        f"{cost.steps:,}",
        duration(cost.seconds),
        _size(cost.memory),
        _size(cost.disk),
    )


def _totals(jobs: Sequence[PlannedJob], at_a_time: int) -> list[str]:
    costs = [job.cost for job in jobs if job.cost is not None]
    if not costs:
        return [f"{counted(len(jobs), 'job')}, {at_a_time} at a time."]
    factor = len(jobs) / len(costs)  # those that were not measured count as the others
    seconds = sum(cost.seconds for cost in costs) * factor / min(at_a_time, len(jobs))
    seconds = max(seconds, *(cost.seconds for cost in costs))  # no sooner than its longest job
    disk = sum(cost.disk for cost in costs) * factor
    return [
        f"{counted(len(jobs), 'job')}, {at_a_time} at a time: about {duration(seconds)} by eager steps,"
        f" {_size(disk)} of checkpoints. Nothing was started, and no folder was made."
    ]


def _shortage(
    jobs: Sequence[PlannedJob], at_a_time: int, room: int | None, per_gpu: int
) -> Iterator[str]:
    """A warning if the jobs that run at the same time may need more memory than there is."""
    costs = [job.cost for job in jobs if job.cost is not None]
    of_gpus = [cost.gpu_memory for cost in costs if cost.gpu_memory is not None]
    together, where, key = at_a_time, "at a time", "sweep.jobs"
    if of_gpus:
        room, together, where, key = min(of_gpus), per_gpu, "on a GPU", "sweep.jobs_per_gpu"
    most = sorted((cost.memory for cost in costs), reverse=True)[:together]
    if room is not None and sum(most) > room:
        yield (
            f"Warning: {counted(len(most), 'job')} {where} may need {_size(sum(most))} of memory, and"
            f" there are {_size(room)}. Lower {key}."
        )


def _size(count: float) -> str:
    """Bytes in the largest unit that keeps a digit before the point."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
