"""Which checkpoints of a sweep stay."""

from dataclasses import replace
from pathlib import Path

import pytest

from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.keep import KeepBest


def outcome(folder: Path, value: float | None, status: str = "finished", mode: str = "max") -> Outcome:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "model").write_text("weights")
    (folder / "summary.json").write_text("{}")
    return Outcome(status, None, folder, value, {"mode": mode})  # type: ignore[arg-type]


def kept(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("*/checkpoints"))


@pytest.mark.parametrize(
    ("mode", "most", "expected"),
    [("max", 2, ["1", "2"]), ("min", 2, ["0", "3"]), ("max", 0, []), ("max", 9, ["0", "1", "2", "3"])],
)
def test_the_best_jobs_keep_theirs(tmp_path: Path, mode: str, most: int, expected: list[str]) -> None:
    keep = KeepBest(tmp_path, most)
    for number, value in enumerate([0.2, 0.9, 0.8, 0.5]):
        keep.ended(Job(number, ()), outcome(tmp_path / str(number), value, mode=mode))
    assert kept(tmp_path) == expected
    assert len(list(tmp_path.glob("*/summary.json"))) == 4


def test_jobs_that_may_go_on_keep_theirs(tmp_path: Path) -> None:
    keep = KeepBest(tmp_path, 0)
    for number, status in enumerate(["failed", "stopped"]):
        keep.ended(Job(number, ()), outcome(tmp_path / str(number), 0.5, status))
    assert kept(tmp_path) == ["0", "1"]


def test_a_value_that_is_unknown_is_the_worst(tmp_path: Path) -> None:
    keep = KeepBest(tmp_path, 1)
    for number, value in enumerate([float("nan"), 0.1, None]):
        keep.ended(Job(number, ()), outcome(tmp_path / str(number), value))
    assert kept(tmp_path) == ["1"]


def test_jobs_that_finished_before_count(tmp_path: Path) -> None:
    before = outcome(tmp_path / "0", 0.9)
    keep = KeepBest(tmp_path, 1, [before])
    keep.ended(Job(1, ()), outcome(tmp_path / "1", 0.5))
    assert kept(tmp_path) == ["0"]


def test_equal_jobs_are_told_apart_by_validation_loss_as_in_the_ranking(tmp_path: Path) -> None:
    keep = KeepBest(tmp_path, 1)
    for number, loss in enumerate([0.7, 0.2, float("nan"), 0.4]):
        equal = outcome(tmp_path / str(number), 0.9)
        keep.ended(Job(number, ()), replace(equal, details={"mode": "max", "best": {"val/loss": loss}}))
    assert kept(tmp_path) == ["1"]


def test_nothing_is_removed_elsewhere(tmp_path: Path) -> None:
    """A sweep's record may be a stranger's, and name other runs as its jobs."""
    (tmp_path / "sweep").mkdir()
    elsewhere = outcome(tmp_path / "mine", 0.5)
    (tmp_path / "sweep" / "linked").symlink_to(tmp_path / "mine")
    keep = KeepBest(tmp_path / "sweep", 0, [elsewhere])
    for folder in (tmp_path / "mine", tmp_path / "sweep" / "linked", tmp_path / "sweep" / ".." / "mine"):
        keep.ended(Job(0, ()), replace(elsewhere, folder=folder))
    assert kept(tmp_path) == ["mine"]
