"""The feed-forward network, or multilayer perceptron."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bigmodel.models.base import Model
from bigmodel.models.checks import refuse_writing
from bigmodel.models.layers.activations import ACTIVATIONS, Activation, initialise
from bigmodel.models.layers.batch_norm import BatchNorm
from bigmodel.models.layers.embeddings import ColumnEmbedding, token_vectors
from bigmodel.models.layers.fast_linear import Linear
from bigmodel.models.layers.padding import masked_mean, pad_token, text_lengths
from bigmodel.registry import EntryConfig, models
from bigmodel.spec import DataSpec, Features, Tokens


class FNNConfig(EntryConfig):
    """Options of the feed-forward network."""

    hidden_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        [256, 128], description="width of each hidden layer; []: a linear model"
    )
    activation: Activation = Field(
        "relu", description="relu, leaky_relu, elu, gelu, silu, tanh or sigmoid"
    )
    norm: Literal["none", "batch", "layer"] = Field(
        "none", description="normalisation of each layer before its activation: none, batch or layer"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of activations dropped, 0 to 1")
    embedding_dim: int = Field(64, ge=1, description="size of a token's vector; most of a category's")


@models.register("fnn", FNNConfig)
class FNN(Model):
    """Layers y = f(W x + b) one after another, over any kind of input.

    Images, sequences and features are read as one flat vector, with categories embedded; tokens are
    embedded and averaged, without padding.

    Shapes: (batch, *spec.input.shape) → features (batch, last hidden size) → (batch, output_size).
    """

    def __init__(self, config: FNNConfig, spec: DataSpec) -> None:
        super().__init__()
        refuse_writing("fnn", spec)
        self.pad = pad_token(spec.input)
        width = math.prod(spec.input.shape)
        self.embedding: nn.Embedding | None = None
        self.columns: ColumnEmbedding | None = None
        match spec.input:
            case Tokens(vocab_size=vocab_size):
                width = config.embedding_dim
                self.embedding = token_vectors(vocab_size, width)
            case Features(categories=categories) as table if any(categories):
                self.columns = ColumnEmbedding(table, config.embedding_dim)
                width = self.columns.width
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.dropout
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for size in config.hidden_sizes:
            # A batch norm subtracts the mean, and any bias with it.
            layer = Linear(width, size, bias=config.norm != "batch")
            initialise(layer, config.activation)
            self.layers.append(layer)
            if config.norm != "none":
                self.norms.append(BatchNorm(size) if config.norm == "batch" else nn.LayerNorm(size))
            width = size
        self.head = Linear(width, spec.target.output_size)

    def features(self, inputs: Tensor) -> Tensor:
        x = self._flat(inputs)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if self.norms:
                x = self.norms[index](x)
            x = self.activation(x)
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
        return x

    def _flat(self, inputs: Tensor) -> Tensor:
        """One vector for each sample: (batch, *spec.input.shape) → (batch, width)."""
        if self.embedding is not None:
            lengths = None if self.pad is None else text_lengths(inputs, self.pad)
            return masked_mean(self.embedding(inputs), lengths)
        if self.columns is not None:
            columns: Tensor = self.columns(inputs)
            return columns
        return inputs.flatten(1)
