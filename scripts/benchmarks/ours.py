"""Ours, run as users run it: `bigmodel-train` with some overrides, and a clock beside its sinks."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.works import Work, checked
from bigmodel.build import new_run
from bigmodel.build.new_run import build_run
from bigmodel.checkpointing.saver import Saver
from bigmodel.cli.train import config_dir, main
from bigmodel.config import parse
from bigmodel.reporting.base import Record, RunInfo, Sink, Sinks, Summary
from bigmodel.training.loop import fit

TOGETHER = 5
"""Steps between two losses of `verify`: an engine does them in a few calls."""


@dataclass
class Clock(Sink):
    """Notes when each record came, and the losses of the records.

    Attributes:
        marks: (step, seconds) of each record; only differences mean something.
        fit: seconds that the whole of `fit` took, without building.
        engine: how steps were done in the end.
        val_loss: the newest.
        messages: what the run said, with the seconds when it did.
    """

    marks: list[tuple[int, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    began: float = 0.0
    fit: float = 0.0
    engine: str = ""
    val_loss: float | None = None
    messages: list[tuple[str, float]] = field(default_factory=list)

    def start(self, info: RunInfo) -> None:  # noqa: ARG002
        self.began = time.perf_counter()

    def record(self, record: Record, best: Record) -> None:  # noqa: ARG002
        self.marks.append((int(record["step"]), time.perf_counter()))
        self.losses.append(float(record["train/loss"]))
        self.val_loss = record.get("val/loss", self.val_loss)

    def message(self, text: str, level: str = "info") -> None:  # noqa: ARG002
        self.messages.append((text, time.perf_counter()))

    def finish(self, summary: Summary, folder: Path) -> None:  # noqa: ARG002
        self.engine = summary.environment["engine"]

    def close(self) -> None:
        self.fit = time.perf_counter() - self.began


class NoSaver(Saver):
    """Takes every state and keeps none."""

    def offer(self, *_: Any, **__: Any) -> None:
        pass


def composed(*overrides: str) -> dict[str, Any]:
    """The configuration that `bigmodel-train` would be given, as plain values."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from bigmodel.cli.launch.run_folder import register_resolver

    register_resolver()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        values: Any = OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True)
    return dict(values)


def prepare(work: Work, folder: Path) -> dict[str, Any]:
    """Does the first steps, and leaves in `folder` what the other sides begin from and are checked by.

    `start.pt` holds the first weights, the first batches, and the data as it is stored: `train` and
    `val`, inputs and targets, or a text's `stream` of tokens. `start.npz` holds the same for sides
    without torch.
    """
    work = checked(work)
    run = build_run(parse(composed(*work.arguments())), folder / "checked")
    batches = []
    for batch in run.train.epoch(0):
        batches.append((batch.inputs.cpu(), batch.targets.cpu()))
        if len(batches) == work.steps:
            break
    start: dict[str, Any] = {
        "weights": {name: value.cpu().clone() for name, value in run.state.model.state_dict().items()},
        "batches": batches,
        "val": run.dataset.val.take(slice(0, len(run.dataset.val))),
    }
    if work.kind in {"text", "gpt2"}:
        start["stream"] = run.dataset.train.tensors()["stream"]
    else:
        start["train"] = run.dataset.train.take(slice(0, len(run.dataset.train)))
    if (scaling := run.dataset.preprocessing.scaling()) is not None:
        start["scaling"] = (scaling.scale, scaling.shift)
    torch.save(start, folder / "start.pt")
    keep_as_arrays(start, folder / "start.npz")
    clock = Clock()
    run = replace(run, sinks=clock)
    fit(run)
    losses = clock.losses[: len(batches)]  # those of the first epoch, whose batches are known
    return {"losses": losses, "parameters": run.summary.parameters}


def keep_as_arrays(start: dict[str, Any], path: Path) -> None:
    """Writes the same as NumPy arrays: `weights/…`, `train_x`, `val_y`, `batches_x`, `stream`, …"""
    arrays = {f"weights/{name}": value for name, value in start["weights"].items()}
    for part in {"train", "val"} & set(start):
        arrays[f"{part}_x"], arrays[f"{part}_y"] = start[part]
    inputs, targets = zip(*start["batches"], strict=True)
    arrays |= {"batches_x": torch.stack(inputs), "batches_y": torch.stack(targets)}
    if "scaling" in start:
        arrays["scale"], arrays["shift"] = start["scaling"]
    if "stream" in start:
        arrays["stream"] = start["stream"]
    np.savez(path, **{name: value.numpy() for name, value in arrays.items()})


def verify(work: Work, folder: Path) -> dict[str, Any]:
    """The same steps again by the faster engine, several in a call, as it is used.

    Returns:
        `steps` at which it reported a mean loss, those `losses`, and the `engine` at the end.
    """
    engine = "graph" if work.device == "cuda" else "compiled"
    work = checked(work)
    work = replace(work, mark_every=TOGETHER, overrides=(*work.overrides, f"device.engine={engine}"))
    clock = Clock()
    fit(replace(build_run(parse(composed(*work.arguments())), folder / "verified"), sinks=clock))
    return {"losses": clock.losses, "steps": [step for step, _ in clock.marks], "engine": clock.engine}


def compile_seconds(work: Work, folder: Path) -> float:
    """Seconds from the line that says that the step is being compiled to the first compiled step.

    Raises:
        RuntimeError: steps are not compiled here.
    """
    work = replace(work, overrides=(*work.overrides, "device.engine=compiled"), steps=60, mark_every=1)
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        fit(replace(build_run(parse(composed(*work.arguments())), Path(place)), sinks=clock))
    began = [at for text, at in clock.messages if text.startswith("Compiling")]
    ready = [at for text, at in clock.messages if text.startswith("A step takes") and began]
    if not ready:
        raise RuntimeError(f"no compiled step: {' '.join(text for text, _ in clock.messages)}")
    return min(at for _, at in clock.marks if at > ready[-1]) - began[0]


def run(
    work: Work, *, on_end: Callable[[], None] = lambda: None, reports: bool = True, saves: bool = True
) -> dict[str, Any]:
    """One whole run by the command's own `main`, in a folder that is deleted afterwards.

    Args:
        on_end: called once the run is over and before the folder is tidied up.
        reports: leave the sinks as they are: console, JSON lines and TensorBoard.
        saves: write checkpoints.
    """
    clock, make_sinks, make_saver = Clock(), new_run._sinks, new_run.Saver
    new_run._sinks = lambda *args: Sinks([make_sinks(*args), clock]) if reports else clock
    new_run.Saver = make_saver if saves else NoSaver  # type: ignore[misc]
    argv = sys.argv
    try:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            sys.argv = ["bigmodel-train", *work.arguments(), f"output_dir={folder}"]
            main()
            on_end()
    finally:
        sys.argv, new_run._sinks, new_run.Saver = argv, make_sinks, make_saver  # type: ignore[misc]
    figures = {"curve": clock.losses, "marks": clock.marks, "fit": clock.fit, "engine": clock.engine}
    return figures if clock.val_loss is None else figures | {"val_loss": clock.val_loss}
