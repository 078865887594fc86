"""What an engine is: it does the updates of batches that lie ready, one or many in a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from bigmodel.data.base import Batch
from bigmodel.engine.step import Step
from bigmodel.optim.schedulers import apply

Say = Callable[[str], None]
Interruptible = Callable[[], AbstractContextManager[None]]


class Engine:
    """One update after another by torch's operations: `eager`. Faster engines derive from it.

    Args:
        step: does one update; every engine leaves its figures there.

    Attributes:
        name: as `device.engine` calls it.
        reach: how many batches a call does at most.
    """

    name = "eager"
    reach = 1

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """Does the updates of some of the first batches, or goes on with one that was left.

        Args:
            batches: in their order, one at least.
            factors: what to multiply the learning rates with, for each.
            measure: whether to leave the gradient's norm of the last of them in `step.accumulation`.

        Returns:
            How many are done; 0 where `step.pause` had one left between two micro-batches. Then the
            same batches have to come again.

        Raises:
            DataError: see `Step`.
        """
        apply(self.step.optimizer, factors[0])
        return int(self.step(batches[0], measure and len(batches) == 1))

    def begin(self, left: int, say: Say, interruptible: Interruptible) -> None:
        """Training begins, or goes on.

        Args:
            left: steps that are still to be done.
            say: is told in words what was chosen, and why.
            interruptible: entered while something takes long that may be left at any moment.
        """

    def release(self) -> bool:
        """Gives up memory that only speeds steps up; says whether there was any. Steps are done one by
        one from then on."""
        return False

    def renew(self) -> None:
        """The state has been loaded anew: tensors that the optimizer keeps are others now."""
