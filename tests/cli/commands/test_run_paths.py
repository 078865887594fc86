"""Which run a path means, and what is said where it means none."""

from pathlib import Path

import pytest

from bigmodel.cli.commands.run_paths import RunPath, resolve_run
from bigmodel.errors import CheckpointError


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for run in ("2026-11-23/10-15-02", "2026-11-24/09-00-00"):
        best = tmp_path / "outputs" / run / "checkpoints" / "best"
        best.mkdir(parents=True)
        (best / "manifest.json").touch()
    return tmp_path / "outputs"


@pytest.mark.parametrize("inner", ["", "checkpoints"])
def test_a_run_by_its_folder(outputs: Path, inner: str) -> None:
    run = outputs / "2026-11-23/10-15-02"
    assert resolve_run(str(run / inner)) == RunPath(run)


@pytest.mark.parametrize("inner", ["", "manifest.json"])
def test_a_run_by_one_of_its_checkpoints(outputs: Path, inner: str) -> None:
    run = outputs / "2026-11-23/10-15-02"
    place = resolve_run(str(run / "checkpoints/best" / inner))
    assert place.folder == run
    assert place.checkpoint == run / "checkpoints/best"
    assert place.checkpoints == run / "checkpoints"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("outputs/2026-11-23/10-15-03", "there is no such folder. Did you mean"),
        ("nowhere", "there is no such folder. The newest runs: outputs/2026-11-2"),
        ("outputs", "this is a folder of runs. Choose one: outputs/2026-11-2"),
        ("empty", "this is not a run's folder: it has no checkpoints/."),
        ("file.txt", "this is a file. Name a run's folder"),
        ("early", "the run has no checkpoint: it ended before its first save"),
    ],
)
def test_a_path_that_means_no_run(outputs: Path, text: str, told: str) -> None:
    here = outputs.parent
    (here / "empty").mkdir()
    (here / "file.txt").touch()
    (here / "early" / ".hydra").mkdir(parents=True)
    with pytest.raises(CheckpointError) as refused:
        resolve_run(text)
    assert str(refused.value).startswith(f"{text}: {told}")


@pytest.mark.usefixtures("outputs")
def test_the_jobs_of_a_sweep_are_named_in_their_order(tmp_path: Path) -> None:
    for job in (0, 1, 2, 10):
        (tmp_path / "sweep" / str(job) / "checkpoints").mkdir(parents=True)
    (tmp_path / "sweep" / "leaderboard.csv").touch()
    with pytest.raises(CheckpointError, match="a sweep's folder of runs") as refused:
        resolve_run("sweep")
    assert str(refused.value).endswith("Choose one: sweep/0, sweep/1, sweep/2, sweep/10.")
