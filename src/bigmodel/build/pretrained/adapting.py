"""Trains parts of a model that starts from given weights, and puts such a model together again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bigmodel import registry
from bigmodel.build.pretrained.loading import load_weights
from bigmodel.build.pretrained.source import read_source
from bigmodel.checkpointing.base_weights import ELSEWHERE, BaseWeights, digest_of
from bigmodel.errors import CheckpointError, ConfigError
from bigmodel.models.adaptation import add_updates, compress_frozen, merge_updates
from bigmodel.models.fine_tuning import FineTuningConfig
from bigmodel.registry import EntryConfig
from bigmodel.spec import DataSpec

_UPDATES = (".lora_a", ".lora_b")
"""Begin at random, and so are saved even if `model.freeze` freezes them."""


def adapt(model: nn.Module, config: FineTuningConfig, new: Collection[str]) -> BaseWeights | None:
    """Freezes parts of a model, adds low-rank updates, and stores what is frozen in fewer bits.

    Args:
        model: with the weights of `model.pretrained`.
        new: names of parameters that were not among these.

    Returns:
        The weights that need not be saved; None: all are saved.

    Raises:
        ConfigError: see `add_updates`.
    """
    add_updates(model, config, new)
    digest = digest_of(_unchanged(model, set(new))) if config.lora.rank is not None else ""
    compress_frozen(model, config.frozen_precision)
    if not digest:
        return None
    path = str(Path(str(config.pretrained)).expanduser().resolve())
    return BaseWeights(path, digest, frozenset(_unchanged(model, set(new))))


def _unchanged(model: nn.Module, new: Set[str]) -> dict[str, nn.Parameter]:
    """The parameters that neither training nor anything else has changed since they were loaded."""
    weights = {name.rpartition(".")[0] for name in new if name.endswith(".weight")}
    scales = {f"{layer}.scale" for layer in weights}  # of weights in fewer bits
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not (parameter.requires_grad or name in scales or name in new or name.endswith(_UPDATES))
    }


def load_adapted(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    config: EntryConfig,
    tuning: FineTuningConfig,
    spec: DataSpec,
    base: str | None = None,
) -> None:
    """Loads a checkpoint's weights into a new model of its settings, with the base of low-rank updates,
    which are then added to it: afterwards it is a usual model.

    Args:
        weights, facts: of the checkpoint.
        config, tuning, spec: what the model was built from, and how it was trained.
        base: where the base is now; None: where it was.

    Raises:
        ConfigError, CheckpointError: the base is not there, or is another; or the checkpoint needs none.
        RuntimeError: the weights do not fit the model.
    """
    saved, new = facts.get("base"), list[str]()
    if saved is not None:
        path = base or saved["path"]
        load_base(model, path, config, spec)
        tuning = tuning.model_copy(update={"pretrained": path})
        new = [name for name in weights if name in model.state_dict()]
    elif base is not None:
        raise ConfigError(f"--base {base}: the checkpoint holds all of its weights. Leave it out.")
    adapted, held = adapt(model, tuning, new), dict[str, Tensor]()
    if adapted is not None:
        adapted.check(facts)
        held = {name: weight for name, weight in model.state_dict().items() if name in adapted.names}
    model.load_state_dict(held | dict(weights))
    merge_updates(model)


def usual_weights(
    weights: Mapping[str, Tensor], facts: Mapping[str, Any], spec: DataSpec
) -> Mapping[str, Tensor]:
    """The weights of a checkpoint as a model without updates has them, in fp32.

    Args:
        weights, facts, spec: of the checkpoint, and of its data.

    Raises:
        ConfigError, CheckpointError: see `load_adapted`.
    """
    settings = facts["settings"]["model"]
    tuning = registry.models.parse_shared(settings)
    assert isinstance(tuning, FineTuningConfig)
    if tuning.lora.rank is None and tuning.frozen_precision == "fp32":
        return weights
    config = registry.models.parse(settings)
    model: nn.Module = registry.models.build(config, spec)
    load_adapted(model, weights, facts, config, tuning, spec)
    return model.state_dict()


def load_base(model: nn.Module, path: str, config: EntryConfig, spec: DataSpec) -> None:
    """Loads the weights that a run with low-rank updates was started from.

    Raises:
        CheckpointError: they are not there, or do not fit.
    """
    with base_errors(path):
        load_weights(model, read_source(path), config, spec)


@contextmanager
def base_errors(path: str) -> Iterator[None]:
    """Says of what cannot be read that it is the base of a run, and how to name another place.

    Raises:
        CheckpointError: instead of ConfigError and CheckpointError.
    """
    try:
        yield
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(
            f"its checkpoints hold updates of the weights in {path}, and these cannot be read: {error}"
            f" If they have moved, {ELSEWHERE}."
        ) from error
