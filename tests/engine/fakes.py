"""Engines that stand for compiled ones."""

from __future__ import annotations

from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import Pieces
from bigmodel.engine.functional_step import Given, Whole
from bigmodel.engine.step import Step


class Fake(Pieces):
    """Does what a compiled step does, by torch's operations.

    Attributes:
        calls: how many steps it did.
    """

    name = "compiled"

    def __init__(self, step: Step, like: Batch) -> None:
        super().__init__(step, like)
        self.calls = 0
        self._whole = Whole(step)

    def once(self, given: Given) -> Tensor:
        self.calls += 1
        return self._whole(self._whole.changed, self._whole.read, given)

    def renew(self) -> None:
        self._whole = Whole(self.step)
