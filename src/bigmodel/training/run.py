"""A run: everything that training needs, in one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigmodel.checkpointing.saver import NoSaver
from bigmodel.data.base import Dataset
from bigmodel.data.batching.batches import Batches
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.engine.base import Engine
from bigmodel.engine.step import Step
from bigmodel.losses import Loss
from bigmodel.metrics import ChosenMetrics, Metrics
from bigmodel.metrics.threshold import Maximised
from bigmodel.models.freezing import Unfreezing
from bigmodel.reporting.base import RunInfo, Sink, Summary
from bigmodel.reporting.summary import write_summary
from bigmodel.runtime.device import Runtime
from bigmodel.runtime.signals import Signals
from bigmodel.training.plan import Monitored, Plan, TrainerConfig
from bigmodel.training.state import State
from bigmodel.training.stopwatch import Stopwatch
from bigmodel.training.text_samples import TextSampler
from bigmodel.training.throughput import Throughput


@dataclass(frozen=True)
class Run:
    """A run, built and checked. `fit` runs it.

    No attribute is replaced, but many change while it trains: `step` keeps metrics, `saver` and `sinks`
    keep what is not written yet, `watch` measures time. All that a checkpoint restores is in `state`:
    the weights, the optimizer's state, and `state.progress`.

    Attributes:
        fingerprint, preprocessing, settings: which data the run learns from, and how; part of
            every checkpoint.
        step: does one update; `engine` does one or several in a call, in the fastest way.
        val: None: nothing is validated, and the last weights count.
        monitor: chooses the best checkpoint; `stop_monitor` ends the run early.
        threshold: what decision thresholds maximise on the validation set; None: they are 0.5.
        chosen_metrics: of evaluations, beside the usual ones.
        unfreezing: which blocks are trained in which epoch; None: all in all of them.
        text_sampler: None unless the model can write texts.
        profiled: whether a few steps are profiled.
        ranks: the processes that train together.
        options_at: the options of the optimizer's groups for a value of `optimizer.lr`: the rate itself,
            and what follows from it.
        finds_rate: whether that value is found at the start of the run; if none can be suggested, it is
            `default_rate`.
        write_summary: writes it into the run's folder.
    """

    # What to do, and with which data
    config: TrainerConfig
    info: RunInfo
    plan: Plan
    dataset: Dataset
    fingerprint: dict[str, Any]
    preprocessing: dict[str, Any]
    settings: dict[str, Any]
    train: Batches
    val: Batches | None
    test: Batches | None
    # What does it
    runtime: Runtime
    loss: Loss
    step: Step
    engine: Engine
    val_metrics: Metrics
    monitor: Monitored
    stop_monitor: Monitored
    # What a checkpoint restores
    state: State
    # Where results go
    saver: NoSaver
    sinks: Sink
    summary: Summary
    threshold: Maximised | None = None
    chosen_metrics: ChosenMetrics = field(default_factory=ChosenMetrics)
    text_sampler: TextSampler | None = None
    unfreezing: Unfreezing | None = None
    throughput: Throughput = field(default_factory=Throughput)
    profiled: bool = False
    ranks: Ranks = ALONE
    options_at: Callable[[float], list[dict[str, Any]]] = lambda rate: [{"lr": rate}]
    finds_rate: bool = False
    default_rate: float = 1e-3
    write_summary: Callable[[Summary, Path], None] = write_summary
    watch: Stopwatch = field(default_factory=Stopwatch)
    signals: Signals = field(default_factory=Signals)

    @property
    def over(self) -> bool:
        """Whether the last step is done, and everything that was due after it."""
        progress = self.state.progress
        last = progress.step if progress.out_of_time else self.plan.steps
        return progress.last_completed_step >= last or progress.stopped_early

    def epochs_left(self) -> Iterator[int]:
        """The epochs that are left, from 0, the current one first.

        Each is derived from the progress at that moment: a rewind may have gone back.
        """
        while not self.over:
            yield self.state.progress.step // self.plan.steps_per_epoch

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that step `step`, from 1, belongs to."""
        return math.ceil(step / self.plan.steps_per_epoch)
