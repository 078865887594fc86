"""The account of a run: its losses added up, its records, its signs of life."""

from __future__ import annotations

import math

from bigmodel.errors import NonFiniteError
from bigmodel.reporting.base import Progress, Record
from bigmodel.training.recovery import skip
from bigmodel.training.run import Run


def collect(run: Run) -> None:
    """Takes over the losses of the steps since the last call, one by one, so that sums do not depend on
    how often it is called.

    Raises:
        NonFiniteError: a loss or a gradient is NaN or infinite, and such updates are not to be skipped.
    """
    progress = run.state.progress
    figures = run.step.drain()
    for step, (loss, weight, updated) in enumerate(figures, start=progress.step - len(figures) + 1):
        if not updated or not math.isfinite(loss):
            fault = _fault(run, step, loss, weight)
            if run.config.on_nonfinite != "skip":
                raise NonFiniteError(fault, step)
            if told := skip(progress, step, fault):
                run.sinks.message(told, "warning")
            continue
        progress.skipped_in_row = 0
        progress.loss_sum += loss * weight
        progress.loss_weight += weight


def record(run: Run, figures: dict[str, float], speed: float) -> Record:
    """The figures since the last record, which starts the next one's sums anew."""
    progress, metrics = run.state.progress, run.step.metrics
    told: Record = {
        "epoch": run.epoch_of(progress.step),
        "step": progress.step,
        "train/loss": run.mean_loss(),
    }
    told |= {f"train/{name}": value for name, value in metrics.compute(of_all=False).items()}
    told |= figures
    told["lr"] = float(run.state.optimizer.param_groups[0]["lr"])
    if (norm := run.state.accumulation.grad_norm) is not None:
        told["grad_norm"] = float(norm)
    told |= run.throughput.figures(speed)
    progress.loss_sum = progress.loss_weight = 0.0
    metrics.reset()
    return told


def sign_of_life(run: Run) -> None:
    """A sign of life, a few times a second."""
    collect(run)
    run.saver.check()
    progress = run.state.progress
    run.sinks.progress(
        Progress(
            epoch=run.epoch_of(progress.step),
            step=progress.step,
            loss=run.mean_loss() if progress.loss_weight else None,
            figure=progress.figures.get(run.monitor.name),
            **run.throughput.figures(run.watch.speed()),
        )
    )


def _fault(run: Run, step: int, loss: float, weight: float) -> str:
    if weight == 0:
        return f"Every target of the batch of step {step} is ignored, so that there is no mean loss."
    rate = run.state.optimizer.param_groups[0]["initial_lr"] * run.lr_factor(step - 1)
    what = f"The loss became {loss}"
    if math.isfinite(loss):
        what = f"The loss was {loss:.4g}, but a gradient became NaN or infinite,"
    return (
        f"{what} at step {step} (epoch {run.epoch_of(step)}), at learning rate {rate:.4g}. The update"
        " was left out. A smaller optimizer.lr, trainer.clip_norm=1.0 or a warm-up (scheduler.warmup)"
        " usually helps."
    )
