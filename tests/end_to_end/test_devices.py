"""A device by its index, from the command line."""

import json
from pathlib import Path

from tests.end_to_end.conftest import Command


def test_a_run_on_a_device_by_its_index_goes_on_on_another(command: Command, tmp_path: Path) -> None:
    fast = ["trainer.max_steps=2", "trainer.tensorboard=false"]
    assert command("device=cpu:0", "hydra.run.dir=run", *fast).status == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["environment"]["device"][:3] == "cpu"
    assert command("resume=run", "device=cpu", "trainer.max_steps=3").status == 0
    assert command("resume=run", "device=cpu:0", "trainer.max_steps=4").status == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 4


def test_a_sweep_over_devices(command: Command, tmp_path: Path) -> None:
    words = ("-m", "device=cpu:0,cpu", "hydra.sweep.dir=sweep", "trainer.max_steps=1")
    assert command(*words, "trainer.tensorboard=false").status == 0
    assert "device.name" in (tmp_path / "sweep/leaderboard.csv").read_text()


def test_help_knows_an_index(command: Command) -> None:
    assert "device.tf32" in command("device=cuda:1", "--help").out
