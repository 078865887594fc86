"""The transformer: attention and feed-forward blocks with residual paths, over any kind of input."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.models.base import Model
from bigmodel.models.layers import check_divides, embed, grid_of
from bigmodel.models.positions import Positions, Rotary
from bigmodel.registry import EntryConfig, models
from bigmodel.spec import DataSpec, Features


class TransformerConfig(EntryConfig):
    """What can be chosen about the transformer."""

    dim: int = Field(default=64, ge=1, description="size of the vector at each position")
    depth: int = Field(
        default=2, ge=1, description="blocks of attention and feed-forward, one after another"
    )
    num_heads: int = Field(
        default=4, ge=1, validate_default=True, description="attentions side by side; divides dim"
    )
    num_kv_heads: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="heads of keys and values, shared by groups; divides num_heads; null: num_heads",
    )
    mlp_ratio: float = Field(
        default=4.0, gt=0, le=64, description="width of the feed-forward layer over dim"
    )
    position: Literal["sinusoidal", "learned", "rotary"] = Field(
        default="learned", description="how a vector's place is told: sinusoidal, learned or rotary"
    )
    norm: Literal["layernorm", "rmsnorm"] = Field(
        default="layernorm", description="layernorm or rmsnorm"
    )
    norm_first: bool = Field(
        default=True, description="normalise before attention and feed-forward; false: after, as in 2017"
    )
    activation: Literal["gelu", "relu", "swiglu"] = Field(
        default="gelu", description="of the feed-forward layer: gelu, relu or swiglu"
    )
    patch_size: int = Field(
        default=2, ge=1, description="side of the squares an image is cut into, in pixels; 1: each pixel"
    )
    causal: bool = Field(
        default=False, description="let each position see only itself and those before it"
    )
    readout: Literal["mean", "last"] | None = Field(
        default=None,
        description="what the head sees: mean or last position; null: last if causal, else mean",
    )
    dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of weights and of outputs dropped in training, 0 to 1",
    )

    @field_validator("num_heads")
    @classmethod
    def _heads_divide_dim(cls, num_heads: int, info: ValidationInfo) -> int:
        return check_divides(num_heads, "dim", info.data.get("dim", num_heads))

    @field_validator("num_kv_heads")
    @classmethod
    def _groups_divide_heads(cls, num_kv_heads: int | None, info: ValidationInfo) -> int | None:
        if num_kv_heads is not None:
            check_divides(num_kv_heads, "num_heads", info.data.get("num_heads", num_kv_heads))
        return num_kv_heads

    @field_validator("position")
    @classmethod
    def _pairs_to_turn(cls, position: str, info: ValidationInfo) -> str:
        dim, heads = info.data.get("dim"), info.data.get("num_heads")
        if position == "rotary" and dim and heads and dim // heads % 2:
            raise ValueError(
                f"turns pairs of channels, and dim={dim} over num_heads={heads} gives each head"
                f" {dim // heads}; try dim={2 * dim}"
            )
        return position


class SelfAttention(nn.Module):
    """Multi-head attention, softmax(Q Kᵀ / √d) V, of positions to each other (Vaswani et al. 2017).

    With fewer key-value heads than heads, each is shared by a group of consecutive heads (grouped-query
    attention, Ainslie et al. 2023, arXiv:2305.13245).

    Args:
        causal: position i sees only positions up to i.
        rotary: turns queries and keys by their position.

    Shapes: (batch, positions, dim) → the same.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        dropout: float = 0.0,
        causal: bool = False,
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.shares = [num_heads, num_kv_heads, num_kv_heads]
        self.dropout, self.causal, self.rotary = dropout, causal, rotary
        self.qkv = nn.Linear(dim, sum(self.shares) * self.head_dim)
        self.output = nn.Linear(dim, dim)
        _initialise(self.qkv)
        _initialise(self.output)

    def forward(self, inputs: Tensor) -> Tensor:
        heads = self.qkv(inputs).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        query, key, value = heads.split(self.shares, dim=1)  # (batch, heads, positions, head_dim)
        if self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        outputs: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return outputs


class FeedForward(nn.Module):
    """Two linear layers at each position, with an activation between: (…, dim) → (…, dim).

    `swiglu` is (SiLU(W x) ⊙ V x) U of Shazeer 2020 (arXiv:2002.05202), two thirds as wide, so that its
    three matrices hold as many parameters as the others' two.
    """

    def __init__(self, dim: int, mlp_ratio: float, activation: str, dropout: float = 0.0) -> None:
        super().__init__()
        gated = activation == "swiglu"
        width = max(1, round(dim * mlp_ratio * (2 / 3 if gated else 1)))
        self.expand = nn.Linear(dim, 2 * width if gated else width)
        self.contract = nn.Linear(width, dim)
        self.activation, self.dropout = activation, dropout
        _initialise(self.expand)
        _initialise(self.contract)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.expand(inputs)
        if self.activation == "swiglu":
            gate, content = x.chunk(2, dim=-1)
            x = F.silu(gate) * content
        else:
            x = F.gelu(x) if self.activation == "gelu" else F.relu(x)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        outputs: Tensor = self.contract(x)
        return outputs


class Block(nn.Module):
    """Attention, then feed-forward, each with a residual path around it.

    Pre-norm (Xiong et al. 2020, arXiv:2002.04745): x + f(norm(x)); post-norm as in Vaswani et al. 2017:
    norm(x + f(x)).
    """

    def __init__(self, config: TransformerConfig, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.norm_first, self.dropout = config.norm_first, config.dropout
        self.attention = SelfAttention(
            config.dim,
            config.num_heads,
            config.num_kv_heads or config.num_heads,
            config.dropout,
            config.causal,
            rotary,
        )
        self.feed_forward = FeedForward(config.dim, config.mlp_ratio, config.activation, config.dropout)
        self.attention_norm = make_norm(config)
        self.feed_forward_norm = make_norm(config)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        if self.norm_first:
            x = x + self._dropped(self.attention(self.attention_norm(x)))
            return x + self._dropped(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self._dropped(self.attention(x)))
        y: Tensor = self.feed_forward_norm(x + self._dropped(self.feed_forward(x)))
        return y

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _initialise(layer: nn.Linear) -> None:
    """Glorot and Bengio 2010, as in the vision transformer; biases 0."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


def make_norm(config: TransformerConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.dim, eps=1e-6)
    return nn.LayerNorm(config.dim)


@models.register("transformer", TransformerConfig)
class Transformer(Model):
    """A transformer encoder over the positions of any input (Vaswani et al. 2017, arXiv:1706.03762).

    An image is read as patches (Dosovitskiy et al. 2020, arXiv:2010.11929), a sequence step by step,
    tokens embedded, plain features as a position each, without an order. With `causal`, no position sees
    a later one.

    The number of heads has to divide `dim`, real numbers are mapped linearly and only tokens looked up,
    and each part adds its input back. (The article's listing splits 5 dimensions over 8 heads, looks
    real numbers up in an embedding, and adds attention's weights where its input should be.)

    Shapes: (batch, *spec.input.shape) → features (batch, dim) → (batch, output_size).
    """

    def __init__(self, config: TransformerConfig, spec: DataSpec) -> None:
        super().__init__()
        grid = grid_of(spec.input, config.patch_size)
        self.embedding = embed(spec, config.dim, config.patch_size, "transformer")
        self.positions: nn.Module | None = None
        rotary = None
        if not isinstance(spec.input, Features):  # these have a vector of their own already
            if config.position == "rotary":
                rotary = _rotary(config, grid, spec)
            else:
                self.positions = Positions(config.position, grid, config.dim)
        self.blocks = nn.ModuleList(Block(config, rotary) for _ in range(config.depth))
        self.final_norm = make_norm(config) if config.norm_first else None
        self.readout = config.readout or ("last" if config.causal else "mean")
        self.head = nn.Linear(config.dim, spec.target.output_size)

    def features(self, inputs: Tensor) -> Tensor:
        x: Tensor = self.embedding(inputs)
        if self.positions is not None:
            x = self.positions(x)
        for block in self.blocks:
            x = block(x)
        if self.readout == "last":
            x = x[:, -1]
        if self.final_norm is not None:
            x = self.final_norm(x)
        return x.mean(1) if self.readout == "mean" else x


def _rotary(config: TransformerConfig, grid: tuple[int, ...], spec: DataSpec) -> Rotary:
    head_dim = config.dim // config.num_heads
    if head_dim % (2 * len(grid)):
        step = 2 * len(grid) * config.num_heads
        raise SpecError(
            f"model.position=rotary turns pairs of channels for each axis of {spec.input}, and"
            f" model.dim={config.dim} gives each of {config.num_heads} heads {head_dim}:"
            f" choose a multiple of {step}, such as model.dim={step * math.ceil(config.dim / step)}."
        )
    return Rotary(grid, head_dim)
