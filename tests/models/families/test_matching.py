"""A family holds a model if its config.json says all that the model's options say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigmodel.errors import SpecError
from bigmodel.models.families.matching import match
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import Classes, DataSpec, Image, Input, NextTokens, Sequence, Target, Tokens, Values

CONFIGS = Path(__file__).parents[3] / "configs" / "model"
TEXT, PICTURE = Tokens(16, 50, pad=0), Image(3, 32, 32)
CLASSES, NEXT = Classes(("a", "b"), (1, 1)), NextTokens(50)
VALUES = Values(("x", "y"), (100.0, -3.0), (20.0, 0.5))


def options(name: str, **changes: Any) -> TransformerConfig:
    written = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return TransformerConfig.model_validate(written | changes)


def spec(inputs: Input, target: Target) -> DataSpec:
    return DataSpec("toy", inputs, target)


@pytest.mark.parametrize(
    ("name", "changes", "inputs", "target"),
    [
        ("gpt2", {}, TEXT, NEXT),
        ("gpt2", {"activation": "relu", "mlp_dim": 100, "norm_eps": 1e-3}, TEXT, NEXT),
        ("gpt2", {"tied_embeddings": False}, TEXT, CLASSES),
        ("gpt2", {"causal": False}, TEXT, NEXT),  # in writing it is always causal
        ("llama", {}, TEXT, NEXT),
        ("llama", {"head_dim": 20, "tied_embeddings": True, "num_kv_heads": None}, TEXT, NEXT),
        ("llama", {"rotary_scaling": {"kind": "yarn", "factor": 4.0}}, TEXT, CLASSES),
        ("bert", {}, TEXT, CLASSES),
        ("bert", {"token_types": 1, "dropout": 0.3}, TEXT, VALUES),
        ("vit", {}, PICTURE, CLASSES),
    ],
)
def test_presets_are_of_their_family(
    name: str, changes: dict[str, Any], inputs: Input, target: Target
) -> None:
    assert match(options(name, **changes), spec(inputs, target)).model_type == name


@pytest.mark.parametrize(
    ("name", "changes", "inputs", "target", "needed"),
    [
        ("gpt2", {"position": "sinusoidal"}, TEXT, NEXT, "gpt2, needs model.position=learned"),
        ("gpt2", {"initialisation": "xavier"}, TEXT, NEXT, "gpt2, needs model.initialisation=gpt2"),
        ("gpt2", {"activation": "relu_squared"}, TEXT, NEXT, "gpt2, needs model.activation=gelu_tanh"),
        ("gpt2", {"head_dim": 20}, TEXT, NEXT, "gpt2, needs model.head_dim=64 instead of 20."),
        ("gpt2", {"num_kv_heads": 6}, TEXT, NEXT, "gpt2, needs model.num_kv_heads=12 instead of 6."),
        ("llama", {"qk_norm": True}, TEXT, NEXT, "llama, needs model.qk_norm=false instead of true."),
        ("llama", {"bias": True}, TEXT, NEXT, "llama, needs model.bias=false instead of true."),
        ("bert", {"readout": "mean"}, TEXT, CLASSES, "bert, needs model.readout=pooled instead of mean"),
        ("bert", {"token_types": 0}, TEXT, CLASSES, "bert, needs model.token_types=1 instead of 0."),
        ("bert", {"causal": True}, TEXT, CLASSES, "bert, needs model.causal=false instead of true."),
        ("vit", {"norm_first": False}, PICTURE, CLASSES, "vit, needs model.norm_first=true"),
        ("vit", {}, Sequence(5, 2), CLASSES, "no family reads sequences of 5 steps × 2 features"),
    ],
)
def test_what_no_family_holds_is_told(
    name: str, changes: dict[str, Any], inputs: Input, target: Target, needed: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(needed)):
        match(options(name, **changes), spec(inputs, target))
