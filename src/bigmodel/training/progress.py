"""How far a run has come: plain numbers, all of which a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigmodel.engine.step_metrics import StepMetrics, StepMetricsList

_STORED_NAMES = {
    "metrics": "figures",
    "last_completed_step": "attended",
    "bad_evaluations": "waited",
    "skipped_updates": "skipped",
    "skipped_in_a_row": "skipped_in_row",
    "skipped_steps": "passed_over",
}
"""Fields whose key in a checkpoint is an older name: renaming them there would break old checkpoints."""


_MOST_LOSSES = 100


@dataclass(frozen=True)
class Validation:
    """The outcome of an evaluation of the validation set, and what follows from it.

    Attributes:
        metrics: by full name, such as `val/loss`.
        monitored: the value of the metric that chooses the best checkpoint.
        improved: whether the model is the best so far.
        stop_value: the best value of early stopping's metric; None before the first finite one.
        bad_evaluations: evaluations since that metric improved.
        stop: whether early stopping ends the run.
        cuts: the decision thresholds that suit the set best; None: they are not looked for.
    """

    metrics: dict[str, float]
    monitored: float
    improved: bool
    stop_value: float | None
    bad_evaluations: int
    stop: bool
    cuts: list[float] | None = None


@dataclass
class Progress:
    """How far a run has come.

    The training loop changes it after each step. Otherwise it only changes in a rewind, in a resume, and
    when an evaluation runs out of memory.

    Attributes:
        step: optimizer steps done.
        last_completed_step: the newest step after which all that was due (evaluation, records) is done.
        loss_sum, loss_weight: add up the training loss since the last record.
        seconds: time spent in training and evaluation, over all resumes; `energy` has the joules, of the
            processors as `cpu` and of the `gpu`, where the machine tells them.
        best: the record of the best evaluation so far, and `best_value` its monitored metric.
        final: the newest record.
        bad_evaluations: evaluations since early stopping's metric improved; `stop_value` is its best.
        metrics: the newest evaluation's metrics, by full name.
        cuts: decision thresholds of the newest evaluation; `best_cuts` those of the best.
        stopped_early: whether early stopping has ended the run.
        out_of_time: whether `trainer.max_minutes` have ended it.
        skipped_updates: updates skipped because the loss or a gradient was not finite;
            `skipped_in_a_row` counts those since the last good one.
        skipped_steps: steps that count without an update, since a rewind found their batches bad.
        learning_rate: what was found for `optimizer.lr=auto`; None: nothing was looked for yet.
        evaluation_batch: samples that are evaluated at once, if there was too little memory for more.
        losses: validation losses of the newest evaluations.
    """

    step: int = 0
    last_completed_step: int = 0
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    seconds: float = 0.0
    best: dict[str, float | int] = field(default_factory=dict)
    best_value: float | None = None
    final: dict[str, float | int] = field(default_factory=dict)
    bad_evaluations: int = 0
    stop_value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    cuts: list[float] | None = None
    best_cuts: list[float] | None = None
    stopped_early: bool = False
    out_of_time: bool = False
    skipped_updates: int = 0
    skipped_in_a_row: int = 0
    skipped_steps: list[int] = field(default_factory=list)
    evaluation_batch: int | None = None
    learning_rate: float | None = None
    losses: list[float] = field(default_factory=list)
    energy: dict[str, float] = field(default_factory=dict)

    def spend(self, seconds: float, joules: dict[str, float]) -> None:
        """Adds time and energy."""
        self.seconds += seconds
        self.energy = self.energy | {kind: self.energy.get(kind, 0.0) + n for kind, n in joules.items()}

    @property
    def mean_loss(self) -> float:
        """The mean training loss since the last record; NaN if every update was skipped."""
        return self.loss_sum / self.loss_weight if self.loss_weight else math.nan

    def add_steps(self, drained: StepMetricsList) -> Iterator[tuple[int, StepMetrics]]:
        """Adds the losses of the newest steps while the caller iterates.

        Yields:
            The steps, from 1, whose loss or gradient was not finite, before any later step is added.
            The caller either calls `count_skipped` or stops iterating.
        """
        first = self.step - len(drained) + 1
        good, start = drained.updated & np.isfinite(drained.losses), 0
        for bad in np.flatnonzero(~good).tolist():
            self._add_losses(drained[start:bad])
            yield first + bad, drained[bad]
            start = bad + 1
        self._add_losses(drained[start:])

    def _add_losses(self, good: StepMetricsList) -> None:
        if good:
            self.skipped_in_a_row = 0
            self.loss_sum = _added(self.loss_sum, good.losses * good.weights)
            self.loss_weight = _added(self.loss_weight, good.weights)

    def count_skipped(self) -> None:
        """Counts an update that was skipped, after which training continues."""
        self.skipped_updates += 1
        self.skipped_in_a_row += 1

    def apply(self, validation: Validation) -> None:
        """Applies the outcome of an evaluation."""
        self.metrics, self.cuts = validation.metrics, validation.cuts
        if validation.improved:
            self.best_value, self.best_cuts = validation.monitored, validation.cuts
        self.stop_value = validation.stop_value
        self.bad_evaluations = validation.bad_evaluations
        self.stopped_early = validation.stop
        if "val/loss" in validation.metrics:
            self.losses = [*self.losses, validation.metrics["val/loss"]][-_MOST_LOSSES:]

    def reset_best(self) -> None:
        """Forgets the best evaluation so far, and early stopping's."""
        self.best, self.best_value, self.best_cuts = {}, None, None
        self.bad_evaluations, self.stop_value = 0, None
        self.losses = []

    def state_dict(self) -> dict[str, Any]:
        """Its fields, by the names that checkpoints use."""
        # All that a field holds is a number, or numbers in a list or a dictionary.
        return {_STORED_NAMES.get(name, name): copy(value) for name, value in vars(self).items()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Loads saved fields, in place; those that an older version did not save are reset.

        Raises:
            TypeError: there is a field of another name.
        """
        names = {stored: name for name, stored in _STORED_NAMES.items()}
        vars(self).update(vars(Progress(**{names.get(key, key): v for key, v in saved.items()})))


def _added(total: float, numbers: NDArray[np.float64]) -> float:
    """One by one, so that the sum does not depend on how often steps are drained."""
    return float(np.add.accumulate(np.concatenate([[total], numbers]))[-1])
