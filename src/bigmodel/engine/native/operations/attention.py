"""Scaled dot-product attention, in terms of products and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.native.building import Lowering, layout_of, literal, made, whole
from bigmodel.engine.native.operations.products import product
from bigmodel.engine.native.operations.reductions import combined
from bigmodel.engine.native.values import Operand, Pointwise, Value
from bigmodel.runtime import torch_internals


def _attention(
    results: Sequence[Tensor],
    query: Operand,
    key: Operand,
    value: Operand,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Operand | None = None,
    scale: float | None = None,
) -> list[Value]:
    """(batch, heads, length, width) each → the outputs, and the logarithm of each row's sum."""
    if dropout:
        raise UnknownOperationError("attention with dropout inside")
    scores = _scores(query, key, is_causal, attn_mask, scale)
    dtype, last = query.value.dtype, len(scores.shape) - 1
    largest = whole(combined(scores, [last], "max", "(-__builtin_inf())", dtype))
    powers = whole(made(lambda s, m: f"exponential({s} - {m})", [scores, largest], scores.shape, dtype))
    total = whole(combined(powers, [last], "+", "0", dtype))
    sums = whole(product(powers, value))
    divided = whole(made(lambda o, t: f"{o} / {t}", [sums, total], sums.shape, dtype))
    logs = whole(made(lambda m, t: f"{m} + logarithm({t})", [largest, total], total.shape, dtype))
    rows = logs._replace(shape=logs.shape[:-1], strides=logs.strides[:-1])
    return [_laid_out(divided, results[0]), _laid_out(rows, results[1])]


def _attention_backward(
    results: Sequence[Tensor],
    gradient: Operand,
    query: Operand,
    key: Operand,
    value: Operand,
    output: Operand,
    logs: Operand,
    dropout: float,
    is_causal: bool,
    *,
    attn_mask: Operand | None = None,
    scale: float | None = None,
) -> list[Value]:
    """The gradients of query, key and value (Dao et al. 2022, arXiv:2205.14135, appendix B.2)."""
    if dropout:
        raise UnknownOperationError("attention with dropout inside")
    dtype, factor = query.value.dtype, _factor(query, scale)
    scores = _scores(query, key, is_causal, attn_mask, scale)
    column = logs._replace(shape=(*logs.shape, 1), strides=(*logs.strides, 0))
    shares = whole(made(lambda s, m: f"exponential({s} - {m})", [scores, column], scores.shape, dtype))
    to_shares = whole(product(gradient, _transposed(value)))
    products = whole(made(lambda g, o: f"{g} * {o}", [gradient, output], gradient.shape, dtype))
    rows = whole(combined(products, [len(gradient.shape) - 1], "+", "0", dtype))
    to_scores = whole(
        made(
            lambda p, d, r: f"{p} * ({d} - {r}) * {factor}",
            [shares, to_shares, rows],
            scores.shape,
            dtype,
        )
    )
    found = (
        product(to_scores, key),
        product(_transposed(to_scores), query),
        product(_transposed(shares), gradient),
    )
    return [_laid_out(whole(part), result) for part, result in zip(found, results, strict=True)]


def _factor(query: Operand, scale: float | None) -> str:
    return literal(1 / math.sqrt(query.shape[-1]) if scale is None else scale, query.value.dtype)


def _scores(
    query: Operand, key: Operand, is_causal: bool, mask: Operand | None, scale: float | None
) -> Operand:
    dtype, factor = query.value.dtype, _factor(query, scale)
    scores = whole(product(query, _transposed(key)))
    if mask is not None and mask.value.dtype is not dtype:
        raise UnknownOperationError(f"attention with a mask of {mask.value.dtype}")
    masks = [] if mask is None else [mask]
    scaled = made(
        lambda s, *m: " + ".join([f"{factor} * {s}", *m]), [scores, *masks], scores.shape, dtype
    )
    if not is_causal:
        return whole(scaled)
    dims = len(scores.shape)
    rows = whole(made(lambda row: row, [], scores.shape[-2:-1], torch.int64, counted=0))
    column = rows._replace(shape=(*rows.shape, 1), strides=(1, 0))
    hidden = made(
        lambda s, row, index: f"({index} > {row} ? (-__builtin_inff()) : {s})",
        [whole(scaled), column],
        scores.shape,
        dtype,
        counted=dims - 1,
    )
    hidden.compute = None
    return whole(hidden)


def _transposed(matrix: Operand) -> Operand:
    swap: Any = lambda part: (*part[:-2], part[-1], part[-2])  # noqa: E731
    return matrix._replace(shape=swap(matrix.shape), strides=swap(matrix.strides))


def _laid_out(source: Operand, result: Tensor) -> Value:
    return Pointwise(
        **layout_of(result), expression=lambda x: x, compute=result.dtype, operands=(source,)
    )


_LOWERINGS: tuple[Lowering, Lowering] = (_attention, _attention_backward)

ATTENTION: dict[Any, Lowering] = dict(zip(torch_internals.flash_attention(), _LOWERINGS, strict=False))
