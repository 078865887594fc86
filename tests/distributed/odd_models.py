"""A plugin with a model as a stranger may write it: `plugins=[tests.distributed.odd_models]`."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from bigmodel.models.base import Model
from bigmodel.registry import EntryConfig, models
from bigmodel.spec import DataSpec

WIDTH = 7


class OddConfig(EntryConfig):
    kind: Literal[
        "listed", "unlisted", "number", "buffer", "frozen", "skipping", "unused", "mean", "shared"
    ] = "listed"


class Layer(nn.Module):
    """Adds a linear layer of x, scaled; of all samples, or of those whose first feature is large."""

    def __init__(self, scale: Tensor | float, *, skips: bool = False) -> None:
        super().__init__()
        self.linear, self.skips = nn.Linear(WIDTH, WIDTH), skips
        if isinstance(scale, nn.Parameter):
            self.scale: Tensor | float = scale
        elif isinstance(scale, Tensor):
            self.register_buffer("scale", scale)
        else:
            self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        if not self.skips:
            return x + self.scale * torch.tanh(self.linear(x))
        chosen = x[:, 0] > 0.4
        if not chosen.any():  # its weights have no gradient then
            return x
        return x + chosen.unsqueeze(1) * torch.tanh(self.linear(x))


@models.register("odd", OddConfig)
class Odd(Model):
    """Three layers.

    * unlisted: not in an `nn.ModuleList`, as they are otherwise.
    * number: a parameter without dimensions scales what a layer adds.
    * buffer: a constant buffer does.
    * frozen: some weights are not trained.
    * skipping: a layer's weights take part in some passes only.
    * unused: a parameter takes part in nothing.
    * mean: a buffer is a running mean.
    * shared: two layers have a weight in common.
    """

    def __init__(self, config: OddConfig, spec: DataSpec) -> None:
        super().__init__()
        kind, scale = config.kind, torch.linspace(0.3, 0.9, WIDTH)
        self.first = nn.Linear(math.prod(spec.input.shape), WIDTH)
        layers = [
            Layer(nn.Parameter(torch.tensor(0.5)) if kind == "number" else 0.5),
            Layer(scale if kind == "buffer" else 0.5, skips=kind == "skipping"),
        ]
        self.layers = nn.Sequential(*layers) if kind == "unlisted" else nn.ModuleList(layers)
        if kind == "frozen":
            self.first.requires_grad_(False)
            layers[0].linear.bias.requires_grad_(False)
            layers[1].requires_grad_(False)
        if kind == "unused":
            self.spare = nn.Parameter(torch.ones(3))
        if kind == "shared":
            layers[1].linear.weight = layers[0].linear.weight
        self.mean = nn.Buffer(torch.zeros(WIDTH)) if kind == "mean" else None
        self.head = nn.Linear(WIDTH, spec.target.output_size)

    def features(self, inputs: Tensor) -> Tensor:
        x = torch.tanh(self.first(inputs.flatten(1)))
        for layer in self.layers:
            x = layer(x)
        if self.mean is None:
            return x
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean(0), 0.5)
        return x - self.mean
