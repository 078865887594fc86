"""Mistakes a user makes: one clear message, status 1, nothing started and nothing left behind."""

import gzip
import struct
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command

MISTAKES = [
    (["optimizer.lrr=0.1"], ["optimizer.lrr", "Did you mean 'optimizer.lr'?"]),
    (["lr=0.1"], ["lr", "optimizer.lr"]),
    (["trainer.epochz=3"], ["trainer.epochz", "Did you mean 'trainer.epochs'?"]),
    (["model=cnnn"], ["model=cnnn", "Did you mean 'cnn'?", "transformer"]),
    (["modle=cnn"], ["modle", "Did you mean 'model'?"]),
    (["trainer.checkpoint.monitor=val/acuracy"], ["val/acuracy", "Did you mean 'val/accuracy'?"]),
    (["trainer.early_stopping.monitor=accuracy"], ["accuracy", "val/accuracy"]),
    (["trainer.epochs=ten"], ["trainer.epochs='ten'", "integer"]),
    (["trainer.epochs=0"], ["trainer.epochs=0", "greater than or equal to 1"]),
    (["trainer.epochs=2.5"], ["trainer.epochs=2.5", "integer"]),
    (["optimizer.lr=-1"], ["optimizer.lr=-1", "greater than 0"]),
    (["optimizer.lr=nan"], ["optimizer.lr=nan", "finite"]),
    (["optimizer.lr=inf"], ["optimizer.lr=inf", "finite"]),
    (["data.val_fraction=1.5"], ["data.val_fraction=1.5", "less than 1"]),
    (["model=transformer", "model.dim=64", "model.num_heads=5"], ["num_heads", "5", "64", "4 or 8"]),
    (["model=attention", "model.num_heads=7"], ["num_heads", "7"]),
    (["loss=mse"], ["loss=mse", "10 classes", "loss=cross_entropy"]),
    (["data=diabetes", "loss=cross_entropy"], ["loss=cross_entropy", "real value", "loss=mse"]),
    (["model=rnn", "data=wine"], ["rnn", "features"]),
    (["model=cnn", "data=iris"], ["cnn", "features", "model=fnn"]),
    (["model=transformer", "model.patch_size=3"], ["patch_size", "3", "8"]),
    (["data.batch_size=5000", "data.drop_last=true"], ["data.batch_size=5000", "drop_last"]),
    (["device=cuda"], ["device=cuda", "cpu"]),
    (["device=cuda:1"], ["device=cuda:1", "no cuda device", "cpu"]),
    (["device.name=cpu:3"], ["device=cpu:3", "cpu:0"]),
    (["device=cuda:x"], ["device=cuda:x", "Did you mean 'cuda'?"]),
    (["device.name=gpu"], ["device.name='gpu'", "cuda:1"]),
    (["output_dir=/dev/null/x"], ["output_dir", "/dev/null/x"]),
    (["+model._target_=os.system"], ["_target_"]),
    (["+hydra.callbacks.evil._target_=os.system"], ["hydra.callbacks"]),
    (["plugins=[no_such_module]"], ["plugins", "no_such_module"]),
    (["data=mnist", "data.root=nowhere"], ["nowhere", "train-images-idx3-ubyte"]),
    (["trainer.ema=0.9", "optimizer=schedule_free_adamw"], ["trainer.ema=0.9", "schedule_free_adamw"]),
    (["trainer.epochs=1,2"], ["trainer.epochs", "-m"]),
    (["model.freeze=[layer]"], ["model.freeze", "Did you mean 'layers'?"]),
    (["model.freeze=['*']"], ["model.freeze", "nothing is left to train"]),
    (["model.lora.rank=8"], ["model.lora.rank=8", "model.pretrained"]),
    (["model.lora.alpha=8"], ["model.lora.alpha=8", "model.lora.rank"]),
    (
        ["model.frozen_precision=int8"],
        ["model.frozen_precision=int8: nothing is frozen", "model.freeze"],
    ),
    (["optimizer.layer_decay=0.5"], ["optimizer.layer_decay=0.5", "optimizer.rates"]),
    (["optimizer.rates={hed: 10}"], ["optimizer.rates", "Did you mean 'head'?"]),
    (["cnn"], ["cnn"]),
    (["--help", "model=cnnn"], ["cnnn", "Did you mean 'cnn'?"]),
]


@pytest.mark.parametrize(("argv", "words"), MISTAKES, ids=lambda value: " ".join(value))
def test_one_clear_message(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = command(*argv)
    assert result.status == 1
    assert result.out == ""
    for word in words:
        assert word in result.err
    assert "Traceback" not in result.err
    assert len(result.err.strip().splitlines()) <= 6
    assert list(tmp_path.rglob("*")) == []


def idx(kind: int, shape: tuple[int, ...], content: bytes) -> bytes:
    return struct.pack(">HBB", 0, kind, len(shape)) + struct.pack(f">{len(shape)}I", *shape) + content


def write_idx_folder(folder: Path, samples: int = 40) -> None:
    folder.mkdir()
    for part in ("train", "t10k"):
        images = idx(8, (samples, 28, 28), bytes(range(256)) * (samples * 784 // 256 + 1))
        images = images[: 16 + samples * 784]
        labels = idx(8, (samples,), bytes(i % 10 for i in range(samples)))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_idx_files_are_read_and_the_test_part_is_reported(command: Command, tmp_path: Path) -> None:
    write_idx_folder(tmp_path / "mnist")
    result = command("data=mnist", "data.root=mnist", "debug=fast", "data.batch_size=16", "device=cpu")
    assert result.status == 0, result.err
    assert 0 <= result.summary()["test"]["test/accuracy"] <= 1


@pytest.mark.parametrize("damage", ["missing", "truncated", "mixed up", "label out of range"])
def test_damaged_idx_files(command: Command, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "mnist"
    write_idx_folder(folder)
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
    match damage:
        case "missing":
            labels.unlink()
        case "truncated":
            images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes())[:-100]))
        case "mixed up":
            content = images.read_bytes()
            images.write_bytes(labels.read_bytes())
            labels.write_bytes(content)
        case _:
            labels.write_bytes(gzip.compress(idx(8, (40,), bytes([77] * 40))))
    result = command("data=mnist", f"data.root={folder}", "device=cpu")
    assert result.status == 1
    assert "idx" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "outputs").exists()


def test_a_corrupted_yaml_names_its_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "broken.yaml").write_text("name: fnn\n  hidden: [1\n")
    result = command("--config-dir", "mine", "model=broken")
    assert result.status == 1
    assert "broken.yaml" in result.err
    assert "Traceback" not in result.err


def test_a_stranger_s_config_dir_runs_no_code(command: Command, tmp_path: Path) -> None:
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "nice.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: builtins.print\n"
    )
    result = command("--config-dir", "theirs", "experiment=nice")
    assert result.status == 1
    assert "nice.yaml" in result.err
