"""How good a run's model is: the validation part again and again, the test part once at the end."""

from __future__ import annotations

import math
from dataclasses import replace

from bigmodel.checkpointing import checkpoint
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.data.base import PartName
from bigmodel.data.batching.batches import Batches
from bigmodel.errors import CheckpointError, UndefinedError
from bigmodel.metrics import undefined_told
from bigmodel.models.base import Writer
from bigmodel.reporting.base import Evaluation
from bigmodel.training.evaluation import evaluate
from bigmodel.training.plan import Monitored
from bigmodel.training.recovery import give_up_speed, smaller_evaluation
from bigmodel.training.run import Run
from bigmodel.training.text_samples import AT_ONCE


def validate(run: Run, *, show: bool) -> tuple[bool, dict[str, float]]:
    """Judges the model on the validation part; says whether it is the best so far, and the figures.

    Args:
        show: show pictures, as when a line is printed: drawing them takes longer than a short epoch.

    Raises:
        Stopped: the process was asked to stop; nothing has changed.
    """
    progress, state = run.state.progress, run.state
    with state.evaluation_weights():
        evaluation = _written(run, "val", _read(run, run.val), samples=show)
    _tell_undefined(run, evaluation)
    figures = {f"val/{name}": value for name, value in evaluation.figures.items()}
    progress.figures = figures
    value = _monitored_value(run, run.monitor, figures)
    state.schedule.observe(value, run.monitor.mode, progress.step)
    improved = run.monitor.better_of_equals(
        value, figures["val/loss"], progress.best_value, progress.best.get("val/loss")
    )
    if improved:
        progress.best_value = value
    _consider_stopping(run, figures)
    if show or progress.stopped_early:
        run.sinks.evaluated(evaluation, progress.step)
    if run.config.histograms:
        run.sinks.weights(state.model, progress.step)
    return improved, figures


def _tell_undefined(run: Run, evaluation: Evaluation) -> None:
    """Says which figures of the validation part are NaN, and why, when they begin to be."""
    before = run.state.progress.figures
    if evaluation.undefined:
        if not before or not all(map(math.isnan, before.values())):
            run.sinks.message(
                f"After step {run.state.progress.step:,} the model gives NaN or infinity for validation"
                " samples: no figure of it is known, and it cannot be the best.",
                "warning",
            )
        return
    for name, why in undefined_told(evaluation.figures).items():
        key = f"val/{name}"
        if math.isnan(before.get(key, 0.0)):
            continue
        told = f"{key} is not defined for this part: {why}."
        if key == run.monitor.name:
            told += (
                " Nothing is the best by it: trainer.checkpoint.monitor=val/loss chooses by the loss."
            )
        run.sinks.message(told, "warning")


def test(run: Run) -> dict[str, float]:
    """Reads the test part, once, with the weights that validation chose; no figures without a part.

    Raises:
        Stopped: the process was asked to stop.
        CheckpointError: the last checkpoint could not be written.
    """
    run.saver.flush()
    if run.test is None:
        return {}
    try:
        groups = _chosen(run)
    except CheckpointError as error:
        groups = checkpoint.load_newest(run.saver.checkpoints).groups
        run.sinks.message(f"{error} The test part is read with the last weights.", "warning")
    run.state.load_model(groups.get("averaged", groups["model"]))
    evaluation = _written(run, "test", _read(run, run.test), samples=False)
    return {f"test/{name}": value for name, value in evaluation.figures.items()}


def _chosen(run: Run) -> TensorGroups:
    """The best checkpoint, if it is the one that this run called the best.

    Raises:
        CheckpointError: it is not, is damaged, or is not there.
    """
    groups, facts = checkpoint.load_best(run.saver.checkpoints)
    found, best = facts["progress"]["step"], run.state.progress.best.get("step")
    if best is not None and found != best:
        raise CheckpointError(
            f"{run.saver.checkpoints / 'best'}: it is of step {found:,}, but this run's best was step"
            f" {best:,}."
        )
    return groups


def _read(run: Run, part: Batches) -> Evaluation:
    """One pass over a part, with fewer samples at once where memory runs out."""
    progress = run.state.progress
    while True:
        try:
            return evaluate(
                run.state.model,
                part,
                run.loss,
                run.val_metrics,
                run.runtime,
                run.dataset,
                samples=part is run.val,
                at_once=progress.evaluation_batch,
                between=run.signals.check,
            )
        except RuntimeError as error:
            told = give_up_speed(run.engine, error, run.config.on_oom)
            if told is None:
                size = progress.evaluation_batch or part.batch_size
                progress.evaluation_batch = smaller_evaluation(size, error, run.config.on_oom)
                told = (
                    f"Out of memory with {size} samples evaluated at once; from now on"
                    f" {progress.evaluation_batch}."
                )
        run.sinks.message(told, "warning")


def _written(run: Run, part: PartName, evaluation: Evaluation, *, samples: bool) -> Evaluation:
    """The same with what the model writes about the part, and the figures of that."""
    if run.writing is None:
        return evaluation
    unknown = evaluation.figures | dict.fromkeys(run.writing.figures, math.nan)
    if evaluation.undefined:
        return replace(evaluation, figures=unknown)
    assert isinstance(run.state.model, Writer)
    size = min(AT_ONCE, run.state.progress.evaluation_batch or AT_ONCE)
    while True:
        try:
            figures, texts = run.writing.judge(
                run.state.model, part, run.signals.check, samples=samples, at_once=size
            )
            return replace(evaluation, figures={**evaluation.figures, **figures}, written=texts)
        except UndefinedError:
            return replace(evaluation, figures=unknown)
        except RuntimeError as error:
            told = give_up_speed(run.engine, error, run.config.on_oom)
            if told is None:
                before, size = size, smaller_evaluation(size, error, run.config.on_oom)
                told = f"Out of memory with {before} texts written at once; this time {size}."
        run.sinks.message(told, "warning")


def _consider_stopping(run: Run, figures: dict[str, float]) -> None:
    stopping, progress = run.config.early_stopping, run.state.progress
    value = _monitored_value(run, run.stop_monitor, figures)
    if run.stop_monitor.better(value, progress.stop_value, stopping.min_delta):
        progress.stop_value, progress.waited = value, 0
    else:
        progress.waited += 1
    if stopping.patience is not None and progress.waited >= stopping.patience:
        progress.stopped_early = True
        best = "none so far" if progress.stop_value is None else f"best {progress.stop_value:.4g}"
        run.sinks.message(
            f"Stopping early: {run.stop_monitor.name} has not improved for {progress.waited} evaluations"
            f" ({best})."
        )


def _monitored_value(run: Run, which: Monitored, figures: dict[str, float]) -> float:
    return run.mean_loss() if which.name == "train/loss" else figures[which.name]
