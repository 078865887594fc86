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
    """Does one update after another by torch's operations: `eager`. Faster engines derive from it.

    Args:
        step: does one update; every engine leaves its metrics there.

    Attributes:
        name: its name in `device.engine`.
        steps_per_call: the most batches that a call does.
    """

    name = "eager"
    steps_per_call = 1

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """Does the updates of some of the first batches, or goes on with one that was interrupted.

        Args:
            batches: in order, at least one.
            factors: the multiplier of the learning rates for each batch.
            measure: whether to leave the gradient's norm of the last batch in `step.accumulation`.

        Returns:
            How many updates were done; 0 if `step.should_pause` interrupted one between two
            micro-batches. Then the same batches have to come again.

        Raises:
            DataError: see `Step`.
        """
        apply(self.step.optimizer, factors[0])
        return int(self.step(batches[0], measure and len(batches) == 1))

    def start(self, remaining_steps: int, log: Log, interruptible: Interruptible) -> None:
        """Prepares for training, which begins or goes on.

        Args:
            remaining_steps: how many steps are still to be done.
            log: called with a message about each choice and its reason.
            interruptible: entered around slow work that may be interrupted at any moment.
        """

    def release(self) -> bool:
        """Frees memory that only makes steps faster; from then on steps are done one by one.

        Returns:
            Whether there was any.
        """
        return False

    def rebind(self) -> None:
        """Follows a state that was loaded: the optimizer's tensors are other objects now."""
