"""transformers loads an exported folder, and gives what the run gives for the same text or picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from bigmodel.cli.commands.huggingface.card import card
from bigmodel.cli.commands.huggingface.folder import write_folder
from bigmodel.cli.commands.huggingface.model import exported_model
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.data.texts.conversations import Message
from bigmodel.errors import DataError, UndefinedError
from bigmodel.models.generation import Sampling, generate
from bigmodel.reporting.predictions import decode_outputs
from bigmodel.spec import Values
from bigmodel.training.outputs import model_outputs
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run
from tests.cli.commands.test_loaded_run import loaded

transformers = pytest.importorskip("transformers")

WRITERS = ("gpt2", "gpt2-bytes", "gpt2-documents", "gpt2-untied", "llama")
TEXTS = ["good", "awful, poor <pad> ☃", "nice, fine, good 3", "good " * 20]


@pytest.fixture
def exported(family_run: Run, bigmodel: Bigmodel, tmp_path: Path) -> Any:
    """Exports a run by its name; returns the run and the folder."""

    def export(name: str) -> tuple[LoadedRun, Path]:
        folder = tmp_path / "my-model"
        said = bigmodel("export", family_run(name), "--format", "huggingface", "--output", folder)
        assert said.status == 0, said.err
        return loaded(family_run(name)), folder

    return export


def ours_of(run: LoadedRun, inputs: Any) -> Tensor:
    """What the run says of texts or pictures: logits, or values in their own unit."""
    part = run.reader.read_values(inputs).part
    outputs = model_outputs(run.model, part, run.preprocessing, run.runtime)
    target = run.preprocessing.spec.target
    return decode_outputs(outputs, target).float() if isinstance(target, Values) else outputs


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_logits_after_the_same_text(exported: Any, name: str) -> None:
    run, folder = exported(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "JULIET: Sweet, so would"
    tokens = tokenizer(text, return_tensors="pt")
    assert tokens["input_ids"][0].tolist() == run.reader.prompt(text)
    assert tokenizer.decode(tokens["input_ids"][0], skip_special_tokens=True) == text
    with torch.inference_mode():
        found, expected = model(**tokens).logits, run.model(tokens["input_ids"])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama-chat", "llama-chat-template"])
def test_the_same_tokens_of_a_conversation(exported: Any, name: str) -> None:
    run, folder = exported(name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    said = [Message("user", "a\n b"), Message("assistant", "A B"), Message("user", "say 2 ")]
    plain = [{"role": message.role, "content": message.content} for message in said]
    found = tokenizer.apply_chat_template(plain, add_generation_prompt=True)["input_ids"]
    assert found == run.reader.ask(said)
    told = transformers.GenerationConfig.from_pretrained(folder)
    assert told.eos_token_id == run.preprocessing.spec.target.end
    assert "tokenizer.apply_chat_template(messages" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    "name",
    ["bert", "bert-characters", "bert-values", "gpt2-labels", "gpt2-values", "llama-labels"],
)
def test_the_same_judgement_of_the_same_texts(exported: Any, name: str) -> None:
    run, folder = exported(name)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = TEXTS if run.reader.vocabulary.unit == "bpe" else ["good", "a, poor", "nice x!", "good " * 9]
    inputs = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**inputs).logits
    torch.testing.assert_close(found, ours_of(run, texts), atol=1e-4, rtol=1e-6)
    assert model.config.problem_type == (
        "regression" if "values" in name else "single_label_classification"
    )
    names = run.preprocessing.spec.target.names
    assert model.config.id2label == dict(enumerate(names))


@pytest.mark.parametrize("name", ["vit", "vit-wide"])
def test_the_same_judgement_of_the_same_pictures(exported: Any, name: str) -> None:
    run, folder = exported(name)
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    paths = sorted((run.run_path.folder.parent / "photos").rglob("*.png"))
    pictures = [Image.open(path) for path in paths]
    with torch.inference_mode():
        found = model(**processor(pictures, return_tensors="pt")).logits
    torch.testing.assert_close(found, ours_of(run, pictures), atol=1e-4, rtol=0)


def test_pictures_that_were_cropped_are_cropped(exported: Any) -> None:
    _, folder = exported("vit-crop")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 255  # the middle is white
    assert (
        processor(Image.fromarray(wide), return_tensors="pt")["pixel_values"].std((0, 2, 3)).max() < 1e-6
    )


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_both_write_the_same_text(exported: Any, name: str) -> None:
    run, folder = exported(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("JULIET: So", return_tensors="pt")
    start = tokens["input_ids"][0].tolist()
    found = model.generate(**tokens, do_sample=False)[0].tolist()
    spec = run.preprocessing.spec
    sampling = Sampling(max_tokens=spec.input.length - len(start), temperature=0)
    new = generate(run.model, [start], sampling, spec, "cpu")[0]
    end = [] if len(found) == spec.input.length else [spec.target.end]
    assert found == start + new + end
    told = model.generation_config
    assert (told.do_sample, told.temperature, told.top_k) == (True, 0.8, 0)


def test_what_lies_in_the_folder(exported: Any) -> None:
    run, folder = exported("llama")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["eos_token_id"] == run.reader.vocabulary.end
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_the_card_tells_what_the_model_is(exported: Any) -> None:
    run, folder = exported("bert-values")
    (run.run_path.folder / "metrics.jsonl").write_text(
        '{"epoch": 1, "step": 1, "val/loss": 3.0, "val/mae": 2.5}\n'
        '{"epoch": 2, "step": 2, "val/loss": 4.0, "val/mae": 3.5}\n'
    )
    text = card(run, exported_model(run), "my-model", ["A remark."])
    front = yaml.safe_load(text.split("---")[1])
    assert front == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["bigmodel-train"],
    }
    for words in (
        "# bert on text_labels",
        f"BertForSequenceClassification with {sum(p.numel() for p in run.model.parameters()):,} param",
        'AutoTokenizer.from_pretrained("my-model")',
        "- Logits are values in their own unit: label.",
        "- A remark.",
        "- Samples: training 48, validation 12",
        "| validation | mae | 2.5000 |" if run.step == 1 else "| validation | mae | 3.5000 |",
    ):
        assert words in text
    assert text.count("| validation |") == 2
    assert (folder / "README.md").read_text().startswith("---\n# license: name one")


def test_a_folder_that_holds_files_is_kept(family_run: Run, bigmodel: Bigmodel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tokenizer.json").write_text("of another model")
    ask = ("export", family_run("vit"), "--format", "huggingface", "--output", tmp_path)
    said = bigmodel(*ask)
    assert said.status == 1
    assert said.err == (
        f"bigmodel: --output {tmp_path}: already holds files. Add --force to replace those in it.\n"
    )
    assert bigmodel(*ask, "--force").status == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "notes.txt",
        "preprocessor_config.json",
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "fnn",
            "is for a GPT-2, Llama, BERT or ViT, and fnn on text_labels is none. Use the format onnx.",
        ),
        (
            "sinusoidal",
            "no family has all its options. The nearest, model=gpt2, needs model.qk_norm=false instead"
            " of true, model.position=learned instead of sinusoidal. Use the format onnx.",
        ),
        (
            "llama-values",
            "model=llama has no bias that could hold the mean of the values. Train model=b",
        ),
    ],
)
def test_what_transformers_does_not_have_is_refused(
    family_run: Run, bigmodel: Bigmodel, tmp_path: Path, name: str, words: str
) -> None:
    output = tmp_path / "out"
    said = bigmodel("export", family_run(name), "--format", "huggingface", "--output", output)
    assert said.status == 1
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("a.onnx", "--output a.onnx: the format huggingface is a folder. Name one."),
        ("file", "--output file: is a file. Name a folder, which is made if it is missing."),
        ("no/where", "--output no/where: there is no folder "),
    ],
)
def test_wrong_places_are_told(
    family_run: Run,
    bigmodel: Bigmodel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    said = bigmodel("export", family_run("vit"), "--format", "huggingface", "--output", output)
    assert said.status == 1
    assert said.err.startswith(f"bigmodel: {told}")


def test_a_model_that_has_diverged_is_refused(family_run: Run, tmp_path: Path) -> None:
    run = loaded(family_run("vit"))
    with torch.no_grad():
        next(run.model.parameters()).fill_(torch.nan)
    with pytest.raises(UndefinedError, match="weights are NaN or infinite"):
        write_folder(run, tmp_path / "out", lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_folder_that_cannot_be_written(
    family_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bigmodel.cli.commands.huggingface.folder.save_file", full)
    with pytest.raises(DataError, match="out: cannot be written: No space left on device"):
        write_folder(loaded(family_run("vit")), tmp_path / "out", lambda _: None)
    assert list(tmp_path.iterdir()) == []
