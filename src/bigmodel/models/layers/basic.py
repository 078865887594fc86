"""What the models share: activations, starting weights, norms, and what is refused in which words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.spec import DataSpec, NextTokens, TokenPair, Tokens

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

    Shapes: (batch, channels, *size) → the same. With `real`, (batch, 1, *size) and False where there is
    only padding, the statistics are those of the real values, whatever stands beside them.
    """

    def forward(self, inputs: Tensor, real: Tensor | None = None) -> Tensor:
        if self.training and real is not None:
            return self._masked(inputs, real)
        if inputs.numel() > inputs.shape[1]:
            return super().forward(inputs)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(inputs, mean, var, self.weight, self.bias, eps=self.eps)

    def _masked(self, inputs: Tensor, real: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        places = (0, *range(2, inputs.ndim))
        x = inputs.float()  # sums over a batch overflow half precision
        count = real.sum()
        mean = x.masked_fill(~real, 0.0).sum(places, keepdim=True) / count
        var = (x - mean).square().masked_fill(~real, 0.0).sum(places, keepdim=True) / count
        many, shape = count > 1, mean.shape  # chosen by `where`: nothing waits for the count
        used_mean = torch.where(many, mean, self.running_mean.clone().view(shape))
        used_var = torch.where(many, var, self.running_var.clone().view(shape))
        with torch.no_grad():
            share = self.momentum * many
            unbiased = var * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.flatten(), share)
            self.running_var.lerp_(unbiased.flatten(), share)
            self.num_batches_tracked += 1
        normed = (x - used_mean) * torch.rsqrt(used_var + self.eps)
        return (normed * self.weight.view(shape) + self.bias.view(shape)).to(inputs.dtype)

    def _check_input_dim(self, inputs: Tensor) -> None:
        """Any number of dimensions will do: the arithmetic is the same."""


def cannot_read(model: str, spec: DataSpec, advice: str) -> SpecError:
    """The error of a model whose kind of input this is not."""
    return SpecError(f"model={model} cannot read data={spec.name}, which holds {spec.input}. {advice}")


def refuse_writing(model: str, spec: DataSpec) -> None:
    """Raises the error of a model that reads inputs as a whole, where the data wants text written.

    Raises:
        SpecError: inputs are pairs of texts, or the target is the next token.
    """
    if isinstance(spec.input, TokenPair):
        raise cannot_read(
            model,
            spec,
            "It has no part that writes a text after reading another: use model=transformer.",
        )
    if isinstance(spec.target, NextTokens):
        raise SpecError(
            f"model={model} cannot write: data={spec.name} asks for {spec.target} at every position,"
            " and it reads inputs as a whole. Use model=transformer or model=rnn."
        )


def check_writing(model: str, spec: DataSpec) -> bool:
    """Whether a model that can write is asked to: at each position, the next token.

    Raises:
        SpecError: next tokens of inputs that are none, or pairs of texts with another target.
    """
    writes = isinstance(spec.target, NextTokens)
    if writes and not isinstance(spec.input, Tokens | TokenPair):
        raise SpecError(
            f"model={model} writes tokens after tokens, but data={spec.name} asks for {spec.target} of"
            f" {spec.input}. Give it a text to read."
        )
    if isinstance(spec.input, TokenPair) and not writes:
        raise SpecError(
            f"model={model} translates the pairs of data={spec.name}, whose target is then the next"
            f" token, but data={spec.name} has {spec.target}."
        )
    return writes


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
