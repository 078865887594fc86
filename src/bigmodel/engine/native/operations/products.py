"""Products of matrices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.native.building import (
    Lowering,
    Number,
    contiguous,
    in_memory,
    laid_together,
    made,
    of_result,
    whole,
)
from bigmodel.engine.native.operations.elementwise import scaled
from bigmodel.engine.native.values import (
    Operand,
    Product,
    Value,
)
from bigmodel.runtime import torch_internals

aten = torch.ops.aten


def _mm(_: list[Tensor], left: Operand, right: Operand) -> list[Value]:
    return [product(left, right)]


def product(left: Operand, right: Operand) -> Product:
    """(…, m, k) by (…, k, n)."""
    if left.value.dtype is not torch.float32 or right.value.dtype is not torch.float32:
        raise UnknownOperationError(f"products of {left.value.dtype}")
    shape = (*left.shape[:-1], right.shape[-1])
    if left.shape[:-2] != right.shape[:-2]:
        raise UnknownOperationError("products that broadcast")
    operands = (in_memory(left), in_memory(right))
    return Product(shape=shape, strides=contiguous(shape), dtype=torch.float32, operands=operands)


def _addmm(
    results: list[Tensor],
    added: Operand,
    left: Operand,
    right: Operand,
    beta: float = 1,
    alpha: float = 1,
) -> list[Value]:
    (result,) = results
    multiplied = whole(product(left, right))
    scales = [Number.of(factor, torch.float32) for factor in (beta, alpha)]
    return [
        made(
            lambda x, y: f"{scaled(x, scales[0])} + {scaled(y, scales[1])}",
            [added, multiplied],
            tuple(result.shape),
            result.dtype,
        )
    ]


def _linear(
    results: list[Tensor], x: Operand, weight: Operand, bias: Operand | None, *_: Any
) -> list[Value]:
    """oneDNN's x Wᵀ + b."""
    (result,) = results
    rows = math.prod(x.shape[:-1])
    x = laid_together(x)
    left = x._replace(shape=(rows, x.shape[-1]), strides=(x.shape[-1], 1))
    right = weight._replace(shape=weight.shape[::-1], strides=weight.strides[::-1])
    multiplied = of_result(product(left, right), result)
    if bias is None:
        return [multiplied]
    return [made(lambda a, b: f"{a} + {b}", [whole(multiplied), bias], multiplied.shape, torch.float32)]


PRODUCTS: dict[Any, Lowering] = {
    aten.mm.default: _mm,
    aten.bmm.default: _mm,
    aten.addmm.default: _addmm,
}

if (onednn := torch_internals.onednn_linear()) is not None:
    PRODUCTS[onednn.default] = _linear  # type: ignore[attr-defined]
