"""The weights that are shown are those with which the layers sum their values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.models.attention import ScoredAttention
from bigmodel.models.layers.attention_weights import attention_weights
from bigmodel.models.layers.blocks import CrossAttention, SelfAttention
from bigmodel.models.layers.positions import Rotary
from tests.models.cases import stir

DIM, HEADS, POSITIONS = 16, 4, 6


def assert_are_the_weights(layer: Any, weights: Tensor, value: Tensor, outputs: Tensor) -> None:
    """Rows add up to 1, and values summed with them are the layer's outputs."""
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-6)
    value = value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)
    again = layer.output((weights @ value).transpose(1, 2).flatten(2))
    assert (again - outputs).abs().max() < 1e-5


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_self_attention(
    qk_norm: bool, rotary: bool, num_kv_heads: int, causal: bool, masked: bool
) -> None:
    turned = Rotary((POSITIONS,), DIM // HEADS) if rotary else None
    layer = SelfAttention(DIM, HEADS, num_kv_heads, 0.1, causal, turned, qk_norm=qk_norm).eval()
    stir(layer)
    inputs = 3 * torch.randn(2, POSITIONS, DIM)
    mask = torch.arange(POSITIONS) < torch.tensor([[4], [POSITIONS]]) if masked else None
    mask = None if mask is None or causal else mask[:, None, None]
    with torch.no_grad():
        weights = layer.attention_weights(inputs, mask)
        value = layer._heads(layer._split(layer.qkv(inputs)), None)[2]
        assert_are_the_weights(layer, weights, value, layer(inputs, mask))
    assert weights.shape == (2, HEADS, POSITIONS, POSITIONS)
    if causal:
        assert not weights.triu(1).any()
        assert weights[:, :, -1].all()
    if mask is not None:
        assert not weights[0, :, :, 4:].any()


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_cross_attention(num_kv_heads: int, qk_norm: bool) -> None:
    layer = CrossAttention(DIM, HEADS, num_kv_heads, 0.1, bias=True, qk_norm=qk_norm).eval()
    stir(layer)
    inputs, source = torch.randn(2, 3, DIM), torch.randn(2, POSITIONS, DIM)
    mask = (torch.arange(POSITIONS) < torch.tensor([[4], [POSITIONS]]))[:, None, None]
    with torch.no_grad():
        read = layer.read(source)
        weights = layer.attention_weights(inputs, read, mask)
        assert_are_the_weights(layer, weights, read[1], layer(inputs, read, mask))
    assert weights.shape == (2, HEADS, 3, POSITIONS)
    assert not weights[0, :, :, 4:].any()


@pytest.mark.parametrize("score", ["dot", "scaled_dot", "general", "additive"])
@pytest.mark.parametrize("masked", [False, True])
def test_scored_attention(score: Any, masked: bool) -> None:
    layer = ScoredAttention(DIM, HEADS, score, 0.1).eval()
    stir(layer)
    inputs = torch.randn(2, POSITIONS, DIM)
    mask = (torch.arange(POSITIONS) < torch.tensor([[4], [POSITIONS]]))[:, None, None]
    args = (inputs, mask) if masked else (inputs,)
    with torch.no_grad():
        weights = layer.attention_weights(*args)
        assert_are_the_weights(layer, weights, layer._heads(inputs)[2], layer(*args))
    assert bool(weights[0, :, :, 4:].any()) != masked


def test_weights_are_those_of_torch() -> None:
    reference = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    x = torch.randn(2, POSITIONS, DIM)
    split: Callable[[Tensor], Tensor] = lambda y: y.unflatten(-1, (HEADS, -1)).transpose(1, 2)  # noqa: E731
    with torch.no_grad():
        query, key, _ = nn.functional.linear(x, reference.in_proj_weight).chunk(3, -1)
        _, theirs = reference(x, x, x, average_attn_weights=False)
        ours = attention_weights(split(query), split(key))
    assert torch.allclose(ours, theirs, atol=1e-6)
