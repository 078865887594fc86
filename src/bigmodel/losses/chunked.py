"""Cross-entropy from features and a linear head, without all logits in memory at once.

With a vocabulary of 50,000 tokens, logits take far more memory than the rest of a step. Here they are
computed for some positions at a time, and turned at once into what the backward pass needs of them: the
gradients of features, weight and bias. Products are computed in the run's precision, sums in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bigmodel.spec import IGNORED

POSITIONS = 1024
"""How many positions have their logits in memory at once: more are no faster."""


def total_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Computes `cross_entropy(linear(features, weight, bias), targets, reduction="sum")` of torch.

    Args:
        features: (positions, width).
        weight, bias: the head's, (classes, width) and (classes,).
        targets: (positions,) int64, or `spec.IGNORED`.
        smoothing: share of each label that is spread evenly over all classes.

    Returns:
        float32 without dimensions. Its backward pass can be done once, and not differentiated.
    """
    kind, dtype = features.device.type, features.dtype
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        total: Tensor = _Chunked.apply(features, weight, bias, targets, smoothing, dtype)  # type: ignore[no-untyped-call]
    return total


class _Chunked(torch.autograd.Function):
    """Computes the gradients of the sum in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        dtype: torch.dtype,
    ) -> Tensor:
        total, cast = features.new_zeros((), dtype=torch.float32), weight.to(dtype)
        to_weight = torch.zeros_like(weight, dtype=torch.float32)
        to_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        to_features = []
        chunks = zip(torch.split(features, POSITIONS), torch.split(targets, POSITIONS), strict=True)
        for x, wanted in ((chunk.to(dtype), wanted) for chunk, wanted in chunks):
            losses, to_logits = _scored(_logits(x, cast, bias), wanted, smoothing)
            total += losses
            if to_bias is not None:
                to_bias += to_logits.sum(0)
            to_logits = to_logits.to(dtype)
            to_features.append((to_logits @ cast).to(features.dtype))
            _add_product(to_weight, to_logits, x)
        ctx.gradients = torch.cat(to_features), to_weight, to_bias
        ctx.dtypes = features.dtype, weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        if ctx.gradients is None:
            raise RuntimeError("the backward pass of this loss can be done once only")
        gradients, ctx.gradients = ctx.gradients, None  # they are scaled in place
        scaled = [
            None if gradient is None else gradient.mul_(upstream).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        return *scaled, None, None, None


def _logits(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = x @ weight.t()
    if bias is not None:
        logits += bias.to(logits.dtype)
    return logits.float()


def _scored(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The sum of the losses, and its gradient by the logits, which overwrites them."""
    real = targets != IGNORED
    places, weights = targets.where(real, 0).unsqueeze(1), real.float()
    logits -= logits.amax(1, keepdim=True)
    picked = logits.gather(1, places).squeeze(1)
    if smoothing:
        picked = torch.lerp(picked, logits.mean(1), smoothing)
    sums = logits.exp_().sum(1)
    losses = (sums.log() - picked).where(real, 0.0).sum()
    gradient = logits.mul_((weights / sums).unsqueeze(1))
    gradient.scatter_add_(1, places, (smoothing - 1.0) * weights.unsqueeze(1))
    if smoothing:
        gradient -= (smoothing / gradient.shape[1]) * weights.unsqueeze(1)
    return losses, gradient


def _add_product(to_weight: Tensor, to_logits: Tensor, x: Tensor) -> None:
    """Adds a chunk's part of the weight's gradient.

    In fp16 a sum over positions may overflow, and the scale of the gradients comes too late to prevent
    that: features are scaled down as far as is needed, which only the device knows.
    """
    if x.dtype == torch.float32:
        to_weight.addmm_(to_logits.t(), x)
    elif x.dtype == torch.float16:
        fits = (2.0**15 / (len(x) * x.abs().amax().float())).clamp(max=1.0).to(x.dtype)
        to_weight += (to_logits.t() @ (x * fits)).float() / fits
    else:
        to_weight += to_logits.t() @ x
