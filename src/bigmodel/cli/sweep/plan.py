"""`sweep.plan=true`: what a sweep would run, and what it would cost. No folder is made."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.build.new_run import build_run
from bigmodel.cli.sweep.compose import composed
from bigmodel.config import parse
from bigmodel.data.memory_check import free_memory
from bigmodel.errors import DeviceError, first_line, is_out_of_memory
from bigmodel.reporting.base import Sink
from bigmodel.reporting.sweep_plan import JobCost, PlannedJob, print_plan
from bigmodel.sweeps.jobs import Job, changes, in_one_line
from bigmodel.sweeps.process import Slot, call
from bigmodel.sweeps.slots import threads
from bigmodel.training.estimate import Estimate, estimate
from bigmodel.training.run import Run

CHEAP = ("optimizer", "scheduler", "loss", "seed")
"""Groups and keys that hardly change what a job costs."""

MOST_TRIALS = 20


def show_plan(
    context: HydraContext, config: DictConfig, jobs: Sequence[Job], room: Sequence[Slot]
) -> None:
    """Prints the jobs and their costs.

    Args:
        context: Hydra's, which composes configurations.
        config: the sweep's own configuration.
        room: for jobs that run at the same time.
    """
    planned = Planner(context, config, room)(jobs)
    per_gpu = max(Counter(slot.name for slot in room).values())
    print_plan(planned, len(room), free_memory(), per_gpu=per_gpu)


class Planner:
    """Measures a few steps of each distinct model and data.

    Args:
        context: Hydra's, which composes configurations.
        config: the sweep's own configuration.
        room: for jobs that run at the same time.
    """

    def __init__(self, context: HydraContext, config: DictConfig, room: Sequence[Slot]) -> None:
        self._context, self._config, self._room = context, config, room

    def __call__(self, jobs: Sequence[Job]) -> list[PlannedJob]:
        """The jobs with their costs; those beyond `MOST_TRIALS` distinct ones have none."""
        known: dict[tuple[str, ...], JobCost | None] = {}
        own = changes(jobs)
        planned = []
        for job in jobs:
            key = tuple(word for word in job.overrides if not _is_cheap(word))
            if key not in known:
                is_measured = len(known) < MOST_TRIALS
                known[key] = call(partial(self._estimate, job)) if is_measured else None
            planned.append(PlannedJob(job.number, in_one_line(own[job.number]), known[key]))
        return planned

    def _estimate(self, job: Job) -> JobCost:
        """In a process of its own, whose memory is then that of the job."""
        began = time.perf_counter()
        os.environ.update(self._room[0].environment)
        torch.set_num_threads(threads(self._room))
        values = composed(self._context, self._config, job.overrides)
        with tempfile.TemporaryDirectory() as folder:
            run = build_run(parse(values), Path(folder), console=lambda _: Sink())
            start = time.perf_counter() - began
            cost = _measured(run, job)
        kept = 1 + run.config.checkpoint.keep  # the newest, and the best
        return JobCost(
            parameters=cost.parameters,
            steps=cost.steps,
            seconds=start + cost.seconds,
            memory=cost.memory,
            disk=kept * cost.checkpoint,
            gpu_memory=cost.gpu_memory,
        )


def _measured(run: Run, job: Job) -> Estimate:
    try:
        return estimate(run)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"Job {job.number} ({' '.join(job.overrides)}): out of memory: {first_line(error)} Use a"
            " smaller data.batch_size, with a larger trainer.accumulate."
        ) from error


def _is_cheap(word: str) -> bool:
    return word.lstrip("+").partition("=")[0].replace("/", ".").split(".")[0] in CHEAP
