"""Training some parts of a model while others keep their weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from torch import nn

from bigmodel.errors import ConfigError, setting
from bigmodel.model_parts import selected
from bigmodel.runtime import torch_internals


def freeze(model: nn.Module, patterns: Sequence[str], key: str = "model.freeze") -> None:
    """Has the parts that patterns mean keep their weights: see `model_parts`.

    They have no gradients and no state in the optimizer. In training, their dropout drops as before;
    their batch norms use the running statistics, which stay as they are (see `train_mode`).

    Args:
        key: the setting that holds the patterns, for messages.

    Raises:
        ConfigError: a pattern means no part of the model, or nothing would be left to train.
    """
    names = set(chain.from_iterable(selected(model, patterns, key).values()))
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    if names and not any(parameter.requires_grad for parameter in model.parameters()):
        named = setting(key, list(patterns))
        raise ConfigError(f"{named}: nothing is left to train. Name fewer parts.")


def train_mode(model: nn.Module) -> None:
    """Puts a model into training mode, but for batch norms whose weights are frozen: the statistics of
    other batches would change what the frozen part computes."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch_internals.batch_norm_kinds()) and is_frozen(module):
            module.eval()


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, and none of them is trained."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
