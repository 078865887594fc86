"""Runs that take milliseconds: 64 samples to learn from and 16 to judge by, in batches of 12.

The last batch of an epoch is smaller, so that a mean over batches is not the mean over samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bigmodel.build.new_run import build_run
from bigmodel.config import RunConfig, parse
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.reporting.base import EvaluationResult, ProgressReport, Record, RunInfo, Sink, Summary
from bigmodel.training.run import Run

STEPS_PER_EPOCH = 6
VALUES: dict[str, dict[str, Any]] = {
    "model": {"name": "fnn", "hidden_sizes": [8]},
    "data": {
        "name": "synthetic",
        "shape": [5],
        "target": "classes",
        "outputs": 3,
        "samples": 80,
        "batch_size": 12,
    },
    "loss": {"name": "auto"},
    "optimizer": {"name": "adamw"},
    "scheduler": {"name": "constant"},
    "device": {"name": "cpu"},
    "trainer": {"epochs": 2, "tensorboard": False, "checkpoint": {"interval": 0.0}},
}


class Recorder(Sink):
    """Keeps what it is told: `calls` in order, and each kind by itself."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.info: RunInfo | None = None
        self.records: list[Record] = []
        self.logged: list[Record] = []
        self.signs: list[ProgressReport] = []
        self.evaluations: list[tuple[int, EvaluationResult]] = []
        self.messages: list[str] = []
        self.rewound: list[int] = []
        self.summary: Summary | None = None

    def start(self, info: RunInfo) -> None:
        self.calls.append("start")
        self.info = info

    def progress(self, progress: ProgressReport) -> None:
        self.signs.append(progress)

    def record(self, record: Record, best: Record) -> None:  # noqa: ARG002
        self.calls.append("record")
        self.records.append(record)

    def log(self, record: Record) -> None:
        self.calls.append("log")
        self.logged.append(record)

    def evaluated(self, evaluation: EvaluationResult, step: int) -> None:
        self.calls.append("evaluated")
        self.evaluations.append((step, evaluation))

    def weights(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        self.calls.append("weights")

    def message(self, text: str, level: str = "info") -> None:  # noqa: ARG002
        self.messages.append(text)

    def rewind(self, step: int) -> None:
        self.rewound.append(step)

    def finish(self, summary: Summary, folder: Path) -> None:  # noqa: ARG002
        self.calls.append("finish")
        self.summary = deepcopy(summary)

    def close(self) -> None:
        self.calls.append("close")


def values(settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A whole configuration, with changes by dotted key; `{"model": "cnn"}` takes another choice."""
    whole = deepcopy(VALUES)
    for key, value in (settings or {}).items():
        *path, last = key.split(".")
        if not path and last in whole and not isinstance(value, dict):
            whole[last] = {"name": value}
            continue
        group: dict[str, Any] = whole
        for part in path:
            group = group.setdefault(part, {})
        group[last] = value
    return whole


def config(settings: Mapping[str, Any] | None = None) -> RunConfig:
    """The same, checked."""
    return parse(values(settings))


def built(folder: Path, settings: Mapping[str, Any] | None = None) -> tuple[Run, Recorder]:
    """A run ready for `fit`, and the sink that hears of it."""
    recorder = Recorder()
    return replace(build_run(config(settings), folder), sinks=recorder), recorder


def model_inputs(preprocessing: Preprocessing, stored: Tensor) -> Tensor:
    """Inputs as they are stored, as a model expects them."""
    scaling = preprocessing.scaling(stored.device)
    return stored if scaling is None else scaling(stored)
