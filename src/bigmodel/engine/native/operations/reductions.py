"""Operations that combine elements along dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.native.building import (
    Lowering,
    contiguous,
    converted,
    literal,
    made,
    of_result,
    whole,
)
from bigmodel.engine.native.values import (
    Expression,
    Operand,
    Reduction,
    Value,
)

aten = torch.ops.aten


def combined(
    operand: Operand, dims: Sequence[int] | None, combine: str, start: str, dtype: torch.dtype
) -> Reduction:
    """An operand combined along some dimensions, which have length 1 in the result."""
    count = len(operand.shape)
    along = set(range(count)) if not dims else {dim % count for dim in dims} if count else set()
    shape = tuple(1 if d in along else size for d, size in enumerate(operand.shape))
    strides = contiguous(shape)
    kept = tuple(0 if d in along else stride for d, stride in enumerate(strides))
    return Reduction(
        shape=shape,
        strides=strides,
        dtype=dtype,
        combine=combine,
        start=start,
        kept=kept,
        operands=(operand,),
    )


def _sum(
    results: list[Tensor], x: Operand, dims: Sequence[int] | None = None, *_: Any, **__: Any
) -> list[Value]:
    (result,) = results
    summed = x if x.value.dtype is result.dtype else whole(converted(x, result.dtype))
    return [of_result(combined(summed, dims, "+", "0", result.dtype), result)]


def _mean(
    results: list[Tensor], x: Operand, dims: Sequence[int] | None = None, *_: Any, **__: Any
) -> list[Value]:
    (result,) = results
    count = math.prod(x.shape) // max(1, result.numel())
    total = whole(of_result(combined(x, dims, "+", "0", result.dtype), result))
    return [made(lambda text: f"{text} / {count}", [total], tuple(result.shape), result.dtype)]


def _logical(combine: str, start: str) -> Lowering:
    def lower(results: list[Tensor], x: Operand, dims: Any = None, *_: Any) -> list[Value]:
        (result,) = results
        true = made(lambda text: f"{text} != 0", [x], x.shape, torch.bool, compute=x.value.dtype)
        along = [dims] if isinstance(dims, int) else dims
        return [of_result(combined(whole(true), along, combine, start, torch.bool), result)]

    return lower


def _extreme(combine: str) -> Lowering:
    def lower(results: list[Tensor], x: Operand, dims: Any = None, *_: Any) -> list[Value]:
        (result,) = results
        most = of_result(combined(x, dims, combine, extreme_start(combine, x), result.dtype), result)
        if not result.is_floating_point():
            return [most]
        undefined = whole(made(lambda v: f"{v} != {v}", [x], x.shape, torch.bool, x.value.dtype))
        some = of_result(combined(undefined, dims, "|", "0", torch.bool), result)
        write: Expression = lambda nan, v: f'({nan} ? __builtin_nan("") : {v})'  # noqa: E731
        value = made(write, [whole(some), whole(most)], tuple(result.shape), result.dtype)
        return [replace(value, compute=None)]

    return lower


def extreme_start(combine: str, x: Operand) -> str:
    if not x.value.dtype.is_floating_point:
        most = torch.iinfo(x.value.dtype if x.value.dtype is not torch.bool else torch.uint8).max
        return f"(-{most})" if combine == "max" else f"{most}"
    return "(-__builtin_inf())" if combine == "max" else "__builtin_inf()"


def _argmax(results: list[Tensor], x: Operand, dim: int | None = None, *_: Any) -> list[Value]:
    """The first index of the largest element."""
    (result,) = results
    if dim is None:
        raise UnknownOperationError("argmax over all dimensions")
    dim %= len(x.shape)
    largest = whole(combined(x, [dim], "max", extreme_start("max", x), x.value.dtype))
    length = x.shape[dim]
    places = made(
        lambda text, most, index: f"({text} == {most} ? {index} : {length - 1})",
        [x, largest],
        x.shape,
        torch.int64,
        compute=x.value.dtype,
        counted=dim,
    )
    return [of_result(combined(whole(places), [dim], "min", str(length), torch.int64), result)]


def _norm(
    results: list[Tensor],
    x: Operand,
    order: float = 2,
    dims: Any = None,
    *_: Any,
    **__: Any,
) -> list[Value]:
    (result,) = results
    if order != 2:
        raise UnknownOperationError(f"a norm of order {order}")
    squares = whole(made(lambda text: f"{text} * {text}", [x], x.shape, result.dtype))
    total = whole(of_result(combined(squares, dims, "+", "0", result.dtype), result))
    return [made(lambda text: f"root({text})", [total], tuple(result.shape), result.dtype)]


def variance(x: Operand, dims: Sequence[int] | None, correction: float) -> tuple[Operand, Operand]:
    """Mean and variance along some dimensions, which stay with length 1."""
    dtype = x.value.dtype
    total = whole(combined(x, dims, "+", "0", dtype))
    count = math.prod(x.shape) / math.prod(total.shape)
    mean = whole(made(lambda text: f"{text} / {literal(count, dtype)}", [total], total.shape, dtype))
    squares = whole(made(lambda a, b: f"({a} - {b}) * ({a} - {b})", [x, mean], x.shape, dtype))
    spread = whole(combined(squares, dims, "+", "0", dtype))
    divisor = literal(max(0.0, count - correction), dtype)
    return mean, whole(made(lambda text: f"{text} / {divisor}", [spread], total.shape, dtype))


def _var_mean(
    results: list[Tensor], x: Operand, dims: Any = None, *, correction: float = 1, **_: Any
) -> list[Value]:
    found = reversed(variance(x, dims, correction))
    return [of_result(part.value, result) for part, result in zip(found, results, strict=True)]


def _var(
    results: list[Tensor], x: Operand, dims: Any = None, correction: float = 1, **_: Any
) -> list[Value]:
    return [of_result(variance(x, dims, correction)[1].value, results[0])]


REDUCTIONS: dict[Any, Lowering] = {
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.all.default: _logical("&", "1"),
    aten.all.dim: _logical("&", "1"),
    aten.any.default: _logical("|", "0"),
    aten.any.dim: _logical("|", "0"),
    aten.amax.default: _extreme("max"),
    aten.amin.default: _extreme("min"),
    aten.argmax.default: _argmax,
    aten.var_mean.correction: _var_mean,
    torch.ops.prims.var.default: _var,
    aten.linalg_vector_norm.default: _norm,
}
