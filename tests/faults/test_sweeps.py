"""A job of a sweep that raises or exits leaves the others alone, and is in the table with its reason."""

import csv
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigmodel import registry
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command
PLUGIN = """
import os
import signal
import sys
from pathlib import Path

from pydantic import Field

from bigmodel.models.fnn import FNN, FNNConfig
from bigmodel.registry import models


class MoodyConfig(FNNConfig):
    mood: str = Field(default="fine")


@models.register("moody", MoodyConfig)
class Moody(FNN):
    def __init__(self, config, spec):
        if config.mood == "exits":
            sys.exit(3)
        if config.mood == "raises":
            raise OSError(5, "Input/output error")
        self.mood = config.mood
        super().__init__(config, spec)

    def forward(self, inputs):
        if self.mood == "exits in training" and self.training:
            sys.exit("no more")
        if self.mood == "exits at once" and self.training:
            os._exit(3)
        if self.mood == "is killed" and self.training:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mood == "is killed once" and self.training and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)
"""


@pytest.fixture(autouse=True)
def _moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "moody.yaml").write_text("name: moody\nmood: fine\n")
    (tmp_path / "my_moody.py").write_text(PLUGIN)
    yield
    registry.models._entries.pop("moody", None)
    sys.modules.pop("my_moody", None)


def test_each_is_told_and_the_rest_finishes(command: Command, tmp_path: Path) -> None:
    moods = "exits,raises,fine,'exits in training'"
    result = command(
        *("-m", "--config-dir", "mine", "plugins=[my_moody]", "model=moody", f"model.mood={moods}"),
        *("debug=fast", "device=cpu", "trainer.tensorboard=false"),
    )
    assert result.status == 1
    (table,) = tmp_path.glob("outputs/multirun/*/*/leaderboard.csv")
    with table.open() as file:
        rows = {row["model.mood"].strip("'"): row for row in csv.DictReader(file)}
    assert {mood: row["status"] for mood, row in rows.items()} == {
        "fine": "finished",
        "exits": "failed",
        "raises": "failed",
        "exits in training": "failed",
    }
    reasons = {
        "exits": "SystemExit: 3",
        "raises": "model=moody: my_moody.Moody failed: OSError: [Errno 5] Input/output error"
        " (my_moody.py, line 23).",
        "exits in training": "SystemExit: no more",
    }
    for mood, reason in reasons.items():
        assert rows[mood]["error"] == reason
        assert f"failed: {reason}" in result.out, "in the printed table"
        at_once = [line for line in result.out.splitlines() if re.match(r"\[\d of 4\] job \d ", line)]
        assert any(line.endswith(f": {reason}") for line in at_once), at_once


MOODY = ("-m", "--config-dir", "mine", "plugins=[my_moody]", "model=moody", "hydra.sweep.dir=sweep")
FAST = ("debug=fast", "device=cpu", "trainer.tensorboard=false")


def rows(folder: Path) -> dict[str, tuple[str, str]]:
    """By mood, how the job ended, and why."""
    with (folder / "sweep" / "leaderboard.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    return {row["model.mood"].strip("'"): (row["status"], row["error"]) for row in read}


def test_one_whose_process_is_gone_is_told_and_the_rest_finishes(
    command: Command, tmp_path: Path
) -> None:
    result = command(*MOODY, *FAST, "model.mood='exits at once',fine,'is killed'")
    assert result.status == 1
    found = rows(tmp_path)
    assert found["fine"] == ("finished", "")
    assert found["exits at once"] == ("failed", "its process exited with status 3")
    assert found["is killed"][0] == "failed"
    assert found["is killed"][1].startswith("its process was ended by SIGKILL, as the system does when")
    words = result.out.splitlines()[-1].partition("bigmodel-train ")[2]
    assert words == "-m sweep.resume=sweep 'plugins=[my_moody]' sweep.retries=1"
    resumed = command(*shlex.split(words), "sweep.jobs=1")
    assert resumed.status == 1
    assert {mood: status for mood, (status, _) in rows(tmp_path).items()} == {
        "fine": "finished", "exits at once": "failed", "is killed": "failed",
    }  # fmt: skip


def test_one_that_failed_is_tried_again_in_its_folder(command: Command, tmp_path: Path) -> None:
    result = command(*MOODY, *FAST, "model.mood='is killed once',fine", "sweep.retries=1")
    assert result.status == 0, result.out
    assert {mood: status for mood, (status, _) in rows(tmp_path).items()} == {
        "fine": "finished", "is killed once": "finished",
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == [
        "0",
        "1",
        "logs",
    ]


def test_a_sweep_into_a_used_folder_leaves_it_as_it_was(command: Command, tmp_path: Path) -> None:
    words = ("-m", "hydra.sweep.dir=mine", "debug=fast", "device=cpu", "trainer.tensorboard=false")
    assert command(*words, "seed=1,2").status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    again = command(*words, "seed=5,6")
    assert again.status == 1
    assert "hydra.sweep.dir: mine holds multirun.yaml, leaderboard.csv, sweep.jsonl already" in again.err
    after = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert after == before
