"""How a run goes on after a fault in the middle of it: too little memory, or a batch that diverged."""

from __future__ import annotations

from bigmodel.engine.base import Engine
from bigmodel.errors import DeviceError, NonFiniteError, counted
from bigmodel.runtime.memory import is_out_of_memory
from bigmodel.training.plan import OnOOM
from bigmodel.training.state import Progress

MOST_REWINDS = 3
MOST_SKIPPED_IN_A_ROW = 100
"""Updates without a good one between, after which skipping is no way out: the weights themselves, or the
data, are at fault."""


def make_room(engine: Engine, error: RuntimeError, policy: OnOOM) -> str:
    """Has a step that ran out of memory begin again, with half as many samples at once; what the engine
    keeps only for speed goes first.

    The batch stays the same, and with it the order of samples; its gradient is added up from twice as
    many micro-batches.

    Returns:
        What was done, in words.

    Raises:
        RuntimeError: the error itself, where it is another one.
        DeviceError: it is not to be halved any more.
    """
    if not is_out_of_memory(error):
        raise error
    step = engine.step
    size = step.last_micro_batch
    taken_back = policy == "halve" and step.undo()
    if taken_back and (told := give_up_speed(engine, error, policy)):
        return told
    if not taken_back or size == 1:
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


def give_up_speed(engine: Engine, error: RuntimeError, policy: OnOOM) -> str | None:
    """Frees what an engine keeps only for speed, such as a CUDA graph's memory, where memory ran out.

    Returns:
        What was done, in words; None where there was nothing, or the error is another one.
    """
    name = engine.name
    if policy == "halve" and is_out_of_memory(error) and engine.release():
        return (
            f"Out of memory: the memory of device.engine={name} is given up, and steps are done one by"
            " one from now on."
        )
    return None


def smaller_evaluation(size: int, error: RuntimeError, policy: OnOOM) -> int:
    """How many samples to evaluate at once after `size` were too many for the memory.

    Raises:
        RuntimeError: the error itself, where it is another one.
        DeviceError: it is not to be halved any more.
    """
    if not is_out_of_memory(error):
        raise error
    if policy == "stop" or size == 1:
        raise DeviceError(
            f"Out of memory with {size} samples evaluated at once: {str(error).splitlines()[0]}"
            " Take a smaller data.batch_size, or trainer.on_oom=halve."
        ) from error
    return (size + 1) // 2


def skip(progress: Progress, step: int, fault: str) -> str | None:
    """Counts an update that was left out.

    Returns:
        What to tell the user, not every time.

    Raises:
        NonFiniteError: there were too many of them.
    """
    progress.skipped += 1
    progress.skipped_in_row += 1
    if progress.skipped_in_row > MOST_SKIPPED_IN_A_ROW:
        raise NonFiniteError(f"{fault} So were the {MOST_SKIPPED_IN_A_ROW} updates before it.", step)
    told = progress.skipped <= 5 or progress.skipped % 100 == 0
    return f"{fault} Its update was skipped, as {progress.skipped:,} in all." if told else None


def may_rewind(progress: Progress, fault: NonFiniteError) -> list[int]:
    """The steps whose batches are to be passed over from now on.

    Raises:
        NonFiniteError: the fault itself, where rewinding has not helped often enough.
    """
    if len(progress.passed_over) >= MOST_REWINDS or fault.step in progress.passed_over:
        past = ", ".join(map(str, progress.passed_over))
        raise NonFiniteError(
            f"{fault} Rewinding has not helped, past the batches of steps {past}.", fault.step
        ) from fault
    return [*progress.passed_over, fault.step]
