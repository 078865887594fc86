"""A block's attention and feed-forward with gradients of their own, for training on a CPU.

They compute what the modules of `blocks` compute, operation by operation, and save most of what torch
spends between: dozens of small steps of autograd, and copies from one layout of the heads to another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.layers.fast_linear import Linear, is_in_memory, is_plain, outer, product
from bigmodel.runtime import torch_internals

MOST_POSITIONS = 128
"""Positions up to which all scores at once are faster than block by block, and take little memory."""

Gradients = tuple[Tensor | None, ...]


def can_fuse(inputs: Tensor, *layers: nn.Linear) -> bool:
    """Whether the functions here may stand in for these layers: they are our own, in float32 in a CPU's
    memory, a gradient is wanted, and nobody listens to the layers."""
    return (
        torch.is_grad_enabled()
        and inputs.ndim == 3
        and is_plain(inputs, torch.float32)
        and is_in_memory(inputs)
        and all(
            type(layer) is Linear
            and is_in_memory(layer.weight)
            and (layer.bias is None or is_in_memory(layer.bias))
            and not torch_internals.has_hooks(layer)
            for layer in layers
        )
    )


def feed_forward(inputs: Tensor, expand: nn.Linear, contract: nn.Linear, approximate: str) -> Tensor:
    """W₂ GELU(W₁ x + b₁) + b₂: (batch, positions, dim) → the same; see `can_fuse`.

    Args:
        approximate: torch's option of GELU, `none` or `tanh`.
    """
    layers = expand.weight, expand.bias, contract.weight, contract.bias
    outputs: Tensor = _FeedForward.apply(approximate, inputs, *layers)  # type: ignore[no-untyped-call]
    return outputs


def causal_attention(inputs: Tensor, qkv: nn.Linear, output: nn.Linear, num_heads: int) -> Tensor:
    """Self-attention in which position i sees positions up to i, of at most `MOST_POSITIONS`:
    (batch, positions, dim) → the same; see `can_fuse`.

    Args:
        qkv: queries, keys and values, of `num_heads` heads each.
    """
    layers = qkv.weight, qkv.bias, output.weight, output.bias
    outputs: Tensor = _CausalAttention.apply(num_heads, inputs, *layers)  # type: ignore[no-untyped-call]
    return outputs


class _FeedForward(torch.autograd.Function):
    """`feed_forward` and its gradients."""

    @staticmethod
    def forward(ctx: Any, approximate: str, inputs: Tensor, *layers: Tensor) -> Tensor:
        expand, expand_bias, contract, contract_bias = layers
        x = inputs.reshape(-1, inputs.shape[-1])
        hidden = product(x, expand, expand_bias)
        activated = F.gelu(hidden, approximate=approximate)
        ctx.approximate = approximate
        ctx.save_for_backward(inputs, *layers, hidden, activated)
        return product(activated, contract, contract_bias).view(inputs.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        *tensors, hidden, activated = ctx.saved_tensors
        if not _once(gradients[0]):
            return None, *_again(ctx, gradients[0], tensors, _plain_feed_forward, ctx.approximate)
        inputs, expand, _, contract, _ = tensors
        _, wants_x, *wants = ctx.needs_input_grad
        upstream = gradients[0].reshape(-1, gradients[0].shape[-1])
        to_contract = _layer_gradients(upstream, activated, *wants[2:])
        to_hidden = product(upstream, contract.t())
        torch.ops.aten.gelu_backward.grad_input(
            to_hidden, hidden, approximate=ctx.approximate, grad_input=to_hidden
        )
        to_expand = _layer_gradients(to_hidden, inputs.reshape(-1, inputs.shape[-1]), *wants[:2])
        to_x = product(to_hidden, expand.t()).view(inputs.shape) if wants_x else None
        return None, to_x, *to_expand, *to_contract


class _CausalAttention(torch.autograd.Function):
    """`causal_attention` and its gradients.

    Letters of shapes: b batch × heads, t positions, d channels of a head.
    """

    @staticmethod
    def forward(ctx: Any, num_heads: int, inputs: Tensor, *layers: Tensor) -> Tensor:
        qkv, qkv_bias, output, output_bias = layers
        batch, positions, dim = inputs.shape
        projected = product(inputs.reshape(-1, dim), qkv, qkv_bias)
        heads = projected.view(batch, positions, 3, num_heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        query, key, value = heads.view(3, batch * num_heads, positions, -1).unbind()  # b t d
        scores = torch.baddbmm(
            _mask(positions), query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5
        )
        weights = torch.softmax(scores, -1)  # b t t
        mixed = _joined(torch.bmm(weights, value), batch)
        ctx.num_heads = num_heads
        ctx.save_for_backward(inputs, *layers, heads, weights, mixed)
        return product(mixed, output, output_bias).view(inputs.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        *tensors, heads, weights, mixed = ctx.saved_tensors
        if not _once(gradients[0]):
            return None, *_again(ctx, gradients[0], tensors, _plain_attention, ctx.num_heads)
        inputs, qkv, _, output, _ = tensors
        _, wants_x, *wants = ctx.needs_input_grad
        batch, positions, dim = inputs.shape
        query, key, value = heads.view(3, -1, positions, heads.shape[-1]).unbind()
        upstream = gradients[0].reshape(-1, dim)
        to_output = _layer_gradients(upstream, mixed, *wants[2:])
        to_mixed = product(upstream, output.t())
        # Of softmax: each weight times its own gradient less the mean of all, which needs mixed alone.
        means = (to_mixed * mixed).view(batch, positions, ctx.num_heads, -1).sum(-1)
        means = means.transpose(1, 2).reshape(-1, positions, 1).expand_as(weights)
        to_mixed = _split(to_mixed, batch, ctx.num_heads)
        to_scores = torch.baddbmm(means, to_mixed, value.transpose(1, 2), beta=-1).mul_(weights)
        to_heads, scale = torch.empty_like(heads), query.shape[-1] ** -0.5
        to_query, to_key, to_value = to_heads.view(3, *query.shape).unbind()
        to_query.baddbmm_(to_scores, key, beta=0, alpha=scale)
        to_key.baddbmm_(to_scores.transpose(1, 2), query, beta=0, alpha=scale)
        torch.bmm(weights.transpose(1, 2), to_mixed, out=to_value)
        to_projected = to_heads.permute(1, 3, 0, 2, 4).reshape(-1, 3 * dim)
        to_qkv = _layer_gradients(to_projected, inputs.reshape(-1, dim), *wants[:2])
        to_x = product(to_projected, qkv.t()).view(inputs.shape) if wants_x else None
        return None, to_x, *to_qkv, *to_output


def _layer_gradients(upstream: Tensor, inputs: Tensor, of_weight: bool, of_bias: bool) -> Gradients:
    """Those of a linear layer's weight and bias, from (rows, outputs) and (rows, inputs)."""
    to_weight = outer(upstream, inputs) if of_weight else None
    return to_weight, upstream.sum(0) if of_bias else None


def _split(rows: Tensor, batch: int, num_heads: int) -> Tensor:
    """(batch × positions, heads × channels) → (batch × heads, positions, channels)."""
    heads = rows.view(batch, -1, num_heads, rows.shape[1] // num_heads).transpose(1, 2)
    return heads.reshape(-1, *heads.shape[2:])


def _joined(heads: Tensor, batch: int) -> Tensor:
    """(batch × heads, positions, channels) → (batch × positions, heads × channels)."""
    _, positions, channels = heads.shape
    return heads.view(batch, -1, positions, channels).transpose(1, 2).reshape(batch * positions, -1)


@cache
def _mask(positions: int) -> Tensor:
    """What is added to scores: -∞ where a key comes later than the query, else 0."""
    return torch.full((positions, positions), -torch.inf, dtype=torch.float32, device="cpu").triu(1)


def _once(gradient: Tensor) -> bool:
    """Whether a backward pass is a usual one: of one gradient, and not to be differentiated again."""
    return not torch.is_grad_enabled() and is_in_memory(gradient)


def _again(
    ctx: Any, gradient: Tensor, tensors: list[Tensor], plain: Callable[..., Tensor], option: Any
) -> Gradients:
    """The gradients by torch's own operations, which know derivatives of every order."""
    wants, differentiable = ctx.needs_input_grad[1:], torch.is_grad_enabled()
    with torch.enable_grad():
        outputs = plain(option, *tensors)
        wanted = [tensor for tensor, needed in zip(tensors, wants, strict=True) if needed]
        found = iter(torch.autograd.grad(outputs, wanted, gradient, create_graph=differentiable))
    return tuple(next(found) if needed else None for needed in wants)


def _plain_feed_forward(approximate: str, inputs: Tensor, *layers: Tensor) -> Tensor:
    expand, expand_bias, contract, contract_bias = layers
    hidden = F.linear(inputs, expand, expand_bias)
    return F.linear(F.gelu(hidden, approximate=approximate), contract, contract_bias)


def _plain_attention(num_heads: int, inputs: Tensor, *layers: Tensor) -> Tensor:
    qkv, qkv_bias, output, output_bias = layers
    batch, positions, _ = inputs.shape
    heads = F.linear(inputs, qkv, qkv_bias).view(batch, positions, 3, num_heads, -1)
    query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + _mask(positions)
    mixed = torch.softmax(scores, -1) @ value
    return F.linear(mixed.transpose(1, 2).flatten(2), output, output_bias)
