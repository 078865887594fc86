"""kill -9 of a sweep and all its jobs: it goes on, ends the same, and runs no finished job twice."""

import sys
from pathlib import Path

import pytest

from tests.faults import sweep_kills

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

GRID = ("optimizer.lr=0.003,0.001", "seed=1,2,3", "sweep.jobs=2")


def test_killed_and_gone_on_with(tmp_path: Path) -> None:
    expected = sweep_kills.run_uninterrupted(tmp_path / "whole", *GRID)
    assert len(expected) == 1 + 6
    result = sweep_kills.kill_and_resume(tmp_path / "killed", expected, GRID, kills=3, seed=0)
    assert result.faults == []
    assert result.kills > 1
    assert result.running > 0


def test_another_end_and_a_job_run_twice_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("seed=1,2", "sweep.jobs=1")
    finished = {tmp_path / "killed" / "sweep" / "0" / "summary.json": b"another"}
    monkeypatch.setattr(sweep_kills, "_finished", lambda _: finished)
    expected = [["rank"], ["1"], ["2"]]
    result = sweep_kills.kill_and_resume(tmp_path / "killed", expected, grid, kills=1, seed=0)
    assert any("run again" in fault for fault in result.faults)
    assert any("the leaderboard is another" in fault for fault in result.faults)
