"""Builds a run's model and loss: from nothing or from given weights, with what of it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from bigmodel import registry
from bigmodel.build import custom_parts, header
from bigmodel.build.pretrained.adapting import adapt, base_errors
from bigmodel.build.pretrained.encoders import load_encoders, start_encoders
from bigmodel.build.pretrained.loading import load_weights
from bigmodel.build.pretrained.source import Source, read_source
from bigmodel.build.pretrained.start import start_from
from bigmodel.checkpointing.base_weights import BaseWeights
from bigmodel.config import RunConfig
from bigmodel.data.base import Batch
from bigmodel.engine.recompute import recompute_blocks
from bigmodel.engine.regions import compile_model
from bigmodel.errors import ConfigError
from bigmodel.losses import Loss
from bigmodel.losses.adapted import build_loss
from bigmodel.models.layers.batch_norm import batch_norms
from bigmodel.models.summary import Layer, summarize
from bigmodel.runtime.device import Runtime
from bigmodel.spec import DataSpec


class Start(NamedTuple):
    """What a model starts from.

    Attributes:
        source: its weights; None: nothing.
        encoders: those of the encoders of a fusion, by their keys.
    """

    source: Source | None
    encoders: Mapping[str, Source]


class BuiltModel(NamedTuple):
    """A model that can be trained.

    Attributes:
        loss, model: on the device.
        layers: the model's summary.
        rows: for the header.
        base: weights that are named instead of saved; None: all are saved.
    """

    loss: Loss
    model: nn.Module
    layers: list[Layer]
    rows: list[tuple[str, str]]
    base: BaseWeights | None


def find_start(config: RunConfig, goes_on: bool) -> tuple[RunConfig, Start]:
    """What `model.pretrained` names, and the configuration with the settings that it needs.

    Args:
        goes_on: the run has weights in a checkpoint, which replace all but a base of low-rank updates.

    Raises:
        ConfigError, CheckpointError, DataError: it cannot be read, or does not go with other settings.
    """
    if not goes_on:
        config, source = start_from(config)
        config, encoders = start_encoders(config)
        return config, Start(source, encoders)
    if config.fine_tuning.lora.rank is None:
        return config, Start(None, {})
    with base_errors(str(config.fine_tuning.pretrained)):
        return config, Start(read_source(str(config.fine_tuning.pretrained)), {})


def build_model(
    config: RunConfig, spec: DataSpec, runtime: Runtime, batch: Batch, start: Start
) -> BuiltModel:
    """The model of a run, tried on a batch.

    Raises:
        ConfigError, SpecError, CheckpointError: it does not fit the data, or its weights do not fit it.
    """
    torch.manual_seed(config.top.seed)  # the weights depend on nothing else
    loss = build_loss(config.loss, spec).to(runtime.device)
    model: nn.Module = registry.models.build(config.model, spec)
    custom_parts.check_model(model, config.model)
    told, new = list[str](), list[str]()
    if start.source is not None:
        loaded = load_weights(model, start.source, config.model, spec)
        told, new = [loaded.told], loaded.new
    told += load_encoders(model, start.encoders, config, spec)
    base = adapt(model, config.fine_tuning, new)
    model.to(runtime.device)
    warnings = custom_parts.try_parts((config.model, config.loss), model, loss, batch, spec)
    layers = summarize(model, batch.inputs[:1])
    if config.trainer.recompute == "blocks":
        _recompute(model, config)
    compiling = compile_model(model, runtime.device) if config.device.compile else []
    rows = [("Pretrained", line) for line in told]
    rows += header.tuned(model, config.fine_tuning, new)
    rows += [("Compiling", line) for line in compiling]
    rows += [("Warning", line) for line in warnings]
    return BuiltModel(loss, model, layers, rows, base)


def _recompute(model: nn.Module, config: RunConfig) -> None:
    why = ""
    if norms := batch_norms(model):
        why = f"model.{next(iter(norms))} is a batch norm, which would count each batch twice"
    elif not recompute_blocks(model):
        why = f"model={config.model.name} is no stack of equal blocks"
    if why:
        raise ConfigError(f"trainer.recompute=blocks: {why}. Leave it out.")
