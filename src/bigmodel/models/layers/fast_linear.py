"""Linear layers that are fast on Intel's and AMD's processors."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.layers import openblas
from bigmodel.runtime import torch_internals

WORTHWHILE = 2**20
"""Multiplications from which on another library is faster; below, its start-up dominates."""


class Linear(nn.Linear):
    """torch.nn.Linear, y = x Wᵀ + b, by a library that is fast on this processor.

    Torch multiplies float32 matrices with MKL, which knows Intel's processors best: on some of AMD's it
    takes twice as long as others, on some hardly longer. There one thread multiplies with the OpenBLAS
    that numpy has, several (or where numpy has none) with oneDNN, which is a part of torch. What is used
    follows from processor, threads and packages, never from a clock: a resumed run has the same bits.

    Attributes:
        stacked: the numbers of outputs of several layers that are stored as this one, such as queries,
            keys and values; None: it is one layer. Muon treats each as a matrix of its own.

    Shapes: (…, in_features) → (…, out_features).
    """

    stacked: list[int] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b; see `Linear`."""
    if (
        is_plain(inputs, torch.float32)  # first: torch.compile traces no further
        and inputs.ndim > 1
        and worthwhile(inputs.numel() // weight.shape[1], weight)
    ):
        return multiplied(inputs, weight, bias)
    return F.linear(inputs, weight, bias)


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b by the faster library, inside functions that define their own gradients."""
    if worthwhile(inputs.numel() // weight.shape[1], weight):
        return _quick(inputs, weight, bias)
    return F.linear(inputs, weight, bias)


def outer(rows: Tensor, others: Tensor) -> Tensor:
    """Rᵀ S, such as a weight's gradient: (rows, a) and (rows, b) → (a, b).

    To oneDNN the narrower factor comes first, since that one is transposed in memory.
    """
    left, right = rows.t(), others.t()
    multiply = linear if torch.is_grad_enabled() or not is_in_memory(rows) else product
    if len(left) > len(right) and not _openblas_can(left, right, None):
        return multiply(right, left).t()
    return multiply(left, right)


def is_plain(inputs: Tensor, *dtypes: torch.dtype) -> bool:
    """Whether custom operations can be used: on a CPU, in one of these dtypes, and with nothing but
    autograd recording what is done."""
    return (
        not torch.compiler.is_compiling()
        # Torch's own tensors of several ranks know no custom operations.
        and (type(inputs) is Tensor or not hasattr(inputs, "device_mesh"))
        and inputs.device.type == "cpu"
        and inputs.dtype in dtypes
        and not torch.is_autocast_enabled("cpu")
        and not torch_internals.is_transformed()
    )


def worthwhile(rows: int, weight: Tensor) -> bool:
    """Whether another library is faster on this processor for x Wᵀ with so many rows of x."""
    return weight.dtype is torch.float32 and rows * weight.numel() >= WORTHWHILE and mkl_is_slow()


@cache
def mkl_is_slow() -> bool:
    """Whether this is one of AMD's processors, and torch was built with oneDNN."""
    if torch_internals.onednn_linear() is None:
        return False
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text(errors="replace")


def _quick(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b by OpenBLAS on one thread, else by oneDNN, which can be traced too."""
    if _openblas_can(inputs, weight, bias):
        product = openblas.multiplied(inputs.reshape(-1, inputs.shape[-1]), weight, bias)
        return product if inputs.ndim == 2 else product.view(*inputs.shape[:-1], -1)
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # a slice of a wider matrix takes a thousand times as long
    kernel = torch_internals.onednn_linear()
    assert kernel is not None, "see `mkl_is_slow`"
    return kernel(inputs, weight, bias, "none", [], "")


def _openblas_can(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether OpenBLAS may read these where they lie, and is faster than oneDNN: on one thread."""
    return (
        torch.get_num_threads() == 1
        and inputs.shape[-1] == weight.shape[1]
        and all(tensor is None or is_in_memory(tensor) for tensor in (inputs, weight, bias))
        and openblas.is_there()
    )


def is_in_memory(tensor: Tensor) -> bool:
    """Whether it holds float32 numbers in the CPU's memory, and nobody records what is done."""
    if torch_internals.is_traced():
        return False
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.dtype is not torch.float32:
        return False
    try:
        return tensor.device.type == "cpu" and tensor.data_ptr() != 0
    except RuntimeError:  # under vmap
        return False


def multiplied(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b by the faster library: float32 on the CPU, (…, inputs) and (outputs, inputs)."""
    outputs: Tensor = _Product.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
    return outputs


class _Product(torch.autograd.Function):
    """`multiplied` and its gradients, which are such products themselves."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # What a frozen weight reads is not kept.
        ctx.save_for_backward(inputs if ctx.needs_input_grad[1] else None, weight)
        return _quick(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        rows = gradients[0].reshape(-1, gradients[0].shape[-1])  # flatten has no rule under vmap
        to_inputs = linear(gradients[0], weight.t()) if needs_inputs else None
        to_weight = outer(rows, inputs.reshape(-1, inputs.shape[-1])) if needs_weight else None
        return to_inputs, to_weight, rows.sum(0) if needs_bias else None
