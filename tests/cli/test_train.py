import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bigmodel
from bigmodel.cli import train
from bigmodel.errors import ConfigError
from bigmodel.training import records
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command
PROGRAM = Path(sys.executable).with_name("bigmodel-train")
QUICK = ("debug=fast", "device=cpu", "trainer.tensorboard=false")
SLOW_IMPORTS = {"torch", "numpy", "sklearn", "pydantic", "tensorboard"}


# ----- what never loads torch -----


def completion(line: str) -> dict[str, str]:
    return {"COMP_LINE": line, "COMP_POINT": str(len(line))}


@pytest.mark.parametrize(
    ("argv", "environment", "words"),
    [
        (["--help"], {}, ["model=", "transformer", "handwritten digits", "--help=all"]),
        (["--help=all"], {}, ["model=", "trainer.epochs", "passes over the training set"]),
        (["--version"], {}, [f"bigmodel-train {bigmodel.__version__}\n"]),
        (["model=rnn", "--help"], {}, ["model.hidden_size"]),
        (["device=cuda:1", "--help"], {}, ["> cuda", "device.name"]),
        (["--cfg", "job"], {}, ["hidden_sizes:", "epochs: auto"]),
        (["model=rnn", "--cfg", "job", "trainer.epochs=7"], {}, ["cell: gru", "epochs: 7"]),
        (["-sc", "install=bash"], {}, ["bigmodel-train", "complete"]),
        (["-sc", "query=bash"], completion("bigmodel-train model="), ["model=cnn", "model=fnn"]),
        (["-sc", "query=bash"], completion("bigmodel-train model=rnn model.cel"), ["model.cell="]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_torch_is_not_imported(
    tmp_path: Path, argv: list[str], environment: dict[str, str], words: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(PROGRAM), *argv],
        cwd=tmp_path,
        env=os.environ | environment | {"NO_COLOR": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rsplit("|", 1)[-1].strip() for line in lines}
    assert "bigmodel.cli.train" in imported  # or nothing was measured
    assert not {name.split(".")[0] for name in imported} & SLOW_IMPORTS
    assert [line for line in done.stderr.splitlines() if line not in lines] == []
    for word in words:
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_program_is_there_as_a_module_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bigmodel.cli.train", "modle=cnn"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bigmodel-train: modle")


# ----- errors -----


def test_a_mistake_is_one_message_and_status_1(command: Command) -> None:
    result = command("trainer.epochs=0")
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("bigmodel-train: trainer.epochs=0: ")
    assert len(result.err.splitlines()) == 1
    assert os.environ.get(train.FULL_ERROR) is None


def test_several_mistakes_are_told_together(command: Command) -> None:
    result = command("trainer.epochs=0", "optimizer.lr=-1", "model.dropout=2")
    assert result.status == 1
    for key in ("trainer.epochs=0", "optimizer.lr=-1", "model.dropout=2"):
        assert key in result.err


def test_the_traceback_is_there_for_whoever_asks(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(train.FULL_ERROR, "1")
    with pytest.raises(ConfigError, match="no such metric"):
        command("trainer.checkpoint.monitor=val/x", *QUICK)
    assert os.environ[train.FULL_ERROR] == "1"


def test_a_fault_of_ours_is_not_dressed_up(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise AssertionError("a fault")

    monkeypatch.setattr(records, "make_record", broken)
    with pytest.raises(AssertionError, match="a fault"):
        command(*QUICK)


def test_an_interrupted_run_says_how_to_go_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(records, "make_record", interrupt)
    result = command(*QUICK)
    assert result.status == 130
    assert "resume=" in result.err
    assert "Traceback" not in result.err
    assert result.summary()["status"] == "stopped"


@pytest.mark.parametrize("word", ["+resume=outputs", "++resume=outputs"])
def test_a_resume_that_would_be_ignored_is_refused(command: Command, tmp_path: Path, word: str) -> None:
    result = command(word, *QUICK)
    assert result.status == 1
    assert "resume=outputs" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("-m", "seed=1,2")], ids=["run", "sweep"])
def test_a_folder_whose_name_reads_as_a_reference_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    (odd := tmp_path / "${x}").mkdir()
    monkeypatch.chdir(odd)
    result = command(*words, *QUICK)
    assert result.status == 1
    assert result.err == (
        f"bigmodel-train: {odd}: a ${{ in a folder's name stands for a setting in configurations."
        " Start in another folder.\n"
    )
    assert list(odd.iterdir()) == []


def test_a_sweep_by_hydra_s_mode_is_one_too(command: Command) -> None:
    result = command("hydra.mode=MULTIRUN", "model=fnn,rnn", "data=wine", *QUICK)
    assert result.status == 1
    assert result.folder is not None
    assert (result.folder.parent / "leaderboard.csv").is_file()


@pytest.mark.parametrize(
    "word", ["sweep.jobs=2", "+sweep.seeds=3", "sweep=default", "sweep.resume=mine"]
)
def test_settings_of_a_sweep_are_refused_without_one(
    command: Command, tmp_path: Path, word: str
) -> None:
    result = command(word, *QUICK)
    assert result.status == 1
    assert f"{word}: is a setting of sweeps. Add -m to run one, or leave it out." in result.err
    assert list(tmp_path.iterdir()) == []
