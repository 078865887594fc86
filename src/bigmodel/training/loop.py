"""Training: the algorithm on one page, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial

from bigmodel.checkpointing import checkpoint
from bigmodel.data.base import Batch, samples_of
from bigmodel.errors import BigModelError, CheckpointError, DataError, NonFiniteError, counted, reason
from bigmodel.optim.optimizers import training_weights
from bigmodel.reporting.base import Summary
from bigmodel.reporting.summary import write_summary
from bigmodel.runtime import activity
from bigmodel.runtime.signals import Stopped
from bigmodel.training import bookkeeping, validation
from bigmodel.training.plan import Due
from bigmodel.training.profiler import Profiler, profiling
from bigmodel.training.recovery import make_room, may_rewind
from bigmodel.training.run import Run


def fit(run: Run) -> Summary:
    """Trains until the plan is fulfilled, then reads the test part once, with the best weights.

    Raises:
        Stopped: the process was asked to stop; everything is saved.
        NonFiniteError: the loss or a weight became NaN or infinite; the last good checkpoint stays.
        CheckpointError: the disk does not take a checkpoint.
        DeviceError: memory ran out, and halving does not help or was not wanted.
        DataError: a thread that gathers batches hangs.
    """
    with (
        run.signals.waiting(),
        activity.report_progress("Training"),
        _reported(run),
        activity.reporting_to(run.sinks.message),
    ):
        _train(run)
        run.summary.test = validation.test(run)
    return run.summary


def _train(run: Run) -> None:
    """All steps that are left; again from the last checkpoint where that is how to meet a fault."""
    training_weights(run.state.optimizer)
    run.state.model.train()
    run.step.should_pause = run.signals.urgent
    left = run.plan.steps - run.state.progress.step
    run.engine.start(left, run.sinks.message, run.signals.raising)
    if run.config.on_nonfinite == "rewind" and run.state.progress.step == 0:
        _save(run, best=False, last=True, now=True)  # so that there is something to go back to
    while True:
        try:
            with profiling(run) as profiler:
                return _take_steps(run, profiler)
        except (Stopped, DataError):  # between two steps or within an evaluation: all until here is good
            bookkeeping.collect(run)
            _save(run, best=False, last=True, now=True)
            raise
        except NonFiniteError as fault:
            if run.config.on_nonfinite != "rewind":
                raise
            _rewind(run, fault)


def _take_steps(run: Run, profiler: Profiler) -> None:
    plan, progress = run.plan, run.state.progress
    if progress.attended < progress.step:  # the run was stopped in the middle of an evaluation
        _attend(run, plan.due(progress.step))
    if run.over:
        return
    event = plan.next_event(progress.step)
    for epoch in range(progress.step // plan.steps_per_epoch, plan.epochs):
        start = progress.step % plan.steps_per_epoch
        with closing(run.train.blocks(epoch, start, between=run.signals.check)) as blocks:
            for ready in profiler.data(blocks):
                while ready:
                    done = _update(run, ready, event, profiler.reach)
                    progress.step += done
                    run.watch.count(samples_of(ready[:done]))
                    del ready[:done]
                    if look := run.watch.tick():
                        bookkeeping.sign_of_life(run)
                    if progress.step >= event:
                        _attend(run, plan.due(progress.step))
                        if run.over:
                            return
                        event = plan.next_event(progress.step)
                    if run.signals.pending or (look and _minutes_are_over(run)):
                        _heed(run)
                    profiler.step()


def _update(run: Run, ready: list[Batch], event: int, reach: int) -> int:
    """Steps with the first of the batches that lie ready, `reach` at most and none beyond `event`; tells
    how many.

    By smaller pieces where memory runs out, and left between two of them where asked to.
    """
    progress = run.state.progress
    if progress.step + 1 in progress.passed_over:
        bookkeeping.collect(run)  # losses are counted back from the newest step
        return 1
    stops = [event, *(step - 1 for step in progress.passed_over if step > progress.step)]
    batches = ready[: min(run.engine.steps_per_call, reach, min(stops) - progress.step)]
    factors = [run.lr_factor(progress.step + ahead) for ahead in range(len(batches))]
    last = progress.step + len(batches) == event
    while True:
        try:
            if done := run.engine(batches, factors, measure=last):
                return done
        except RuntimeError as error:
            told = make_room(run.engine, error, run.config.on_oom)
        else:
            _heed(run)
            continue
        run.sinks.message(told, "warning")


def _attend(run: Run, due: Due) -> None:
    """Does what is due after a step: evaluate, record, log, save, in this order."""
    progress = run.state.progress
    bookkeeping.collect(run)
    if due.evaluate or due.save:
        run.state.check_finite()  # before a broken model is judged, or called the best
    speed = run.watch.speed()
    improved, figures = validation.validate(run, show=due.log) if due.evaluate else (False, {})
    if progress.stopped_early:
        due = Due(evaluate=True, record=True, log=True, save=True)
    if due.record:
        record = bookkeeping.record(run, figures, speed)
        progress.final = record
        run.sinks.record(record)
        if improved:
            progress.best = record
        if due.log:
            run.sinks.log(record)
    progress.attended = progress.step
    if improved or due.save:
        asked = due.save and run.config.checkpoint.every_steps is not None
        _save(run, best=improved, last=due.save, now=run.over or asked)
    run.watch.resume()


def _rewind(run: Run, fault: NonFiniteError) -> None:
    """Goes back to the last good checkpoint, to pass over the batch that diverged.

    Raises:
        NonFiniteError: that has not helped often enough.
    """
    passed_over, seconds = may_rewind(run.state.progress, fault), run.state.progress.seconds
    run.step.discard_figures()
    run.saver.flush()
    newest = checkpoint.load_newest(run.saver.checkpoints)
    run.state.load(newest.groups, newest.facts)
    run.engine.rebind()
    progress = run.state.progress
    progress.passed_over, progress.seconds = passed_over, seconds
    run.sinks.rewind(progress.attended)
    run.sinks.message(
        f"{fault} Rewound to step {progress.step}; the batch of step {fault.step} is passed over.",
        "warning",
    )


def _save(run: Run, *, best: bool, last: bool, now: bool) -> None:
    """Hands the state to be saved. What was reported until now is handed on first, so that no step is
    acknowledged whose figures could be lost."""
    run.state.progress.seconds += run.watch.lap()
    run.sinks.flush()
    groups, facts = run.state.save()
    facts |= {"data": run.fingerprint, "prepared": run.prepared, "settings": run.settings}
    run.saver.offer(groups, facts, best=best, last=last, now=now)


def _heed(run: Run) -> None:
    """Saves, because a signal or the clock asked for it.

    Raises:
        Stopped: the process was asked to stop.
    """
    run.signals.check()
    bookkeeping.collect(run)
    _save(run, best=False, last=True, now=True)
    if run.signals.pending:
        run.sinks.message(f"Saved after step {run.state.progress.step}, as a signal asked for.")
    run.signals.acknowledged()


def _minutes_are_over(run: Run) -> bool:
    minutes = run.config.checkpoint.every_minutes
    return minutes is not None and run.saver.since_write >= 60 * minutes


@contextmanager
def _reported(run: Run) -> Iterator[None]:
    """Tells the sinks how a run begins and, whatever happens, how it ends; keeps what is held back."""
    summary, folder, progress = run.summary, run.info.folder, run.state.progress
    run.saver.start()
    run.sinks.start(run.info)
    begun = replace(summary, status="running", best=progress.best, final=progress.final)
    write_summary(begun, folder)
    try:
        with _kept(run):
            yield
        summary.status = "finished"
        _conclude(run)
        run.sinks.close()
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        summary.status = "stopped" if stopped else "failed"
        summary.error = (str(error) or "interrupted") if stopped else reason(error)
        for act in (partial(_conclude, run), run.sinks.close):
            with suppress(BigModelError):  # the first fault is the one to tell
                act()
        raise
    finally:
        run.saver.close()


@contextmanager
def _kept(run: Run) -> Iterator[None]:
    """However it is left, what is held back is written: it is from before any fault, and good."""
    try:
        yield
    except CheckpointError:  # the disk takes no more
        raise
    except BaseException:
        run.saver.flush()
        raise


def _conclude(run: Run) -> None:
    summary, progress = run.summary, run.state.progress
    summary.best, summary.final, summary.steps = progress.best, progress.final, progress.step
    summary.epochs = round(progress.step / run.plan.steps_per_epoch, 2)
    summary.seconds = round(progress.seconds + run.watch.lap(), 3)
    # By now it is known how steps were done.
    summary.environment |= {"device": str(run.runtime), "engine": run.engine.name}
    summary.skipped = progress.skipped + len(progress.passed_over)
    if summary.skipped:
        left_out = f"{summary.skipped:,} of {counted(progress.step, 'update')}"
        told = f"{left_out} {'was' if summary.skipped == 1 else 'were'} left out: NaN or infinity."
        run.sinks.message(told, "warning")
    if run.saver.place is not None:
        run.saver.place.check()
    write_summary(summary, run.info.folder)
    run.sinks.finish(summary, run.info.folder)
