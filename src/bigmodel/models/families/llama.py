"""Llama (Touvron et al. 2023, arXiv:2302.13971), all versions of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.models.families.base import Family, choose, layers, weights
from bigmodel.models.transformer_config import RotaryScaling, TransformerConfig
from bigmodel.spec import DataSpec, Tokens

_SCALINGS = {"default": "none", "linear": "linear", "llama3": "llama3", "yarn": "yarn"}
_SCALED = {
    "factor": "factor",
    "original_length": "original_max_position_embeddings",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
}
"""Options of `RotaryScaling`, as ours and theirs call them."""


_READ = {*_SCALED.values(), "rope_theta", "rope_type", "type", "partial_rotary_factor"}
"""What is read of a config.json's `rope_parameters`; anything else would change what is computed."""


def _options(theirs: Mapping[str, Any]) -> dict[str, Any]:
    bias = theirs.get("attention_bias", False)
    if bias or theirs.get("mlp_bias", False):
        raise ConfigError("The model's config.json has biases in some layers, which cannot be read.")
    choose("hidden_act", theirs.get("hidden_act", "silu"), {"silu": "swiglu"})
    heads, dim = theirs["num_attention_heads"], theirs["hidden_size"]
    head_dim = theirs.get("head_dim") or dim // heads
    # Older files have the base apart.
    rotary = theirs.get("rope_parameters") or {
        "rope_theta": theirs.get("rope_theta", 10_000.0),
        **(theirs.get("rope_scaling") or {}),
    }
    kind = rotary.get("rope_type") or rotary.get("type") or "default"
    scaling = {"kind": choose("rope_type", kind, _SCALINGS)}
    for key in rotary:
        choose("rope_parameters", key, dict.fromkeys(sorted(_READ)))
    if scaling["kind"] != "none":
        length = {"original_max_position_embeddings": theirs["max_position_embeddings"]}
        given = length | {key: value for key, value in rotary.items() if value is not None}
        scaling |= {ours: given[own] for ours, own in _SCALED.items() if own in given}
    return {
        "dim": dim,
        "depth": theirs["num_hidden_layers"],
        "head_dim": None if head_dim * heads == dim else head_dim,
        "num_heads": heads,
        "num_kv_heads": theirs.get("num_key_value_heads") or heads,
        "mlp_dim": theirs["intermediate_size"],
        "rotary_base": float(rotary["rope_theta"]),
        "rotary_scaling": scaling,
        "norm_eps": theirs.get("rms_norm_eps", 1e-6),
        "tied_embeddings": theirs.get("tie_word_embeddings", False),
        "position": "rotary",
        "norm": "rmsnorm",
        "norm_first": True,
        "initialisation": "gpt2",
        "activation": "swiglu",
        "bias": False,
        "causal": True,
        "dropout": theirs.get("attention_dropout", 0.0),
    }


def _settings(options: TransformerConfig, spec: DataSpec) -> dict[str, Any]:
    assert isinstance(spec.input, Tokens)
    return {
        "vocab_size": spec.input.vocab_size,
        "max_position_embeddings": spec.input.length,
        "hidden_size": options.dim,
        "num_hidden_layers": options.depth,
        "num_attention_heads": options.num_heads,
        "num_key_value_heads": options.num_kv_heads or options.num_heads,
        "head_dim": options.head_width,
        "intermediate_size": options.feed_forward_width,
        "hidden_act": "silu",
        "rms_norm_eps": options.norm_epsilon,
        "rope_theta": options.rotary_base,
        "rope_scaling": _their_scaling(options.rotary_scaling),
        "tie_word_embeddings": options.tied_embeddings,
        "attention_dropout": options.dropout,
    }


def _their_scaling(scaling: RotaryScaling) -> dict[str, Any] | None:
    if scaling.kind == "none":
        return None
    needed = {"linear": ["factor"], "llama3": list(_SCALED)[:4]}.get(
        scaling.kind, ["factor", "original_length", "beta_fast", "beta_slow", "attention_factor"]
    )
    values = {_SCALED[key]: getattr(scaling, key) for key in needed}
    return {"rope_type": scaling.kind, **{k: v for k, v in values.items() if v is not None}}


LLAMA = Family(
    model_type="llama",
    prefix="model.",
    names=(
        *weights({"embedding.weight": "embed_tokens.weight"}),
        *layers(
            {
                "blocks.{}.attention.qkv": tuple(
                    f"layers.{{}}.self_attn.{part}_proj" for part in ("q", "k", "v")
                ),
                "blocks.{}.attention.output": "layers.{}.self_attn.o_proj",
                "blocks.{}.feed_forward.expand": ("layers.{}.mlp.gate_proj", "layers.{}.mlp.up_proj"),
                "blocks.{}.feed_forward.contract": "layers.{}.mlp.down_proj",
                "blocks.{}.attention_norm": "layers.{}.input_layernorm",
                "blocks.{}.feed_forward_norm": "layers.{}.post_attention_layernorm",
                "final_norm": "norm",
            }
        ),
    ),
    heads=("lm_head", "score"),
    classifier="LlamaForSequenceClassification",
    readout="last",
    options=_options,
    settings=_settings,
    writer="LlamaForCausalLM",
    head_bias=False,
    ignored=(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
)
