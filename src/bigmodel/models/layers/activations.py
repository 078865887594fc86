"""Activations by name, and starting weights that suit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

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

_SATURATING = {"tanh", "sigmoid"}


def initialise(layer: nn.Linear | nn.Conv1d | nn.Conv2d, activation: str) -> None:
    """Sets random weights that keep the scale of the signal through layer and activation; biases 0.

    He et al. 2015 (arXiv:1502.01852) for activations like ReLU, Glorot and Bengio 2010 for those that
    saturate on both sides.
    """
    if activation in _SATURATING:
        nn.init.xavier_uniform_(layer.weight, nn.init.calculate_gain(activation))  # type: ignore[arg-type]
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
