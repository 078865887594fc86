"""Each family computes what transformers' own class computes with the same weights, and both read what
the other has written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bigmodel.errors import ConfigError
from bigmodel.models.families import FAMILIES
from bigmodel.models.families.base import Family
from bigmodel.models.generation.decoding import DecodingBatch
from bigmodel.models.transformer import Transformer
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import Classes, DataSpec, Image, Input, NextTokens, Target, Tokens

transformers = pytest.importorskip("transformers")

VOCAB, LENGTH = 61, 54
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": LENGTH,
    "vocab_size": VOCAB,
}
NO_ENDS = {"bos_token_id": None, "eos_token_id": None}


@dataclass
class Case:
    """A model of transformers.

    Attributes:
        kind: which class of theirs has the head.
        settings: of a config.json.
    """

    kind: str
    settings: dict[str, Any]


def llama(**settings: Any) -> Case:
    return Case("LlamaForCausalLM", SIZES | NO_ENDS | {"num_key_value_heads": 2} | settings)


def rotary(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, "factor": 4.0, **settings}}


OLD = "original_max_position_embeddings"
CASES = {
    "gpt2": Case(
        "GPT2LMHeadModel",
        {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": VOCAB, "n_positions": LENGTH, **NO_ENDS},
    ),
    "gpt2-narrow": Case(
        "GPT2LMHeadModel",
        {
            "n_embd": 48,
            "n_layer": 2,
            "n_head": 4,
            "vocab_size": VOCAB,
            "n_positions": LENGTH,
            "n_inner": 70,
            "activation_function": "relu",
            "layer_norm_epsilon": 1e-3,
            **NO_ENDS,
        },
    ),
    "llama": llama(),
    "llama-tied": llama(tie_word_embeddings=True, num_key_value_heads=4, rms_norm_eps=1e-2),
    "llama-wide-heads": llama(head_dim=20),
    "llama-linear": llama(**rotary("linear")),
    "llama-llama3": llama(
        **rotary("llama3", low_freq_factor=1.0, high_freq_factor=4.0, **{OLD: 12}),
    ),
    "llama-yarn": llama(**rotary("yarn", **{OLD: 12})),
    "bert": Case("BertForSequenceClassification", SIZES | {"num_labels": 3}),
    "bert-relu": Case(
        "BertForSequenceClassification",
        SIZES | {"num_labels": 3, "hidden_act": "relu", "type_vocab_size": 5},
    ),
    "vit": Case(
        "ViTForImageClassification",
        {
            **{k: v for k, v in SIZES.items() if k not in ("max_position_embeddings", "vocab_size")},
            "image_size": 12,
            "patch_size": 4,
            "num_channels": 3,
            "num_labels": 3,
        },
    ),
}
LANGUAGE = [name for name in CASES if name.startswith(("gpt2", "llama"))]
CLASSES = Classes(("a", "b", "c"), (1, 1, 1))


def family_of(name: str) -> Family:
    return FAMILIES[name.split("-")[0]]


def reference(name: str) -> Any:
    """A model of theirs with weights that are far from their start, so that each of them matters."""
    case = CASES[name]
    kind = getattr(transformers, case.kind)
    model = kind(kind.config_class(**case.settings, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.tie_weights()
    return model.eval()


def spec_of(name: str) -> DataSpec:
    inputs: Input = Tokens(LENGTH, VOCAB, pad=0 if name.startswith("bert") else None)
    target: Target = NextTokens(VOCAB) if name in LANGUAGE else CLASSES
    if name.startswith("vit"):
        inputs = Image(3, 12, 12)
    return DataSpec("toy", inputs, target)


def config_of(name: str, theirs: dict[str, Any]) -> TransformerConfig:
    options = family_of(name).options(theirs)
    if name.startswith("bert"):
        options["readout"] = "pooled"
    return TransformerConfig.model_validate({"name": "transformer", **options})


def ours_of(name: str, theirs: Any) -> Transformer:
    config = config_of(name, theirs.config.to_dict())
    model = Transformer(config, spec_of(name)).eval()
    weights, left = family_of(name).to_ours(dict(theirs.state_dict()), config.depth)
    if config.tied_embeddings:
        weights.pop("head.weight")
    assert left == []
    model.load_state_dict(weights)  # strict: no name is missing, and none is too many
    return model


def inputs_of(name: str) -> Tensor:
    if name.startswith("vit"):
        return torch.randn(5, 3, 12, 12)
    tokens = torch.randint(1, VOCAB, (5, LENGTH))
    if name.startswith("bert"):
        tokens[torch.arange(LENGTH) >= torch.tensor([[54], [11], [3], [40], [1]])] = 0
    return tokens


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_transformers(name: str) -> None:
    theirs = reference(name)
    ours, inputs = ours_of(name, theirs), inputs_of(name)
    options = {"attention_mask": (inputs != 0).long()} if name.startswith("bert") else {}
    expected = theirs(inputs, output_hidden_states=True, **options)
    outputs = ours(inputs)
    assert expected.logits.std() > 0.1
    assert torch.allclose(outputs, expected.logits, atol=2e-5, rtol=1e-5)
    hidden = hidden_states(ours, inputs)
    for own, their in zip(hidden, expected.hidden_states[: len(hidden)], strict=True):
        real = (
            (inputs != 0) if name.startswith("bert") else torch.ones(their.shape[:2], dtype=torch.bool)
        )
        assert torch.allclose(own[real], their[real], atol=1e-5, rtol=1e-5)


def hidden_states(model: Transformer, inputs: Tensor) -> list[Tensor]:
    """What enters each block."""
    found: list[Tensor] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, args: found.append(args[0])) for block in model.blocks
    ]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", LANGUAGE)
def test_both_write_the_same_text(name: str) -> None:
    """Fifty tokens, each the likeliest."""
    theirs = reference(name)
    theirs.generation_config.pad_token_id = 0
    ours, spec = ours_of(name, theirs), spec_of(name)
    start = [5, 17, 40, 2]
    batch = DecodingBatch(ours, [list(start)], spec, "cpu", LENGTH - len(start))
    batch.prefill()
    while len(batch.rows[0]) < LENGTH:
        batch.append([int(batch.logits[0].argmax())])
    expected = theirs.generate(
        torch.tensor([start]), max_new_tokens=LENGTH - len(start), do_sample=False, use_cache=True
    )
    assert batch.rows[0] == expected[0].tolist()


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read_by_transformers(name: str) -> None:
    """Through our names and settings and back: the same outputs from a model that knows only those."""
    theirs = reference(name)
    ours, family, spec = ours_of(name, theirs), family_of(name), spec_of(name)
    config = config_of(name, theirs.config.to_dict())
    settings = family.settings(config, spec)
    if "num_labels" in CASES[name].settings:
        settings["num_labels"] = 3
    kind = type(theirs)
    back = kind(kind.config_class(**settings, attn_implementation="eager")).eval()
    patch = config.patch_size if name.startswith("vit") else 1
    written = family.to_theirs(ours.state_dict(), config.depth, patch)
    loaded(back, written, family)
    inputs = inputs_of(name)
    assert torch.allclose(back(inputs).logits, theirs(inputs).logits, atol=1e-5)


def loaded(model: nn.Module, written: dict[str, Tensor], family: Family) -> None:
    """Loads weights as `from_pretrained` does: older names become those in memory."""
    own = model.state_dict()
    by_ours = {family._plain(name): name for name in own}
    given = {by_ours[family._plain(name)]: value for name, value in written.items()}
    tied = {"lm_head.weight"} if getattr(model.config, "tie_word_embeddings", False) else set()
    missing, unexpected = model.load_state_dict(given, strict=False)
    assert set(missing) <= tied
    assert unexpected == []
    model.tie_weights()


def test_what_cannot_be_read_is_named() -> None:
    theirs = reference("llama").config.to_dict()
    with pytest.raises(ConfigError, match=re.escape("rope_type=dynamic, which cannot be read")):
        FAMILIES["llama"].options(
            theirs | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}}
        )
    scaled = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "mscale": 0.7}
    with pytest.raises(ConfigError, match="rope_parameters=mscale, which cannot be read"):
        FAMILIES["llama"].options(theirs | {"rope_parameters": scaled})
    with pytest.raises(ConfigError, match="has biases in some layers"):
        FAMILIES["llama"].options(theirs | {"attention_bias": True})


def test_weights_without_a_place_are_named() -> None:
    theirs = reference("gpt2")
    state = dict(theirs.state_dict()) | {"transformer.h.0.crossattention.bias": torch.zeros(1)}
    _, left = FAMILIES["gpt2"].to_ours(state, 3)
    assert left == ["transformer.h.0.crossattention.bias"]
    with pytest.raises(ConfigError, match="no place for extra"):
        FAMILIES["gpt2"].to_theirs({"extra": torch.zeros(1)}, 3)


@torch.no_grad()
def test_a_real_model_reads_real_sentences_alike(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2: six layers of BERT, 384 wide, trained on a billion pairs of sentences."""
    package = pytest.importorskip("all_minilm_l6_v2")
    folder = package.extract_model(str(tmp_path / "model"))
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer(
        ["A cat sat on the mat.", "Rates rose by half a point, the bank said; shares fell."],
        padding=True,
        return_tensors="pt",
    )
    expected = theirs(**read)
    options = FAMILIES["bert"].options(theirs.config.to_dict())
    config = TransformerConfig.model_validate({"name": "transformer", "readout": "pooled", **options})
    inputs = Tokens(512, theirs.config.vocab_size, pad=tokenizer.pad_token_id)
    ours = Transformer(config, DataSpec("toy", inputs, CLASSES)).eval()
    weights, left = FAMILIES["bert"].to_ours(load_file(Path(folder) / "model.safetensors"), config.depth)
    assert left == []
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert missing == ["head.weight", "head.bias"]
    assert unexpected == []
    assert torch.allclose(ours.features(read["input_ids"]), expected.pooler_output, atol=1e-5)
