"""The steps of an epoch, one call of the engine after another, and what is due after each."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from bigmodel.data.base import Block
from bigmodel.training.plan import OUT_OF_TIME, Due
from bigmodel.training.profiler import Profiler
from bigmodel.training.recovery import use_less_memory
from bigmodel.training.run import Run
from bigmodel.training.unfreezing import unfreeze


def steps(run: Run, epoch: int, profiler: Profiler) -> Generator[tuple[int, Due | None]]:
    """Does the remaining steps of an epoch.

    The caller has to add their number to `progress.step`, and to do what is due, before it asks for
    more.

    Yields:
        How many steps were done, and what is due after them; None: nothing. The number may be 0.

    Raises:
        Stopped: the process was asked to stop.
        DeviceError: memory ran out, and no less can be used.
        DataError: a batch could not be prepared, or all of its targets are ignored.
    """
    plan, progress, watch, signals = run.plan, run.state.progress, run.watch, run.signals
    if progress.last_completed_step < progress.step:  # stopped during an evaluation
        yield 0, OUT_OF_TIME if progress.out_of_time else plan.due(progress.step)
        watch.resume()
    if run.over:
        return
    unfreeze(run, epoch)
    event = plan.next_event(progress.step)
    start = progress.step % plan.steps_per_epoch
    with closing(run.train.blocks(epoch, start, between=signals.check)) as blocks:
        for block in profiler.data(blocks):
            ready = block  # batches that are prepared already; the engine takes as many as it can use
            while ready:
                if progress.step + 1 in progress.skipped_steps:
                    # Its batch is skipped, and it has no loss. Losses are matched with steps by
                    # counting back from the newest, so those before are drained first.
                    yield 0, Due()
                    done = 1
                else:
                    done = _call_engine(run, ready, event, profiler.steps_per_call)
                watch.count(ready[:done].samples)
                ready = ready[done:]
                at_event = progress.step + done >= event
                due = plan.due(progress.step + done) if at_event else None
                if report := watch.tick():
                    due = replace(due or Due(), report=True)
                    if _is_out_of_time(run):
                        due = OUT_OF_TIME
                yield done, due
                if at_event or due is OUT_OF_TIME:
                    if run.over:
                        return
                    watch.resume()
                    event = plan.next_event(progress.step)
                paused = done == 0  # between two micro-batches, since a request to stop is urgent
                if paused or signals.pending or (report and _minutes_are_over(run)):
                    signals.check()  # a request to stop is handled by `recovering`, which saves as well
                    yield 0, Due(save=True, save_now=True)
                    if signals.pending:
                        run.sinks.message(f"Saved after step {progress.step}, as a signal requested.")
                    signals.acknowledged()
                profiler.step()


def _call_engine(run: Run, ready: Block, event: int, most: int) -> int:
    """Does steps with the first of the batches, `most` of them and none beyond step `event`.

    Returns:
        How many were done; 0 if the engine was paused between two micro-batches.
    """
    progress = run.state.progress
    limit = min(run.engine.steps_per_call, most, event - progress.step)
    if progress.skipped_steps:
        ahead = [step for step in progress.skipped_steps if step > progress.step]
        limit = min([limit, *(step - 1 - progress.step for step in ahead)])
    batches = ready[:limit]
    factors = run.state.schedule.factors(progress.step, len(batches))
    # The gradient's norm costs a kernel or two; it is measured only where a record may need it.
    measure = progress.step + len(batches) == event
    while True:
        try:
            return run.engine(batches, factors, measure=measure)
        except RuntimeError as error:
            message = use_less_memory(run.engine, error, run.config.on_oom)
            run.sinks.message(message, "warning")


def _is_out_of_time(run: Run) -> bool:
    most = run.config.max_minutes
    if most is None:
        return False
    return run.ranks.from_first(run.state.progress.seconds + run.watch.since_lap >= 60 * most)


def _minutes_are_over(run: Run) -> bool:
    minutes = run.config.checkpoint.every_minutes
    if minutes is None:
        return False
    return run.ranks.from_first(run.saver.seconds_since_write >= 60 * minutes)
