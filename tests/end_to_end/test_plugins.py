"""A user's own model and data, as the pages show them: chosen by name, with no change to the package."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bigmodel import registry
from tests.end_to_end import pages
from tests.end_to_end.conftest import Command


def test_a_model_of_the_user_s_own(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    pages.write_files(tmp_path)
    arguments = ("--config-dir", "my_configs", "plugins=[my_models]", "model=wide", "device=cpu")
    try:
        result = command(*arguments, "trainer.epochs=3")
        assert result.status == 0, result.err
        assert "wide" in result.out
        assert "my_models" in result.out
        assert result.summary()["final"]["val/accuracy"] > 0.8

        forgotten = command(f"resume={result.folder}", "trainer.epochs=4")
        assert forgotten.status == 1
        assert "'plugins=[my_models]'" in forgotten.err
        resumed = command(f"resume={result.folder}", "plugins=[my_models]", "trainer.epochs=4")
        assert resumed.status == 0, resumed.err
        as_before = command(f"resume={result.folder}", *arguments, "trainer.epochs=5")
        assert as_before.status == 0, as_before.err
    finally:
        registry.models._entries.pop("wide", None)
        sys.modules.pop("my_models", None)


def test_a_file_in_the_current_folder_from_installed_commands(tmp_path: Path) -> None:
    """In a run, in a sweep, and asked afterwards: each in a process of its own, as a user has it."""
    pages.write_files(tmp_path)
    (tmp_path / "sklearn.py").write_text("raise SystemExit('a stranger has run')\n")
    programs = Path(sys.executable).parent
    own = ("--config-dir", "my_configs", "plugins=[my_models]", "model=wide")
    quick = ("debug=fast", "device=cpu")
    run = f"hydra.run.dir={tmp_path / 'run'}"
    for command in (
        [programs / "bigmodel-train", *own, *quick, run],
        [programs / "bigmodel-train", "-m", *own, *quick, "model.width=8,16"],
        [programs / "bigmodel", "eval", "run", "--plugins", "my_models"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()


def test_data_of_the_user_s_own(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    pages.write_files(tmp_path)
    table = torch.randn(200, 3)
    rows = [f"{a:.4f},{b:.4f},{c:.4f},{int(a + b > 0)}" for a, b, c in table.tolist()]
    (tmp_path / "sensors.csv").write_text("\n".join(["a,b,c,broken", *rows]))
    try:
        result = command("--config-dir", "my_configs", "plugins=[my_data]", "data=sensors", "device=cpu")
        assert result.status == 0, result.err
        assert "sensors: 3 features → 2 classes (160 train, 40 val)" in result.out
        assert result.summary()["final"]["val/accuracy"] > 0.9
    finally:
        registry.data._entries.pop("sensors", None)
        sys.modules.pop("my_data", None)
