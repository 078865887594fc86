"""Linear layers that are quick on every processor."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTHWHILE = 2**20
"""Multiplications from which on oneDNN is the quicker one; below, starting it takes longest."""


class Linear(nn.Linear):
    """torch.nn.Linear: y = x Wᵀ + b, by the quickest way there is.

    Torch multiplies float32 matrices with MKL, which keeps its widest instructions for Intel's
    processors: on AMD's, oneDNN, which is in torch as well, takes half the time.

    Attributes:
        stacked: how many outputs each of several layers has that are stored as this one, such as
            queries, keys and values; None: it is one. Optimizers of matrices heed it.

    Shapes: (…, in_features) → (…, out_features).
    """

    stacked: list[int] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b; see `Linear`."""
    if (
        not torch.compiler.is_compiling()  # first: the compiler follows no further, and does better
        and inputs.device.type == "cpu"
        and inputs.dtype is weight.dtype is torch.float32
        and inputs.ndim > 1
        and inputs.numel() * weight.shape[0] >= WORTHWHILE
        and onednn_is_quicker()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._get_tracing_state()
        and not torch._C._are_functorch_transforms_active()
    ):
        return multiplied(inputs, weight, bias)
    return F.linear(inputs, weight, bias)


@cache
def onednn_is_quicker() -> bool:
    """Whether this is a processor of AMD's, and torch has oneDNN for it."""
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    described = Path("/proc/cpuinfo")
    return described.is_file() and "AuthenticAMD" in described.read_text(errors="replace")


def multiplied(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b with oneDNN: float32 on the CPU, (…, inputs) and (outputs, inputs)."""
    outputs: Tensor = _Product.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
    return outputs


class _Product(torch.autograd.Function):
    """`multiplied` and its gradients, which are such products themselves."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        rows = gradients[0].reshape(-1, gradients[0].shape[-1])  # flatten cannot be batched
        to_inputs = linear(gradients[0], weight.t()) if needs_inputs else None
        to_weight = linear(rows.t(), inputs.reshape(-1, inputs.shape[-1]).t()) if needs_weight else None
        return to_inputs, to_weight, rows.sum(0) if needs_bias else None
