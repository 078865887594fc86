"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigmodel.errors import ConfigError
from bigmodel.models.families.base import Family, choose, layers, weights
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import DataSpec, Tokens

_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}


def _options(theirs: Mapping[str, Any]) -> dict[str, Any]:
    for key, usual in (("scale_attn_by_inverse_layer_idx", False), ("scale_attn_weights", True)):
        if theirs.get(key, usual) != usual:
            raise ConfigError(f"The model's config.json has {key}={theirs[key]}, which cannot be read.")
    return {
        "dim": theirs["n_embd"],
        "depth": theirs["n_layer"],
        "num_heads": theirs["n_head"],
        "mlp_dim": theirs.get("n_inner") or 4 * theirs["n_embd"],
        "activation": choose(
            "activation_function", theirs.get("activation_function", "gelu_new"), _ACTIVATIONS
        ),
        "norm_eps": theirs.get("layer_norm_epsilon", 1e-5),
        "tied_embeddings": theirs.get("tie_word_embeddings", True),
        "dropout": theirs.get("resid_pdrop", 0.1),
        "position": "learned",
        "norm": "layernorm",
        "norm_first": True,
        "initialisation": "gpt2",
        "bias": True,
        "causal": True,
    }


def _settings(options: TransformerConfig, spec: DataSpec) -> dict[str, Any]:
    assert isinstance(spec.input, Tokens)
    ours = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    return {
        "vocab_size": spec.input.vocab_size,
        "n_positions": spec.input.length,
        "n_embd": options.dim,
        "n_layer": options.depth,
        "n_head": options.num_heads,
        "n_inner": options.feed_forward_width,
        "activation_function": ours.get(options.activation),
        "layer_norm_epsilon": options.norm_epsilon,
        "tie_word_embeddings": options.tied_embeddings,
        "resid_pdrop": options.dropout,
        "embd_pdrop": options.dropout,
        "attn_pdrop": options.dropout,
        "bos_token_id": None,
        "eos_token_id": None,
    }


GPT2 = Family(
    model_type="gpt2",
    prefix="transformer.",
    names=(
        *weights({"embedding.weight": "wte.weight", "positions.weight": "wpe.weight"}),
        *layers(
            {
                "blocks.{}.attention.qkv": "h.{}.attn.c_attn",
                "blocks.{}.attention.output": "h.{}.attn.c_proj",
                "blocks.{}.feed_forward.expand": "h.{}.mlp.c_fc",
                "blocks.{}.feed_forward.contract": "h.{}.mlp.c_proj",
            },
            "transposed",
        ),
        *layers(
            {
                "blocks.{}.attention_norm": "h.{}.ln_1",
                "blocks.{}.feed_forward_norm": "h.{}.ln_2",
                "final_norm": "ln_f",
            }
        ),
    ),
    heads=("lm_head", "score"),
    classifier="GPT2ForSequenceClassification",
    readout="last",
    options=_options,
    settings=_settings,
    writer="GPT2LMHeadModel",
    head_bias=False,
    ignored=(r"h\.\d+\.attn\.(masked_)?bias",),
)
