"""Whether a run is said to have been still improving, and what to type then."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.reporting.summary import read_summary
from bigmodel.training.loop import fit
from bigmodel.training.trend import falling
from tests.small_runs import STEPS_PER_EPOCH, built

NOISE = np.random.default_rng(0).normal(size=100).tolist()


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.9, 0.7, 0.5], True),
        ([2.2, 1.6, 1.2, 1.15], True),  # less and less, with the learning rate
        ([1 - 0.02 * i for i in range(30)], True),
        ([1 - 0.02 * i + 0.03 * noise for i, noise in enumerate(NOISE[:40])], True),
        ([1 - 0.01 * i for i in range(100)], True),
        ([math.exp(-i / 10) for i in range(100)], False),  # converged
        ([math.exp(-i) for i in range(8)], False),
        ([0.45, 0.30, 0.26, 0.24, 0.23, 0.225, 0.22, 0.215, 0.21, 0.20], False),  # only calmer
        ([0.5] * 20, False),
        ([1 + 0.1 * noise for noise in NOISE], False),
        ([0.9, 0.5, 0.4, 0.41, 0.43, 0.46, 0.5, 0.55], False),  # it rises again
        ([0.9, 0.5, 0.51], False),
        ([0.9, 0.5], False),  # two make no trend
        ([math.nan, 0.5, 0.4, 0.3], False),
        ([], False),
    ],
)
def test_a_trend_is_told_from_noise_and_from_an_end(losses: list[float], expected: bool) -> None:
    assert falling(losses) is expected


def test_noise_is_hardly_ever_taken_for_a_trend() -> None:
    runs = np.random.default_rng(1).normal(size=(1000, 30)).tolist()
    assert sum(map(falling, runs)) < 30


def run_of(folder: Path, **settings: Any) -> Any:
    """Its loss falls to the last step, since its rate is low: 4 epochs."""
    usual: dict[str, Any] = {"trainer.epochs": 4, "data.target": "values"}
    usual |= {"optimizer.lr": 0.003, "optimizer.weight_decay": 0.01}
    return built(folder, usual | {f"trainer.{key}": value for key, value in settings.items()})[0]


def test_a_run_that_was_still_improving_says_so(tmp_path: Path) -> None:
    summary = fit(run_of(tmp_path))
    assert summary.best["step"] == 4 * STEPS_PER_EPOCH
    assert summary.longer == "trainer.epochs=8"
    stored = read_summary(tmp_path)
    assert stored is not None
    assert stored.longer == "trainer.epochs=8"


def test_steps_are_asked_for_where_they_count(tmp_path: Path) -> None:
    assert fit(run_of(tmp_path, max_steps=21)).longer == "trainer.max_steps=42"


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 2},  # two evaluations
        {"limit": {"train": 4}},
        {"early_stopping": {"patience": 3, "min_delta": 9.0}},
    ],
)
def test_other_runs_do_not(tmp_path: Path, settings: dict[str, Any]) -> None:
    summary = fit(run_of(tmp_path, **settings))
    assert summary.status == "finished"
    assert summary.longer == ""


def test_it_remembers_what_was_before_a_resume(tmp_path: Path) -> None:
    """After it only one evaluation is left, which alone shows no trend."""
    whole = fit(run_of(tmp_path / "whole"))
    run = run_of(tmp_path / "parts", epochs=3)
    fit(run)
    longer = run_of(tmp_path / "parts")
    summary = fit(resume_run(longer))
    assert summary.longer == whole.longer == "trainer.epochs=8"
    losses = checkpoint.load(tmp_path / "parts" / "checkpoints" / "last")[1]["progress"]["losses"]
    assert len(losses) == 4
