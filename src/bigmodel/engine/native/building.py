"""What operations are made of: numbers in C, and values between two operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.native.values import Expression, Operand, Pointwise, Shape, Value

Lowering = Callable[..., list[Value]]
"""Given the tensors that an operation returned, and its arguments with operands in place of tensors: the
values of those that it returned."""

C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "i64",
    torch.int32: "int",
    torch.uint8: "unsigned char",
    torch.bool: "int",
}
"""The types that there are, of variables; a bool in memory is an unsigned char."""


def literal(number: float, dtype: torch.dtype) -> str:
    """A number in C."""
    if dtype not in (torch.float32, torch.float64):
        return str(int(number))
    if math.isnan(number):
        return '__builtin_nan("")'
    if math.isinf(number):
        return "__builtin_inf()" if number > 0 else "(-__builtin_inf())"
    return f"({float(number)!r}{'f' if dtype is torch.float32 else ''})"


def layout_of(tensor: Tensor) -> dict[str, Any]:
    """A tensor's shape, strides and type, as `Value` has them."""
    if tensor.dtype not in C_TYPES:
        raise UnknownOperationError(f"tensors of {tensor.dtype}")
    return {"shape": tuple(tensor.shape), "strides": tuple(tensor.stride()), "dtype": tensor.dtype}


def whole(value: Value) -> Operand:
    """A value as an operand."""
    return Operand(value, value.shape, value.strides)


def contiguous(shape: Shape) -> Shape:
    """The strides of a tensor whose last dimension lies together."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))[: len(shape)] if shape else ()


def made(
    expression: Expression,
    operands: Sequence[Operand],
    shape: Shape,
    dtype: torch.dtype,
    compute: torch.dtype | None = None,
    counted: int | None = None,
) -> Pointwise:
    """A value between two operations."""
    return Pointwise(
        shape=shape,
        strides=contiguous(shape),
        dtype=dtype,
        expression=expression,
        compute=compute or dtype,
        operands=tuple(operand.expanded(shape) for operand in operands),
        counted=counted,
    )


def in_memory(operand: Operand) -> Operand:
    """A constant as a value that is written down; others as they are."""
    value = operand.value
    if not isinstance(value, Pointwise) or (text := value.constant) is None:
        return operand
    written = replace(value, expression=lambda _: text, counted=0)
    return operand._replace(value=written)


def converted(x: Operand, dtype: torch.dtype) -> Pointwise:
    return made(lambda text: text, [x], x.shape, dtype)


def laid_together(operand: Operand) -> Operand:
    """An operand whose last dimension lies together, and so on: a copy, unless it is so already."""
    if contiguous(operand.shape) == operand.strides:
        return operand
    return whole(converted(operand, operand.value.dtype))


def of_result(value: Value, result: Tensor) -> Value:
    """A contiguous value in the shape of a tensor that has as many elements."""
    value.shape, value.strides = tuple(result.shape), contiguous(tuple(result.shape))
    return value


class Number(str):
    """C of a number that an operation was given.

    Attributes:
        value: the number.
    """

    value: float

    @classmethod
    def of(cls, value: float, dtype: torch.dtype) -> Number:
        number = cls(literal(value, dtype))
        number.value = value
        return number
