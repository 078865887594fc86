"""A model that starts from given weights computes what the model with these weights computes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigmodel.build.new_run import build_run
from bigmodel.errors import CheckpointError, ConfigError, SpecError
from bigmodel.explain.pieces import pieces_of
from bigmodel.training.run import Run
from tests.hugging_face import LENGTH, TEXTS, transformers, write_folder, write_table
from tests.small_runs import config

LABELS = ["LABEL_0", "LABEL_1", "LABEL_2"]
"""What transformers calls classes without names."""


def text_run(
    tmp_path: Path,
    path: Path | str,
    changed: dict[str, str] | None = None,
    labels: list[str] = LABELS,
    **settings: Any,
) -> Run:
    """A run on labelled texts that starts from the weights at `path`; nothing is trained yet."""
    texts = TEXTS * 4
    table = write_table(tmp_path / "texts.csv", texts, [labels[i % 3] for i in range(len(texts))])
    data = {"name": "text_labels", "path": str(table), "length": LENGTH, "batch_size": 8}
    model = {"name": "transformer", "dropout": 0.0, "pretrained": str(path), "readout": "pooled"}
    parsed = config({"data": data, "model": model, **settings})
    return build_run(replace(parsed, changed=changed or {}), tmp_path / "run")


def head_row(run: Run) -> str:
    return dict(run.info.rows)["Pretrained"]


@torch.no_grad()
@pytest.mark.parametrize("path", ["folder", "folder/model.safetensors"])
def test_texts_are_classified_as_by_transformers(tmp_path: Path, path: str) -> None:
    """Tokenizer, special tokens, cutting of long texts, padding, weights and head."""
    theirs = write_folder(tmp_path / "folder", "bert")
    run = text_run(tmp_path, tmp_path / path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    reader: Any = run.dataset.reader
    texts = [*TEXTS, "THE CAT: unheard-of wörds!", " ".join(TEXTS)]
    inputs, _ = reader.read_values(texts).part.take(slice(None))
    given = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    assert torch.equal(inputs, given["input_ids"])
    assert reader.encode(TEXTS[2]) == tokenizer(TEXTS[2])["input_ids"]
    pieces = [piece.text for piece in pieces_of(reader, reader.encode("the cat"))]
    assert (pieces[0], pieces[-1]) == ("[CLS]", "[SEP]")
    model = run.state.model.eval()
    assert torch.allclose(model(inputs), theirs(**given).logits, atol=2e-5)
    total = sum(p.numel() for p in theirs.parameters())
    assert head_row(run) == f"{total:,} of {total:,} numbers from bert"


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_next_tokens_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    theirs = write_folder(tmp_path / "folder", kind)
    (tmp_path / "text.txt").write_text(" ".join(TEXTS * 20))
    data = {"name": "text", "path": str(tmp_path / "text.txt"), "context": LENGTH, "cache": None}
    model = {"name": "transformer", "dropout": 0.0, "pretrained": str(tmp_path / "folder")}
    run = build_run(config({"data": data, "model": model}), tmp_path / "run")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    reader: Any = run.dataset.reader
    tokens = reader.encode(TEXTS[5])
    assert tokens == tokenizer(TEXTS[5])["input_ids"]
    assert reader.decode(tokens) == TEXTS[5]
    inputs = torch.tensor([tokens[:LENGTH]])
    ours = run.state.model.eval()
    assert torch.allclose(ours(inputs), theirs(inputs).logits, atol=2e-5)
    assert "new:" not in head_row(run)
    part: Any = run.dataset.train
    whole = tokenizer(" ".join(TEXTS * 20))["input_ids"]
    assert part.stream[:200].tolist() == whole[:200]


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(12, 12), (20, 28)])
def test_images_of_any_size_are_classified_as_by_transformers(
    tmp_path: Path, height: int, width: int
) -> None:
    theirs = write_folder(tmp_path / "folder", "vit")
    data = {
        "name": "synthetic",
        "input": "image",
        "shape": [3, height, width],
        "target": "classes",
        "outputs": 3,
    }
    model = {"name": "transformer", "dropout": 0.0, "pretrained": str(tmp_path / "folder")}
    run = build_run(config({"data": data, "model": model}), tmp_path / "run")
    assert "new: head.weight, head.bias" in head_row(run)  # for other classes
    run.state.model.head.load_state_dict(theirs.classifier.state_dict())
    images = torch.randn(5, 3, height, width)
    expected = theirs(images, interpolate_pos_encoding=True).logits
    assert torch.allclose(run.state.model.eval()(images), expected, atol=2e-5)


def test_a_head_for_other_classes_is_new(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "bert")
    run = text_run(tmp_path, tmp_path / "folder", labels=["good", "bad", "odd"])
    assert "; new: head.weight, head.bias" in head_row(run)
    values = run.settings["model"]
    assert (values["dim"], values["depth"], values["norm_first"]) == (48, 2, False)
    assert values["pretrained"] == str(tmp_path / "folder")


@torch.no_grad()
def test_classes_in_another_order_keep_their_heads(tmp_path: Path) -> None:
    theirs = write_folder(tmp_path / "folder", "bert")
    path = tmp_path / "folder" / "config.json"
    names = {"0": "odd", "1": "bad", "2": "good"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": names}))
    run = text_run(tmp_path, tmp_path / "folder", labels=["good", "bad", "odd"])
    assert "new" not in head_row(run)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    given = tokenizer(TEXTS[:5], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    expected = theirs(**given).logits[:, [1, 2, 0]]  # bad, good, odd
    assert torch.allclose(run.state.model.eval()(given["input_ids"]), expected, atol=2e-5)


def test_a_head_that_would_see_something_else_is_new(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "bert")
    run = text_run(tmp_path, tmp_path / "folder", {"model.readout": "mean"}, **{"model.readout": "mean"})
    assert "; new: head.weight, head.bias; left: pooler.bias" in head_row(run)
    usual = text_run(tmp_path, tmp_path / "folder", **{"model.readout": "mean"})
    assert usual.settings["model"]["readout"] == "pooled", "as the weights have it, unless it is typed"


def test_images_have_the_size_that_the_model_was_trained_with(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "vit")
    settings = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    (tmp_path / "folder" / "preprocessor_config.json").write_text(json.dumps(settings))
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            picture = Image.effect_noise((20, 20), 50 + number).convert("RGB")
            picture.save(tmp_path / "photos" / label / f"{number}.png")
    data = {"name": "images", "path": str(tmp_path / "photos"), "cache": None, "channels": 3}
    model = {"name": "transformer", "pretrained": str(tmp_path / "folder")}
    run = build_run(config({"data": data, "model": model}), tmp_path / "run")
    assert run.dataset.spec.input.shape == (3, 12, 12)
    assert run.settings["data"]["size"] == 12
    mean = run.dataset.mean
    assert mean is not None
    assert mean.flatten().tolist() == pytest.approx(settings["image_mean"])
    typed = replace(config({"data": {**data, "size": 20}, "model": model}), changed={"data.size": "20"})
    run = build_run(typed, tmp_path / "run")
    assert "; 10 positions interpolated to 26; new: head" in head_row(run)


def test_a_model_that_wrote_can_classify(tmp_path: Path) -> None:
    """Its head was tied to its embedding, and it has no token for padding."""
    write_folder(tmp_path / "folder", "gpt2")
    run = text_run(tmp_path, tmp_path / "folder", **{"model.readout": "last"})
    assert run.settings["model"]["tied_embeddings"] is False
    assert "new: head.weight, head.bias" in head_row(run)


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def test_too_few_weights_are_refused_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "bert")
    kept = {k: w for k, w in weights_of(tmp_path / "folder").items() if "layer.1." not in k}
    kept["bert.unheard.weight"] = torch.ones(3)
    save_file(kept, tmp_path / "folder" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        text_run(tmp_path, tmp_path / "folder")
    message = str(caught.value)
    assert "of the model, and at least 90% are needed. Missing: blocks.1." in message
    assert message.endswith("Not used: bert.unheard.weight.")


def test_missing_weights_are_new_and_unknown_ones_are_left(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "bert")
    kept = {k: w for k, w in weights_of(tmp_path / "folder").items() if "pooler.dense.bias" not in k}
    kept["bert.unheard.weight"] = torch.ones(3)
    save_file(kept, tmp_path / "folder" / "model.safetensors", {"format": "pt"})
    row = head_row(text_run(tmp_path, tmp_path / "folder"))
    assert row.endswith("; new: pooler.bias; left: bert.unheard.weight")


def test_other_shapes_are_refused_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "bert")
    path = tmp_path / "folder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 64}))
    with pytest.raises(CheckpointError) as caught:
        text_run(tmp_path, tmp_path / "folder")
    assert "blocks.0.feed_forward.expand.weight is 80 × 48, here 64 × 48" in str(caught.value)


def test_longer_texts_than_positions_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "bert")
    with pytest.raises(CheckpointError, match=r"has 24 positions.* Set data\.length to at most 24"):
        text_run(tmp_path, tmp_path / "folder", **{"data.length": 30})


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({"model.dim": "64"}, {"model.dim": 64}, r"model\.dim=64: the weights of .* have model\.dim=48"),
        (
            {"model": "llama"},
            {},
            r"model=llama: .* holds weights of another model, bert. Use model=bert",
        ),
        ({"data.unit": "byte"}, {}, r"data\.unit=byte: .* comes with its own tokenizer"),
    ],
)
def test_settings_that_do_not_go_with_the_weights_are_refused(
    tmp_path: Path, changed: dict[str, str], settings: dict[str, Any], message: str
) -> None:
    write_folder(tmp_path / "folder", "bert")
    data = {"name": "text_labels", "path": str(write_table(tmp_path / "t.csv", ["a", "b"], ["x", "y"]))}
    model = {"name": "transformer", "pretrained": str(tmp_path / "folder")}
    typed = replace(config({"data": data, "model": model, **settings}), changed=changed)
    with pytest.raises(ConfigError, match=message):
        build_run(typed, tmp_path / "run")


def test_another_model_than_the_weights_are_of_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "bert")
    with pytest.raises(ConfigError, match=r"model=fnn: .* holds weights of another model, bert"):
        build_run(config({"model.pretrained": str(tmp_path / "folder")}), tmp_path / "run")


def test_data_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "vit", "vit")
    with pytest.raises(SpecError, match="a vit reads images, and data=text_labels holds"):
        text_run(tmp_path, tmp_path / "vit")
    write_folder(tmp_path / "bert", "bert")
    (tmp_path / "text.txt").write_text(" ".join(TEXTS * 20))
    data = {"name": "text", "path": str(tmp_path / "text.txt"), "cache": None}
    model = {"name": "transformer", "pretrained": str(tmp_path / "bert")}
    with pytest.raises(SpecError, match="a bert sees whole texts and was not trained to write them"):
        build_run(config({"data": data, "model": model}), tmp_path / "run")


def test_windows_are_no_longer_than_the_model_can_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "gpt2")
    (tmp_path / "text.txt").write_text(" ".join(TEXTS * 20))
    data = {"name": "text", "path": str(tmp_path / "text.txt"), "cache": None}
    model = {"name": "transformer", "pretrained": str(tmp_path / "folder")}
    run = build_run(config({"data": data, "model": model}), tmp_path / "run")
    assert run.settings["data"]["context"] == LENGTH
    typed = config({"data": {**data, "context": 30}, "model": model})
    with pytest.raises(CheckpointError, match=r"has 24 positions.* Set data\.context to at most 24"):
        build_run(typed, tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "changed", "rate"),
    [
        ({}, {}, 1e-4),
        ({"optimizer.lr": 5e-4}, {}, 5e-4),
        ({}, {"optimizer.lr": "2e-3"}, 2e-3),
        ({"optimizer": "sgd"}, {}, 0.05 * 0.05),
        ({"model.lora": {"rank": 2}}, {}, 1e-3),
    ],
)
def test_the_usual_learning_rate_is_lower(
    tmp_path: Path, settings: dict[str, Any], changed: dict[str, str], rate: float
) -> None:
    write_folder(tmp_path / "folder", "bert")
    run = text_run(tmp_path, tmp_path / "folder", changed, **settings)
    assert run.settings["optimizer"].get("lr", rate) == pytest.approx(rate)
    (group,) = {group["lr"] for group in run.step.optimizer.param_groups}
    assert group == pytest.approx(rate)
