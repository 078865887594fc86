"""What a job tells by a file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bigmodel.errors import CheckpointError
from bigmodel.sweeps import report
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.report import FileChannel, folder_of, path_of, prune, read

JOB = Job(3, ("seed=3",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep" / "slurm" / "1"
    folder.mkdir(parents=True)
    return path_of(folder, JOB, 1)


def test_what_is_told_is_read(path: Path) -> None:
    channel = FileChannel(path, JOB)
    assert read(path) is None
    channel.started(Path("runs/3"))
    channel.progressed({"step": 1, "value": None})
    outcome = Outcome(
        "failed", "ä", Path("runs/3").absolute(), math.nan, {"best": {"val/loss": 0.5}}, False
    )
    channel.ended(outcome)
    found = read(path)
    assert found is not None
    assert (found.folder, found.progress) == (Path("runs/3").absolute(), {"step": 1})
    assert found.outcome is not None
    assert repr(found.outcome) == repr(outcome)  # which has a NaN


def test_the_folder_of_a_job_stays_known_when_its_sweep_is_moved(path: Path, tmp_path: Path) -> None:
    FileChannel(path, JOB).started(tmp_path / "sweep" / "3")
    (tmp_path / "sweep").rename(tmp_path / "moved")
    assert folder_of(tmp_path / "moved", 3) == tmp_path / "moved" / "3"
    assert folder_of(tmp_path / "moved", 4) is None


def test_progress_is_written_now_and_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    channel = FileChannel(path, JOB)
    seen = []
    for step, seconds in enumerate([0.0, 1.0, 1.9, 2.0, 3.0]):
        now[0] = seconds
        channel.progressed({"step": step})
        found = read(path)
        assert found is not None
        seen.append(found.progress["step"])
    assert seen == [0, 0, 0, 3, 3]


def test_progress_that_cannot_be_written_ends_no_run(path: Path) -> None:
    path.parent.rmdir()
    channel = FileChannel(path, JOB)
    channel.progressed({"step": 1})
    with pytest.raises(CheckpointError, match="/1: is gone"):
        channel.started(Path("runs/3"))


def test_a_job_is_told_at_a_later_evaluation_that_it_is_pruned(path: Path) -> None:
    channel = FileChannel(path, JOB)
    assert channel.evaluated(1, 0.5) is None
    assert channel.evaluated(2, math.nan) is None
    found = read(path)
    assert found is not None
    assert repr(found.evaluations) == "[(1, 0.5), (2, nan)]"
    prune(path, 2)
    assert channel.evaluated(3, 0.5) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"folder": 3, "progress": [1], "outcome": 2}'])
def test_what_cannot_be_read_says_nothing(path: Path, text: str) -> None:
    path.write_text(text)
    assert read(path) is None
