"""What `model.pretrained` may name, and what is wrong with what it names."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bigmodel.build.pretrained.source import read_source
from bigmodel.data.normalize import ImageScaling, ImageSize
from bigmodel.data.texts.vocabulary import Vocabulary
from bigmodel.errors import BigModelError, CheckpointError, ConfigError, DataError
from tests.hugging_face import KINDS, write_folder


def change(path: Path, **values: Any) -> None:
    """Changes a JSON file; a value of None removes it."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_says_what_the_model_is(tmp_path: Path, kind: str) -> None:
    theirs = write_folder(tmp_path, kind)
    source = read_source(str(tmp_path))
    assert (source.about, source.options["dim"], source.options["depth"]) == (kind, 48, 2)
    assert len(source.labels) == (3 if kind in ("bert", "vit") else 0)
    vocabularies = [one for one in source.inputs if isinstance(one, Vocabulary)]
    assert [v.size for v in vocabularies] == [getattr(theirs.config, "vocab_size", 0)] * (kind != "vit")
    weights, left = source.weights(blocks=2)
    assert left == []
    assert sum(w.numel() for w in weights.values()) >= sum(p.numel() for p in theirs.parameters())


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    torch.manual_seed(1)
    write_folder(tmp_path / "whole", "gpt2")
    torch.manual_seed(1)
    write_folder(tmp_path / "shards", "gpt2", shard="60KB")
    shards = list((tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 2
    whole, parts = (read_source(str(tmp_path / name)).weights(2)[0] for name in ("whole", "shards"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    shards[1].write_bytes(shards[1].read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=rf"{shards[1].name} is damaged: .*Download or copy it"):
        read_source(str(tmp_path / "shards")).weights(2)
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=f"{shards[1].name} is not in the folder, one of "):
        read_source(str(tmp_path / "shards"))


def test_an_index_names_files_of_its_own_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, "gpt2", shard="60KB")
    outside = {"weight_map": {"wte.weight": "../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(outside))
    with pytest.raises(CheckpointError, match=r"\.\./secret\.safetensors is not in the folder"):
        read_source(str(tmp_path))


def test_pickled_weights_run_no_code(tmp_path: Path) -> None:
    write_folder(tmp_path, "gpt2")
    saved = tmp_path / "model.safetensors"
    weights = load_file(saved)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    saved.unlink()
    read, _ = read_source(str(tmp_path)).weights(2)
    assert torch.equal(read["embedding.weight"], weights["transformer.wte.weight"])
    harm = tmp_path / "harm"
    for content in (Harmful(harm), {"model": weights, "extra": Harmful(harm)}):
        torch.save(content, tmp_path / "pytorch_model.bin", pickle_protocol=2)
        with pytest.raises(CheckpointError, match="holds more than tensors, or is damaged"):
            read_source(str(tmp_path)).weights(2)
    assert not harm.exists()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Harmful(harm)))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        read_source(str(tmp_path)).weights(2)
    assert not harm.exists()


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "written")


def test_a_file_of_weights_alone_is_recognised_by_its_names(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "bert")
    theirs = load_file(tmp_path / "folder" / "model.safetensors")
    save_file(theirs, tmp_path / "weights.safetensors")
    source = read_source(str(tmp_path / "weights.safetensors"))
    assert source.options == {}
    assert "blocks.1.attention.qkv.weight" in source.weights(2)[0]
    ours = {"hidden.weight": torch.ones(2, 2)}
    torch.save({"state_dict": ours}, tmp_path / "ours.pth")
    assert read_source(str(tmp_path / "ours.pth")).weights(0)[0].keys() == ours.keys()
    torch.save({"state_dict": {}}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"none\.pth holds no tensors by name"):
        read_source(str(tmp_path / "none.pth")).weights(0)


def test_images_are_scaled_as_the_model_expects(tmp_path: Path) -> None:
    write_folder(tmp_path, "vit")
    (size,) = read_source(str(tmp_path)).inputs
    assert size == ImageSize(12, 12)
    settings = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(settings))
    _, scaling = read_source(str(tmp_path)).inputs
    assert isinstance(scaling, ImageScaling)
    assert scaling.mean.flatten().tolist() == pytest.approx(settings["image_mean"])
    assert scaling.std.shape == (3, 1, 1)
    for without in ({"do_normalize": False}, {"do_normalize": True, "image_mean": None}):
        change(path, **without)
        assert read_source(str(tmp_path)).inputs == (size,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"do_rescale": False},
        {"image_std": [0, 1, 1]},
        {"image_mean": [0.5]},
        {"image_mean": [[0.5], [0.5], [0.5]]},
    ],
)
def test_pixels_that_are_scaled_in_another_way_are_refused(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    write_folder(tmp_path, "vit")
    settings = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3], **wrong}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"preprocessor_config\.json has image_mean=.* Needed are"):
        read_source(str(tmp_path))


def test_classes_are_in_the_order_of_the_outputs(tmp_path: Path) -> None:
    write_folder(tmp_path, "bert", num_labels=12)
    names = {str(number): f"k{number}" for number in sorted(range(12), key=str)}
    change(tmp_path / "config.json", id2label=names)
    assert read_source(str(tmp_path)).labels == tuple(f"k{number}" for number in range(12))


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, "bert")
    weights = load_file(tmp_path / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file(weights | {name: weights[name].to(torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name} holds whole numbers: the weights are quantised"):
        read_source(str(tmp_path)).weights(2)
    change(tmp_path / "config.json", quantization_config={"load_in_8bit": True})
    with pytest.raises(ConfigError, match="its weights are quantised"):
        read_source(str(tmp_path))


def test_older_files_of_torch_are_read(tmp_path: Path) -> None:
    weights = {"hidden.weight": torch.ones(2, 2)}
    torch.save(weights, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert read_source(str(tmp_path / "old.bin")).weights(0)[0].keys() == weights.keys()


def test_a_pointer_to_weights_is_told_from_damage(tmp_path: Path) -> None:
    write_folder(tmp_path, "bert")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")
    with pytest.raises(CheckpointError, match="is only a pointer of Git LFS"):
        read_source(str(tmp_path)).weights(2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"there is no such file or folder\.$"),
        ("n" * 300, r"there is no such file or folder\.$"),
        (" ", r"there is no such file or folder\.$"),
        ("owner/some-model", r"hf download owner/some-model --local-dir some-model, then model\.pretr"),
        ("notes.txt", r"is neither a folder nor a file of weights, whose names end in \.safetensors"),
        ("empty", "has no config.json, which says what the model is made of"),
    ],
)
def test_what_is_no_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("weights")
    Path("empty").mkdir()
    with pytest.raises(ConfigError, match=message) as caught:
        read_source(name)
    assert str(caught.value).startswith(f"model.pretrained={name}: ")


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "t5"}, "model_type=t5. Known are bert, gpt2, llama, vit"),
        ("config.json", {"hidden_act": "sigmoid"}, "hidden_act=sigmoid, which cannot be read"),
        ("config.json", {"model_type": ["bert"]}, r"model_type=\['bert'\]. Known are bert"),
        ("config.json", {"id2label": [["a"]]}, "no usable"),
        ("config.json", {"id2label": "ab"}, "no usable"),
        ("config.json", {"vocab_size": "many"}, "vocab_size=many, which is no number of tokens"),
        ("config.json", {"hidden_size": "48"}, "its config.json: model.dim='48': should be a valid"),
        (
            "config.json",
            {"num_hidden_layers": None},
            "no usable 'num_hidden_layers', which a bert needs",
        ),
        (
            "config.json",
            {"vocab_size": 20},
            "tokens, and the model vectors for 20. Is tokenizer.json of",
        ),
        ("tokenizer.json", {"model": {}}, "cannot be read as one of the tokenizers library"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(
    tmp_path: Path, file: str, values: dict[str, Any], message: str
) -> None:
    write_folder(tmp_path, "bert")
    change(tmp_path / file, **values)
    with pytest.raises(BigModelError, match=message) as caught:
        read_source(str(tmp_path))
    assert str(caught.value).startswith(f"model.pretrained={tmp_path}: ")


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, "bert")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no weights: neither model\.safetensors"):
        read_source(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BigModelError, match=r"has no tokenizer\.json. Transformers writes one"):
        read_source(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BigModelError, match=r"config\.json: is no JSON"):
        read_source(str(tmp_path))
