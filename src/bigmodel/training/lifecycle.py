"""The start and end of a run: whatever happens in between, its summary says how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from bigmodel.errors import BigModelError, CheckpointError, counted, reason
from bigmodel.metrics.threshold import thresholds
from bigmodel.models.freezing import train_mode
from bigmodel.optim.optimizers import training_weights
from bigmodel.runtime import progress_messages
from bigmodel.runtime.signals import Pruned
from bigmodel.training import trend
from bigmodel.training.finders.range_test import choose_rate
from bigmodel.training.recovery import save
from bigmodel.training.run import Run
from bigmodel.training.unfreezing import unfreeze


@contextmanager
def running(run: Run) -> Iterator[None]:
    """Starts the run, and ends it on leaving: within, requests to stop wait until training handles them,
    and all outputs are open. Whatever happens, the summary says how the run ended."""
    with (
        run.signals.waiting(),
        progress_messages.report_progress("Training"),
        _summarized(run),
        progress_messages.reporting_to(run.sinks.message),
        run.ranks.naming_loss(),
    ):
        _prepare(run)
        yield


def _prepare(run: Run) -> None:
    progress = run.state.progress
    training_weights(run.state.optimizer)
    train_mode(run.step.parallel.model)
    run.step.should_pause = run.signals.urgent
    unfreeze(run, progress.step // run.plan.steps_per_epoch)
    if run.finds_rate and progress.learning_rate is None:
        choose_rate(run)
    run.engine.start(run.plan.steps - progress.step, run.sinks.message, run.signals.raising)
    if run.unfreezing is not None:
        run.engine.retrain()
    if run.config.on_nonfinite == "rewind" and progress.step == 0:
        save(run, best=False, last=True, now=True)  # so that there is a checkpoint to go back to


@contextmanager
def _summarized(run: Run) -> Iterator[None]:
    """Tells the sinks and the summary how the run begins and how it ends."""
    summary, progress = run.summary, run.state.progress
    run.saver.start()
    run.sinks.start(run.info)
    at_start = replace(summary, status="running", best=progress.best, final=progress.final)
    run.write_summary(at_start, run.info.folder)
    try:
        with _flushing(run):
            yield
        summary.status = "finished"
        _conclude(run)
        run.sinks.close()
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        summary.status = "pruned" if isinstance(error, Pruned) else "stopped" if stopped else "failed"
        summary.error = (str(error) or "interrupted") if stopped else reason(error)
        # The first error is the one to report; those raised here mostly have the same cause.
        with suppress(BigModelError):
            _conclude(run)
        with suppress(BigModelError):
            run.sinks.close()
        raise
    finally:
        run.saver.close()


@contextmanager
def _flushing(run: Run) -> Iterator[None]:
    """On an error, writes the checkpoints that are held back: they are from before it."""
    try:
        yield
    except CheckpointError:  # the disk takes no more
        raise
    except BaseException as error:
        run.saver.rescue(error)
        raise


def _conclude(run: Run) -> None:
    summary, progress = run.summary, run.state.progress
    summary.best, summary.final, summary.steps = progress.best, progress.final, progress.step
    target = run.dataset.spec.target
    summary.threshold = thresholds(progress.best_cuts, target)
    if progress.learning_rate is not None:
        summary.found = {"optimizer.lr": progress.learning_rate}
    summary.longer = trend.longer(run) if summary.status == "finished" else ""
    summary.epochs = round(progress.step / run.plan.steps_per_epoch, 2)
    spent = replace(progress)  # the checkpoint has no more than `progress` itself
    spent.spend(run.watch.since_lap, run.watch.joules_since_lap)
    summary.seconds = round(spent.seconds, 3)
    summary.energy = {kind: round(joules, 1) for kind, joules in spent.energy.items()}
    # Only now is it known which engine was chosen, and how many threads.
    summary.environment |= {"device": str(run.runtime), "engine": run.engine.name}
    summary.skipped = progress.skipped_updates + len(progress.skipped_steps)
    if summary.skipped:
        skipped = f"{summary.skipped:,} of {counted(progress.step, 'update')}"
        verb = "was" if summary.skipped == 1 else "were"
        run.sinks.message(f"{skipped} {verb} skipped: NaN or infinity.", "warning")
    if run.saver.place is not None:
        run.saver.place.check()
    run.write_summary(summary, run.info.folder)
    run.sinks.finish(summary, run.info.folder)
