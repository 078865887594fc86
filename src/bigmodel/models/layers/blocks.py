"""The parts of a transformer: self-attention, cross-attention, feed-forward, and blocks of them."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.layers import fast_blocks
from bigmodel.models.layers.attention_weights import attention_weights
from bigmodel.models.layers.fast_linear import Linear
from bigmodel.models.layers.kv_cache import KeysValues, LayerKVCache
from bigmodel.models.layers.packing import Packing
from bigmodel.models.layers.positions import Rotary
from bigmodel.models.transformer_config import TransformerConfig

_BETWEEN = {"query_norm": "partial", "key_norm": "partial"}
"""What `tensor_plan` says of layers that each rank applies to its heads: see `tensor_parallel`."""


_GELU = {"gelu": "none", "gelu_tanh": "tanh"}
"""Torch's names of both kinds of GELU."""


class HeadNorm(nn.RMSNorm):
    """RMSNorm of a head's queries or keys in their own dtype, which torch's kernel requires."""

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.weight.to(inputs.dtype)
        return F.rms_norm(inputs, self.normalized_shape, weight, self.eps).to(inputs.dtype)


class _Attention(nn.Module):
    """The base of both kinds of attention: heads, their norms, softmax(Q Kᵀ / √d) V and the output.

    With fewer key-value heads than heads, each is shared by a group of consecutive heads (grouped-query
    attention, Ainslie et al. 2023, arXiv:2305.13245). With `qk_norm`, each head's queries and keys are
    divided by their root mean square and scaled by a learnt vector (after Henry et al. 2020,
    arXiv:2010.04245, and Dehghani et al. 2023, arXiv:2302.05442), before any rotation.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        dropout: float,
        bias: bool,
        qk_norm: bool,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim or dim // num_heads
        self.num_heads, self.num_kv_heads, self.dropout = num_heads, num_kv_heads, dropout
        self._projections(dim, bias)
        self.output = Linear(num_heads * self.head_dim, dim, bias=bias)
        for layer in self.children():
            assert isinstance(layer, nn.Linear)
            _initialise(layer)
        self.query_norm = HeadNorm(self.head_dim, eps=1e-6) if qk_norm else None
        self.key_norm = HeadNorm(self.head_dim, eps=1e-6) if qk_norm else None

    def _projections(self, dim: int, bias: bool) -> None:
        raise NotImplementedError

    def split_over(self, ranks: int) -> None:
        """Computes a share of the heads from now on, which have to be split evenly.

        Raises:
            ValueError: the ranks do not divide the heads.
        """
        for key, heads in (("num_heads", self.num_heads), ("num_kv_heads", self.num_kv_heads)):
            if heads % ranks:
                raise ValueError(f"it does not divide model.{key}={heads}")
        self.num_heads, self.num_kv_heads = self.num_heads // ranks, self.num_kv_heads // ranks

    def _split(self, projected: Tensor) -> Tensor:
        """(batch, positions, heads × head_dim) → (batch, heads, positions, head_dim)."""
        batch, positions, _ = projected.shape
        return projected.view(batch, positions, -1, self.head_dim).transpose(1, 2)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        dropout, grouped = self.dropout if self.training else 0.0, self.num_kv_heads != self.num_heads
        mixed = F.scaled_dot_product_attention(
            query, key, value, mask, dropout, is_causal=causal, enable_gqa=grouped
        )
        outputs: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return outputs


class SelfAttention(_Attention):
    """Multi-head attention, softmax(Q Kᵀ / √d) V, of positions to each other (Vaswani et al. 2017).

    Args:
        causal: position i sees only positions up to i.
        rotary: rotates queries and keys by their position.
        qk_norm: normalise queries and keys.
        head_dim: channels of a head; None: dim over num_heads.

    Shapes: (batch, positions, dim) → the same.
    """

    tensor_plan: ClassVar = {"qkv": "colwise", **_BETWEEN, "output": "rowwise"}

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        dropout: float = 0.0,
        causal: bool = False,
        rotary: Rotary | None = None,
        bias: bool = True,
        qk_norm: bool = False,
        head_dim: int | None = None,
    ) -> None:
        super().__init__(dim, num_heads, num_kv_heads, dropout, bias, qk_norm, head_dim)
        self.causal, self.rotary = causal, rotary

    def _projections(self, dim: int, bias: bool) -> None:
        shares = [self.num_heads, self.num_kv_heads, self.num_kv_heads]
        self.qkv = Linear(dim, sum(shares) * self.head_dim, bias=bias)
        self.qkv.stacked = [share * self.head_dim for share in shares]

    def forward(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        cache: LayerKVCache | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Attends to the inputs, and to earlier ones in `cache`.

        Args:
            mask: True if a key is real, (batch, 1, 1, positions); not needed if causal, since padding
                comes last.
            packing: the texts that share each row, for causal attention within each.
        """
        if packing is not None:
            return self._packed(inputs, packing)
        if mask is None and cache is None and self._fuses(inputs):
            return fast_blocks.causal_attention(inputs, self.qkv, self.output, self.num_heads)
        heads = self._split(self.qkv(inputs))
        positions = None if cache is None else cache.cache.positions
        query, key, value = self._heads(heads, positions)
        if cache is not None:
            key, value = cache.update(key, value)
            mask = cache.cache.mask
        # With a cache there is one query, which sees every key that the mask leaves.
        causal = self.causal and mask is None and positions is None
        return self._attend(query, key, value, mask, causal)

    def _packed(self, inputs: Tensor, packing: Packing) -> Tensor:
        query, key, value = self._heads(self._split(self.qkv(inputs)), packing.positions)
        if (self.dropout and self.training) or not packing.can_split(query):
            return self._attend(query, key, value, packing.mask, causal=False)
        outputs: Tensor = self.output(packing.attention(query, key, value).transpose(1, 2).flatten(2))
        return outputs

    def _fuses(self, inputs: Tensor) -> bool:
        return (
            self.causal
            and self.rotary is None
            and self.query_norm is None
            and self.num_kv_heads == self.num_heads
            and self.num_heads * self.head_dim == inputs.shape[-1]
            and not (self.dropout and self.training)
            and inputs.shape[-2] <= fast_blocks.MOST_POSITIONS
            and fast_blocks.can_fuse(inputs, self.qkv, self.output)
        )

    def attention_weights(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        cache: LayerKVCache | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """The weights with which `forward` sums values: (batch, heads, positions, positions).

        Args:
            cache: None; text that is being written is not looked into.
            packing: None; a text is looked into by itself.
        """
        assert cache is None
        assert packing is None
        query, key, _ = self._heads(self._split(self.qkv(inputs)), None)
        return attention_weights(query, key, mask, causal=self.causal and mask is None)

    def _heads(self, heads: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, with norms and rotation applied."""
        shares = [self.num_heads, self.num_kv_heads, self.num_kv_heads]
        if self.query_norm is not None and self.key_norm is not None:
            query, key, value = torch.split(heads, shares, dim=1)
            query, key = self.query_norm(query), self.key_norm(key)
            if self.rotary is not None:
                query, key = self.rotary(query, positions), self.rotary(key, positions)
        elif self.rotary is not None:  # both at once, for half as many kernels
            both, value = torch.split(heads, [shares[0] + shares[1], shares[2]], dim=1)
            query, key = torch.split(self.rotary(both, positions), shares[:2], dim=1)
        else:
            query, key, value = torch.split(heads, shares, dim=1)
        return query, key, value


class CrossAttention(_Attention):
    """Multi-head attention of one text's positions to those of a source (Vaswani et al. 2017, 3.2.3).

    Shapes: (batch, positions, dim), of the source (batch, source positions, dim)
    → (batch, positions, dim).
    """

    tensor_plan: ClassVar = {"query": "colwise", "key_value": "colwise", **_BETWEEN, "output": "rowwise"}

    def _projections(self, dim: int, bias: bool) -> None:
        self.query = Linear(dim, self.num_heads * self.head_dim, bias=bias)
        self.key_value = Linear(dim, 2 * self.num_kv_heads * self.head_dim, bias=bias)
        self.key_value.stacked = [self.num_kv_heads * self.head_dim] * 2

    def read(self, source: Tensor) -> KeysValues:
        """The source's keys and values, which stay the same during decoding."""
        key, value = self._split(self.key_value(source)).chunk(2, dim=1)
        return (key if self.key_norm is None else self.key_norm(key)), value

    def forward(self, inputs: Tensor, source: KeysValues, mask: Tensor | None = None) -> Tensor:
        """Attends to a source that has been `read`; `mask` is True at its real positions."""
        return self._attend(self._queries(inputs), *source, mask, causal=False)

    def attention_weights(
        self, inputs: Tensor, source: KeysValues, mask: Tensor | None = None
    ) -> Tensor:
        """The weights with which `forward` sums values: (batch, heads, positions, source positions)."""
        return attention_weights(self._queries(inputs), source[0], mask)

    def _queries(self, inputs: Tensor) -> Tensor:
        query = self._split(self.query(inputs))
        return query if self.query_norm is None else self.query_norm(query)


class FeedForward(nn.Module):
    """Two linear layers at each position, with an activation between: (…, dim) → (…, dim).

    `swiglu` is (SiLU(W x) ⊙ V x) U of Shazeer 2020 (arXiv:2002.05202), by default two thirds as wide,
    so that its three matrices hold as many parameters as the others' two. `relu_squared` is max(0, x)²
    of So et al. 2021 (Primer, arXiv:2109.08668), `gelu_tanh` the approximation of GELU that GPT-2 uses.
    """

    tensor_plan: ClassVar = {"expand": "colwise", "contract": "rowwise"}

    def __init__(
        self, dim: int, width: int, activation: str, dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        gated = activation == "swiglu"
        self.expand = Linear(dim, 2 * width if gated else width, bias=bias)
        self.expand.stacked = [width, width] if gated else None
        self.contract = Linear(width, dim, bias=bias)
        self.activation, self.dropout = activation, dropout
        _initialise(self.expand)
        _initialise(self.contract)

    def forward(self, inputs: Tensor) -> Tensor:
        layers = self.expand, self.contract
        is_gelu, drops = self.activation in _GELU, self.dropout and self.training
        if is_gelu and not drops and fast_blocks.can_fuse(inputs, *layers):
            return fast_blocks.feed_forward(inputs, *layers, _GELU[self.activation])
        x = self._activated(self.expand(inputs))
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        outputs: Tensor = self.contract(x)
        return outputs

    def split_over(self, ranks: int) -> None:
        """Computes a share of the inner features from now on.

        Raises:
            ValueError: the ranks do not divide them.
        """
        if self.contract.in_features % ranks:
            raise ValueError(
                f"it does not divide the {self.contract.in_features} inner features, which follow from"
                " model.mlp_dim, or from model.dim and model.mlp_ratio"
            )

    def _activated(self, x: Tensor) -> Tensor:
        match self.activation:
            case "swiglu":
                gate, content = x.chunk(2, dim=-1)
                return F.silu(gate) * content
            case "relu":
                return F.relu(x)
            case "relu_squared":
                return F.relu(x).square()
            case _:
                return F.gelu(x, approximate=_GELU[self.activation])


class Block(nn.Module):
    """Self-attention, optionally cross-attention, then feed-forward, each with a residual path.

    Pre-norm (Xiong et al. 2020, arXiv:2002.04745): x + f(norm(x)); post-norm as in Vaswani et al. 2017:
    norm(x + f(x)).

    Args:
        causal: as in `SelfAttention`.
        reads_source: with cross-attention.
    """

    def __init__(
        self,
        config: TransformerConfig,
        rotary: Rotary | None = None,
        causal: bool | None = None,
        reads_source: bool = False,
    ) -> None:
        super().__init__()
        self.norm_first, self.dropout = config.norm_first, config.dropout
        heads = (config.dim, config.num_heads, config.num_kv_heads or config.num_heads)
        bias, qk_norm, head_dim = config.bias, config.qk_norm, config.head_dim
        causal = config.causal if causal is None else causal
        self.attention = SelfAttention(*heads, config.dropout, causal, rotary, bias, qk_norm, head_dim)
        self.cross_attention: CrossAttention | None = None
        if reads_source:
            self.cross_attention = CrossAttention(*heads, config.dropout, bias, qk_norm, head_dim)
            self.cross_attention_norm = make_norm(config)
        self.feed_forward = FeedForward(
            config.dim, config.feed_forward_width, config.activation, self.dropout, bias
        )
        self.attention_norm = make_norm(config)
        self.feed_forward_norm = make_norm(config)

    def forward(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        cache: LayerKVCache | None = None,
        source: KeysValues | None = None,
        source_mask: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        x, cross = inputs, self.cross_attention
        if self.norm_first:
            x = x + self._dropped(self.attention(self.attention_norm(x), mask, cache, packing))
            if cross is not None:
                x = x + self._dropped(cross(self.cross_attention_norm(x), source, source_mask))
            return x + self._dropped(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self._dropped(self.attention(x, mask, cache, packing)))
        if cross is not None:
            x = self.cross_attention_norm(x + self._dropped(cross(x, source, source_mask)))
        y: Tensor = self.feed_forward_norm(x + self._dropped(self.feed_forward(x)))
        return y

    def read(self, source: Tensor) -> KeysValues:
        """A source's keys and values for this block, as `forward` takes them."""
        assert self.cross_attention is not None
        return self.cross_attention.read(source)

    def outputs(self) -> list[nn.Linear]:
        """The layers whose outputs are added to the residual path."""
        attentions = (self.attention, self.cross_attention)
        outputs = [attention.output for attention in attentions if attention is not None]
        return [*outputs, self.feed_forward.contract]

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _initialise(layer: nn.Linear) -> None:
    """Glorot and Bengio 2010, as in the vision transformer; biases 0."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def make_norm(config: TransformerConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.dim, eps=config.norm_epsilon)
    return nn.LayerNorm(config.dim, eps=config.norm_epsilon, bias=config.bias)
