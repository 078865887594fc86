"""Checks of a user's own parts, on a few samples before the first step.

A mistake in them would end in a traceback, or silently train something else. Built-in parts are not
checked: tests do that.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from bigmodel.build.custom_parts.isolation import isolated_randomness
from bigmodel.build.custom_parts.loss import try_loss, warn_wrong_form
from bigmodel.build.custom_parts.metric import try_metrics
from bigmodel.build.custom_parts.model import check_model, try_model, try_sharded
from bigmodel.build.custom_parts.optimizer import check_optimizer, try_schedule
from bigmodel.data.base import Batch, DataConfig, Dataset
from bigmodel.errors import ConfigError, SpecError
from bigmodel.losses import Loss
from bigmodel.registry import EntryConfig, losses, models
from bigmodel.spec import DataSpec, NextTokens

__all__ = [
    "check_dataset",
    "check_model",
    "check_optimizer",
    "try_metrics",
    "try_parts",
    "try_schedule",
    "try_sharded",
]

_SAMPLES, _TEXTS = 64, 4
"""The most samples to try parts on; fewer texts, which have outputs for each token."""


def try_parts(
    config: tuple[EntryConfig, EntryConfig], model: nn.Module, loss: Loss, batch: Batch, spec: DataSpec
) -> list[str]:
    """Tries a user's own model or loss on the first samples of a batch.

    Args:
        config: of the model and of the loss.

    Returns:
        Warnings: what trains, but perhaps not as intended.

    Raises:
        SpecError: one of them does not do what is required of it.
    """
    of_model, of_loss = config
    custom_loss = not losses.is_builtin(of_loss.name)
    if models.is_builtin(of_model.name) and not custom_loss:
        return []
    most = _TEXTS if isinstance(spec.target, NextTokens) else _SAMPLES
    inputs, targets = (tensor[:most] for tensor in batch)
    with isolated_randomness():
        outputs, warnings = try_model(model, of_model.name, inputs, spec)
        if custom_loss:
            warnings += try_loss(loss, outputs, targets)
        warnings += warn_wrong_form(of_model.name, loss, custom_loss, outputs, spec)
    return warnings


def check_dataset(dataset: Any, config: DataConfig) -> Dataset:
    """Returns the dataset.

    Raises:
        SpecError: it is something else.
        ConfigError: it is split in another way than into the folds that are set.
    """
    if not isinstance(dataset, Dataset):
        raise SpecError(
            f"data={config.name}: it returned a {type(dataset).__name__}. A data source returns a"
            " Dataset: end it with `return assemble(config, spec, Part(inputs, targets))`."
        )
    if config.folds is not None and dataset.val_rows is None:
        raise ConfigError(
            f"data.folds={config.folds}: data={config.name} splits its samples itself and knows no"
            " folds. Leave the folds out; or let the source end with assemble(config, …), or split by"
            " config.cross_validation and give the dataset its val_rows."
        )
    return dataset
