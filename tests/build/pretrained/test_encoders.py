"""Encoders that start from given weights compute what the models with these weights compute."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bigmodel.build.new_run import build_run
from bigmodel.errors import ConfigError
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.hugging_face import LENGTH, TEXTS, write_folder, write_table
from tests.small_runs import config


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows of a picture, a text and a value."""
    draw = np.random.default_rng(0)
    rows = []
    for number, text in enumerate(TEXTS * 2):
        pixels = draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append([f"{number}.png", text, f"{number}.5"])
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["photo", "text", "price"], *rows])
    return tmp_path / "table.csv"


def run_on(table: Path, encoders: dict[str, Any], rank: int | None = None, **data: Any) -> Run:
    """A run that starts from what the encoders say; nothing is trained yet."""
    data |= {"name": "table", "path": str(table), "target": "price", "cache": None, "batch_size": 8}
    data["columns"] = {"photo": "image", "text": "text"}
    model = {"name": "fusion", "dropout": 0.0, "encoders": encoders, "lora": {"rank": rank}}
    return build_run(config({"data": data, "model": model}), table.parent / "run")


@torch.no_grad()
def test_each_encoder_computes_what_its_model_computes(table: Path) -> None:
    bert, vit = (write_folder(table.parent / kind, kind) for kind in ("bert", "vit"))
    encoders = {
        "text": {"pretrained": str(table.parent / "bert"), "readout": "first"},
        "photo": {"pretrained": str(table.parent / "vit")},
    }
    run = run_on(table, encoders, text_length=LENGTH)
    model: Any = run.step.model.eval()
    inputs, _ = run.dataset.train.take(slice(0, 8))
    (photos, texts), _ = model._split(inputs)
    reader: Any = run.dataset.reader
    mask = texts != reader.media[1].vocabulary.pad
    expected = bert.bert(input_ids=texts, attention_mask=mask.long()).last_hidden_state[:, 0]
    assert torch.allclose(model.encoders["text"].features(texts), expected, atol=1e-5)
    expected = vit.vit(pixel_values=photos).last_hidden_state[:, 0]
    assert torch.allclose(model.encoders["photo"].features(photos), expected, atol=1e-5)
    rows = [text for label, text in run.info.rows if label == "Pretrained"]
    assert [row.partition(":")[0] for row in rows] == ["photo", "text"]
    assert run.info.config["model"]["encoders"]["text"]["dim"] == 48


def test_an_encoder_starts_from_a_run_whatever_that_started_from(tmp_path: Path, table: Path) -> None:
    write_folder(tmp_path / "bert", "bert")
    labels = write_table(tmp_path / "texts.csv", TEXTS * 2, ["yes", "no"] * len(TEXTS))
    data = {"name": "text_labels", "path": str(labels), "length": LENGTH}
    model = {"name": "transformer", "pretrained": str(tmp_path / "bert")}
    first = build_run(config({"data": data, "model": model, "trainer.epochs": 1}), tmp_path / "first")
    fit(first)
    settings = {"name": "transformer", "pretrained": str(tmp_path / "first")}
    run = run_on(table, {"text": settings}, text_length=LENGTH)
    theirs, ours = first.state.model.state_dict(), run.state.model.state_dict()
    assert torch.equal(ours["encoders.text.embedding.weight"], theirs["embedding.weight"])
    assert dict(run.info.rows)["Pretrained"].endswith("from transformer of a run on text_labels")


def test_what_does_not_go_with_the_weights_is_refused(table: Path) -> None:
    write_folder(table.parent / "bert", "bert")
    path = str(table.parent / "bert")
    with pytest.raises(ConfigError, match=r"model\.encoders\.text\.dim=32: the weights of .*dim=48"):
        run_on(table, {"text": {"pretrained": path, "dim": 32}})
    with pytest.raises(ConfigError, match=r"model\.encoders\.text\.name=cnn: the weights.*transformer"):
        run_on(table, {"text": {"pretrained": path, "name": "cnn"}})
    with pytest.raises(
        ConfigError, match=r"model\.encoders\.photo\.pretrained=no: there is no such file"
    ):
        run_on(table, {"photo": {"pretrained": "no"}})
    with pytest.raises(
        ConfigError, match=r"model\.lora\.rank=4: .* encoders of .* Leave model\.lora out"
    ):
        run_on(table, {"text": {"pretrained": path}}, rank=4)


def test_texts_are_read_with_one_tokenizer(table: Path) -> None:
    for kind in ("bert", "llama"):
        write_folder(table.parent / kind, kind)
    encoders = {
        key: {"pretrained": str(table.parent / kind)}
        for key, kind in (("text", "bert"), ("photo", "llama"))
    }
    with pytest.raises(ConfigError, match="text and photo start from models with different tokenizers"):
        run_on(table, encoders)
