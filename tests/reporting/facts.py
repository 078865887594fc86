"""Facts of an imagined run, for the tests of the sinks."""

from pathlib import Path
from typing import Any

from bigmodel.models.summary import Layer
from bigmodel.reporting.base import Record, RunInfo, Summary

CONFIG: dict[str, Any] = {
    "model": {"name": "fnn", "hidden_sizes": [128, 64], "dropout": 0.5},
    "data": {"name": "digits", "normalize": True, "root": "~/data"},
    "optimizer": {"name": "adamw", "lr": 0.01, "betas": [0.9, 0.999]},
    "trainer": {"epochs": 30, "max_steps": None, "log_every": 10, "checkpoint": {"keep": 1}},
    "seed": 0,
    "plugins": [],
    "output_dir": "outputs",
    "resume": None,
}


def info(folder: Path, **changes: Any) -> RunInfo:
    """What runs: 30 epochs of 23 steps."""
    facts: dict[str, Any] = {
        "title": "fnn on digits",
        "rows": [("Model", "fnn, 9,610 parameters"), ("Data", "digits [8×8] → 10 classes")],
        "config": CONFIG,
        "layers": [Layer("1", "Linear", "128", 8320), Layer("3", "Linear", "10", 1290)],
        "folder": folder,
        "epochs": 30,
        "steps_per_epoch": 23,
        "total_steps": 690,
        "first_step": 0,
        "monitor": "val/accuracy",
        "evaluate_every": 23,
    }
    facts |= {"last_recorded_step": changes.get("first_step", 0)}
    return RunInfo(**(facts | changes))


def record(epoch: int, accuracy: float = 0.9722, **changes: float) -> Record:
    """The figures after an epoch."""
    figures: Record = {
        "epoch": epoch,
        "step": 23 * epoch,
        "train/loss": 0.12341,
        "val/loss": 0.0987,
        "val/accuracy": accuracy,
        "lr": 0.01,
        "samples_per_second": 12345.6,
    }
    return figures | changes


def summary(status: str = "finished", **changes: Any) -> Summary:
    """How the run ended: the best at epoch 18, the end at epoch 30."""
    facts: dict[str, Any] = {
        "best": record(18, 0.9833),
        "final": record(30, 0.9722),
        "test": {"test/loss": 0.2, "test/accuracy": 0.9611},
        "monitor": "val/accuracy",
        "mode": "max",
        "epochs": 30,
        "steps": 690,
        "seconds": 3.21,
        "parameters": 9610,
    }
    return Summary(status, **(facts | changes))
