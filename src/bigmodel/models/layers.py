"""What the models share: activations, and the ways from each kind of input to vectors at positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.spec import DataSpec, Features, Image, Input, Sequence, Tokens

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": F.tanh,
    "sigmoid": F.sigmoid,
}

_SQUASHING = {"tanh", "sigmoid"}


def initialise(layer: nn.Linear | nn.Conv1d | nn.Conv2d, activation: str) -> None:
    """Random weights that keep the scale of the signal through the layer and `activation`; bias 0.

    He et al. 2015 (arXiv:1502.01852) for activations like ReLU, Glorot and Bengio 2010 for those that
    squash.
    """
    if activation in _SQUASHING:
        nn.init.xavier_uniform_(layer.weight, nn.init.calculate_gain(activation))  # type: ignore[arg-type]
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167), in one dimension, two or none.

    A lone value in each channel, as in a last batch of one sample, has no deviation of its own, and
    torch refuses it in training: here the running statistics normalise it.

    Shapes: (batch, channels, *size) → the same.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.numel() > inputs.shape[1]:
            return super().forward(inputs)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(inputs, mean, var, self.weight, self.bias, eps=self.eps)

    def _check_input_dim(self, inputs: Tensor) -> None:
        """Any number of dimensions will do: the arithmetic is the same."""


def cannot_read(model: str, spec: DataSpec, advice: str) -> SpecError:
    """The error of a model whose kind of input this is not."""
    return SpecError(f"model={model} cannot read data={spec.name}, which holds {spec.input}. {advice}")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout and batch statistics off inside the block; each module's own mode is back after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class PatchEmbedding(nn.Module):
    """Cuts images into patches that do not overlap, and maps each linearly to a vector.

    The same as a convolution whose stride is its kernel size (Dosovitskiy et al. 2020,
    arXiv:2010.11929), as one matrix product. Patches of size 1 are pixels.

    Shapes: (batch, channels, height, width) → (batch, rows × columns of patches, dim), row by row.
    """

    def __init__(self, channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.project = nn.Linear(channels * patch_size**2, dim)
        _unit_scale(self.project)

    def forward(self, inputs: Tensor) -> Tensor:
        size = self.patch_size
        batch, channels, height, width = inputs.shape
        patches = inputs.reshape(batch, channels, height // size, size, width // size, size)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size**2)
        outputs: Tensor = self.project(patches)
        return outputs


class StepEmbedding(nn.Linear):
    """Maps the features of each time step linearly: (batch, steps, features) → (batch, steps, dim)."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__(features, dim)
        _unit_scale(self)


class FeatureEmbedding(nn.Module):
    """Makes each feature of a table a vector of its own: its value times a learnt vector, plus another.

    The feature tokenizer of Gorishniy et al. 2021 (arXiv:2106.11959). The second vector says which
    feature it is, so no position is added.

    Shapes: (batch, count) → (batch, count, dim).
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(count, dim)))
        self.bias = nn.Parameter(nn.init.normal_(torch.empty(count, dim)))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.unsqueeze(-1) * self.weight + self.bias


def embed(spec: DataSpec, dim: int, patch_size: int, model: str) -> nn.Module:
    """The module that maps the inputs of `spec`, whatever their kind, to (batch, positions, dim).

    Raises:
        SpecError: the patches do not tile the image.
    """
    match spec.input:
        case Image(channels=channels) as image:
            _check_patches(image, patch_size, model)
            return PatchEmbedding(channels, patch_size, dim)
        case Sequence(features=features):
            return StepEmbedding(features, dim)
        case Tokens(vocab_size=vocab_size):
            return nn.Embedding(vocab_size, dim)
        case Features(count=count):
            return FeatureEmbedding(count, dim)


def grid_of(kind: Input, patch_size: int) -> tuple[int, ...]:
    """How the positions that `embed` gives lie: rows × columns of an image, else along one line."""
    if isinstance(kind, Image):
        return (kind.height // patch_size, kind.width // patch_size)
    return kind.shape[:1]


def _check_patches(image: Image, patch_size: int, model: str) -> None:
    if image.height % patch_size == 0 and image.width % patch_size == 0:
        return
    fitting = [
        str(size)
        for size in range(1, min(image.height, image.width) + 1)
        if image.height % size == 0 and image.width % size == 0
    ]
    raise SpecError(
        f"model.patch_size={patch_size}: patches of {patch_size}×{patch_size} do not tile"
        f" {image}. With model={model} on these, choose model.patch_size={'|'.join(fitting)}."
    )


def _unit_scale(layer: nn.Linear) -> None:
    """Standardised inputs come out with unit variance, as positions and token vectors have."""
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    nn.init.zeros_(layer.bias)


def check_divides(number: int, of: str, whole: int) -> int:
    """`number`, if it divides `whole`.

    Raises:
        ValueError: it does not; the message names the nearest numbers that do.
    """
    if whole % number:
        small = [n for n in range(1, math.isqrt(whole) + 1) if whole % n == 0]
        divisors = [*small, *(whole // n for n in small)]
        below = max(n for n in divisors if n < number)
        above = [n for n in divisors if n > number]
        advice = f"{below} or {min(above)}" if above else f"{below}"
        raise ValueError(f"does not divide {of}={whole}; try {advice}")
    return number
