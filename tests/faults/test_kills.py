"""kill -9 at any moment: the run goes on from the newest whole checkpoint, and ends the same."""

import os
from pathlib import Path

import pytest

from tests.faults import kills, trials


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_and_gone_on_with(tmp_path: Path, expected: str, seed: int) -> None:
    result = kills.kill_and_resume(tmp_path / "run", expected, kills=4, seed=seed)
    assert result.faults == []
    assert result.kills > 1
    assert result.inside > 0


def test_saved_by_the_clock(tmp_path: Path) -> None:
    """A save may come at a step after which figures are recorded: they stand there once."""
    whole = trials.run_uninterrupted(tmp_path / "whole", *trials.SAVED_BY_TIME)
    result = kills.kill_and_resume(tmp_path / "run", whole, 4, seed=5, recipe=trials.SAVED_BY_TIME)
    assert result.faults == []
    assert result.kills > 1


def test_temporary_files_on_another_file_system(tmp_path: Path, expected: str) -> None:
    here = tmp_path.stat().st_dev
    writable = [path for path in (Path("/dev/shm"), Path("/tmp")) if os.access(path, os.W_OK)]
    other = next((path for path in writable if path.stat().st_dev != here), None)
    if other is None:
        pytest.skip("there is no other file system")
    elsewhere = {"TMPDIR": str(other)}
    result = kills.kill_and_resume(tmp_path / "run", expected, 2, seed=7, environment=elsewhere)
    assert result.faults == []
    assert result.kills > 0


def test_a_run_that_ends_otherwise_is_noticed(tmp_path: Path) -> None:
    result = kills.kill_and_resume(tmp_path / "run", "another digest", kills=1, seed=3)
    assert any("the end differs" in fault for fault in result.faults)
