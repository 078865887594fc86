"""Everything that training needs, in one object, and what follows from it at any step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from bigmodel.checkpointing.saver import Saver
from bigmodel.data.base import Dataset
from bigmodel.data.batching.batches import Batches
from bigmodel.engine.base import Engine
from bigmodel.engine.step import Step
from bigmodel.losses import Loss
from bigmodel.metrics import Metrics
from bigmodel.reporting.base import RunInfo, Sink, Summary
from bigmodel.runtime.device import Runtime
from bigmodel.runtime.signals import Signals
from bigmodel.training.plan import Monitored, Plan, TrainerConfig
from bigmodel.training.state import State
from bigmodel.training.stopwatch import Stopwatch
from bigmodel.training.text_samples import Writing
from bigmodel.training.throughput import Throughput


@dataclass
class Run:
    """A run, built and checked. `fit` runs it.

    `fingerprint`, `prepared` and `settings` say what it has learnt from, and how; every checkpoint holds
    them. `profiled`: whether a few steps are to be profiled.
    """

    config: TrainerConfig
    info: RunInfo
    plan: Plan
    dataset: Dataset
    fingerprint: dict[str, Any]
    prepared: dict[str, Any]
    settings: dict[str, Any]
    train: Batches
    val: Batches
    test: Batches | None
    loss: Loss
    step: Step
    engine: Engine
    state: State
    val_metrics: Metrics
    monitor: Monitored
    stop_monitor: Monitored
    runtime: Runtime
    saver: Saver
    sinks: Sink
    summary: Summary
    writing: Writing | None = None
    throughput: Throughput = field(default_factory=Throughput)
    profiled: bool = False
    watch: Stopwatch = field(default_factory=Stopwatch)
    signals: Signals = field(default_factory=Signals)

    @property
    def over(self) -> bool:
        """Whether no step is left to do."""
        progress = self.state.progress
        return progress.step >= self.plan.steps or progress.stopped_early

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that step `step`, from 1, belongs to."""
        return math.ceil(step / self.plan.steps_per_epoch)

    def lr_factor(self, step: int) -> float:
        """The multiplier of the learning rate after `step` steps."""
        return self.state.schedule.factor(step)

    def mean_loss(self) -> float:
        """The mean training loss since the last record; NaN where every update was skipped."""
        progress = self.state.progress
        return progress.loss_sum / progress.loss_weight if progress.loss_weight else math.nan
