"""config.json, generation_config.json and weights of a run's model, as its family has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bigmodel.cli.commands.loaded_run import LoadedRun, check_single_target
from bigmodel.cli.commands.predictions.texts import TEMPERATURE
from bigmodel.errors import SpecError
from bigmodel.models.families.base import Family
from bigmodel.models.families.heads import fitted_head
from bigmodel.models.families.matching import match
from bigmodel.models.transformer import Transformer
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import Classes, DataSpec, Flags, Image, Multimodal, NextTokens, Tokens, Values

_PROBLEMS = {
    Classes: "single_label_classification",
    Flags: "multi_label_classification",
    Values: "regression",
}


@dataclass(frozen=True)
class ExportedModel:
    """A model as transformers has it.

    Attributes:
        family: which it belongs to.
        architecture: its class.
        config: of config.json.
        generation: of generation_config.json; None: it does not write.
        weights: by their names there.
    """

    family: Family
    architecture: str
    config: dict[str, Any]
    generation: dict[str, Any] | None
    weights: dict[str, Tensor]


def exported_model(loaded: LoadedRun) -> ExportedModel:
    """A run's model, which is on the CPU, as transformers has it.

    Raises:
        SpecError: no family of transformers computes what it computes.
    """
    spec = loaded.preprocessing.spec
    check_single_target(spec)
    config = loaded.model_config()
    if not isinstance(loaded.model, Transformer) or not isinstance(config, TransformerConfig):
        raise SpecError(_refused(loaded, ""))
    try:
        family = match(config, spec)
        weights = fitted_head(loaded.model.state_dict(), family, spec.target)
    except SpecError as error:
        raise SpecError(_refused(loaded, str(error))) from error
    writes = isinstance(spec.target, NextTokens)
    architecture = family.writer if writes else family.classifier
    assert architecture is not None
    tokens = _special_tokens(loaded, spec)
    settings = {
        "architectures": [architecture],
        "model_type": family.model_type,
        **family.settings(config, spec),
        **tokens,
        **_labels(spec),
        "dtype": "float32",
    }
    head = family.heads[0 if writes else -1]
    patch = config.patch_size if isinstance(spec.input, Image) else 1
    named = family.to_theirs(weights, config.depth, patch, head)
    return ExportedModel(
        family, architecture, settings, _generation(spec, tokens) if writes else None, named
    )


def _refused(loaded: LoadedRun, why: str) -> str:
    several = isinstance(loaded.preprocessing.spec.input, Multimodal)
    other = "The format safetensors holds its weights." if several else "Use the format onnx."
    because = f": {why}" if why else "."
    return (
        f"The format huggingface is for a GPT-2, Llama, BERT or ViT, and {loaded.name} is none{because}"
        f" {other}"
    )


def _labels(spec: DataSpec) -> dict[str, Any]:
    target = spec.target
    if isinstance(target, NextTokens):
        return {}
    return {
        "id2label": {str(number): name for number, name in enumerate(target.names)},
        "label2id": {name: number for number, name in enumerate(target.names)},
        "problem_type": _PROBLEMS[type(target)],
    }


def _special_tokens(loaded: LoadedRun, spec: DataSpec) -> dict[str, int | None]:
    if not isinstance(spec.input, Tokens):
        return {}
    vocabulary = getattr(loaded.preprocessing.reader, "vocabulary", None)
    found = {"pad_token_id": spec.input.pad, "bos_token_id": None, "eos_token_id": None}
    if vocabulary is not None:
        found |= {"bos_token_id": vocabulary.start, "eos_token_id": vocabulary.end}
    if isinstance(spec.target, NextTokens):
        found["eos_token_id"] = spec.target.end
    return found


def _generation(spec: DataSpec, tokens: dict[str, int | None]) -> dict[str, Any]:
    """As `bigmodel predict` writes, up to the end of the context."""
    assert isinstance(spec.input, Tokens)
    return {
        "do_sample": True,
        "temperature": TEMPERATURE,
        "top_k": 0,  # all: theirs is 50
        "max_length": spec.input.length,
        **tokens,
    }
