"""How a run goes on after a fault: too little memory, a batch that diverged, a request to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bigmodel.checkpointing import checkpoint
from bigmodel.engine.base import Engine
from bigmodel.engine.step_metrics import StepMetrics
from bigmodel.errors import DataError, DeviceError, NonFiniteError, counted, is_out_of_memory
from bigmodel.runtime.signals import Stopped
from bigmodel.training.plan import OnOOM
from bigmodel.training.profiler import Profiler
from bigmodel.training.run import Run

T = TypeVar("T")

MOST_REWINDS = 3
MOST_SKIPPED_IN_A_ROW = 100
"""Updates without a good one between, after which skipping is no way out: the weights themselves, or the
data, are at fault."""


@contextmanager
def recovering(run: Run, profiler: Profiler) -> Iterator[None]:
    """Within it, a request to stop saves the run first, and a batch that diverged leads back to the last
    checkpoint if `trainer.on_nonfinite=rewind`: the block is left, and training goes on after it."""
    try:
        yield
    except (Stopped, DataError):
        # These come between two steps or within an evaluation: everything up to here is good.
        drain_step_metrics(run)
        run.state.progress.seconds += run.watch.lap()
        save(run, best=False, last=True, now=True)
        raise
    except NonFiniteError as fault:
        if run.config.on_nonfinite != "rewind":
            raise
        profiler.discard()
        _rewind(run, fault)


def save(run: Run, *, best: bool, last: bool, now: bool) -> None:
    """Hands the state over to be saved.

    Args:
        best, last, now: see `Saver.offer`.
    """
    # Records go first, so that no checkpoint counts on a record that could be lost.
    run.sinks.flush()
    groups, facts = run.state.save()
    facts |= {"data": run.fingerprint, "prepared": run.preprocessing, "settings": run.settings}
    run.saver.offer(groups, facts, best=best, last=last, now=now)


def drain_step_metrics(run: Run) -> None:
    """Adds the losses of the steps since the last call to the progress. This waits for the device.

    Raises:
        NonFiniteError: a loss or a gradient is NaN or infinite, and such updates are not to be skipped,
            or too many of them were.
    """
    progress = run.state.progress
    for step, metrics in progress.add_steps(run.step.drain()):
        fault = _fault(run, step, metrics)
        if run.config.on_nonfinite != "skip":
            raise NonFiniteError(fault, step)
        progress.count_skipped()
        if progress.skipped_in_a_row > MOST_SKIPPED_IN_A_ROW:
            raise NonFiniteError(f"{fault} So were the {MOST_SKIPPED_IN_A_ROW} updates before it.", step)
        total = progress.skipped_updates
        if total <= 5 or total % 100 == 0:  # a line for each would bury all others
            run.sinks.message(f"{fault} Its update was skipped, as {total:,} in all.", "warning")


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
        " was left out. A smaller optimizer.lr, trainer.clip_norm=1.0 or a warm-up (scheduler.warmup)"
        " usually helps."
    )


def _rewind(run: Run, fault: NonFiniteError) -> None:
    """Goes back to the last good checkpoint; the batch that diverged will be left out.

    Raises:
        NonFiniteError: rewinding has not helped often enough.
    """
    progress = run.state.progress
    skipped, seconds = progress.skipped_steps, progress.seconds
    if len(skipped) >= MOST_REWINDS or fault.step in skipped:
        past = ", ".join(map(str, skipped))
        raise NonFiniteError(
            f"{fault} Rewinding has not helped, past the batches of steps {past}.", fault.step
        ) from fault
    run.step.discard_step_metrics()  # losses that were not drained are of steps that will be done again
    run.saver.flush()
    newest = checkpoint.load_newest(run.saver.checkpoints)
    run.state.load(newest.groups, newest.facts)
    run.engine.rebind()
    # Neither of these goes back with the rest.
    progress.skipped_steps, progress.seconds = [*skipped, fault.step], seconds
    run.sinks.rewind(progress.last_completed_step)
    run.sinks.message(
        f"{fault} Rewound to step {progress.step}; the batch of step {fault.step} is skipped.",
        "warning",
    )


def use_less_memory(engine: Engine, error: RuntimeError, policy: OnOOM) -> str:
    """Prepares to repeat a step that ran out of memory, with half as many samples at once; memory that
    the engine keeps only for speed is given up first.

    The batch stays the same, and with it the order of samples; its gradient is added up from twice as
    many micro-batches.

    Returns:
        What was done, in words.

    Raises:
        RuntimeError: the error itself, if it is about something else.
        DeviceError: it cannot, or is not to be, halved any more.
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
            f"Out of memory with {counted(size, 'sample')} at once: {str(error).splitlines()[0]} A"
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
        reduce: called with how many were too many and how many are tried next, before they are; it
            returns what to tell the user.

    Returns:
        What `act` returned.

    Raises:
        DeviceError: it cannot, or is not to be, halved any more.
    """
    while True:
        try:
            return act(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            words = _release(run.engine) if run.config.on_oom == "halve" else None
            if words is None:
                if run.config.on_oom == "stop" or size == 1:
                    raise DeviceError(
                        f"Out of memory with {size} samples evaluated at once:"
                        f" {str(error).splitlines()[0]} Use a smaller data.batch_size, or"
                        " trainer.on_oom=halve."
                    ) from error
                before, size = size, (size + 1) // 2
                words = reduce(before, size)
        run.sinks.message(words, "warning")


def _release(engine: Engine) -> str | None:
    """Gives up memory that an engine keeps only for speed, such as a CUDA graph's, if there is any."""
    name = engine.name
    if not engine.release():
        return None
    return (
        f"Out of memory: the memory of device.engine={name} is released, and steps run eagerly from now "
        "on."
    )
