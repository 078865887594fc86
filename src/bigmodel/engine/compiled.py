"""Steps as compiled code: forward, backward, clip and optimizer in one piece, without torch between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.base import Interruptible
from bigmodel.engine.fixed_shape import FixedShapeEngine
from bigmodel.engine.functional_step import FunctionalStep, StepInputs, StepTensors
from bigmodel.engine.step import Step

Code = Callable[[list[Tensor]], list[Tensor]]
"""Compiled code of a `FunctionalStep`: takes all tensors and the inputs, returns the step's metrics."""


class UnknownOperationError(Exception):
    """A compiler does not know an operation, or a way to use it; the message names it."""


class Compiler(Protocol):
    """What makes code from steps; a module.

    Attributes:
        NAME: among compilers.
    """

    NAME: str

    def accepts(self, function: FunctionalStep, inputs: StepInputs) -> bool:
        """Whether a step is for this compiler, as far as can be told before it is traced."""

    def estimate(self, function: FunctionalStep) -> float:
        """Seconds that compiling takes."""

    def share_saved(self, function: FunctionalStep) -> float:
        """The share of an eager step's time, 0 to 1, that is saved at least."""

    def compile_step(
        self,
        function: FunctionalStep,
        inputs: StepInputs,
        path: Path,
        begin: Callable[[], None],
        interruptible: Interruptible,
    ) -> None:
        """Compiles a step into a library.

        Args:
            inputs: a batch like all those to come, and its rates.
            begin: called when it is known that there is something to compile.
            interruptible: entered around what may be interrupted at any moment: not around the tracing,
                in which model and optimizer work on other tensors than their own.

        Raises:
            UnknownOperationError: this compiler cannot; another may.
            UntraceableError: the step cannot be written as a function of tensors.
            Exception: anything that a compiler raises.
        """

    def load(self, path: Path, step: Step, example: Batch) -> FixedShapeEngine:
        """The engine that runs a library.

        Raises:
            OSError, RuntimeError: it cannot be loaded.
        """


class CompiledEngine(FixedShapeEngine):
    """Runs a compiled step.

    Args:
        step: whose tensors it works on.
        code: the compiled `FunctionalStep` of that step.
        example: a batch like those that it was compiled for.
    """

    name = "compiled"
    compiler = "inductor"

    def __init__(self, step: Step, code: Code, example: Batch) -> None:
        super().__init__(step, example)
        self._code = code
        self.rebind()

    def run_step(self, inputs: StepInputs) -> Tensor:
        """See `FixedShapeEngine.run_step`."""
        # Without a copy the next call could write its metrics into the same memory.
        return self._code([*self._tensors, *inputs])[0].clone()

    def rebind(self) -> None:
        """See `Engine.rebind`."""
        self._tensors = StepTensors.of(self.step).flatten()
