"""Turns a model into one of which parts are trained: low-rank updates, frozen parts, fewer bits."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain

from torch import nn

from bigmodel.errors import ConfigError, SpecError, did_you_mean
from bigmodel.model_parts import all_blocks, selected
from bigmodel.models.fine_tuning import FineTuningConfig, FrozenPrecision, LoRAConfig
from bigmodel.models.freezing import freeze
from bigmodel.models.layers.fast_linear import Linear
from bigmodel.models.layers.frozen import FrozenEmbedding, FrozenLinear, LoRALinear

_SMALLEST = 2**14
"""Numbers in a matrix from which it is stored in fewer bits: smaller ones hardly take memory."""


def add_updates(model: nn.Module, config: FineTuningConfig, new: Collection[str] = ()) -> None:
    """Freezes what `model.freeze` names and, with `model.lora`, everything but low-rank updates.

    Args:
        new: parameters that were not loaded, and so are trained in full beside LoRA.

    Raises:
        ConfigError: a pattern means no part of the model, or no linear layer; nothing is left to train.
    """
    if config.lora.rank is not None:
        _add_lora(model, config.lora, new)
    freeze(model, config.freeze)


def _add_lora(model: nn.Module, config: LoRAConfig, new: Collection[str]) -> None:
    assert config.rank is not None
    beside = set(chain(new, *selected(model, config.train, "model.lora.train").values()))
    targets = _targets(model, config, beside)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in beside)
    for name, layer in targets.items():
        _replace(model, name, LoRALinear(layer, config.rank, config.factor, config.dropout))


def _targets(model: nn.Module, config: LoRAConfig, beside: Collection[str]) -> dict[str, nn.Linear]:
    """The linear layers that get an update, by name."""
    linear = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and f"{name}.weight" not in beside
    }
    if config.targets is None:
        within = {layer for block in all_blocks(model) for layer in block.modules()}
        chosen = [name for name, layer in linear.items() if layer in within] or list(linear)
        if not chosen:
            raise ConfigError(
                f"model.lora.rank={config.rank}: this model has no linear layer that is frozen. Leave it"
                " out."
            )
    else:
        chosen = []
        for pattern, names in selected(model, config.targets, "model.lora.targets").items():
            found = [name for name in linear if f"{name}.weight" in names]
            if not found:
                raise ConfigError(
                    f"model.lora.targets: {pattern!r} has no linear layer that is frozen."
                    f"{did_you_mean(pattern, linear)}"
                )
            chosen += found
    for name in chosen:
        if type(linear[name]) not in (nn.Linear, Linear):
            raise SpecError(
                f"model.lora.targets: {name} is a {type(linear[name]).__name__}, and only a"
                " torch.nn.Linear can have an update. Name other layers."
            )
    return {name: linear[name] for name in dict.fromkeys(chosen)}


def compress_frozen(model: nn.Module, precision: FrozenPrecision) -> None:
    """Stores the weights of frozen linear layers and embeddings in fewer bits.

    Other frozen weights, such as norms', matrices of less than 16,384 numbers, and those that several
    layers share stay as they are.

    Raises:
        ConfigError: nothing is frozen.
    """
    if precision == "fp32":
        return
    if all(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            f"model.frozen_precision={precision}: nothing is frozen, and what is trained stays in fp32."
            " Name frozen parts in model.freeze, set model.lora.rank, or leave it out."
        )
    held: dict[nn.Parameter, int] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter):
            held[weight] = held.get(weight, 0) + 1
    for name, layer in list(model.named_modules()):
        if type(layer) not in (nn.Linear, Linear, LoRALinear, nn.Embedding):
            continue
        weight = layer.get_parameter("weight")
        if weight.requires_grad or held[weight] > 1 or weight.numel() < _SMALLEST:
            continue
        if isinstance(layer, nn.Embedding):
            _replace(model, name, FrozenEmbedding(layer, precision))
        elif isinstance(layer, nn.Linear):
            frozen = layer if isinstance(layer, FrozenLinear) else FrozenLinear(layer)
            frozen.compress(precision)
            _replace(model, name, frozen)


def merge_updates(model: nn.Module) -> None:
    """Makes a model a usual one again: updates are added to weights in fp32, and nothing is frozen."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, FrozenLinear | FrozenEmbedding):
            _replace(model, name, layer.merged())
    model.requires_grad_(True)


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
