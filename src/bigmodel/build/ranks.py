"""What several ranks do otherwise than one alone, and what they cannot do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import nn

from bigmodel import registry
from bigmodel.config import RunConfig
from bigmodel.data.base import Dataset
from bigmodel.data.batching.batches import Batches
from bigmodel.distributed.ranks import Ranks
from bigmodel.errors import ConfigError, counted
from bigmodel.models.fine_tuning import FineTuningConfig
from bigmodel.models.layers.batch_norm import batch_norms, synchronise_batch_norms
from bigmodel.optim.optimizers.elementwise import is_elementwise
from bigmodel.runtime.device import Runtime
from bigmodel.runtime.parallel_config import Degrees
from bigmodel.spec import TokenPair, Tokens


def for_ranks(config: RunConfig, ranks: Ranks) -> RunConfig:
    """What one of several ranks does otherwise than one alone."""
    if ranks.size == 1:
        return config
    # If memory runs out on one rank alone, the others wait for it: none can try again.
    return replace(config, trainer=config.trainer.model_copy(update={"on_oom": "stop"}))


def check_ranks(ranks: Ranks, degrees: Degrees, train: Batches, config: RunConfig) -> None:
    """Refuses what ranks cannot do.

    Raises:
        ConfigError: the run asks for it.
    """
    device = config.device
    if device.ranks not in (None, ranks.size):
        raise ConfigError(
            f"device.ranks={device.ranks}: only a single run trains in several processes. Leave it out."
        )
    key = f"device.ranks={ranks.size}"
    if ranks.size > 1 and device.engine not in ("auto", "eager"):
        raise ConfigError(
            f"device.engine={device.engine}: with {key} steps run eagerly. Leave device.engine out."
        )
    if ranks.data_size > min(train.grouped, len(train)):
        raise ConfigError(
            f"{key}: a batch of {counted(min(train.grouped, len(train)), 'sample')} has no row for each."
            " Use fewer ranks, or a larger data.batch_size."
        )
    _check_split(degrees, config.fine_tuning)
    if degrees.share_weights:
        _check_shared(config)


def _check_split(degrees: Degrees, tuning: FineTuningConfig) -> None:
    """Refuses layers that are not split over ranks."""
    kept = {"model.lora.rank": tuning.lora.rank, "model.frozen_precision": tuning.frozen_precision}
    for key, value in kept.items():
        if degrees.tensor > 1 and value not in (None, "fp32"):
            raise ConfigError(
                f"device.parallel.tensor={degrees.tensor}: with {key}={value} layers are not split over"
                " ranks. Use device.parallel.shard, or leave both out."
            )


def _check_shared(config: RunConfig) -> None:
    """Refuses what takes whole weights."""
    if config.trainer.histograms:
        raise ConfigError(
            "trainer.histograms=true: with device.parallel each rank has a part of the weights, and no"
            " histogram would be whole. Leave it out."
        )
    if config.fine_tuning.unfreeze_every is not None:
        raise ConfigError(
            f"model.unfreeze_every={config.fine_tuning.unfreeze_every}: with device.parallel.shard or"
            " .tensor the same weights are trained in every epoch. Leave these out: each rank then has a"
            " copy."
        )
    if not is_elementwise(partial(registry.optimizers.build, config.optimizer)):
        raise ConfigError(
            f"optimizer={config.optimizer.name}: it updates a weight as a whole, and with"
            " device.parallel.shard or .tensor each rank has a part of it. Leave these out, so that each"
            " has a copy, or use another optimizer, such as adamw."
        )


def synchronise(
    model: nn.Module,
    train: Batches,
    dataset: Dataset,
    config: RunConfig,
    runtime: Runtime,
    ranks: Ranks,
) -> None:
    """Gives batch norms the statistics of all ranks' rows, as if one rank had them all.

    Raises:
        ConfigError: that cannot be done.
    """
    norms = batch_norms(model)
    if ranks.size == 1 or not norms:
        return
    accumulate, last = config.trainer.accumulate, len(train) % train.grouped
    others = [name for name, known in norms.items() if not known]
    name = others[0] if others else next(iter(norms))
    fix = f"Use one rank, or {_without_batch_norms(model)}"
    if runtime.device.type != "cuda":
        why = "whose statistics only GPUs add up over ranks"
    elif others:
        why = "of a kind whose statistics cannot be added up over ranks"
    elif isinstance(dataset.spec.input, Tokens | TokenPair):
        why = "and statistics that leave out a text's padding are not added up over ranks"
    elif config.device.compile:
        why = "which is not compiled with the statistics of all ranks"
        fix = "Leave device.compile out, or use one rank"
    elif accumulate > 1:  # ranks may have another number of micro-batches
        why = "whose statistics are those of a batch at once"
        fix = f"Use trainer.accumulate=1 instead of {accumulate}, or one rank"
    elif 0 < last < ranks.data_size and not config.data.drop_last:
        why = f"and the last batch of an epoch, of {counted(last, 'sample')}, has no row for each rank"
        fix = "Use data.drop_last=true, or another data.batch_size"
    else:
        synchronise_batch_norms(model)
        return
    raise ConfigError(f"device.ranks={ranks.size}: model.{name} is a batch norm, {why}. {fix}.")


def _without_batch_norms(model: nn.Module) -> str:
    """The settings of the same model without batch norm, where they are known."""
    from bigmodel.models.cnn import CNN  # only what a run uses is imported
    from bigmodel.models.fnn import FNN
    from bigmodel.models.fusion import Fusion

    parts = {"model": model}
    if isinstance(model, Fusion):
        encoders = zip(model.keys, model.encoders.values(), strict=True)
        parts = {f"model.encoders.{key}": encoder for key, encoder in encoders}
    settings = []
    for where, part in parts.items():
        if not batch_norms(part):
            continue
        if not isinstance(part, CNN | FNN):
            return "a model without batch norm"
        settings.append(f"{where}.{'batch_norm=false' if isinstance(part, CNN) else 'norm=none'}")
    return " ".join(dict.fromkeys(settings))  # one key may be for several encoders
