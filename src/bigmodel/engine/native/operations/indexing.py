"""Operations that put tensors together or read them at indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.native.building import (
    Lowering,
    contiguous,
    laid_together,
    layout_of,
    literal,
    made,
    whole,
)
from bigmodel.engine.native.values import (
    Gathered,
    Joined,
    Operand,
    Part,
    Pointwise,
    RowSums,
    Value,
)

aten = torch.ops.aten


def _joined(results: list[Tensor], parts: Sequence[Operand], dim: int = 0) -> list[Value]:
    (result,) = results
    dim %= result.dim()
    value, begin = Joined(**layout_of(result)), 0
    operands = []
    for part in parts:
        shape = part.shape
        if len(shape) < result.dim():  # stack
            shape = (*shape[:dim], 1, *shape[dim:])
            part = part._replace(shape=shape, strides=(*part.strides[:dim], 0, *part.strides[dim:]))
        piece = Part(
            shape=shape,
            strides=value.strides,
            dtype=value.dtype,
            offset=begin * value.strides[dim],
            operands=(part,),
        )
        operands.append(Operand(piece, shape, value.strides))
        begin += shape[dim]
    value.operands = tuple(operands)
    return [value]


def replaced(old: Operand, new: Value) -> Joined:
    """What a tensor holds when a part of it, which lies together, is another value."""
    base, count = old.value, math.prod(old.shape)
    if contiguous(old.shape) != old.strides or new.strides != contiguous(new.shape):
        raise UnknownOperationError("a change of elements that do not lie together")
    end = old.offset + count
    ranges = [(base, 0, old.offset), (new, old.offset, end), (base, end, base.size)]
    parts = [
        Part(
            shape=(stop - begin,),
            strides=(1,),
            dtype=base.dtype,
            offset=begin,
            operands=(Operand(of, (stop - begin,), (1,), 0 if of is new else begin),),
        )
        for of, begin, stop in ranges
        if begin < stop
    ]
    operands = tuple(Operand(part, part.shape, part.strides) for part in parts)
    return Joined(shape=base.shape, strides=base.strides, dtype=base.dtype, operands=operands)


def _gather(results: list[Tensor], x: Operand, dim: int, index: Operand, **_: Any) -> list[Value]:
    return [_gathered(results[0], x, dim % len(x.shape), index)]


def _index_select(results: list[Tensor], x: Operand, dim: int, index: Operand) -> list[Value]:
    dim %= len(x.shape)
    shape = tuple(results[0].shape)
    strides = tuple(index.strides[0] if d == dim else 0 for d in range(len(shape)))
    return [_gathered(results[0], x, dim, index._replace(shape=shape, strides=strides))]


def _embedding(results: list[Tensor], weight: Operand, index: Operand, *_: Any) -> list[Value]:
    (result,) = results
    shape = tuple(result.shape)
    rows = index._replace(shape=shape, strides=(*index.strides, 0))
    source = Operand(weight.value, shape, (*(0 for _ in index.shape), weight.strides[1]), weight.offset)
    return [
        Gathered(
            **layout_of(result), operands=(rows, source), step=weight.strides[0], length=weight.shape[0]
        )
    ]


def _gathered(result: Tensor, x: Operand, dim: int, index: Operand) -> Gathered:
    strides = tuple(0 if d == dim else stride for d, stride in enumerate(x.strides))
    source = x._replace(shape=tuple(result.shape), strides=strides)
    return Gathered(
        **layout_of(result), operands=(index, source), step=x.strides[dim], length=x.shape[dim]
    )


def _index(results: list[Tensor], x: Operand, indices: Sequence[Operand | None]) -> list[Value]:
    """x[…, rows, columns], with tensors of whole numbers one after another."""
    (result,) = results
    places = [d for d, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    if any(index.value.dtype is torch.bool for index in given) or places[-1] - places[0] >= len(places):
        raise UnknownOperationError("indexing with a mask or around a slice")
    shape, first, after = tuple(result.shape), places[0], places[-1] + 1
    lengths, steps = x.shape[first:after], x.strides[first:after]
    count = len(shape) - len(x.shape) + len(places)

    def at(*texts: str) -> str:
        wrapped = (f"({t} < 0 ? {t} + {n} : {t})" for t, n in zip(texts, lengths, strict=True))
        return " + ".join(f"{step} * {t}" for step, t in zip(steps, wrapped, strict=True))

    common = shape[first : first + count]
    linear = made(at, given, common, torch.int64)
    rows = Operand(linear, shape, (*[0] * first, *linear.strides, *[0] * (len(x.shape) - after)))
    strides = (*x.strides[:first], *[0] * count, *x.strides[after:])
    reach = 1 + sum((n - 1) * step for n, step in zip(lengths, steps, strict=True))
    source = x._replace(shape=shape, strides=strides)
    return [Gathered(**layout_of(result), operands=(rows, source), step=1, length=reach)]


def _scatter(results: list[Tensor], x: Operand, dim: int, index: Operand, number: float) -> list[Value]:
    """A number at one index of each row."""
    (result,) = results
    dim %= len(x.shape)
    if index.shape[dim] != 1 or any(index.shape[d] != n for d, n in enumerate(x.shape) if d != dim):
        raise UnknownOperationError("scatter to several places of a row")
    text = literal(number, result.dtype)
    shape = tuple(result.shape)
    return [
        Pointwise(
            **layout_of(result),
            expression=lambda old, place, at: f"({place} == {at} ? {text} : {old})",
            compute=None,
            operands=(x.expanded(shape), index.expanded(shape)),
            counted=dim,
        )
    ]


def _index_add(
    results: list[Tensor], x: Operand, dim: int, index: Operand, source: Operand, alpha: float = 1
) -> list[Value]:
    (result,) = results
    if dim != 0 or alpha != 1 or len(x.shape) > 2:
        raise UnknownOperationError("index_add of more than rows")
    return [RowSums(**layout_of(result), operands=(x, index, source))]


def _embedding_backward(
    results: list[Tensor],
    gradient: Operand,
    index: Operand,
    _: int,
    padding: int,
    by_frequency: bool,
) -> list[Value]:
    (result,) = results
    if padding >= 0 or by_frequency:
        raise UnknownOperationError("an embedding with padding")
    index, gradient = laid_together(index), laid_together(gradient)
    rows, width = math.prod(index.shape), gradient.shape[-1]
    zeros = made(lambda: "0", [], tuple(result.shape), result.dtype)
    flat = index._replace(shape=(rows,), strides=(1,))
    source = gradient._replace(shape=(rows, width), strides=(width, 1))
    return [RowSums(**layout_of(result), operands=(whole(zeros), flat, source))]


INDEXING: dict[Any, Lowering] = {
    aten.index.Tensor: _index,
    aten.cat.default: _joined,
    aten.stack.default: _joined,
    aten.gather.default: _gather,
    aten.index_select.default: _index_select,
    aten.embedding.default: _embedding,
    aten.embedding_dense_backward.default: _embedding_backward,
    aten.scatter.value: _scatter,
    aten.index_add_.default: _index_add,
}
