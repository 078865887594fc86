"""Engines: the ways to do optimizer steps on batches that are ready, one or many in a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from bigmodel.data.base import Batch
from bigmodel.engine.step import Step
from bigmodel.optim.schedulers import apply

Log = Callable[[str], None]
Interruptible = Callable[[], AbstractContextManager[None]]


class Engine:
    """Runs one step after another with torch's own operations (`eager`). Faster engines derive from it.

    Args:
        step: does one update; every engine leaves its metrics there.

    Attributes:
        name: its name in `device.engine`.
        steps_per_call: the most batches that a call does.
        compiler: what has compiled the steps, among compilers; None: nothing.
    """

    name = "eager"
    steps_per_call = 1
    compiler: str | None = None

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """Does updates with the first of the batches, or continues one that was interrupted.

        Args:
            batches: in order, at least one.
            factors: the multiplier of the learning rates for each batch.
            measure: whether to leave the gradient's norm of the last batch in `step.accumulation`.

        Returns:
            How many updates were done; 0 if `step.should_pause` interrupted one between two
            micro-batches. The next call then needs the same batches again.

        Raises:
            DataError: see `Step`.
        """
        apply(self.step.optimizer, factors[0])
        return int(self.step(batches[0], measure and len(batches) == 1))

    def start(self, remaining_steps: int, log: Log, interruptible: Interruptible) -> None:
        """Prepares to start or resume training.

        Args:
            remaining_steps: optimizer steps that are left.
            log: called with a message about each choice and its reason.
            interruptible: entered around slow work that may be interrupted at any moment.
        """

    def release(self) -> bool:
        """Frees memory that is used only for speed; after that, steps run one by one.

        Returns:
            Whether there was any.
        """
        return False

    def retrain(self) -> None:
        """Called when other parameters are trained than before: the next steps are built anew."""

    def rebind(self) -> None:
        """Called after a state was loaded: the optimizer's tensors are new objects."""
