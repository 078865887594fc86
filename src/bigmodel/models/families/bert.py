"""BERT (Devlin et al. 2018, arXiv:1810.04805)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.models.families.base import (
    Family,
    choose,
    encoder_options,
    encoder_settings,
    layers,
    weights,
)
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, Tokens


def _options(theirs: Mapping[str, Any]) -> dict[str, Any]:
    position = theirs.get("position_embedding_type") or "absolute"
    return {
        **encoder_options(theirs, 0.1),
        "position": choose("position_embedding_type", position, {"absolute": "learned"}),
        "token_types": theirs.get("type_vocab_size", 2),
        "norm_first": False,
        "embedding_norm": True,
        "causal": bool(theirs.get("is_decoder", False)),
    }


def _settings(options: TransformerConfig, spec: DataSpec) -> dict[str, Any]:
    assert isinstance(spec.input, Tokens)
    return {
        **encoder_settings(options),
        "vocab_size": spec.input.vocab_size,
        "max_position_embeddings": spec.input.length,
        "type_vocab_size": max(1, options.token_types),  # one at least
        "pad_token_id": spec.input.pad or 0,
    }


BERT = Family(
    model_type="bert",
    prefix="bert.",
    names=(
        *weights(
            {
                "embedding.weight": "embeddings.word_embeddings.weight",
                "positions.weight": "embeddings.position_embeddings.weight",
                "token_types.weight": "embeddings.token_type_embeddings.weight",
            }
        ),
        *layers(
            {
                "embedding_norm": "embeddings.LayerNorm",
                "blocks.{}.attention.qkv": tuple(
                    f"encoder.layer.{{}}.attention.self.{part}" for part in ("query", "key", "value")
                ),
                "blocks.{}.attention.output": "encoder.layer.{}.attention.output.dense",
                "blocks.{}.attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
                "blocks.{}.feed_forward.expand": "encoder.layer.{}.intermediate.dense",
                "blocks.{}.feed_forward.contract": "encoder.layer.{}.output.dense",
                "blocks.{}.feed_forward_norm": "encoder.layer.{}.output.LayerNorm",
                "pooler": "pooler.dense",
            }
        ),
    ),
    heads=("classifier",),
    classifier="BertForSequenceClassification",
    readout="pooled",
    options=_options,
    settings=_settings,
    aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    ignored=(r"embeddings\.position_ids", r"cls\..*"),  # cls: the heads of its own training
)
