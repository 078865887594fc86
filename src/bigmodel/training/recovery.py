"""How a run recovers: from too little memory, a batch that diverged, a request to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bigmodel.checkpointing import checkpoint
from bigmodel.engine.base import Engine
from bigmodel.engine.step_metrics import StepMetrics
from bigmodel.errors import (
    DataError,
    DeviceError,
    NonFiniteError,
    counted,
    first_line,
    is_out_of_memory,
)
from bigmodel.runtime.signals import Stopped
from bigmodel.training.plan import OnOOM
from bigmodel.training.profiler import Profiler
from bigmodel.training.run import Run

T = TypeVar("T")

MOST_REWINDS = 3
MOST_SKIPPED_IN_A_ROW = 100
"""Skipped updates in a row after which a run ends: the weights themselves, or the data, are at fault."""


@contextmanager
def recovering(run: Run, profiler: Profiler) -> Iterator[None]:
    """Saves the run before a request to stop ends it. After a batch that diverged, goes back to the last
    checkpoint if `trainer.on_nonfinite=rewind`; training then continues after the block."""
    try:
        yield
    except (Stopped, DataError) as error:
        # Raised between two steps or within an evaluation: everything up to here is good. An error of
        # one rank among several is known to that one alone.
        if isinstance(error, DataError) and run.ranks.size > 1:
            raise
        drain_step_metrics(run)
        run.state.progress.spend(run.watch.lap(), run.watch.joules())
        save(run, best=False, last=True, now=True)
        raise
    except NonFiniteError as fault:
        if run.config.on_nonfinite != "rewind":
            raise
        profiler.discard()
        _rewind(run, fault)


def save(run: Run, *, best: bool, last: bool, now: bool) -> None:
    """Has the state saved.

    Args:
        best, last, now: see `Saver.offer`.
    """
    # Records go first, so that no checkpoint counts on a record that could be lost.
    run.sinks.flush()
    groups, facts = run.state.save()
    facts |= {"data": run.fingerprint, "prepared": run.preprocessing, "settings": run.settings}
    parts = run.state.parts_of(groups)
    run.saver.offer(groups, facts, parts=parts, best=best, last=last, now=now)


def drain_step_metrics(run: Run) -> None:
    """Adds the losses of the steps since the last call to the progress. This waits for the device.

    Raises:
        NonFiniteError: a loss or a gradient is NaN or infinite, and such updates are not skipped, or too
            many in a row were.
    """
    progress = run.state.progress
    for step, metrics in progress.add_steps(run.step.drain()):
        fault = _fault(run, step, metrics)
        if run.config.on_nonfinite != "skip":
            raise NonFiniteError(fault, step)
        progress.count_skipped()
        if progress.skipped_in_a_row > MOST_SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"{fault} The {MOST_SKIPPED_IN_A_ROW} updates before it were skipped, too.", step
            )
        total = progress.skipped_updates
        if total <= 5 or total % 100 == 0:  # a line for each would bury all others
            run.sinks.message(f"{fault} Updates skipped so far: {total:,}.", "warning")


def _fault(run: Run, step: int, metrics: StepMetrics) -> str:
    loss = metrics.loss
    if metrics.weight == 0:
        return f"Every target of the batch of step {step} is ignored, so the mean loss is undefined."
    factor = run.state.schedule.factor(step - 1)
    rate = run.state.optimizer.param_groups[0]["initial_lr"] * factor
    what = f"The loss became {loss}"
    if math.isfinite(loss):
        what = f"The loss was {loss:.4g}, but a gradient became NaN or infinite,"
    return (
        f"{what} at step {step} (epoch {run.epoch_of(step)}), at learning rate {rate:.4g}. The update"
        " was skipped. A smaller optimizer.lr, trainer.clip_norm=1.0 or a warm-up (scheduler.warmup)"
        " usually helps."
    )


def _rewind(run: Run, fault: NonFiniteError) -> None:
    """Goes back to the last good checkpoint; the batch that diverged will be skipped.

    Raises:
        NonFiniteError: the run has been rewound too often, or for the same batch before.
    """
    progress = run.state.progress
    skipped, seconds, energy = progress.skipped_steps, progress.seconds, progress.energy
    if len(skipped) >= MOST_REWINDS or fault.step in skipped:
        batches = ", ".join(map(str, skipped))
        raise NonFiniteError(
            f"{fault} Rewinding and skipping the batches of steps {batches} did not help.", fault.step
        ) from fault
    run.step.discard_step_metrics()  # of steps that will be repeated
    run.saver.flush()
    run.ranks.barrier()
    newest = checkpoint.load_newest(run.saver.checkpoints, run.ranks)
    run.state.load(newest.groups, newest.facts)
    run.engine.rebind()
    if run.unfreezing is not None:  # blocks that are trained now may have had no update then
        run.engine.retrain()
    # These do not go back with the rest.
    progress.skipped_steps, progress.seconds = [*skipped, fault.step], seconds
    progress.energy = energy
    run.sinks.rewind(progress.last_completed_step)
    run.sinks.message(
        f"{fault} Rewound to step {progress.step}; the batch of step {fault.step} is skipped.",
        "warning",
    )


def use_less_memory(engine: Engine, error: RuntimeError, policy: OnOOM) -> str:
    """Prepares to repeat a step that ran out of memory, with half as many samples at once; memory that
    the engine keeps only for speed is released first.

    The batch stays the same, and with it the order of samples; its gradient is accumulated over twice as
    many micro-batches.

    Returns:
        A message that says what was done.

    Raises:
        RuntimeError: the error itself, if it is about something else.
        DeviceError: the micro-batch cannot be halved, or `policy` forbids it.
    """
    if not is_out_of_memory(error):
        raise error
    step = engine.step
    size = step.last_micro_batch
    undone = policy == "halve" and step.undo()
    if undone and (message := _release(engine)):
        return message
    if not undone or size == 1:
        raise DeviceError(
            f"Out of memory with {counted(size, 'sample')} at once: {first_line(error)} A"
            " smaller data.batch_size (or data.batch_tokens) with a larger trainer.accumulate gives the"
            " same gradient in less memory; trainer.on_oom=halve does so by itself."
        ) from error
    half = step.accumulation.micro_batch = (size + 1) // 2
    return (
        f"Out of memory with {counted(size, 'sample')} at once. From now on {half}"
        f" {'goes' if half == 1 else 'go'} through the model at once, and the gradients are"
        " added up to those of the same batch (trainer.on_oom=halve)."
    )


def evaluate_in_memory(
    run: Run, size: int, act: Callable[[int], T], reduce: Callable[[int, int], str]
) -> T:
    """Evaluates with fewer and fewer samples at once until memory suffices.

    Args:
        size: how many samples at once to try first.
        act: evaluates, given how many.
        reduce: called before fewer samples are tried, with how many were too many and how many are
            next; it returns a message for the user.

    Returns:
        What `act` returned.

    Raises:
        DeviceError: the number cannot be halved, or `trainer.on_oom` forbids it.
    """
    while True:
        try:
            return act(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            message = _release(run.engine) if run.config.on_oom == "halve" else None
            if message is None:
                if run.config.on_oom == "stop" or size == 1:
                    raise DeviceError(
                        f"Out of memory with {size} samples evaluated at once:"
                        f" {first_line(error)} Use a smaller data.batch_size, or"
                        " trainer.on_oom=halve."
                    ) from error
                before, size = size, (size + 1) // 2
                message = reduce(before, size)
        run.sinks.message(message, "warning")


def _release(engine: Engine) -> str | None:
    """Releases memory that an engine keeps only for speed; None if there is none."""
    name = engine.name
    if not engine.release():
        return None
    return (
        f"Out of memory: the memory of device.engine={name} is released, and steps run eagerly from now "
        "on."
    )
