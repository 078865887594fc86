"""The options of a model that starts from given weights, and what its data is read with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bigmodel import registry
from bigmodel.build.pretrained.source import Source, expected_inputs, read_source
from bigmodel.config import RunConfig
from bigmodel.data.normalize import ImageSize
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.texts.vocabulary import LengthLimit, Vocabulary
from bigmodel.errors import ConfigError, setting
from bigmodel.models.families import FAMILIES
from bigmodel.models.fine_tuning import LoRAConfig
from bigmodel.spec import DataSpec, NextTokens

FREE = ("dropout", "readout", "initialisation", "zero_init_outputs")
"""Options that do not follow from weights: a value that is typed counts."""

RATE, LORA_RATE = 0.05, 0.5
"""What `optimizer.lr` is multiplied with if it is left as it is: 2e-3 becomes 1e-4, since large steps
lose what the weights know. Low-rank updates need about ten times as much (Biderman et al. 2024,
arXiv:2405.09673)."""

_DECIDED = (("optimizer", "lr"), ("data", "size"), ("data", "context"))
"""Settings that the weights decide if they are left as they are."""

_OF_TOKENIZER = ("data.tokenizer", "data.unit", "data.vocab_size")


def start_from(config: RunConfig) -> tuple[RunConfig, Source | None]:
    """The configuration with the options that the weights of `model.pretrained` need, and what it names.

    Raises:
        ConfigError: there is nothing, or a setting that was typed does not go with it.
        CheckpointError, DataError: it cannot be read.
    """
    path = config.fine_tuning.pretrained
    rank = config.fine_tuning.lora.rank
    _check_updates(config.fine_tuning.lora)
    if rank is not None and pretrained_encoders(config):
        raise ConfigError(
            f"model.lora.rank={rank}: low-rank updates are not for encoders of model=fusion, which are"
            " trained in full. Leave model.lora out."
        )
    if path is None and rank is not None:
        raise ConfigError(
            f"model.lora.rank={rank}: low-rank updates change weights that were trained before. Name"
            " them in model.pretrained, or leave model.lora out."
        )
    if path is None:
        return config, None
    source = read_source(path)
    _check_model(config, source)
    options = {
        key: value
        for key, value in source.options.items()
        if key not in FREE or f"model.{key}" not in config.changed
    }
    suited = _with_sizes(with_rate(with_options(config, options)), source)
    _check_typed(config, suited, source)
    return replace(suited, data=suited.data.starting_from(*source.inputs)), source


def pretrained_encoders(config: RunConfig) -> dict[str, dict[str, Any]]:
    """The settings of the encoders of a fusion that start from given weights, by their keys."""
    encoders: Mapping[str, Any] = getattr(config.model, "encoders", {})
    return {
        key: settings
        for key, settings in encoders.items()
        if isinstance(settings, dict) and settings.get("pretrained")
    }


def with_options(config: RunConfig, options: Mapping[str, Any]) -> RunConfig:
    """The configuration with other options of its model, also in the values that are saved."""
    own = {key: value for key, value in options.items() if key in type(config.model).model_fields}
    model = registry.models.parse({**config.model.model_dump(), **own})
    saved = {key: value for key, value in model.model_dump(mode="json").items() if key in own}
    values = {**config.values, "model": {**config.values["model"], **saved}}
    return replace(config, model=model, values=values)


def with_rate(config: RunConfig) -> RunConfig:
    """The configuration with a lower learning rate, unless one was chosen."""
    rate = getattr(config.optimizer, "lr", None)
    if config.finds_rate or rate is None or not _is_default(config, "optimizer", "lr"):
        return config
    factor = RATE if config.fine_tuning.lora.rank is None else LORA_RATE
    return _with_setting(config, "optimizer", "lr", float(f"{factor * rate:.3g}"))


def _with_sizes(config: RunConfig, source: Source) -> RunConfig:
    """The configuration with images of the size, and windows of at most the length, that the model was
    trained with, unless others were chosen."""
    for one in source.inputs:
        if (
            isinstance(one, ImageSize)
            and one.height == one.width
            and _is_default(config, "data", "size")
        ):
            config = _with_setting(config, "data", "size", one.height)
        if isinstance(one, LengthLimit) and _is_default(config, "data", "context"):
            most = min(one.tokens, getattr(config.data, "context", 0))
            config = _with_setting(config, "data", "context", most)
    return config


def _is_default(config: RunConfig, group: str, key: str) -> bool:
    """Whether a group has a setting, and it was left as it is."""
    entry = getattr(config, group)
    field = type(entry).model_fields.get(key)
    unchanged = field is not None and getattr(entry, key) == field.default
    return unchanged and f"{group}.{key}" not in config.changed


def _with_setting(config: RunConfig, group: str, key: str, value: Any) -> RunConfig:
    """The configuration with another value of a setting, also among those that are saved."""
    changed: Any = {group: getattr(config, group).model_copy(update={key: value})}
    values = {**config.values, group: {**config.values[group], key: value}}
    return replace(config, **changed, values=values)


def suit_target(config: RunConfig, spec: DataSpec) -> RunConfig:
    """The same for what the model is to predict: only a model that writes can have a tied head."""
    tied = getattr(config.model, "tied_embeddings", False)
    if config.fine_tuning.pretrained is None or not tied or isinstance(spec.target, NextTokens):
        return config
    return with_options(config, {"tied_embeddings": False})


def as_started(config: RunConfig, facts: Mapping[str, Any], composed: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run that goes on, with what its start has decided. What it started from
    need not be there any more, unless the run trains updates of it (`model.lora`).

    Args:
        facts: of its newest checkpoint.
        composed: its settings as they were composed then, before the weights were looked at.
    """
    saved, prepared = facts.get("settings"), facts.get("prepared")
    starts = config.fine_tuning.pretrained is not None or pretrained_encoders(config)
    if not starts or saved is None or prepared is None:
        return config
    now, then = config.values["model"], composed["model"]
    kept = {k: v for k, v in saved["model"].items() if k in now and now[k] == then.get(k)}
    config = with_options(config, kept)
    for group, key in _DECIDED:
        own, first, decided = (each[group].get(key) for each in (config.values, composed, saved))
        if own == first != decided is not None:
            config = _with_setting(config, group, key, decided)
    inputs = expected_inputs(Preprocessing.from_facts(prepared))
    typed, before = now.get("pretrained"), then.get("pretrained")
    if (base := facts.get("base")) is not None and typed == before:  # by its whole path
        tuning = config.fine_tuning.model_copy(update={"pretrained": base["path"]})
        config = replace(config, fine_tuning=tuning)
    return replace(config, data=config.data.starting_from(*inputs))


def _check_updates(lora: LoRAConfig) -> None:
    """Raises ConfigError if there are options of low-rank updates, and no updates."""
    differing = [
        setting(f"model.lora.{key}", value)
        for key, value in lora.model_dump(exclude_defaults=True).items()
    ]
    if lora.rank is None and differing:
        raise ConfigError(
            f"{' '.join(differing)}: without model.lora.rank there are no low-rank updates. Add it,"
            " such as model.lora.rank=8, or leave this out."
        )


def _check_model(config: RunConfig, source: Source) -> None:
    """Raises ConfigError if another model was chosen than the one that the weights are of."""
    name = source.options.get("name", config.model.name)
    needed = name if source.family is None else source.family.model_type
    chosen = config.changed.get("model", config.model.name)
    is_other_family = source.family is not None and chosen in FAMILIES and chosen != needed
    if config.model.name != name or is_other_family:
        raise ConfigError(
            f"model={chosen}: {source.where} holds weights of another model, {source.about}. Use"
            f" model={needed}"
        )


def _check_typed(config: RunConfig, suited: RunConfig, source: Source) -> None:
    """Raises ConfigError if a setting that was typed does not go with the weights."""
    has_tokenizer = any(isinstance(one, Vocabulary) for one in source.inputs)
    for key, text in config.changed.items():
        group, _, path = key.partition(".")
        option = path.partition(".")[0]
        if group == "model" and option in source.options:
            typed, needed = (getattr(each.model, option, None) for each in (config, suited))
            if typed != needed:
                raise ConfigError(
                    f"{key}={text}: the weights of {source.where} have model.{option}={needed}. Leave it"
                    " out."
                )
        if key in _OF_TOKENIZER and has_tokenizer:
            raise ConfigError(
                f"{key}={text}: {source.where} comes with its own tokenizer. Leave it out."
            )
