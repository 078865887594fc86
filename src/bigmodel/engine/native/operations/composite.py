"""What networks are made of, in terms of the other operations: softmax, norms, losses."""

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
    literal,
    made,
    of_result,
    whole,
)
from bigmodel.engine.native.operations.reductions import combined, extreme_start, variance
from bigmodel.engine.native.values import (
    Expression,
    Gathered,
    Operand,
    Value,
)

aten = torch.ops.aten


def _softmax(results: list[Tensor], x: Operand, dim: int, _: bool) -> list[Value]:
    (result,) = results
    shifted, total = _exponentials(x, dim)
    powers = made(lambda text: f"exponential({text})", [shifted], x.shape, result.dtype)
    return [made(lambda text, sum_: f"{text} / {sum_}", [whole(powers), total], x.shape, result.dtype)]


def _log_softmax(results: list[Tensor], x: Operand, dim: int, _: bool) -> list[Value]:
    (result,) = results
    shifted, total = _exponentials(x, dim)
    log = whole(made(lambda text: f"logarithm({text})", [total], total.shape, result.dtype))
    return [made(lambda text, log_: f"{text} - {log_}", [shifted, log], x.shape, result.dtype)]


def _exponentials(x: Operand, dim: int) -> tuple[Operand, Operand]:
    """x less its largest element along a dimension, and the sum of its exponentials there."""
    dtype = x.value.dtype
    largest = whole(combined(x, [dim], "max", extreme_start("max", x), dtype))
    shifted = whole(made(lambda text, most: f"{text} - {most}", [x, largest], x.shape, dtype))
    powers = whole(made(lambda text: f"exponential({text})", [shifted], x.shape, dtype))
    return shifted, whole(combined(powers, [dim], "+", "0", dtype))


def _softmax_backward(results: list[Tensor], g: Operand, y: Operand, dim: int, _: Any) -> list[Value]:
    (result,) = results
    products = whole(made(lambda a, b: f"{a} * {b}", [g, y], g.shape, result.dtype))
    total = whole(combined(products, [dim], "+", "0", result.dtype))
    return [made(lambda a, b, c: f"{a} - {b} * {c}", [products, y, total], g.shape, result.dtype)]


def _log_softmax_backward(
    results: list[Tensor], g: Operand, y: Operand, dim: int, _: Any
) -> list[Value]:
    (result,) = results
    total = whole(combined(g, [dim], "+", "0", result.dtype))
    return [made(lambda a, b, c: f"{a} - exponential({b}) * {c}", [g, y, total], g.shape, result.dtype)]


def _layer_norm(
    _: list[Tensor],
    x: Operand,
    shape: Sequence[int],
    weight: Operand | None,
    bias: Operand | None,
    eps: float,
) -> list[Value]:
    dtype, dims = x.value.dtype, range(-len(shape), 0)
    mean, spread = variance(x, list(dims), 0)
    small = literal(eps, dtype)
    scale = whole(made(lambda v: f"1 / root({v} + {small})", [spread], spread.shape, dtype))
    value = made(lambda a, m, r: f"({a} - {m}) * {r}", [x, mean, scale], x.shape, dtype)
    if weight is not None:
        value = made(lambda a, w: f"{a} * {w}", [whole(value), weight], x.shape, dtype)
    if bias is not None:
        value = made(lambda a, b: f"{a} + {b}", [whole(value), bias], x.shape, dtype)
    return [value, mean.value, scale.value]


def _layer_norm_backward(
    results: list[Tensor],
    g: Operand,
    x: Operand,
    shape: Sequence[int],
    mean: Operand,
    scale: Operand,
    weight: Operand | None,
    _: Operand | None,
    needs: Sequence[bool],
) -> list[Value]:
    dtype, inner, outer = x.value.dtype, len(shape), len(x.shape) - len(shape)
    dims = list(range(-inner, 0))
    normal = whole(made(lambda a, m, r: f"({a} - {m}) * {r}", [x, mean, scale], x.shape, dtype))
    scaled = g
    if weight is not None:
        scaled = whole(made(lambda a, w: f"{a} * {w}", [g, weight], x.shape, dtype))
    products = whole(made(lambda a, b: f"{a} * {b}", [scaled, normal], x.shape, dtype))
    sums = [whole(combined(part, dims, "+", "0", dtype)) for part in (scaled, products)]
    n = literal(math.prod(shape), dtype)
    to_x = made(
        lambda a, y, s, p, r: f"{r} * ({a} - ({s} + {y} * {p}) / {n})",
        [scaled, normal, *sums, scale],
        x.shape,
        dtype,
    )
    to_weight = whole(made(lambda a, b: f"{a} * {b}", [g, normal], x.shape, dtype))
    found: list[Value] = [to_x] if needs[0] else []
    for part, needed in zip((to_weight, g), needs[1:], strict=True):
        if needed:
            along = combined(part, list(range(outer)), "+", "0", dtype)
            found.append(of_result(along, results[len(found)]))
    return found


def _nll(
    _: list[Tensor],
    x: Operand,
    target: Operand,
    weight: Operand | None,
    reduction: int,
    ignored: int,
) -> list[Value]:
    """The loss of log-probabilities, and the sum of the weights that counted."""
    if len(x.shape) != 2:
        raise UnknownOperationError("a loss of one sample")
    dtype, rows = x.value.dtype, x.shape[0]
    counts, picked = _picked(x, target, weight, ignored)
    losses = whole(made(lambda c, p: f"({c} == 0 ? 0 : -{c} * {p})", [counts, picked], (rows,), dtype))
    total_weight = whole(_scalar(combined(counts, None, "+", "0", dtype)))
    if reduction == 0:
        return [losses.value, total_weight.value]
    total = whole(_scalar(combined(losses, None, "+", "0", dtype)))
    if reduction == 1:
        total = whole(made(lambda a, b: f"{a} / {b}", [total, total_weight], (), dtype))
    return [total.value, total_weight.value]


def _picked(
    x: Operand, target: Operand, weight: Operand | None, ignored: int
) -> tuple[Operand, Operand]:
    """By row: what it counts, and the element of x at the target."""
    rows, dtype = (x.shape[0],), x.value.dtype
    at = whole(made(lambda t: f"({t} == {ignored} ? 0 : {t})", [target], rows, torch.int64))
    source = Operand(x.value, rows, (x.strides[0],), x.offset)
    picked = Gathered(
        shape=rows,
        strides=(1,),
        dtype=dtype,
        operands=(at, source),
        step=x.strides[1],
        length=x.shape[1],
    )
    if weight is None:
        counts = made(lambda t: f"{t} != {ignored}", [target], rows, dtype, compute=torch.int64)
        return whole(counts), whole(picked)
    source = Operand(weight.value, rows, (0,), weight.offset)
    weights = Gathered(
        shape=rows, strides=(1,), dtype=dtype, operands=(at, source), step=1, length=x.shape[1]
    )
    write: Expression = lambda w, t: f"({t} != {ignored} ? {w} : 0)"  # noqa: E731
    counts = replace(made(write, [whole(weights), target], rows, dtype), compute=None)
    return whole(counts), whole(picked)


def _nll_backward(
    _: list[Tensor],
    g: Operand,
    x: Operand,
    target: Operand,
    weight: Operand | None,
    reduction: int,
    ignored: int,
    total_weight: Operand,
) -> list[Value]:
    if len(x.shape) != 2:
        raise UnknownOperationError("a loss of one sample")
    dtype = x.value.dtype
    counts = _picked(x, target, weight, ignored)[0]
    if reduction == 1:
        g = whole(made(lambda a, b: f"{a} / {b}", [g, total_weight], (), dtype))
    each = whole(made(lambda a, c: f"-{a} * {c}", [g, counts], counts.shape, dtype))
    column = each._replace(shape=(*each.shape, 1), strides=(1, 0))
    places = target._replace(shape=(*target.shape, 1), strides=(*target.strides, 0))
    value = made(
        lambda a, t, index: f"({t} == {index} ? {a} : 0)", [column, places], x.shape, dtype, counted=1
    )
    value.compute = None
    return [value]


def _scalar(value: Value) -> Value:
    value.shape = value.strides = ()
    return value


def _mse(results: list[Tensor], x: Operand, y: Operand, reduction: int = 1) -> list[Value]:
    (result,) = results
    squares = whole(made(lambda a, b: f"({a} - {b}) * ({a} - {b})", [x, y], x.shape, result.dtype))
    if reduction == 0:
        return [squares.value]
    total = whole(of_result(combined(squares, None, "+", "0", result.dtype), result))
    if reduction == 2:
        return [total.value]
    return [made(lambda a: f"{a} / {math.prod(x.shape)}", [total], (), result.dtype)]


def _mse_backward(
    results: list[Tensor], g: Operand, x: Operand, y: Operand, reduction: int
) -> list[Value]:
    (result,) = results
    factor = literal(2 / math.prod(x.shape) if reduction == 1 else 2, result.dtype)
    return [
        made(
            lambda a, b, c: f"{factor} * ({b} - {c}) * {a}", [g, x, y], tuple(result.shape), result.dtype
        )
    ]


COMPOSITE: dict[Any, Lowering] = {
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.nll_loss_forward.default: _nll,
    aten.nll_loss_backward.default: _nll_backward,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _log_softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten._log_softmax_backward_data.default: _log_softmax_backward,
    aten.mse_loss.default: _mse,
    aten.mse_loss_backward.default: _mse_backward,
}
