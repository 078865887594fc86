"""Evaluation of a run's model: on the validation set repeatedly, on the test set once at the end."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor

from bigmodel.checkpointing import checkpoint
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.data.base import PartName
from bigmodel.data.batching.batches import Batches
from bigmodel.data.parts import SplitData
from bigmodel.errors import CheckpointError, UndefinedError
from bigmodel.metrics.threshold import thresholds
from bigmodel.models.base import Writer, eval_mode
from bigmodel.reporting.base import EvaluationResult
from bigmodel.training.evaluation import evaluate
from bigmodel.training.outputs import model_outputs
from bigmodel.training.plan import Monitored
from bigmodel.training.progress import Validation
from bigmodel.training.recovery import evaluate_in_memory
from bigmodel.training.run import Run
from bigmodel.training.text_samples import AT_ONCE


def validate(run: Run, *, show: bool) -> Validation:
    """Evaluates the validation set, if there is one; returns its metrics and what follows from them.

    Of the run's progress only `evaluation_batch` may change, if memory runs out.

    Args:
        show: whether to show pictures: drawing them takes longer than a short epoch.

    Raises:
        Stopped: the process was asked to stop.
    """
    progress, state = run.state.progress, run.state
    evaluation = EvaluationResult({})
    if run.val is not None:
        with state.evaluation_weights():
            # Samples are kept in any case: whether this evaluation ends the run is not known yet.
            result = _evaluate(run, run.val, samples=True, maximised=run.threshold)
            evaluation = _add_texts(run, "val", result, samples=show)
        _warn_undefined(run, evaluation)
    metrics = {f"val/{name}": value for name, value in evaluation.metrics.items()}
    monitored = _value_of(run, run.monitor, metrics)
    loss, best_loss = metrics.get("val/loss", math.nan), progress.best.get("val/loss")
    improved = run.monitor.better_of_equals(monitored, loss, progress.best_value, best_loss)
    stop_value, bad_evaluations, stop = _early_stopping(run, metrics, improved)
    if run.val is not None and (show or stop):
        run.sinks.evaluated(evaluation, progress.step)
    if run.config.histograms:
        run.sinks.weights(state.model, progress.step)
    # Ranks that compute the same on other hardware may differ in a last bit, but not in what they do.
    cuts = evaluation.best_cuts
    return run.ranks.from_first(
        Validation(metrics, monitored, improved, stop_value, bad_evaluations, stop, cuts)
    )


def test(run: Run) -> dict[str, float]:
    """Evaluates the test set with the best weights, or the last ones of a run that has no best; empty if
    there is no test set.

    Raises:
        Stopped: the process was asked to stop.
        CheckpointError: the last checkpoint could not be written.
    """
    run.saver.flush()
    if found := thresholds(run.state.progress.best_cuts, run.dataset.spec.target):
        shown = ", ".join(f"{name} from {value:.3g}" for name, value in found.items())
        run.sinks.message(f"Threshold: {shown}, for the best {run.threshold} of the validation set.")
    if run.test is None:
        return {}
    cuts = load_best_weights(run, "The test set is evaluated")
    evaluation = _evaluate(run, run.test, samples=False, by_class=True, cuts=cuts)
    for name, each in evaluation.by_class.items():
        run.summary.test_by_class[f"test/{name}"] = dict(each)
    for name, why in evaluation.reasons.items():
        run.sinks.message(f"test/{name} is not defined for this set: {why}.", "warning")
    evaluation = _add_texts(run, "test", evaluation, samples=False)
    return {f"test/{name}": value for name, value in evaluation.metrics.items()}


def load_best_weights(run: Run, purpose: str) -> list[float] | None:
    """Gives the run's model the weights of its best checkpoint, or the last if that cannot be read.

    Args:
        purpose: what is done with the weights, for the warning in that case.

    Returns:
        The decision thresholds that were found with these weights on the validation set, if they were.

    Raises:
        CheckpointError: the last checkpoint could not be written.
    """
    run.saver.flush()
    run.ranks.barrier()
    cuts = run.state.progress.best_cuts
    try:
        groups = _best_weights(run) if run.monitor.name else _last_weights(run)
    except CheckpointError as error:
        groups, cuts = _last_weights(run), run.state.progress.cuts
        run.sinks.message(f"{error} {purpose} with the last weights.", "warning")
    run.state.load_model(groups.get("averaged", groups["model"]))
    return cuts


def _best_weights(run: Run) -> TensorGroups:
    """The best checkpoint, if this run saved it.

    Raises:
        CheckpointError: it is not, is damaged, or is not there.
    """
    groups, facts = checkpoint.load_best(run.saver.checkpoints, run.ranks)
    saved, best = facts["progress"]["step"], run.state.progress.best.get("step")
    if best is not None and saved != best:
        raise CheckpointError(
            f"{run.saver.checkpoints / 'best'}: it is from step {saved:,}, but this run's best was step"
            f" {best:,}."
        )
    return groups


def _last_weights(run: Run) -> TensorGroups:
    return checkpoint.load_newest(run.saver.checkpoints, run.ranks).groups


def held_out_outputs(run: Run, part: SplitData) -> Tensor | None:
    """The outputs of the model, with its weights as they are, for samples of the validation set, as
    `model_outputs` has them; None on a rank that is not needed.

    Raises:
        Stopped: the process was asked to stop.
    """
    parallel = run.step.parallel
    if not (run.ranks.is_first or parallel.lockstep):
        return None

    def attempt(size: int) -> Tensor:
        return model_outputs(
            parallel.model, part, run.dataset.preprocessing, run.runtime, size, run.signals.check
        )

    assert run.val is not None
    size = run.state.progress.evaluation_batch or run.val.batch_size  # which compiled blocks know
    with eval_mode(parallel.model):
        return evaluate_in_memory(
            run,
            size,
            attempt,
            lambda before, now: (
                f"Out of memory with {before} samples predicted at once; this time {now}."
            ),
        )


def _evaluate(run: Run, part: Batches, *, samples: bool, **more: Any) -> EvaluationResult:
    """One pass over a part, with fewer samples at once if memory runs out."""
    progress = run.state.progress
    parallel = run.step.parallel
    parts = (parallel.model, part, run.loss, run.val_metrics, run.runtime, run.dataset)

    def between() -> None:
        run.watch.agree()
        run.signals.check()

    def attempt(size: int) -> EvaluationResult:
        return evaluate(
            *parts,
            samples=samples,
            at_once=size,
            between=between,
            ranks=run.ranks,
            lockstep=parallel.lockstep,
            chosen=run.chosen_metrics,
            **more,
        )

    def reduce(before: int, now: int) -> str:
        # Kept at once: the evaluation may be interrupted before it ends, and resumed.
        progress.evaluation_batch = now
        return f"Out of memory with {before} samples evaluated at once; from now on {now}."

    return evaluate_in_memory(run, progress.evaluation_batch or part.batch_size, attempt, reduce)


def _add_texts(
    run: Run, part: PartName, evaluation: EvaluationResult, *, samples: bool
) -> EvaluationResult:
    """The same with texts that the model generates from the part, and their metrics."""
    sampler, parallel = run.text_sampler, run.step.parallel
    model = parallel.model
    if sampler is None:
        return evaluation
    unknown = evaluation.metrics | dict.fromkeys(sampler.metrics, math.nan)
    if evaluation.undefined:
        return replace(evaluation, metrics=unknown)
    assert isinstance(model, Writer)
    try:
        with parallel.gathered():
            metrics, texts = evaluate_in_memory(
                run,
                min(AT_ONCE, run.state.progress.evaluation_batch or AT_ONCE),
                lambda size: sampler.sample(
                    model, part, run.signals.check, samples=samples, at_once=size, ranks=run.ranks
                ),
                lambda before, now: (
                    f"Out of memory with {before} texts written at once; this time {now}."
                ),
            )
    except UndefinedError:
        return replace(evaluation, metrics=unknown)
    return replace(evaluation, metrics={**evaluation.metrics, **metrics}, generated=texts)


def _warn_undefined(run: Run, evaluation: EvaluationResult) -> None:
    """Warns of metrics of the validation set that have become NaN, and says why."""
    before = run.state.progress.metrics
    if evaluation.undefined:
        if not before or not all(map(math.isnan, before.values())):
            run.sinks.message(
                f"After step {run.state.progress.step:,} the model gives NaN or infinity for validation"
                " samples: its metrics are unknown, and it cannot be the best.",
                "warning",
            )
        return
    for name, why in evaluation.reasons.items():
        key = f"val/{name}"
        if math.isnan(before.get(key, 0.0)):
            continue
        message = f"{key} is not defined for this set: {why}."
        if key == run.monitor.name:
            advice = "trainer.checkpoint.monitor=val/loss chooses by the loss"
            message += f" No checkpoint can be the best by it: {advice}."
        run.sinks.message(message, "warning")


def _early_stopping(
    run: Run, metrics: dict[str, float], is_best: bool
) -> tuple[float | None, int, bool]:
    """The best value of early stopping's metric, evaluations since then, and whether to stop."""
    config, progress, monitor = run.config.early_stopping, run.state.progress, run.stop_monitor
    if not monitor.name:
        return None, 0, False
    best, bad = progress.stop_value, progress.bad_evaluations + 1
    value = _value_of(run, monitor, metrics)
    if monitor.better(value, best, config.min_delta):
        best, bad = value, 0
    elif is_best and config.patience == "auto":  # the same accuracy at a lower loss
        bad = 0
    patience = run.plan.patience
    stop = patience is not None and bad >= patience
    if stop:
        so_far = "none so far" if best is None else f"best {best:.4g}"
        run.sinks.message(
            f"Stopping early: {monitor.name} has not improved for {bad} evaluations ({so_far})."
        )
    return best, bad, stop


def _value_of(run: Run, monitor: Monitored, metrics: dict[str, float]) -> float:
    if monitor.name == "train/loss":
        return run.state.progress.mean_loss
    return metrics[monitor.name] if monitor.name else math.nan
