"""Training some parts of a model while others keep their weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from torch import nn

from bigmodel.errors import ConfigError, counted, setting
from bigmodel.model_parts import is_frozen, layer_numbers, selected
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


class Unfreezing:
    """Gradual unfreezing (Howard and Ruder 2018, ULMFiT, arXiv:1801.06146).

    At first the head is trained, with all else that comes after the blocks; then one more block at a
    time, downwards; at last the embeddings.

    Args:
        model: what is frozen already stays so.
        every: epochs after which the next block is trained too.

    Raises:
        ConfigError: the model has no stack of blocks.
    """

    def __init__(self, model: nn.Module, every: int) -> None:
        numbers = layer_numbers(model)
        if not numbers:
            raise ConfigError(
                f"model.unfreeze_every={every}: this model is no stack of equal blocks. Leave it out;"
                " model.freeze names parts."
            )
        self._every = every
        layers: dict[int, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                layers.setdefault(numbers[name], []).append(parameter)
        self._layers = [layers[number] for number in sorted(layers, reverse=True)]
        self._trained = len(self._layers)

    def __str__(self) -> str:
        return f"one more block every {counted(self._every, 'epoch')}, all from epoch {self._last} on"

    @property
    def _last(self) -> int:
        """The epoch, from 1, from which on all is trained."""
        return self._every * (len(self._layers) - 1) + 1

    def warnings(self, epochs: int) -> list[str]:
        """What to say if a run of so many epochs is too short to train all."""
        if epochs >= self._last:
            return []
        never = len(self._layers) - 1 - (epochs - 1) // self._every
        return [
            f"model.unfreeze_every={self._every}: the run ends after {counted(epochs, 'epoch')}, so that"
            f" the lowest {never} of {len(self._layers)} parts are never trained. All are in one of"
            f" trainer.epochs={self._last} or more."
        ]

    def begin(self, epoch: int) -> bool:
        """Has the layers whose turn it is in an epoch, from 0, trained, and no others.

        Returns:
            Whether others were trained until now.
        """
        trained = min(1 + epoch // self._every, len(self._layers))
        if trained == self._trained:
            return False
        self._trained = trained
        for number, layer in enumerate(self._layers):
            for parameter in layer:
                parameter.requires_grad_(number < trained)
        return True
