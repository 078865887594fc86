"""`sweep.plan=true`: what a sweep would run, and what it would cost. No folder is made."""

from __future__ import annotations

import tempfile
import time
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
from bigmodel.reporting.base import Sink
from bigmodel.reporting.sweep_plan import JobCost, PlannedJob, print_plan
from bigmodel.sweeps.jobs import Job, changes, in_one_line
from bigmodel.sweeps.process import Slot, call
from bigmodel.sweeps.slots import threads
from bigmodel.training.estimate import estimate

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
    planned = Planner(context, config, threads(room))(jobs)
    memory = None if any(slot.environment for slot in room) else free_memory()  # not that of a GPU
    print_plan(planned, len(room), memory)


class Planner:
    """Measures a few steps of each distinct model and data.

    Args:
        context: Hydra's, which composes configurations.
        config: the sweep's own configuration.
        threads: CPU threads of a job.
    """

    def __init__(self, context: HydraContext, config: DictConfig, threads: int) -> None:
        self._context, self._config, self._threads = context, config, threads

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
        torch.set_num_threads(self._threads)
        values = composed(self._context, self._config, job.overrides)
        with tempfile.TemporaryDirectory() as folder:
            run = build_run(parse(values), Path(folder), console=lambda _: Sink())
            start = time.perf_counter() - began
            cost = estimate(run)
        kept = 1 + run.config.checkpoint.keep  # the newest, and the best
        return JobCost(
            cost.parameters, cost.steps, start + cost.seconds, cost.memory, kept * cost.checkpoint
        )


def _is_cheap(word: str) -> bool:
    return word.lstrip("+").partition("=")[0].replace("/", ".").split(".")[0] in CHEAP
