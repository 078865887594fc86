"""What training reports: a record of its metrics when one is due, and progress in between."""

from __future__ import annotations

from bigmodel.reporting.base import ProgressReport, Record
from bigmodel.training.progress import Validation
from bigmodel.training.run import Run


def make_record(run: Run, validation: Validation | None, speed: float) -> Record:
    """The metrics of the steps since the last record, with those of an evaluation, if there was one.

    Args:
        speed: samples per second.
    """
    progress = run.state.progress
    record: Record = {
        "epoch": run.epoch_of(progress.step),
        "step": progress.step,
        "train/loss": progress.mean_loss,
    }
    metrics = run.step.metrics.summed(run.ranks.sum).compute(of_all=False)
    record |= {f"train/{name}": value for name, value in metrics.items()}
    if validation is not None:
        record |= validation.metrics
    record["lr"] = float(run.state.optimizer.param_groups[0]["lr"])
    if (norm := run.state.accumulation.grad_norm) is not None:
        record["grad_norm"] = float(norm)
    return record | run.throughput.metrics(speed)


def update_progress_bar(run: Run) -> None:
    """Updates the progress bar, a few times a second; of several ranks all do, after the same step."""
    progress = run.state.progress
    run.sinks.progress(
        ProgressReport(
            epoch=run.epoch_of(progress.step),
            step=progress.step,
            loss=progress.mean_loss if progress.loss_weight else None,
            metric=progress.metrics.get(run.monitor.name),
            **run.throughput.metrics(run.watch.speed()),
        )
    )


def explain_end(run: Run) -> None:
    """Says that a run ended before its last step because its time was up."""
    minutes, progress = run.config.max_minutes, run.state.progress
    run.sinks.message(
        f"Ended after {minutes:g} minutes (trainer.max_minutes), at step {progress.step:,} of"
        f" {run.plan.steps:,}. To train on, resume with a higher trainer.max_minutes."
    )
