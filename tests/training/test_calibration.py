"""What a run keeps of its validation set to tell how sure it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from bigmodel.build.resumed_run import resume_run
from bigmodel.cli.commands.loaded_run import load_run
from bigmodel.errors import CheckpointError
from bigmodel.metrics.calibration import Calibration
from bigmodel.spec import Classes, Flags
from bigmodel.training import calibration
from bigmodel.training.calibration import NAME, read_calibration
from bigmodel.training.loop import fit
from bigmodel.training.outputs import model_outputs
from tests.small_runs import built

# The best weights are not the last ones.
OVERFITS: dict[str, Any] = {
    "data.samples": 60,
    "data.val_fraction": 0.5,
    "data.noise": 2.0,
    "trainer.epochs": 20,
    "optimizer.lr": 1.0,
}
KINDS: dict[str, dict[str, Any]] = {
    "classes": {},
    "flags": {"data.target": "flags", "data.outputs": 2},
    "values": {"data.target": "values", "data.outputs": 2},
    "averaged": {"trainer.ema": 0.9},
}


def same(one: Calibration | None, other: Calibration) -> None:
    assert one is not None
    assert one.samples == other.samples
    assert (one.temperatures is None) == (other.temperatures is None)
    if other.temperatures is not None:
        assert one.temperatures == pytest.approx(other.temperatures, rel=1e-4)
    torch.testing.assert_close(one.scores, other.scores)
    torch.testing.assert_close(one.predicted, other.predicted)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_of_the_best_and_of_the_last_weights(tmp_path: Path, kind: str) -> None:
    run, _ = built(tmp_path, OVERFITS | KINDS[kind])
    fit(run)
    part, steps = run.dataset.part("val"), []
    for weights in ("best", "last"):
        loaded = load_run(str(tmp_path), weights, "cpu", [], print)
        steps.append(loaded.step)
        outputs = model_outputs(loaded.model, part, loaded.preprocessing, loaded.runtime)
        targets = part.take(slice(0, len(part)))[1]
        target = loaded.preprocessing.spec.target
        found = read_calibration(tmp_path, loaded.step, target)
        same(found, Calibration.of(outputs, targets, target))
    assert steps[0] < steps[1]
    assert read_calibration(tmp_path, 1, target) is None


def test_a_resumed_run_replaces_it(tmp_path: Path) -> None:
    fit(built(tmp_path, OVERFITS)[0])
    fit(resume_run(built(tmp_path, OVERFITS | {"trainer.epochs": 21})[0]))
    last = load_run(str(tmp_path), "last", "cpu", [], print)
    target = last.preprocessing.spec.target
    assert read_calibration(tmp_path, last.step, target) is not None
    assert read_calibration(tmp_path, last.step * 20 // 21, target) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"data.validation": False},
        {
            "model": {"name": "transformer", "dim": 8, "depth": 1, "num_heads": 2},
            "data": {"name": "text", "path": "HERE", "context": 8},
        },
    ],
)
def test_without_validation_and_for_texts_there_is_none(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    (tmp_path / "verses.txt").write_text("To be, or not to be.\n" * 30)
    if isinstance(settings.get("data"), dict):
        settings = settings | {"data": settings["data"] | {"path": str(tmp_path / "verses.txt")}}
    fit(built(tmp_path / "run", settings)[0])
    assert not (tmp_path / "run" / NAME).exists()


def test_of_very_many_samples_some_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_MOST_SAMPLES", 7)
    fit(built(tmp_path, {"data.target": "values"})[0])
    loaded = load_run(str(tmp_path), "best", "cpu", [], print)
    found = read_calibration(tmp_path, loaded.step, loaded.preprocessing.spec.target)
    assert found is not None
    assert (found.samples, len(found.scores), len(found.predicted)) == (7, 7, 7)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    three, two = (Classes(tuple("abc"[:n]), (1,) * n) for n in (3, 2))
    learnt = Calibration.of(torch.randn(9, 3), torch.arange(9) % 3, three).tensors()
    files = [b"none", save({f"3.{n}": t for n, t in learnt.items()})]
    assert read_calibration(tmp_path, 3, three) is None
    for content, target in zip(files, (three, Flags(two.names)), strict=True):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"calibration\.safetensors: cannot be read"):
            read_calibration(tmp_path, 3, target)
    same(read_calibration(tmp_path, 3, three), Calibration.from_tensors(learnt, three))
