"""What people type who know other tools is answered with what to type here, which then works."""

import itertools
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from bigmodel.cli.launch import flags, other_tools
from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.run_folder import register_resolver
from bigmodel.config import parse, to_plain
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command
REAL = Path(__file__).parents[3] / "configs"
INDEX = read_index([REAL])
VALUES = (
    "true",
    "false",
    "3",
    "0",
    "-1",
    "0.25",
    "1.0",
    "word",
    "none",
    "[2,3]",
    "",
    "val_loss",
    "a,b.csv",
)
CHOICES: tuple[list[str], ...] = (
    [],
    ["model=cnn", "scheduler=plateau", "optimizer=sgd", "data=table"],
    ["model=transformer", "scheduler=constant"],
    ["model=rnn"],
)


def accepted(words: list[str]) -> None:
    """Composes and checks a configuration, as a run does before it reads its data."""
    register_resolver()
    with initialize_config_dir(str(REAL), version_base="1.3"):
        parse(to_plain(compose("train", overrides=words)))


def test_what_a_run_is_called_elsewhere() -> None:
    told = other_tools.suggest("run_name", "first try", INDEX, [])
    assert told == "Did you mean 'run.name=first try'?"


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_what_is_advised_is_accepted_or_holds_no_value(choices: list[str]) -> None:
    hints = set()
    for name, value in itertools.product(other_tools.NAMES, VALUES):
        told = other_tools.suggest(name, value, INDEX, [*choices, f"{name}={value}"])
        if told and (hint := re.fullmatch(r"Did you mean (.+)\?( A run uses one GPU\.)?", told)):
            hints.add(hint[1])
        elif told:
            assert re.match(r"Leave it out\.$|Here it is [\w.]+(, which only |, one of: |: )", told), (
                told
            )
    assert len(hints) > len(other_tools.SETTINGS) / 4
    for batch in together(shlex.split(hint) for hint in sorted(hints)):
        words = [*choices, *batch]
        if "data=table" in words:
            words = ["data.path=x.csv", "data.target=y", *words]
        accepted(list(dict.fromkeys(flags.expand_device_index(words))))


def together(hints: Iterable[list[str]]) -> list[list[str]]:
    """Hints for different settings in one configuration, which takes long to compose; choices alone."""
    batches: list[dict[str, str]] = []
    for hint in hints:
        keys = {word.partition("=")[0]: word for word in hint}
        alone = not all("." in key for key in keys)
        free = (
            b for b in batches if not alone and not keys.keys() & b.keys() and all("." in k for k in b)
        )
        batch = next(free, None)
        if batch is None:
            batches.append(batch := {})
        batch |= keys
    return [list(batch.values()) for batch in batches]


TYPED_BOOLEANS = [
    ("fp16=false", "device.precision=fp32"),
    ("fp16=true", "device.precision=fp16"),
    ("no_cuda=false", "device=auto"),
    ("no_cuda=true", "device=cpu"),
    ("use_cuda=false", "device=cpu"),
    ("nesterov=true", "optimizer.nesterov=true optimizer=sgd"),
    ("profiler=simple", "profile=true"),
    ("histogram_freq=0", "trainer.histograms=false"),
]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        *((typed, f"Did you mean {hint}?") for typed, hint in TYPED_BOOLEANS),
        ("fast_dev_run=false", "Leave it out."),
        ("overfit_batches=0.0", "Leave it out."),
        ("nesterov=false", "Leave it out."),
        ("report_to=wandb", "Here it is logger: programs that keep the run as well"),
        ("logger=wandb", "A list is written 'logger=[wandb]'."),
        (
            "logger=[wandbb]",
            "there is no 'wandbb'. Did you mean 'wandb'? Allowed: mlflow, trackio, wandb.",
        ),
        ("logger=[tensorboard]", "its files are written with trainer.tensorboard=true."),
        ("logger=false", "should be a list, such as [mlflow]. TensorBoard is no logger here"),
        (
            "model.layers=4",
            "Here it is model.hidden_sizes: width of each hidden layer; []: a",
        ),
        ("model=transformer model.layers=4", "Did you mean model.depth=4?"),
        ("model=rnn layers=4", "Did you mean model.num_layers=4?"),
        ("max_train_samples=1000", "Here it is trainer.limit.train: batches of the training set"),
        ("scheduler.warmup_epochs=3", "Did you mean scheduler.interval=epoch scheduler.warmup=3?"),
        ("scheduler.warmup_steps=3", "Did you mean scheduler.warmup=3?"),
        (
            "scheduler.patience=5",
            "one_cycle has no such setting; it is one of scheduler=plateau.",
        ),
        ("limit_train_batches=0.1", "Here it is trainer.limit.train: batches"),
        ("limit_train_batches=1.0", "Here it is trainer.limit.train: batches"),
        ("val_check_interval=0.25", "Here it is trainer.eval_every_steps: steps"),
        ("max_epochs=-1", "Here it is trainer.epochs: passes over the training set"),
        ("save_top_k=-1", "Here it is trainer.checkpoint.keep: how many"),
        ("monitor=val_loss", "Did you mean trainer.checkpoint.monitor=val/loss?"),
        ("monitor=loss", "Here it is trainer.checkpoint.monitor: metric"),
        ("seed_everything=true", "Here it is seed: seed of weights"),
        ("deterministic=warn", "Here it is device.deterministic: only"),
        ("ema=true", "Here it is trainer.ema: decay of averaged weights"),
        ("dtype=float64", "Here it is device.precision: format of matrix work"),
        ("precision=64", "Here it is device.precision: format of matrix work"),
        ("checkpoint=true", "Here it is resume: run folder"),
        (
            "model=cnn hidden_sizes=[64]",
            "Here it is model.hidden_sizes, which only model=fnn knows: ",
        ),
        ("optim=Adam", "Did you mean optimizer=adam?"),
        ("arch=resnet50", "Here it is model, one of: attention, bert, cnn, "),
        ("accelerator=tpu", "Here it is device, one of: auto, cpu, cuda, mps."),
        ("accelerator=gpu", "Did you mean device=cuda?"),
        ("gpus=2", "Did you mean device=cuda? A run uses one GPU."),
        ("devices=[0,1]", "Did you mean device=cuda? A run uses one GPU."),
        ("gpu_ids=[1]", "Did you mean device=cuda:1?"),
        ("--fast_dev_run=false", "Settings are written without dashes. Leave it out."),
    ],
)
def test_the_value_is_kept_in_mind(command: Command, tmp_path: Path, typed: str, told: str) -> None:
    result = command(*typed.split())
    assert (result.status, result.out) == (1, "")
    assert told in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", [False, True])
def test_a_comma_in_a_file_name(command: Command, tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "a,b.csv").write_text("x,y\n1,2\n")
    said = command("data=table", "data.path=a,b.csv", "data.target=y").err
    quoted, sweep = """'data.path="a,b.csv"'""", "-m data.path=a,b.csv"
    assert (said.index(quoted) < said.index(sweep)) == there
    assert "One list" not in said
    number = command("trainer.epochs=1,2").err
    assert '"1,2"' not in number
    assert "-m trainer.epochs=1,2" in number


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
        ("trainer:\n  epoch: 3\n", "trainer.epoch: no such setting. Did you mean 'epochs'?"),
        ("nonsense: 3\n", "nonsense: no such setting or group."),
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
