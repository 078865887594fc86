"""Convolutional networks, plain or residual, over images or in one dimension."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from bigmodel.errors import ConfigError
from bigmodel.models.base import Model
from bigmodel.models.checks import cannot_read, refuse_writing
from bigmodel.models.layers.activations import ACTIVATIONS, Activation, initialise
from bigmodel.models.layers.batch_norm import BatchNorm
from bigmodel.models.layers.embeddings import token_vectors
from bigmodel.models.layers.padding import length_mask, pad_to_length, pad_token, text_lengths
from bigmodel.registry import EntryConfig, models
from bigmodel.spec import DataSpec, Features, Image, Sequence, Tokens

POOLS = {
    ("max", 1): nn.MaxPool1d,
    ("max", 2): nn.MaxPool2d,
    ("avg", 1): nn.AvgPool1d,
    ("avg", 2): nn.AvgPool2d,
}

CHANNELS_LAST = {"cpu", "cuda"}
"""Devices on which images are faster if the channels of a pixel are neighbours in memory."""

Pool = nn.Module | None
"""Halves sizes; None: they stay."""

Size = Annotated[int, Field(ge=1)]

CHANNELS = (32, 64, 64, 128)
"""Width of each layer by default."""

LAYERS = {
    "channels": [*CHANNELS],
    "kernel_sizes": [3],
    "batch_norm": True,
    "readout": "mean",
    "dropout": 0.0,
}
"""What auto is for layers one after another."""

SIDE_BY_SIDE = {
    "channels": [100],
    "kernel_sizes": [3, 5, 7],
    "batch_norm": False,
    "readout": "max",
    "dropout": 0.5,
}
"""What auto is for kernels side by side over a text. In Kim 2014, these see 3, 4 and 5 words; tokens are
shorter."""


class CNNConfig(EntryConfig):
    """Options of the convolutional network."""

    channels: Annotated[list[Size], Field(min_length=1)] | Literal["auto"] = Field(
        "auto",
        description="width of each layer, or residual block; auto: 32, 64, 64 and 128, for text kernels"
        " of several sizes side by side, 100 of each",
    )
    kernel_sizes: Annotated[list[Size], Field(min_length=1)] | Literal["auto"] = Field(
        "auto",
        description="side of each layer's kernels in pixels or steps, odd; a single one serves all;"
        " auto: 3, side by side 3, 5 and 7",
    )
    pooling: Literal["max", "avg"] = Field(
        "max", description="how 2×2 pixels, or 2 steps, become one: max or avg"
    )
    pool_after: list[Size] | None = Field(
        None,
        description="layers after which sizes are halved, counted from 1; null: before each wider layer",
    )
    batch_norm: bool | Literal["auto"] = Field(
        "auto",
        description="normalise each convolution's output over the batch; auto: unless side by side",
    )
    activation: Activation = Field(
        "relu", description="relu, leaky_relu, elu, gelu, silu, tanh or sigmoid"
    )
    residual: bool = Field(
        False, description="make each layer a block of two convolutions with a shortcut around them"
    )
    readout: Literal["auto", "mean", "max", "flatten"] = Field(
        "auto",
        description="what the head sees of the last map: its mean, max, or all (flatten); auto: mean, of"
        " kernels side by side max",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = Field(
        "auto",
        description="share of the features before the head dropped in training, 0 to 1; auto: 0, with"
        " kernels side by side 0.5",
    )
    embedding_dim: int = Field(64, ge=1, description="size of a token's vector, for text only")

    @field_validator("kernel_sizes")
    @classmethod
    def _odd_kernels(cls, sizes: list[int] | str) -> list[int] | str:
        if isinstance(sizes, list) and (even := [size for size in sizes if size % 2 == 0]):
            raise ValueError(
                f"{even[0]} is even; kernels have a middle, try {even[0] - 1} or {even[0] + 1}"
            )
        return sizes

    @field_validator("pool_after")
    @classmethod
    def _existing_layers(cls, after: list[int] | None, info: ValidationInfo) -> list[int] | None:
        channels = info.data.get("channels", after or [])
        layers = len(CHANNELS if channels == "auto" else channels)
        if after and max(after) > layers:
            raise ValueError(f"there is no layer {max(after)}: channels has {layers}")
        return after

    @property
    def widths(self) -> list[int]:
        """The channels of each layer, one after another."""
        return list(CHANNELS) if self.channels == "auto" else self.channels

    def resolved(self, side_by_side: bool) -> CNNConfig:
        """The same options without any auto."""
        usual = SIDE_BY_SIDE if side_by_side else LAYERS
        return self.model_copy(
            update={key: value for key, value in usual.items() if getattr(self, key) == "auto"}
        )

    def pools(self, layer: int) -> bool:
        """Whether sizes are halved after `layer`, counted from 0."""
        if self.pool_after is not None:
            return layer + 1 in self.pool_after
        widths = self.widths
        return layer + 1 < len(widths) and widths[layer + 1] > widths[layer]


def make_pool(pooling: str, sizes: list[int]) -> nn.Module:
    """Pools 2×2 pixels or 2 steps into one. The last window of an odd size is smaller; a size of 1
    stays."""
    kind: Callable[..., nn.Module] = POOLS[pooling, len(sizes)]
    return kind(tuple(min(2, size) for size in sizes), ceil_mode=True)


def masked_pool(pool: nn.Module, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Pools real steps only; returns `x`, 0 at padding, and the new mask.

    Args:
        mask: (batch, 1, steps), False from some step on; None: all steps are real.
    """
    if mask is None:
        return pool(x), None
    pooled_mask = mask[..., ::2]
    if isinstance(pool, nn.MaxPool1d):
        x = pool(x.masked_fill(~mask, -torch.inf)).masked_fill(~pooled_mask, 0.0)
        return x, pooled_mask
    # The mean of a window with padding is divided by the share of real steps in it.
    shares = pool(mask.to(x.dtype)).masked_fill(~pooled_mask, 1.0)
    return pool(x * mask) / shares, pooled_mask


class ConvLayer(nn.Module):
    """A convolution that keeps the size, then optionally a pool and batch norm.

    Shapes: (batch, inputs, *size) → (batch, outputs, *size), with size height and width, or steps,
    halved by a pool. With `mask`, (batch, 1, steps), padding is read as zeros, like the end of a text.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, axes: int, config: CNNConfig, pool: Pool = None
    ) -> None:
        super().__init__()
        kind = nn.Conv2d if axes == 2 else nn.Conv1d
        # A batch norm subtracts the mean, and any bias with it.
        self.conv = kind(inputs, outputs, kernel, padding=kernel // 2, bias=not config.batch_norm)
        initialise(self.conv, config.activation)
        self.pool = pool
        self.norm: nn.Module | None = None
        if config.batch_norm:
            self.norm = BatchNorm(outputs)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        x: Tensor = self.conv(inputs if mask is None else inputs * mask)
        if self.pool is not None:
            x, mask = masked_pool(self.pool, x, mask)
        return x if self.norm is None else self.norm(x, mask)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut around them (He et al. 2015, arXiv:1512.03385, figure 2).

    It starts as its shortcut: the last scale, or without batch norm the last kernel, is zero (Goyal et
    al. 2017, arXiv:1706.02677, section 5.1), so that deep networks learn from the first step. If the
    width changes, the shortcut is a 1×1 convolution. A pool halves the sum.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, axes: int, config: CNNConfig, pool: Pool = None
    ) -> None:
        super().__init__()
        self.first = ConvLayer(inputs, outputs, kernel, axes, config)
        self.second = ConvLayer(outputs, outputs, kernel, axes, config)
        last = self.second.conv if self.second.norm is None else self.second.norm
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        self.shortcut: nn.Module | None = None
        if inputs != outputs:
            self.shortcut = ConvLayer(inputs, outputs, 1, axes, config)
        self.pool = pool
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        x: Tensor = self.second(self.activation(self.first(inputs, mask)), mask)
        x = x + (inputs if self.shortcut is None else self.shortcut(inputs, mask))
        return x if self.pool is None else masked_pool(self.pool, x, mask)[0]


class SideBySide(nn.Module):
    """Convolutions of several widths over one text (Kim 2014, arXiv:1408.5882, figure 1).

    Shapes: (batch, inputs, steps) → (batch, outputs × number of kernels, steps).
    """

    pool: Pool = None

    def __init__(self, inputs: int, outputs: int, kernels: list[int], config: CNNConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvLayer(inputs, outputs, size, 1, config) for size in kernels)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.cat([layer(inputs, mask) for layer in self.layers], dim=1)


@models.register("cnn", CNNConfig)
class CNN(Model):
    """Convolutions y = f(W * x + b) and pooling, then a linear head.

    Two-dimensional over images, one-dimensional over sequences and embedded tokens. The head reads the
    last map's channels, pooled over all positions, and gives one output for each class or value,
    whatever the size of the images. (The article's listing flattens a 10×8×8 map: 640 outputs for 10
    classes.) Odd sizes are halved upwards, 7 to 4, so that no border is lost; a side of 1 stays.

    By default a text has one layer of kernels of several widths side by side, each of which is read
    where it is largest (Kim 2014): a few words decide, wherever they stand.

    Average pools follow the activation. Max pools come before norm and activation, which then have a
    quarter of the work: for a rising activation the result is the same, and a training step on a CPU
    takes five sixths of the time.

    Shapes: (batch, *spec.input.shape) → features (batch, channels of the last map, or all of it with
    readout=flatten) → (batch, output_size).
    """

    def __init__(self, config: CNNConfig, spec: DataSpec) -> None:
        super().__init__()
        refuse_writing("cnn", spec)
        self.pad = pad_token(spec.input)
        self.embedding: nn.Embedding | None = None
        self.steps_first = not isinstance(spec.input, Image)
        match spec.input:
            case Image(channels=width, height=height, width=columns):
                sizes = [height, columns]
            case Sequence(steps=steps, features=width):
                sizes = [steps]
            case Tokens(length=length, vocab_size=vocab_size):
                sizes, width = [length], config.embedding_dim
                self.embedding = token_vectors(vocab_size, width)
            case Features():
                raise cannot_read(
                    "cnn",
                    spec,
                    "Convolutions need neighbours, and features have no order: use model=fnn.",
                )
        self.length = sizes[0]
        self.layers, self.averages = nn.ModuleList(), nn.ModuleList()
        side_by_side = isinstance(spec.input, Tokens) and config.channels == "auto"
        config = config.resolved(side_by_side)
        if side_by_side:
            width = self._add_side_by_side(width, config)
        else:
            width, sizes = self._add_layers(width, sizes, config)
        self.readout, self.dropout = config.readout, float(config.dropout)
        self.activation = ACTIVATIONS[config.activation]
        if self.readout == "flatten":
            width *= math.prod(sizes)
        self.head = nn.Linear(width, spec.target.output_size)

    def _add_layers(self, width: int, sizes: list[int], config: CNNConfig) -> tuple[int, list[int]]:
        """Adds layers one after another; returns the channels of the last map, and its sizes."""
        assert not isinstance(config.kernel_sizes, str)  # resolved
        layers, kernels = len(config.widths), config.kernel_sizes
        if len(kernels) not in (1, layers):
            raise ConfigError(
                f"model.kernel_sizes={kernels}: give one kernel size for all {layers} layers of"
                f" channels, or {layers}."
            )
        kernels = kernels * layers if len(kernels) == 1 else kernels
        make = ResidualBlock if config.residual else ConvLayer
        for layer, (channels, kernel) in enumerate(zip(config.widths, kernels, strict=True)):
            pool = make_pool(config.pooling, sizes) if config.pools(layer) else None
            maximum, average = (pool, None) if config.pooling == "max" else (None, pool)
            self.layers.append(make(width, channels, kernel, len(sizes), config, maximum))
            self.averages.add_module(str(layer), average)
            sizes = [math.ceil(size / 2) for size in sizes] if pool else sizes
            width = channels
        return width, sizes

    def _add_side_by_side(self, width: int, config: CNNConfig) -> int:
        """Adds one layer for a text; returns its channels."""
        for key in ("residual", "pooling", "pool_after"):
            if (value := getattr(config, key)) != CNNConfig.model_fields[key].default:
                raise ConfigError(
                    f"model.{key}={value}: a text has one layer, unless model.channels lists several."
                    f" Set model.channels={[*CHANNELS]}."
                )
        assert not isinstance(config.kernel_sizes, str)  # resolved
        (channels,), kernels = config.widths, config.kernel_sizes
        self.layers.append(SideBySide(width, channels, kernels, config))
        self.averages.add_module("0", None)
        return channels * len(kernels)

    def features(self, inputs: Tensor) -> Tensor:
        mask = None
        if self.pad is not None:
            if self.readout == "flatten":
                inputs = pad_to_length(inputs, self.pad, self.length)
            mask = length_mask(text_lengths(inputs, self.pad), inputs.shape[1]).unsqueeze(1)
        x = inputs if self.embedding is None else self.embedding(inputs)
        if self.steps_first:
            x = x.transpose(1, 2)  # (batch, channels, steps)
        elif x.device.type in CHANNELS_LAST:
            x = x.to(memory_format=torch.channels_last)
        for layer, average in zip(self.layers, self.averages, strict=True):
            x = self.activation(layer(x, mask))
            if mask is not None and layer.pool is not None:
                mask = mask[..., ::2]
            if average is not None:
                x, mask = masked_pool(average, x, mask)
        x = self._read_out(x.flatten(2), mask)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def _read_out(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, channels, positions) → (batch, width), from real positions only."""
        if self.readout == "max":
            return (x if mask is None else x.masked_fill(~mask, -torch.inf)).amax(-1)
        if mask is not None:
            x = x.masked_fill(~mask, 0.0)
        if self.readout == "flatten":
            return x.flatten(1)
        if mask is None:
            # With channels last, this way the gradient is channels last, too.
            return x.transpose(1, 2).mean(1) if x.stride(1) == 1 else x.mean(-1)
        return x.sum(-1) / mask.sum(-1)
