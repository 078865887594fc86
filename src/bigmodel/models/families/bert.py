"""BERT (Devlin et al. 2018, arXiv:1810.04805)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.models.families.base import Family, choose, layers, weights
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, Tokens

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu"}


def _options(theirs: Mapping[str, Any]) -> dict[str, Any]:
    position = theirs.get("position_embedding_type") or "absolute"
    return {
        "dim": theirs["hidden_size"],
        "depth": theirs["num_hidden_layers"],
        "num_heads": theirs["num_attention_heads"],
        "mlp_dim": theirs["intermediate_size"],
        "position": choose("position_embedding_type", position, {"absolute": "learned"}),
        "activation": choose("hidden_act", theirs.get("hidden_act", "gelu"), _ACTIVATIONS),
        "norm_eps": theirs.get("layer_norm_eps", 1e-12),
        "token_types": theirs.get("type_vocab_size", 2),
        "dropout": theirs.get("hidden_dropout_prob", 0.1),
        "norm": "layernorm",
        "norm_first": False,
        "initialisation": "gpt2",
        "bias": True,
        "embedding_norm": True,
        "causal": bool(theirs.get("is_decoder", False)),
    }


def _settings(options: TransformerConfig, spec: DataSpec) -> dict[str, Any]:
    assert isinstance(spec.input, Tokens)
    ours = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    return {
        "vocab_size": spec.input.vocab_size,
        "max_position_embeddings": spec.input.length,
        "hidden_size": options.dim,
        "num_hidden_layers": options.depth,
        "num_attention_heads": options.num_heads,
        "intermediate_size": options.feed_forward_width,
        "hidden_act": choose("activation", options.activation, ours),
        "layer_norm_eps": options.norm_eps or 1e-5,
        "type_vocab_size": options.token_types,
        "pad_token_id": spec.input.pad or 0,
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.dropout,
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
    options=_options,
    settings=_settings,
    aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    ignored=(r"embeddings\.position_ids", r"cls\..*"),  # cls: the heads of its own training
)
