"""The folder that `AutoModel….from_pretrained` loads, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from bigmodel.cli.commands.huggingface import pictures
from bigmodel.cli.commands.huggingface.card import card
from bigmodel.cli.commands.huggingface.model import exported_model
from bigmodel.cli.commands.huggingface.tokenizer import chat_remarks, tokenizer_files
from bigmodel.cli.commands.loaded_run import LoadedRun, Notify, check_finite
from bigmodel.cli.commands.output_files import new_files
from bigmodel.data.texts.vocabulary import VocabularyReader
from bigmodel.spec import Image

NAMES = (
    *("config.json", "model.safetensors", "generation_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md"),
)
"""All files that a folder may have."""


def write_folder(loaded: LoadedRun, output: Path, notify: Notify) -> None:
    """Writes a run's model, which is on the CPU, as transformers has it.

    Args:
        output: the folder; files of another model in it are replaced or removed.
        notify: receives what was written.

    Raises:
        SpecError: transformers has no such model.
        UndefinedError: weights are NaN or infinite.
        DataError: the folder cannot be written, or the tokenizer not.
    """
    exported = exported_model(loaded)
    check_finite(exported.weights)
    files, remarks = _described(loaded)
    files["config.json"] = exported.config
    if exported.generation is not None:
        files["generation_config.json"] = exported.generation
    files["README.md"] = card(loaded, exported, output.resolve().name, remarks)
    with new_files(output, NAMES) as folder:
        weights = folder / "model.safetensors"
        weights.touch()
        mode = weights.stat().st_mode
        save_file(exported.weights, weights, {"format": "pt"})  # some versions ask for the format
        weights.chmod(mode)  # safetensors lets nobody else read it
        for name, content in files.items():
            text = content if isinstance(content, str) else _json(content)
            (folder / name).write_text(text, encoding="utf-8")
    notify(f"{loaded.name}, weights of step {loaded.step:,}: {output}")
    notify(f"  {exported.architecture}: {', '.join(['model.safetensors', *files])}")
    for remark in remarks:
        notify(f"  {remark}")


def _described(loaded: LoadedRun) -> tuple[dict[str, str | dict[str, Any]], list[str]]:
    """The files that tell how inputs are made, and what a user of them has to know."""
    preprocessing = loaded.preprocessing
    if isinstance(preprocessing.spec.input, Image):
        settings = pictures.preprocessor_config(preprocessing)
        return {"preprocessor_config.json": settings}, pictures.remarks(preprocessing)
    if not isinstance(preprocessing.reader, VocabularyReader):
        return {}, ["The data came as tokens: there is no tokenizer."]
    files = tokenizer_files(preprocessing.reader, preprocessing.spec)
    return files, chat_remarks(preprocessing.reader)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
