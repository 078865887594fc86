"""What people type who know other tools is answered with what to type here, which then works."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from bigmodel.config import parse, to_plain
from bigmodel.launch import habits
from bigmodel.launch.folders import register_resolver
from bigmodel.launch.options import read_options

from ..end_to_end import conftest
from ..end_to_end.conftest import Command

command = conftest.command
REAL = Path(__file__).parents[2] / "configs"
VALUES = {
    "model": "cnn",
    "loss": "mse",
    "optimizer": "sgd",
    "scheduler": "cosine",
    "data.path": "new.csv",
    "data.val_path": "val.csv",
    "data.test_path": "test.csv",
    "device.precision": "bf16",
    "output_dir": "mine",
    "resume": "outputs/x",
    "profile": "true",
    "trainer.checkpoint.monitor": "val/loss",
    "trainer.ema": "0.999",
}
OF_FILES = ("data.val_path", "data.test_path")


def accepted(words: list[str]) -> None:
    """Composes and checks a configuration, as a run does before it reads its data."""
    register_resolver()
    with initialize_config_dir(str(REAL), version_base="1.3"):
        parse(to_plain(compose("train", overrides=words)))


def a_value(key: str) -> str:
    """One that the key takes: its default where that is no null."""
    known = {k.path: k.value for k in read_options([REAL]).top}
    for group in read_options([REAL]).groups.values():
        for choice in sorted(group.choices.values(), key=lambda choice: choice.name == group.default):
            own = (k for k in choice.keys if k.path.startswith(f"{group.name}."))
            known |= {k.path: k.value for k in own}
    default = known.get(key)
    return VALUES.get(key) or ("2" if default in (None, "null") else default)


@pytest.mark.parametrize("key", sorted({*habits.SETTINGS.values(), *habits.LISTS.values()}))
def test_every_hint_is_accepted_as_it_stands(key: str) -> None:
    """All names that lead to one setting lead to it with the value that was given."""
    value = "[64,32]" if key in habits.LISTS.values() else a_value(key)
    names = [name for name, ours in (habits.SETTINGS | habits.LISTS).items() if ours == key]
    hints = {hint for name in names if (hint := habits.meant(f"other.{name}", value)) is not None}
    assert len(hints) == 1
    context = ["data=table", "data.path=x.csv", "data.target=y"] if key in OF_FILES else []
    accepted([*context, *shlex.split(hints.pop())])


@pytest.mark.parametrize("hint", sorted({*habits.ALWAYS.values()}))
def test_hints_without_a_value_are_accepted(hint: str) -> None:
    accepted(shlex.split(hint))


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (["trainer.gradient_clip_val=1.0"], "trainer.clip_norm=1.0"),
        (["trainer.devices=1"], "device=cuda"),
        (["trainer.accelerator=cpu"], "device=cpu"),
        (["trainer.max_epochs=3"], "trainer.epochs=3"),
        (["fast_dev_run=true"], "debug=fast"),
        (["trainer.fast_dev_run=true"], "debug=fast"),
        (["max_epochs=3"], "trainer.epochs=3"),
        (["batch_size=32"], "data.batch_size=32"),
        (["lr=0.1"], "optimizer.lr=0.1"),
        (["learning_rate=0.1"], "optimizer.lr=0.1"),
        (["gpus=1"], "device=cuda"),
        (["gpus=0"], "device=cpu"),
        (["--epochs", "3"], "trainer.epochs=3"),
        (["--lr", "0.1"], "optimizer.lr=0.1"),
        (["--batch-size=32"], "data.batch_size=32"),
        (["--trainer.epochs", "3"], "trainer.epochs=3"),
        (["-b", "32"], "data.batch_size=32"),
        (["precision=16-mixed"], "device.precision=fp16"),
        (["hidden_layer_sizes=(100,50)"], "'model.hidden_sizes=[100,50]'"),
        (["random_state=3"], "seed=3"),
        (["customers.csv"], "data=table data.path=customers.csv"),
        (["data=customers.csv"], "data=table data.path=customers.csv"),
        (["data=my/customers.csv.gz"], "data=table data.path=my/customers.csv.gz"),
        (["train"], "bigmodel-train trains: leave it out."),
        (["help"], "bigmodel-train --help"),
        (["version"], "bigmodel-train --version"),
        (["predict"], "bigmodel predict"),
        (["plugins=my_loss"], "'plugins=[my_loss]'"),
        (["model.hidden_sizes=64"], "'model.hidden_sizes=[64]'"),
        (["data=table", "data.path=x.csv", "data.target=1"], "'data.target=\"1\"'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_hint(command: Command, tmp_path: Path, typed: list[str], hint: str) -> None:
    result = command(*typed)
    assert (result.status, result.out) == (1, "")
    assert hint in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_number_from_the_environment(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "1")
    wrong = command("trainer.epochs=${oc.env:NAME}", "device=cpu")
    hint = "'trainer.epochs=\"${oc.decode:${oc.env:NAME}}\"'"
    assert hint in wrong.err
    right = command(*shlex.split(hint), "debug=fast", "device=cpu", "trainer.tensorboard=false")
    assert right.status == 0, right.err


def test_arrays_of_other_names(command: Command, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", X=draw.normal(size=(40, 3)), y=np.arange(40) % 2)
    args = ("data=arrays", "data.path=mine.npz", "debug=fast", "device=cpu", "trainer.tensorboard=false")
    wrong = command(*args)
    assert "Did you mean data.inputs=X data.targets=y? It has X, y." in wrong.err
    right = command(*args, "data.inputs=X", "data.targets=y")
    assert right.status == 0, right.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainer:\n  epoch: 3\n", "trainer.epoch: no such key. Did you mean 'epochs'?"),
        ("nonsense: 3\n", "nonsense: no such key."),
        ("trainer:\n  epochs: ten\n", "trainer.epochs='ten': should be a valid integer"),
    ],
)
def test_what_a_file_has_wrong_names_the_file(
    command: Command, tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(f"# @package _global_\n{text}")
    result = command("--config-dir", "mine", "experiment=own")
    assert result.status == 1
    assert result.err.startswith(f"bigmodel-train: mine/experiment/own.yaml: {told}")
    typed = command("--config-dir", "mine", "experiment=own", "optimizer.lr=-1")
    assert "\n  optimizer.lr=-1" in typed.err or typed.err.startswith("bigmodel-train: optimizer.lr=-1")
