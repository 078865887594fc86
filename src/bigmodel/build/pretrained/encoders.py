"""The encoders of a fusion of several kinds of data that start from given weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from bigmodel.build.pretrained.loading import load_weights
from bigmodel.build.pretrained.source import Source, read_source
from bigmodel.build.pretrained.start import FREE, pretrained_encoders, with_options, with_rate
from bigmodel.config import RunConfig
from bigmodel.data.texts.vocabulary import Vocabulary
from bigmodel.errors import ConfigError
from bigmodel.spec import DataSpec


def start_encoders(config: RunConfig) -> tuple[RunConfig, dict[str, Source]]:
    """The configuration with the options that the weights of encoders need, and what they start from, by
    their keys in `model.encoders`.

    Raises:
        ConfigError: there is nothing, a setting does not go with it, or tokenizers differ.
        CheckpointError, DataError: it cannot be read.
    """
    chosen = pretrained_encoders(config)
    if not chosen:
        return config, {}
    sources, suited = {}, {**getattr(config.model, "encoders", {})}
    for key, settings in chosen.items():
        source = read_source(str(settings["pretrained"]), f"model.encoders.{key}.pretrained")
        _check_settings(key, settings, source)
        sources[key], suited[key] = source, {**source.options, **settings}
    inputs = [one for source in sources.values() for one in source.inputs]
    vocabularies = [one for one in inputs if isinstance(one, Vocabulary)]
    if any(other != vocabularies[0] for other in vocabularies):
        raise ConfigError(
            f"model.encoders: {' and '.join(sources)} start from models with different tokenizers, and"
            " all texts are read with one. Start one of them from nothing."
        )
    config = with_rate(with_options(config, {"encoders": suited}))
    return replace(config, data=config.data.starting_from(*inputs)), sources


def load_encoders(
    model: nn.Module, sources: Mapping[str, Source], config: RunConfig, spec: DataSpec
) -> list[str]:
    """Loads weights into encoders; what was loaded, for the header.

    Raises:
        CheckpointError: see `load_weights`.
    """
    if not sources:
        return []
    from bigmodel.models.fusion import Fusion, encoder_config  # only what a run uses is imported

    assert isinstance(model, Fusion)
    settings: Mapping[str, Any] = getattr(config.model, "encoders", {})
    found = []
    for (name, encoder), key, kind in zip(model.encoders.items(), model.keys, model.kinds, strict=True):
        if key in sources:
            options = encoder_config(key, settings[key])
            loaded = load_weights(encoder, sources[key], options, replace(spec, input=kind))
            found.append(f"{name}: {loaded.told}")
    return found


def _check_settings(key: str, settings: Mapping[str, Any], source: Source) -> None:
    """Raises ConfigError if a setting does not go with the weights."""
    for option, value in settings.items():
        needed = source.options.get(option, value)
        if option not in FREE and value != needed:
            raise ConfigError(
                f"model.encoders.{key}.{option}={value}: the weights of {source.where} have"
                f" {option}={needed}. Leave it out."
            )
