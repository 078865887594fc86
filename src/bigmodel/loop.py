"""Training: the algorithm on one page, in the order in which it happens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bigmodel import checkpoint
from bigmodel.data.base import Dataset
from bigmodel.data.batches import Batches
from bigmodel.errors import CheckpointError, NonFiniteError, reason
from bigmodel.evaluate import evaluate
from bigmodel.losses import Loss
from bigmodel.metrics import Metrics
from bigmodel.optimizers import training_weights
from bigmodel.plan import Due, Monitored, Plan, TrainerConfig
from bigmodel.reporting.base import Evaluation, Progress, Record, RunInfo, Sink, Summary
from bigmodel.reporting.summary import write_summary
from bigmodel.runtime import Runtime
from bigmodel.schedulers import apply
from bigmodel.state import State
from bigmodel.step import Step
from bigmodel.stopwatch import Stopwatch


@dataclass
class Run:
    """Everything that training needs, built and checked. `fit` runs it."""

    config: TrainerConfig
    info: RunInfo
    plan: Plan
    dataset: Dataset
    train: Batches
    val: Batches
    test: Batches | None
    loss: Loss
    step: Step
    state: State
    val_metrics: Metrics
    monitor: Monitored
    stop_monitor: Monitored
    schedule_by_epoch: bool
    runtime: Runtime
    saver: checkpoint.Saver
    sinks: Sink
    summary: Summary
    watch: Stopwatch = field(default_factory=Stopwatch)


def fit(run: Run) -> Summary:
    """Trains until the plan is fulfilled, then reads the test part once, with the best weights.

    Raises:
        NonFiniteError: the loss or a weight became NaN or infinite; the last good checkpoint stays.
        CheckpointError: the disk does not take a checkpoint.
    """
    with _reported(run):
        _train(run)
        run.summary.test = _test(run)
    return run.summary


def _train(run: Run) -> None:
    plan, step, progress = run.plan, run.step, run.state.progress
    if progress.stopped_early:
        return
    training_weights(run.state.optimizer)
    run.state.model.train()
    event = plan.next_event(progress.step)
    for epoch in range(progress.step // plan.steps_per_epoch, plan.epochs):
        for batch in run.train.epoch(epoch, start=progress.step % plan.steps_per_epoch):
            apply(run.state.optimizer, _lr_factor(run, progress.step))
            step(batch, measure=progress.step + 1 == event)
            progress.step += 1
            run.watch.count(len(batch))
            if run.watch.tick():
                _show_progress(run)
            if progress.step < event:
                continue
            _attend(run, plan.due(progress.step))
            if progress.step >= plan.steps or progress.stopped_early:
                return
            event = plan.next_event(progress.step)


def _attend(run: Run, due: Due) -> None:
    """Does what is due after a step: evaluate, record, log, save, in this order."""
    progress = run.state.progress
    _collect(run)
    if due.evaluate or due.save:
        run.state.check_finite()  # before a broken model is judged, or called the best
    speed = run.watch.speed()
    improved, figures = _evaluate(run, show=due.log) if due.evaluate else (False, {})
    if progress.stopped_early:
        due = Due(evaluate=True, record=True, log=True, save=True)
    if due.record:
        record = _record(run, figures, speed)
        progress.final = record
        run.sinks.record(record)
        if improved:
            progress.best = record
        if due.log:
            run.sinks.log(record)
    if improved or due.save:
        _save(run, best=improved, last=due.save)
    run.watch.resume()


def _collect(run: Run) -> None:
    """Takes over the losses of the steps since the last call, one by one, so that sums do not depend on
    how often it is called."""
    progress = run.state.progress
    figures = run.step.drain()
    for step, (loss, weight) in enumerate(figures, start=progress.step - len(figures) + 1):
        if not math.isfinite(loss):
            rate = run.state.optimizer.param_groups[0]["initial_lr"] * _lr_factor(run, step - 1)
            raise NonFiniteError(
                f"The loss became {loss} at step {step} (epoch {_epoch(run, step)}), at learning rate"
                f" {rate:.4g}. Checkpoints saved before it are kept. A smaller optimizer.lr,"
                " trainer.clip_norm=1.0 or a warm-up (scheduler.warmup) usually helps."
            )
        progress.loss_sum += loss * weight
        progress.loss_weight += weight


def _evaluate(run: Run, *, show: bool) -> tuple[bool, dict[str, float]]:
    """Judges the model on the validation part; says whether it is the best so far, and the figures.

    Pictures are shown (`show`) when a line is printed: drawing them takes longer than a short epoch.
    """
    progress, state = run.state.progress, run.state
    with state.evaluation_weights():
        evaluation = _judge(run, run.val)
    figures = {f"val/{name}": value for name, value in evaluation.figures.items()}
    progress.figures = figures
    value = _monitored_value(run, run.monitor, figures)
    state.scheduler.observe(value, run.monitor.mode)
    improved = run.monitor.better(value, progress.best_value)
    if improved:
        progress.best_value = value
    _consider_stopping(run, figures)
    if show or progress.stopped_early:
        run.sinks.evaluated(evaluation, progress.step)
    if run.config.histograms:
        run.sinks.weights(state.model, progress.step)
    return improved, figures


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


def _test(run: Run) -> dict[str, float]:
    """Reads the test part, once, with the weights that validation chose."""
    if run.test is None:
        return {}
    try:
        groups, _ = checkpoint.load_best(run.saver.checkpoints)
    except CheckpointError as error:
        _, groups, _, _ = checkpoint.load_newest(run.saver.checkpoints)
        run.sinks.message(f"{error} The test part is read with the last weights.", "warning")
    run.state.load_model(groups.get("averaged", groups["model"]))
    return {f"test/{name}": value for name, value in _judge(run, run.test).figures.items()}


def _judge(run: Run, part: Batches) -> Evaluation:
    return evaluate(
        run.state.model,
        part,
        run.loss,
        run.val_metrics,
        run.runtime,
        run.dataset,
        samples=part is run.val,
    )


def _record(run: Run, figures: dict[str, float], speed: float) -> Record:
    """The figures since the last record, which starts the next one's sums anew."""
    progress, metrics = run.state.progress, run.step.metrics
    record: Record = {
        "epoch": _epoch(run, progress.step),
        "step": progress.step,
        "train/loss": progress.loss_sum / progress.loss_weight,
    }
    record |= {f"train/{name}": value for name, value in metrics.compute().items()}
    record |= figures
    record["lr"] = float(run.state.optimizer.param_groups[0]["lr"])
    if run.step.grad_norm is not None:
        record["grad_norm"] = float(run.step.grad_norm)
    record["samples_per_second"] = speed
    progress.loss_sum = progress.loss_weight = 0.0
    metrics.reset()
    return record


def _save(run: Run, *, best: bool, last: bool) -> None:
    progress = run.state.progress
    progress.seconds += run.watch.lap()
    over = progress.step >= run.plan.steps or progress.stopped_early
    asked = last and run.config.checkpoint.every_steps is not None
    run.saver.offer(*run.state.save(), best=best, last=last, now=over or asked)


def _epoch(run: Run, step: int) -> int:
    """The epoch, from 1, that step `step`, from 1, belongs to."""
    return math.ceil(step / run.plan.steps_per_epoch)


def _lr_factor(run: Run, step: int) -> float:
    return run.state.scheduler.factor(
        step // run.plan.steps_per_epoch if run.schedule_by_epoch else step
    )


def _monitored_value(run: Run, which: Monitored, figures: dict[str, float]) -> float:
    if which.name == "train/loss":
        return run.state.progress.loss_sum / run.state.progress.loss_weight
    return figures[which.name]


def _show_progress(run: Run) -> None:
    _collect(run)
    progress = run.state.progress
    run.sinks.progress(
        Progress(
            epoch=_epoch(run, progress.step),
            step=progress.step,
            loss=progress.loss_sum / progress.loss_weight if progress.loss_weight else None,
            figure=progress.figures.get(run.monitor.name),
            samples_per_second=run.watch.speed(),
        )
    )


@contextmanager
def _reported(run: Run) -> Iterator[None]:
    """Tells the sinks how a run begins and, whatever happens, how it ends."""
    summary, folder = run.summary, run.info.folder
    progress = run.state.progress
    run.sinks.start(run.info)
    begun = replace(summary, status="running", best=progress.best, final=progress.final)
    write_summary(begun, folder)
    try:
        yield
        summary.status = "finished"
    except KeyboardInterrupt as error:
        summary.status, summary.error = "stopped", str(error) or "interrupted"
        run.saver.flush()
        raise
    except BaseException as error:
        summary.status = "failed"
        summary.error = reason(error)
        if isinstance(error, NonFiniteError):  # what is held back is from before, and good
            run.saver.flush()
        raise
    finally:
        summary.best, summary.final, summary.steps = progress.best, progress.final, progress.step
        summary.epochs = round(progress.step / run.plan.steps_per_epoch, 2)
        summary.seconds = round(progress.seconds + run.watch.lap(), 3)
        try:
            write_summary(summary, folder)
            run.sinks.finish(summary, folder)
        finally:
            run.sinks.close()
