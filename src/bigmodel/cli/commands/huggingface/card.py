"""The model card: what a model learnt from, how well, and how it was made and is used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import yaml  # type: ignore[import-untyped]

from bigmodel.cli.commands.huggingface.model import ExportedModel
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.cli.commands.run_files import RunFiles
from bigmodel.data.base import SET_NAMES
from bigmodel.data.sources.chat import ChatReader
from bigmodel.metrics.threshold import thresholds
from bigmodel.redaction import masked
from bigmodel.reporting.formatting import duration, figure
from bigmodel.spec import DataSpec, Flags, Image, NextTokens, Values

_EXAMPLES = {
    "text-generation": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokens = model.generate(**tokenizer("A prompt", return_tensors="pt"))
print(tokenizer.decode(tokens[0]))
""",
    "text-classification": """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForSequenceClassification.from_pretrained("FOLDER")
texts = ["A text", "Another one"]
print(model(**tokenizer(texts, truncation=True, padding=True, return_tensors="pt")).logits)
""",
    "image-classification": """\
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("FOLDER")
model = AutoModelForImageClassification.from_pretrained("FOLDER")
print(model(**processor(Image.open("picture.png"), return_tensors="pt")).logits)
""",
}
"""How a model is used, by the Hub's name of what it does."""

_CHAT = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
messages = [{"role": "user", "content": "A question"}]
asked = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
tokens = model.generate(**tokenizer.apply_chat_template(messages, **asked))
print(tokenizer.decode(tokens[0]))
"""
"""The same of a model that answers."""

_FRONT_MATTER = """\
---
# license: name one, such as apache-2.0
library_name: transformers
pipeline_tag: {task}
tags:
- bigmodel-train
---"""


def card(loaded: LoadedRun, exported: ExportedModel, folder: str, remarks: Sequence[str]) -> str:
    """A README.md in the form of the Hugging Face Hub.

    Args:
        folder: the name that the example loads.
        remarks: what a user of the model has to know.
    """
    files, task = RunFiles.read(loaded.run_path.folder), _task(loaded.preprocessing.spec)
    answers = isinstance(loaded.preprocessing.reader, ChatReader)
    example = _CHAT if answers else _EXAMPLES[task]
    parts = [
        _FRONT_MATTER.format(task=task),
        f"# {loaded.name.replace('transformer', exported.family.model_type, 1)}",
        f"{exported.architecture} with {_parameters(loaded):,} parameters, trained with"
        f" bigmodel-train {version('bigmodel-train')}.",
        "## Use",
        "```python\n" + example.replace("FOLDER", folder) + "```",
        *_listed([*_reading(loaded), *remarks]),
        "## Data",
        *_listed(_data(loaded)),
        "## Figures",
        _figures(loaded, files) or "The run has none for these weights.",
        "## Training",
        *_training(loaded, files),
    ]
    return masked("\n\n".join(parts)) + "\n"


def _task(spec: DataSpec) -> str:
    if isinstance(spec.target, NextTokens):
        return "text-generation"
    return "image-classification" if isinstance(spec.input, Image) else "text-classification"


def _parameters(loaded: LoadedRun) -> int:
    return sum(parameter.numel() for parameter in loaded.model.parameters())


def _reading(loaded: LoadedRun) -> list[str]:
    """What the outputs stand for."""
    target = loaded.preprocessing.spec.target
    if isinstance(target, Values):
        return [f"Logits are values in their own unit: {', '.join(target.names)}."]
    found = thresholds(loaded.cuts, target)
    if isinstance(target, Flags):
        found = {name: found.get(name, 0.5) for name in target.names}
    return [f"`{name}`: yes if its probability is above {cut:g}." for name, cut in found.items()]


def _data(loaded: LoadedRun) -> list[str]:
    spec = loaded.preprocessing.spec
    sizes = [f"{SET_NAMES.get(part, part)} {size:,}" for part, size in spec.sizes.items()]
    found = [f"data={spec.name}: {spec.input} → {spec.target}", f"Samples: {', '.join(sizes)}"]
    if path := loaded.data_setting("path", None):
        found.append(f"From `{path}`")
    return found


def _figures(loaded: LoadedRun, files: RunFiles) -> str:
    """A table of the figures of the exported weights; empty if there are none."""
    record = next((one for one in reversed(files.records) if one.get("step") == loaded.step), {})
    summary = files.summary
    tested = summary is not None and summary.test and summary.best.get("step") == loaded.step
    rows = [*_rows(record, "train"), *_rows(record, "val")]
    if summary is not None and tested:
        rows += _rows(summary.test, "test")
    if not rows:
        return ""
    return "\n".join(["| set | figure | value |", "|---|---|---|", *rows])


def _rows(figures: Mapping[str, float | int], part: str) -> list[str]:
    named = {name: value for name, value in figures.items() if name.startswith(f"{part}/")}
    return [
        f"| {SET_NAMES.get(part, part)} | {name.removeprefix(f'{part}/')} | {figure(value)} |"
        for name, value in named.items()
        if math.isfinite(value)
    ]


def _training(loaded: LoadedRun, files: RunFiles) -> list[str]:
    summary = files.summary
    took = [f"Weights of step {loaded.step:,}"]
    if start := loaded.settings["model"].get("pretrained"):
        took.append(f"Started from `{start}`")
    if summary is not None:
        took.append(
            f"The run took {summary.steps:,} steps, {summary.epochs:g} epochs,"
            f" {duration(summary.seconds)}; its loss was {summary.loss}"
        )
        took += [f"{name}: {value}" for name, value in summary.environment.items()]
    found = _listed(took)
    if files.overrides:
        found.append(f"```sh\n{files.command}\n```")
    # Those of the checkpoint: `model.pretrained` may have changed what was typed.
    settings = yaml.safe_dump(loaded.settings, sort_keys=False, allow_unicode=True)
    block = f"```yaml\n{settings}```"
    found.append(f"<details><summary>All settings</summary>\n\n{block}\n\n</details>")
    return found


def _listed(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {line}" for line in lines)] if lines else []
