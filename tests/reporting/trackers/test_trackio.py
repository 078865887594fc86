"""Trackio's own library, where it is installed: its file of a run."""

import importlib.util
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.reporting.trackers.conftest import TrackedRun, named

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None,
    reason="trackio needs an older Pillow than the pinned one",
)


def test_a_run_with_its_settings_figures_and_end(
    tracked: Callable[..., TrackedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    run = tracked("trackio")
    run.start(**named())
    run.record(1, 2)
    run.end()
    assert run.warnings() == []
    with closing(sqlite3.connect(tmp_path / "kept" / "bigmodel.db")) as kept:
        rows = kept.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
        [(name, config)] = kept.execute("SELECT run_name, config FROM configs").fetchall()
    assert [step for step, _ in rows] == [23, 46, 690]
    assert json.loads(rows[0][1])["val/loss"] == 0.0987
    assert json.loads(rows[-1][1])["status"] == "finished"
    assert name.startswith("the base line, ")
    assert json.loads(config)["optimizer"]["lr"] == 0.01
