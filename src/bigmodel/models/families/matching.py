"""Which family a model belongs to, so that others can load it."""

from __future__ import annotations

from typing import Any

from bigmodel.errors import SpecError
from bigmodel.models.families import FAMILIES
from bigmodel.models.families.base import Family
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, NextTokens

_COMPARED = (
    *("dim", "depth", "num_heads", "qk_norm", "position", "norm", "norm_first", "activation", "bias"),
    *("embedding_norm", "token_types", "class_token", "tied_embeddings"),
)
"""Options that have to be the same as they stand."""


def match(config: TransformerConfig, spec: DataSpec) -> Family:
    """The family that computes what the model computes: its config.json, read back, gives its options.

    Raises:
        SpecError: there is none; the message names the options that the nearest would need.
    """
    writes = isinstance(spec.target, NextTokens)
    candidates = [
        family
        for family in FAMILIES.values()
        if isinstance(spec.input, family.reads) and (family.writer or not writes)
    ]
    if not candidates:
        raise SpecError(f"no family reads {spec.input} and gives {spec.target}.")
    needed = {family.model_type: _needed(family, config, spec) for family in candidates}
    nearest = min(needed, key=lambda name: len(needed[name]))
    if changes := needed[nearest]:
        raise SpecError(
            f"no family has all its options. The nearest, model={nearest}, needs {', '.join(changes)}."
        )
    return FAMILIES[nearest]


def _needed(family: Family, config: TransformerConfig, spec: DataSpec) -> list[str]:
    """What would have to change for the family to hold the model, such as `model.norm=rmsnorm instead of
    layernorm`."""
    settings = {key: value for key, value in family.settings(config, spec).items() if value is not None}
    read = family.options(settings)
    # Unchecked: options of a family that the model is not of may contradict each other.
    theirs = TransformerConfig.model_construct(**{"readout": family.readout, **read})
    own, wanted = _effective(config, spec), _effective(theirs, spec)
    return [
        f"model.{name}={_shown(wanted[name])} instead of {_shown(own[name])}"
        for name in own
        if own[name] != wanted[name]
    ]


def _effective(config: TransformerConfig, spec: DataSpec) -> dict[str, Any]:
    """What a model computes, by option: of two equal dicts, each is what the other stands for.

    How rotary positions are scaled is left out: the family that has them has all scalings.
    """
    writes = isinstance(spec.target, NextTokens)
    scaled = config.tied_embeddings and config.initialisation == "xavier"
    return {
        **{name: getattr(config, name) for name in _COMPARED},
        "head_dim": config.head_width,
        "num_kv_heads": config.num_kv_heads or config.num_heads,
        "mlp_dim": config.feed_forward_width,
        "norm_eps": config.norm_epsilon,
        "causal": config.causal or writes,
        "readout": None if writes else config.effective_readout,
        "initialisation": "xavier" if scaled else "gpt2",  # only then does it scale embeddings
    }


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
