"""What a recorded step consists of: values in memory, and how each is computed from others.

A value fills memory of its own. An operand reads such memory by strides, as torch's views do, so that
transposing, slicing, expanding and reshaping are no operations here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

Shape = tuple[int, ...]


class Draw(NamedTuple):
    """Random numbers for one step: 1 with a probability, else 0.

    Attributes:
        numbers: how many.
        share: the probability.
    """

    numbers: int
    share: float


Expression = Callable[..., str]
"""C of a value, given that of its operands."""


@dataclass(eq=False, kw_only=True)
class Value:
    """A tensor that fills its memory.

    Attributes:
        shape, strides: of its elements; strides in elements.
        operands: what it is computed from.
    """

    shape: Shape
    strides: Shape
    dtype: torch.dtype
    operands: tuple[Operand, ...] = ()

    @property
    def size(self) -> int:
        """Elements of its memory."""
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))


class Operand(NamedTuple):
    """A value as an operation reads it: element i lies at offset + Σ i_d strides_d."""

    value: Value
    shape: Shape
    strides: Shape
    offset: int = 0

    def expanded(self, shape: Shape) -> Operand:
        """Broadcast to a shape."""
        own = zip(self.shape, self.strides, strict=True)
        strides = [0 if size == 1 else stride for size, stride in own]
        missing = [0] * (len(shape) - len(strides))
        return self._replace(shape=shape, strides=(*missing, *strides))

    @property
    def is_whole(self) -> bool:
        """Whether element for element it is the value itself."""
        return self.offset == 0 and laid_out(self) == laid_out(self.value)


def laid_out(of: Value | Operand) -> tuple[tuple[int, int], ...]:
    """Length and stride of each dimension that has more than one element."""
    return tuple(pair for pair in zip(of.shape, of.strides, strict=True) if pair[0] != 1)


@dataclass(eq=False, kw_only=True)
class Input(Value):
    """Memory that is given.

    Attributes:
        position: in the order of the step's tensors, its inputs, and what is drawn for it.
    """

    position: int


@dataclass(eq=False, kw_only=True)
class Unwritten(Value):
    """Memory that no operation has written to; something else may have."""


@dataclass(eq=False, kw_only=True)
class Pointwise(Value):
    """Element by element, from operands of its own shape.

    Attributes:
        expression: of the operands, then of the index along `counted`.
        compute: the type that operands are converted to; None: each stays as it is.
        counted: a dimension whose index is used, or None.
    """

    expression: Expression
    compute: torch.dtype | None
    counted: int | None = None

    @property
    def constant(self) -> str | None:
        """Its C, if all elements are the same number."""
        return None if self.operands or self.counted is not None else self.expression()


@dataclass(eq=False, kw_only=True)
class Gathered(Value):
    """Elements of the second operand at the indices that the first one holds.

    Attributes:
        step: between two indices, in elements of the second operand's memory.
        length: indices are less; another one stops the run.
    """

    step: int
    length: int


@dataclass(eq=False, kw_only=True)
class Reduction(Value):
    """Elements of its operand combined along some dimensions.

    Attributes:
        combine: `+`, `*`, `max`, `min`, `&` or `|`.
        start: what combining begins with, in C.
        kept: for each dimension of the operand: this value's stride along it; 0 where it is combined.
    """

    combine: str
    start: str
    kept: Shape


@dataclass(eq=False, kw_only=True)
class Part(Value):
    """Its operand, written into a `Joined`.

    Attributes:
        offset: where it begins there; its strides are the strides there.
    """

    offset: int


@dataclass(eq=False, kw_only=True)
class Joined(Value):
    """Memory that several parts fill, which are its operands."""


@dataclass(eq=False, kw_only=True)
class Product(Value):
    """(batch, m, k) by (batch, k, n), float32."""


@dataclass(eq=False, kw_only=True)
class RowSums(Value):
    """The first operand, with rows of the third added at the indices in the second."""
