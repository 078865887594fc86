"""Steps as compiled code: forward, backward, clip and optimizer in one piece, without torch between."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import Pieces
from bigmodel.engine.functional_step import Given, Whole
from bigmodel.engine.step import Step

Code = Callable[[list[Tensor]], list[Tensor]]
"""What a compiler makes of a `Whole`: all tensors in, the figures out."""


class Compiled(Pieces):
    """Runs a compiled step.

    Args:
        step: whose tensors it works on.
        whole: what was compiled.
        code: the outcome.
        like: a batch like those that it was compiled for.
    """

    name = "compiled"

    def __init__(self, step: Step, whole: Whole, code: Code, like: Batch) -> None:
        super().__init__(step, like)
        self._code = code
        self._tensors = [*whole.changed, *whole.read]

    def once(self, given: Given) -> Tensor:
        """See `Pieces.once`."""
        # Torch may hand out the same memory at each call.
        return self._code([*self._tensors, *given])[0].clone()

    def renew(self) -> None:
        """See `Engine.renew`."""
        whole = Whole(self.step)
        self._tensors = [*whole.changed, *whole.read]
