"""How long a run is, and when each thing in it is due."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from bigmodel.errors import MetricError, did_you_mean
from bigmodel.registry import Config

Mode = Literal["auto", "min", "max"]
OnNonFinite = Literal["stop", "skip", "rewind"]
OnOOM = Literal["halve", "stop"]
Count = Annotated[int, Field(ge=1)]

USUAL_EPOCHS, LEAST_STEPS = 30, 1000
"""How long `trainer.epochs=auto` is: so many epochs, but at least so many steps."""
TEXT_EPOCHS = 10
"""The same for texts with labels: most words are rare, and soon learnt by heart."""
FINE_TUNING_EPOCHS, FINE_TUNING_STEPS = 4, 300
"""The same for a model that starts from pretrained weights, and at most `USUAL_EPOCHS`. BERT's authors
took 2 to 4 epochs; on few samples more are better (Mosbach et al. 2020, arXiv:2006.04884)."""
MOST_EVALUATIONS, EPOCHS_OF_STEPS = 100, 10
"""In longer runs, epochs of fewer steps are evaluated several at a time: each step takes less than what
is done after it."""
PATIENCE = 0.5
"""Share of a longer run after which it ends if it has not become better: after less, most schedules are
far from their lowest rate, on which the figures depend."""


class EarlyStoppingConfig(Config):
    """When to end a run that no longer gets better."""

    patience: Count | Literal["auto"] | None = Field(
        "auto",
        description="evaluations without improvement that end training; null: never; auto: half of them"
        " if trainer.epochs=auto gives more than 30 epochs, else null",
    )
    min_delta: float = Field(0.0, ge=0, description="least change that counts as improvement")
    monitor: str = Field("auto", description="metric to watch, such as val/loss; auto: the checkpoint's")
    mode: Mode = Field("auto", description="whether higher (max) or lower (min) is better")


class CheckpointConfig(Config):
    """What is saved, and how often."""

    monitor: str = Field(
        "auto",
        description="metric that chooses the best, such as val/accuracy, ties broken by val/loss; "
        "auto: by the target",
    )
    mode: Mode = Field("auto", description="whether higher (max) or lower (min) is better")
    keep: int = Field(
        1,
        ge=1,
        description="how many of the best are kept: best, best-2 (the best before it), …; at most as "
        "many wait in memory",
    )
    every: Count | Literal["auto"] = Field(
        "auto", description="epochs between saves of `last`; auto: as trainer.eval_every=auto"
    )
    every_steps: int | None = Field(None, ge=1, description="steps between saves, not epochs")
    every_minutes: float | None = Field(
        None, gt=0, description="minutes after which `last` is saved in any case; null: never"
    )
    interval: float = Field(10.0, ge=0, description="least seconds between saves that are due by epochs")


class LimitConfig(Config):
    """A quick look: less data than there is."""

    train: int | None = Field(None, ge=1, description="batches of the training set to use")
    val: int | None = Field(None, ge=1, description="batches of the validation set to use")
    test: int | None = Field(None, ge=1, description="batches of the test set to use")


class TrainerConfig(Config):
    """How long to train, and what to do on the way."""

    epochs: Count | Literal["auto"] = Field(
        "auto",
        description="passes over the training set; auto: 30, for texts with labels 10, or as many as"
        " make 1,000 steps; from pretrained weights 4 to 30, for 300",
    )
    max_steps: int | None = Field(
        None, ge=1, description="optimizer steps in all; if set, it replaces epochs"
    )
    max_minutes: float | None = Field(
        None, gt=0, description="minutes after which training ends, evaluated and saved; null: never"
    )
    log_every: Count | Literal["auto"] = Field(
        "auto", description="epochs between printed lines; auto: 10 times those of eval_every=auto"
    )
    log_every_steps: int | None = Field(None, ge=1, description="steps between lines, not epochs")
    eval_every: Count | Literal["auto"] = Field(
        "auto",
        description="epochs between evaluations; auto: 1, or more in a run of over 100 epochs if they"
        " have fewer than 10 steps",
    )
    eval_every_steps: int | None = Field(None, ge=1, description="steps between evaluations, not epochs")
    record_every_steps: int | None = Field(None, ge=1, description="steps between records, not epochs")
    accumulate: int = Field(1, ge=1, description="batches whose gradients add up to one optimizer step")
    clip_norm: float | None = Field(None, gt=0, description="bound on the gradient's norm; null: none")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of averaged weights, such as 0.999; null: none"
    )
    on_nonfinite: OnNonFinite = Field(
        "stop",
        description="when loss or gradient is NaN or infinite: stop; skip the update; or rewind to "
        "the last checkpoint and skip the batch",
    )
    on_oom: OnOOM = Field(
        "halve", description="when memory runs out: halve what goes through the model at once; or stop"
    )
    recompute: Literal["none", "blocks"] = Field(
        "none",
        description="what the backward pass computes again instead of keeping it: none; or blocks, the"
        " equal parts that a deep model is a stack of",
    )
    tensorboard: bool = Field(True, description="write TensorBoard event files")
    histograms: bool = Field(
        False, description="histograms of weights in TensorBoard at each evaluation"
    )
    early_stopping: EarlyStoppingConfig = Field(
        EarlyStoppingConfig(), description="when to end a run that no longer gets better"
    )
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="what is saved, and how often")
    limit: LimitConfig = Field(LimitConfig(), description="a quick look with less data than there is")


@dataclass(frozen=True)
class Monitored:
    """A metric that decides which checkpoint is the best, or when to stop.

    Attributes:
        name: such as `val/accuracy`; empty if there is none.
        mode: `max` or `min`: which way it is better.
    """

    name: str
    mode: str

    def better_of_equals(
        self, value: float, loss: float, than: float | None, its_loss: float | None
    ) -> bool:
        """Whether `value` beats `than`, or equals it at a lower validation loss.

        Accuracy comes in steps, and often reaches its highest value long before the model is at its
        best: the first of equals would be the least confident one.
        """
        tied = value == than and its_loss is not None
        return self.better(value, than) or (tied and Monitored("loss", "min").better(loss, its_loss))

    def better(self, value: float, than: float | None, by: float = 0.0) -> bool:
        """Whether `value` beats `than` by more than `by`. Anything finite beats None; NaN and infinity
        beat nothing."""
        if not math.isfinite(value):
            return False
        if than is None:
            return True
        return value > than + by if self.mode == "max" else value < than - by


NOT_MONITORED = Monitored("", "")
"""Without a validation set: no checkpoint is the best, and nothing ends a run early."""


def monitored(name: str, mode: Mode, known: dict[str, str], default: str, key: str) -> Monitored:
    """Chooses the metric that decides, before anything runs.

    Args:
        name: as configured; `auto` takes `default`.
        mode: as configured; `auto` takes the usual one of the metric.
        known: each metric of this run, with its usual mode.
        default: the metric that suits the target; empty if nothing is validated.
        key: the configuration key, for the message.

    Raises:
        MetricError: there will be no such metric.
    """
    chosen = default if name == "auto" else name
    if not chosen:
        return NOT_MONITORED
    if chosen not in known:
        why = "" if default else " There is no validation set (data.validation=false)."
        raise MetricError(
            f"{key}={name}: no such metric.{why}{did_you_mean(name, known)}"
            f" There will be: {', '.join(known)}."
        )
    return Monitored(chosen, known[chosen] if mode == "auto" else mode)


@dataclass(frozen=True)
class Due:
    """What is due after a step, in the order in which it is done.

    Attributes:
        scheduled: the plan asks for it at this step. Anything else, such as a save that a signal
            requests, comes in between and does not replace what the plan asks for.
        report: update the progress bar.
        save_now: write the checkpoint at once, however recent the last one is.
        out_of_time: the run ends here, because `trainer.max_minutes` are over.
    """

    scheduled: bool = False
    report: bool = False
    evaluate: bool = False
    record: bool = False
    log: bool = False
    save: bool = False
    save_now: bool = False
    out_of_time: bool = False


EVERYTHING = Due(scheduled=True, evaluate=True, record=True, log=True, save=True, save_now=True)
"""What is due after the last step of a run."""

OUT_OF_TIME = replace(EVERYTHING, out_of_time=True)
"""The same where the time is over before."""


@dataclass(frozen=True)
class Plan:
    """The length of a run and how often things happen in it, all in optimizer steps.

    Every epoch has the same number of steps, so that an interval in epochs is one in steps.

    Attributes:
        auto: why the run has its length, if that follows from the data; else empty.
        patience: evaluations without improvement that end training; None: nothing does.
    """

    steps_per_epoch: int
    steps: int
    epochs: int
    evaluate_every: int
    record_every: int
    log_every: int
    save_every: int
    save_now: bool
    patience: int | None = None
    auto: str = ""

    @classmethod
    def of(
        cls,
        config: TrainerConfig,
        steps_per_epoch: int,
        fine_tuning: bool = False,
        usual_epochs: int = USUAL_EPOCHS,
    ) -> Plan:
        """Turns the configured intervals into steps, and chooses what is left to the data.

        Args:
            fine_tuning: the model starts from pretrained weights.
            usual_epochs: of a model that does not, on data of this kind.
        """
        steps, auto = _length(config, steps_per_epoch, fine_tuning, usual_epochs)
        epochs = math.ceil(steps / steps_per_epoch)
        fewest = min(epochs / MOST_EVALUATIONS, EPOCHS_OF_STEPS / steps_per_epoch)
        usual = max(1, math.ceil(fewest))

        def interval(epochs: int | str, steps: int | None, otherwise: int) -> int:
            if steps is not None:
                return steps
            return steps_per_epoch * (epochs if isinstance(epochs, int) else otherwise)

        evaluate_every = interval(config.eval_every, config.eval_every_steps, usual)
        patience = config.early_stopping.patience
        if patience == "auto":
            most = math.ceil(PATIENCE * steps / evaluate_every)
            patience = max(most, 1) if epochs > USUAL_EPOCHS and auto else None
        return cls(
            steps_per_epoch=steps_per_epoch,
            steps=steps,
            epochs=epochs,
            evaluate_every=evaluate_every,
            record_every=interval("auto", config.record_every_steps, usual),
            log_every=interval(config.log_every, config.log_every_steps, 10 * usual),
            save_every=interval(config.checkpoint.every, config.checkpoint.every_steps, usual),
            save_now=config.checkpoint.every_steps is not None,
            patience=patience,
            auto=auto,
        )

    def next_event(self, step: int) -> int:
        """The first step after `step` at which anything is due; the loop need not ask before."""
        intervals = (self.evaluate_every, self.record_every, self.log_every, self.save_every)
        return min(self.steps, *((step // every + 1) * every for every in intervals))

    def due(self, step: int) -> Due:
        """What is due after `step` steps."""
        if step >= self.steps:
            return EVERYTHING
        evaluate = step % self.evaluate_every == 0
        log = step % self.log_every == 0
        save = step % self.save_every == 0
        return Due(
            scheduled=True,
            evaluate=evaluate,
            record=log or evaluate or step % self.record_every == 0,
            log=log,
            save=save,
            save_now=save and self.save_now,
        )


def _length(
    config: TrainerConfig, steps_per_epoch: int, fine_tuning: bool, usual_epochs: int
) -> tuple[int, str]:
    """Optimizer steps of a run, and why there are as many, if that follows from the data.

    A run on less data than there is (`trainer.limit`) is a quick look, and gets no more epochs for it.
    """
    if config.max_steps is not None:
        return config.max_steps, ""
    if config.epochs != "auto":
        return config.epochs * steps_per_epoch, ""
    if fine_tuning:
        epochs = max(FINE_TUNING_EPOCHS, math.ceil(FINE_TUNING_STEPS / steps_per_epoch))
        return min(epochs, USUAL_EPOCHS) * steps_per_epoch, "auto, from pretrained weights"
    enough = math.ceil(LEAST_STEPS / steps_per_epoch)
    if enough <= usual_epochs or config.limit.train is not None:
        return usual_epochs * steps_per_epoch, "auto"
    return enough * steps_per_epoch, f"auto: {LEAST_STEPS:,} steps"
