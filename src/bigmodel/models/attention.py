"""Attention networks with a choice of score functions."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from bigmodel.models.base import Model
from bigmodel.models.checks import check_divides, refuse_writing
from bigmodel.models.layers import padding
from bigmodel.models.layers.activations import initialise
from bigmodel.models.layers.attention_weights import attention_weights, softmax
from bigmodel.models.layers.embeddings import embed, grid_of
from bigmodel.models.layers.fast_linear import Linear
from bigmodel.models.layers.positions import Positions
from bigmodel.registry import EntryConfig, models
from bigmodel.spec import DataSpec, Features

Score = Literal["dot", "scaled_dot", "general", "additive"]


class AttentionConfig(EntryConfig):
    """Options of the attention network."""

    score: Score = Field(
        "scaled_dot", description="how query and key are compared: dot, scaled_dot, general or additive"
    )
    dim: int = Field(64, ge=1, description="size of the vector at each position")
    num_heads: int = Field(4, ge=1, validate_default=True, description="number of heads; divides dim")
    depth: int = Field(2, ge=1, description="attention layers on top of each other")
    patch_size: int = Field(2, ge=1, description="side of an image's square patches, in pixels")
    position: Literal["none", "sinusoidal", "learned"] = Field(
        "learned", description="position encoding: none, sinusoidal or learned"
    )
    hidden_size: int = Field(
        128, ge=0, description="width of the layer at each position after attention; 0: none"
    )
    readout: Literal["mean", "flatten"] = Field(
        "mean", description="what the head sees: the mean over positions, or all of them (flatten)"
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of weights and of outputs dropped in training, 0 to 1"
    )

    @field_validator("num_heads")
    @classmethod
    def _heads_fit(cls, num_heads: int, info: ValidationInfo) -> int:
        return check_divides(num_heads, "dim", info.data.get("dim", num_heads))


class ScoredAttention(nn.Module):
    """Multi-head self-attention: a_ij = softmax_j s(Q_i, K_j), y_i = Σ_j a_ij V_j.

    The score s is, for a query q and a key k of d numbers each in a head,

    - `dot`: q · k,
    - `scaled_dot`: q · k / √d (Vaswani et al. 2017, arXiv:1706.03762),
    - `general`: q · W k, with a W for each head (Luong et al. 2015, arXiv:1508.04025),
    - `additive`: w · tanh(q + k), with a w for each head; since q and k are projections, this is the
      vᵀ tanh(W s + U h) of Bahdanau et al. 2014 (arXiv:1409.0473). It needs memory for batch ×
      positions² × dim numbers.

    Shapes: (batch, positions, dim) → the same. With `mask`, (batch, 1, 1, positions), keys that are
    False get no weight.
    """

    def __init__(self, dim: int, num_heads: int, score: Score, dropout: float = 0.0) -> None:
        super().__init__()
        self.score, self.head_dim, self.dropout = score, dim // num_heads, dropout
        self.qkv = Linear(dim, 3 * dim)
        self.qkv.stacked = [dim] * 3
        self.output = Linear(dim, dim)
        for part in (*torch.split(self.qkv.weight.detach(), dim), self.output.weight):
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.output.bias)
        scale = self.head_dim**-0.5
        if score == "general":
            start = torch.eye(self.head_dim) * scale  # the scaled dot product
            self.general = nn.Parameter(start.repeat(num_heads, 1, 1))
        elif score == "additive":
            start = torch.empty(num_heads, self.head_dim)
            self.additive = nn.Parameter(nn.init.normal_(start, std=scale))

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = self._heads(inputs)
        dropout = self.dropout if self.training else 0.0
        if self.score == "additive":
            weights = softmax(self._additive_scores(query, key), mask)
            mixed = F.dropout(weights, dropout) @ value if dropout else weights @ value
        else:
            query, scale = self._scaled(query)
            mixed = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
            )
        outputs: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return outputs

    def attention_weights(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """The weights with which `forward` sums values: (batch, heads, positions, positions)."""
        query, key, _ = self._heads(inputs)
        if self.score == "additive":
            return softmax(self._additive_scores(query, key), mask)
        query, scale = self._scaled(query)
        return attention_weights(query, key, mask, scale=scale)

    def _heads(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (batch, heads, positions, head_dim) each."""
        split = self.qkv(inputs).unflatten(-1, (3, -1, self.head_dim))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _scaled(self, query: Tensor) -> tuple[Tensor, float]:
        """Queries, and the factor that makes their dot product with keys the score."""
        if self.score == "general":
            return query @ self.general, 1.0
        return query, self.head_dim**-0.5 if self.score == "scaled_dot" else 1.0

    def _additive_scores(self, query: Tensor, key: Tensor) -> Tensor:
        # (batch, heads, queries, keys, head_dim)
        pairs = torch.tanh(query.unsqueeze(3) + key.unsqueeze(2))
        return (pairs @ self.additive[:, None, :, None]).squeeze(-1)


@models.register("attention", AttentionConfig)
class Attention(Model):
    """Attention layers with a residual path, over the positions of any input.

    An image is read as patches (or pixels), a sequence step by step, tokens embedded, plain features as
    a position each. Between the layers there is only a norm; after them, one hidden layer is applied at
    each position.

    The inputs' channels are mapped to `dim` first, whatever their number, each pair of positions has one
    score in each head, and the softmax runs over the keys, so that the shapes of weights and values
    always match. (The article's listing expects 32 channels of images that have 3, and scores 64 wide
    that are 32: it never runs.)

    Shapes: (batch, *spec.input.shape) → features (batch, width, times positions with readout=flatten)
    → (batch, output_size).
    """

    def __init__(self, config: AttentionConfig, spec: DataSpec) -> None:
        super().__init__()
        refuse_writing("attention", spec)
        self.pad = padding.pad_token(spec.input)
        dim, grid = config.dim, grid_of(spec.input, config.patch_size)
        self.embedding = embed(spec, dim, config.patch_size, "attention")
        self.positions: nn.Module | None = None
        # Features have no order, and each has a vector of its own already.
        if config.position != "none" and not isinstance(spec.input, Features):
            self.positions = Positions(config.position, grid, dim)
        self.layers = nn.ModuleList(
            ScoredAttention(dim, config.num_heads, config.score, config.dropout)
            for _ in range(config.depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(dim)
        self.hidden = Linear(dim, config.hidden_size) if config.hidden_size else None
        if self.hidden is not None:
            initialise(self.hidden, "gelu")
        width = config.hidden_size or dim
        if config.readout == "flatten":
            width *= math.prod(grid)
        self.readout, self.dropout, self.count = config.readout, config.dropout, math.prod(grid)
        self.head = Linear(width, spec.target.output_size)

    def features(self, inputs: Tensor) -> Tensor:
        if self.pad is not None and self.readout == "flatten":
            inputs = padding.pad_to_length(inputs, self.pad, self.count)
        x, lengths, mask = self._embedded(inputs)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + self._dropped(layer(norm(x), mask))
        x = self.final_norm(x)
        if self.hidden is not None:
            x = F.gelu(self.hidden(x))
        if self.readout == "mean":
            return self._dropped(padding.masked_mean(x, lengths))
        if lengths is not None:
            x = x.masked_fill(~padding.length_mask(lengths, x.shape[1]).unsqueeze(-1), 0.0)
        return self._dropped(x.flatten(1))

    def _embedded(self, inputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Vectors with positions, how many of them are real, and a mask of real keys; None: all."""
        x: Tensor = self.embedding(inputs)
        x = x if self.positions is None else self.positions(x)
        if self.pad is None:
            return x, None, None
        lengths = padding.text_lengths(inputs, self.pad)
        return x, lengths, padding.length_mask(lengths, inputs.shape[1])[:, None, None]

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
