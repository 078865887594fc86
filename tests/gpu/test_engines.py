"""On CUDA a step as a graph, or as compiled code, gives the losses of the eager step.

pytest -m gpu
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.build.resumed_run import resume_run
from bigmodel.reporting.base import Record
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.engine.steps import needs_compiler
from tests.small_runs import Recorder, built

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MODELS: dict[str, dict[str, Any]] = {
    "fnn": {"name": "fnn", "hidden_sizes": [32]},
    "cnn": {"name": "cnn", "channels": [8]},
    "transformer": {"name": "transformer", "dim": 32, "depth": 2, "num_heads": 4},
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A run sets the process up for itself; other tests are not to notice."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")


def run_of(
    folder: Path, model: str, engine: str, dropout: float, epochs: int = 3, **more: Any
) -> tuple[Run, Recorder]:
    settings: dict[str, Any] = {
        "data": {"name": "digits", "batch_size": 128},
        "model": MODELS[model] | {"dropout": dropout},
        "device": {"name": "cuda", "precision": "fp32", "tf32": False, "engine": engine},
        "optimizer.weight_decay": 0.1,
        "scheduler": "one_cycle",
        "trainer.clip_norm": 1.0,
        "trainer.record_every_steps": 1,
        "trainer.epochs": epochs,
    }
    return built(folder, settings | more)


def assert_near(got: list[Record], wanted: list[Record], rel: float) -> None:
    assert len(got) == len(wanted) > 30
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("train/loss", "grad_norm", "lr"):
            assert ours[name] == pytest.approx(theirs[name], rel=rel, abs=1e-4), (ours["step"], name)


@pytest.mark.parametrize("engine", ["graph", pytest.param("compiled", marks=needs_compiler)])
@pytest.mark.parametrize("model", MODELS)
def test_losses_are_those_of_the_eager_steps(tmp_path: Path, model: str, engine: str) -> None:
    eager, wanted = run_of(tmp_path / "eager", model, "eager", 0.0)
    fit(eager)
    fast, got = run_of(tmp_path / engine, model, engine, 0.0)
    fit(fast)
    assert fast.state.choice.engine == engine, got.messages
    assert_near(got.records, wanted.records, 0.02)


@pytest.mark.parametrize("engine", ["graph", pytest.param("compiled", marks=needs_compiler)])
@pytest.mark.parametrize("model", MODELS)
def test_with_dropout_they_learn_as_well(tmp_path: Path, model: str, engine: str) -> None:
    """Each replay draws anew; the numbers are others than those of the eager steps."""
    runs = {}
    for name in ("eager", engine):
        run, told = run_of(tmp_path / name, model, name, 0.3, epochs=10)
        fit(run)
        assert run.state.choice.engine == name, told.messages
        runs[name] = told.records
    last = {name: [r["train/loss"] for r in records[-10:]] for name, records in runs.items()}
    assert sum(last[engine]) == pytest.approx(sum(last["eager"]), rel=0.3, abs=0.5)
    assert last[engine][-1] < 0.7 * runs[engine][0]["train/loss"]


@pytest.mark.parametrize("engine", ["graph", pytest.param("compiled", marks=needs_compiler)])
def test_a_resumed_run_takes_the_same_engine(tmp_path: Path, engine: str) -> None:
    run, _ = run_of(tmp_path, "fnn", engine, 0.0, epochs=3)
    fit(run)
    again, told = run_of(tmp_path, "fnn", engine, 0.0, epochs=4)
    fit(resume_run(again, changed=["trainer.epochs"]))
    assert again.state.choice.engine == engine, told.messages
    assert again.summary.status == "finished"


@pytest.mark.parametrize("engine", ["graph", pytest.param("compiled", marks=needs_compiler)])
def test_bad_batches_are_skipped(tmp_path: Path, engine: str) -> None:
    run, told = run_of(tmp_path, "fnn", engine, 0.0, **{"trainer.on_nonfinite": "skip"})
    order = run.train.order(0)  # type: ignore[attr-defined]
    run.train.part.inputs[order[128 * 3]] = torch.nan  # type: ignore[union-attr]
    fit(run)
    assert run.state.choice.engine == engine, told.messages
    assert run.summary.skipped == 3, "once an epoch"
    assert all(bool(p.isfinite().all()) for p in run.state.model.parameters())
