"""The vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.models.families.base import (
    Family,
    encoder_options,
    encoder_settings,
    layers,
    weights,
)
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, Image

_ATTENTION = "encoder.layer.{}.attention.attention"


def _options(theirs: Mapping[str, Any]) -> dict[str, Any]:
    if not theirs.get("qkv_bias", True):
        raise ConfigError("The model's config.json has qkv_bias=false, which cannot be read.")
    return {
        **encoder_options(theirs, 0.0),
        "patch_size": theirs["patch_size"],
        "position": "learned",
        "norm_first": True,
        "class_token": True,
        "readout": "first",
        "causal": False,
    }


def _settings(options: TransformerConfig, spec: DataSpec) -> dict[str, Any]:
    assert isinstance(spec.input, Image)
    height, width = spec.input.height, spec.input.width
    return {
        **encoder_settings(options),
        "image_size": height if height == width else [height, width],
        "patch_size": options.patch_size,
        "num_channels": spec.input.channels,
    }


VIT = Family(
    model_type="vit",
    prefix="vit.",
    names=(
        *weights({"class_token": "embeddings.cls_token"}),
        *weights({"positions.weight": "embeddings.position_embeddings"}, "row"),
        *layers({"embedding.project": "embeddings.patch_embeddings.projection"}, "kernel"),
        *layers(
            {
                "blocks.{}.attention.qkv": tuple(
                    f"encoder.layer.{{}}.attention.attention.{part}"
                    for part in ("query", "key", "value")
                ),
                "blocks.{}.attention.output": "encoder.layer.{}.attention.output.dense",
                "blocks.{}.attention_norm": "encoder.layer.{}.layernorm_before",
                "blocks.{}.feed_forward.expand": "encoder.layer.{}.intermediate.dense",
                "blocks.{}.feed_forward.contract": "encoder.layer.{}.output.dense",
                "blocks.{}.feed_forward_norm": "encoder.layer.{}.layernorm_after",
                "final_norm": "layernorm",
            }
        ),
    ),
    heads=("classifier",),
    classifier="ViTForImageClassification",
    readout="first",
    options=_options,
    settings=_settings,
    reads=Image,
    aliases=(  # names in memory since version 5 of transformers
        (r"^layers\.(\d+)\.attention\.o_proj", r"encoder.layer.\1.attention.output.dense"),
        (r"^layers\.(\d+)\.attention\.q_proj", r"encoder.layer.\1.attention.attention.query"),
        (r"^layers\.(\d+)\.attention\.k_proj", r"encoder.layer.\1.attention.attention.key"),
        (r"^layers\.(\d+)\.attention\.v_proj", r"encoder.layer.\1.attention.attention.value"),
        (r"^layers\.(\d+)\.mlp\.fc1", r"encoder.layer.\1.intermediate.dense"),
        (r"^layers\.(\d+)\.mlp\.fc2", r"encoder.layer.\1.output.dense"),
        (r"^layers\.(\d+)\.", r"encoder.layer.\1."),
    ),
    ignored=(r"pooler\..*",),
)
