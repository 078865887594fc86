"""Attention's weights, which the fused kernels of training do not return."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(Q Kᵀ · scale), the weights of `torch.nn.functional.scaled_dot_product_attention`.

    Args:
        query: (batch, heads, queries, head_dim).
        key: (batch, kv_heads, keys, head_dim); each is shared by a group of consecutive heads.
        mask: True at the keys that are seen, broadcast to the weights; None: all.
        causal: query i sees only keys up to i.
        scale: of the scores; None: 1/√head_dim.

    Returns:
        (batch, heads, queries, keys); each row adds up to 1.
    """
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    return softmax(scores, mask)


def softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Weights from scores, (…, keys); 0 for keys at which `mask` is False."""
    return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -torch.inf), dim=-1)
