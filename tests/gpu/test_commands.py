"""A run is asked on a GPU, whatever it was made on."""

import json
from pathlib import Path

import numpy as np
import pytest

from bigmodel.training.loop import fit
from tests.cli.commands.cli import Bigmodel, caller
from tests.small_runs import built

pytestmark = pytest.mark.gpu


@pytest.fixture
def bigmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    return caller(monkeypatch, capsys)


@pytest.mark.parametrize("trained_on", ["cpu", "cuda"])
def test_both_devices_say_the_same(tmp_path: Path, bigmodel: Bigmodel, trained_on: str) -> None:
    (tmp_path / "run").mkdir()
    settings = {"device": {"name": trained_on, "precision": "fp32", "tf32": False}}
    fit(built(tmp_path / "run", settings)[0])
    np.savez(tmp_path / "new.npz", inputs=np.random.default_rng(0).normal(size=(300, 5)))
    figures, predictions = [], []
    for device in ("cpu", "cuda"):
        said = bigmodel("eval", tmp_path / "run", "--json", "--device", device)
        figures.append(json.loads(said.out)["figures"])
        said = bigmodel("predict", tmp_path / "run", "--input", tmp_path / "new.npz", "--device", device)
        predictions.append([float(line.split(",")[-1]) for line in said.out.splitlines()[1:]])
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)
    assert predictions[0] == pytest.approx(predictions[1], rel=1e-4)


def test_a_text_is_written_on_the_gpu(tmp_path: Path, bigmodel: Bigmodel) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "verses.txt").write_text("ROMEO: Good night!\nJULIET: So would I.\n" * 30)
    settings = {
        "model": {"name": "transformer", "dim": 16, "depth": 1, "num_heads": 2},
        "data": {"name": "text", "path": str(tmp_path / "verses.txt"), "context": 16},
        "device": {"name": "cuda"},
    }
    fit(built(tmp_path / "run", settings)[0])
    said = bigmodel(
        "predict", tmp_path / "run", "--prompt", "ROMEO:", "--tokens", 40, "--device", "cuda"
    )
    assert said.status == 0, said.err
    assert len(said.out) == len("ROMEO:") + 40 + 1
