"""What TensorBoard shows of a run: curves, also with training and validation in one chart, those of
precision over recall, hyperparameters with results, texts, pictures, histograms."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bigmodel.reporting import tensorboard_events as events
from bigmodel.reporting.base import (
    EvaluationResult,
    Record,
    RunInfo,
    Sink,
    Summary,
)
from bigmodel.reporting.run_name import folder_name, run_name
from bigmodel.reporting.tensorboard_texts import (
    config_block,
    generated_table,
    model_table,
    run_table,
    sample_table,
)
from bigmodel.runtime.escaping import escape_line

FOLDER = "tensorboard"
HPARAMS = ".hparams"
"""Suffix of the files with hyperparameters and results. TensorBoard keeps the first it reads, so a run
that is resumed replaces them."""

PICTURES_EVERY = 60.0
"""Seconds between images during training, since drawing takes as long as a small epoch. The last
evaluation is always drawn."""

_NOT_HYPERPARAMETERS = (
    *("output_dir", "resume", "plugins", "profile", "logger", "run", "sweep.", "find"),
    *("trainer.log_every", "trainer.record_every", "trainer.tensorboard", "trainer.histograms"),
    *("trainer.checkpoint", "data.cache"),
)
_PLACES = ("data.root", "data.path", "data.val_path", "data.test_path")
"""Hyperparameters only of runs for which they were typed."""

_OPTIMIZER = ("lr", "grad_norm")


class TensorBoard(Sink):
    """Writes event files into `tensorboard/<name of the run>/` of the run's folder; the x axis is the
    optimizer step.

    It is not essential: if anything fails here, the run goes on without it.

    Args:
        folder: the run's.
    """

    essential = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._events: events.EventFile | None = None
        self._not_drawn: tuple[EvaluationResult, int] | None = None
        self._monitor = ""
        self._charted: Record = {}  # figures that charts are laid out for
        self._drawn = 0.0

    def start(self, info: RunInfo) -> None:
        self._folder = _own_folder(self._folder, info)
        for stale in self._folder.glob(f"*{HPARAMS}"):
            stale.unlink()
        hparams = events.EventFile(self._folder, HPARAMS)
        hparams.add(0, [events.session_start(hyperparameters(info.config, info.changed))])
        hparams.close()
        self._open(info.last_recorded_step)
        assert self._events is not None
        texts = {
            "run": run_table(info),
            "config": config_block(info.config),
            "model": model_table(info.layers),
        }
        self._events.add(info.first_step, [events.text(tag, content) for tag, content in texts.items()])
        self._events.flush()
        self._monitor = info.monitor
        self._drawn = time.monotonic()

    def flush(self) -> None:
        if self._events is not None:
            self._events.flush()

    def rewind(self, step: int) -> None:
        self.close()
        self._open(step)

    def _open(self, step: int) -> None:
        """Starts a new file, which continues older ones after `step`."""
        continues = any(not path.name.endswith(HPARAMS) for path in self._folder.glob("events.out.*"))
        self._events = events.EventFile(self._folder)
        if continues:
            self._events.restart(step + 1)

    def record(self, record: Record, best: Record) -> None:
        if self._events is None:
            return
        shown = {tag_of(name): value for name, value in record.items() if name != "step"}
        if self._monitor in record and self._monitor in best:
            shown[best_tag(self._monitor)] = best[self._monitor]
        values = [events.scalar(*item) for item in shown.items()]
        if not record.keys() <= self._charted.keys():  # the first record, or the first of an evaluation
            self._charted = record | self._charted
            values.append(events.layout(charts(self._charted)))
        self._events.add(int(record["step"]), values)

    def evaluated(self, evaluation: EvaluationResult, step: int) -> None:
        self._not_drawn = (evaluation, step)
        if time.monotonic() - self._drawn >= PICTURES_EVERY:
            self._draw()

    def weights(self, model: nn.Module, step: int) -> None:
        if self._events is None:
            return
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._events.add(step, [events.histogram(f"weights/{name}", weight) for name, weight in named])

    def finish(self, summary: Summary, folder: Path) -> None:  # noqa: ARG002
        if self._events is None:
            return
        self._draw()
        self._events.close()  # first: files are read in the order of their times
        self._events = None
        last = events.EventFile(self._folder, HPARAMS)
        last.add(summary.steps, [events.scalar(name, value) for name, value in results(summary).items()])
        last.add(summary.steps, [events.session_end(summary.status)])
        last.close()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def abandon(self) -> None:
        if self._events is not None:
            self._events.abandon()
            self._events = None

    def _draw(self) -> None:
        if self._not_drawn is None or self._events is None:
            return
        from bigmodel.reporting import pictures  # Pillow is loaded when there is something to draw

        (evaluation, step), self._not_drawn = self._not_drawn, None
        values = []
        if evaluation.confusion is not None:
            drawn = pictures.confusion_matrix(evaluation.confusion, evaluation.class_names)
            values.append(events.image("val-pictures/confusion matrix", drawn))
        for name, counts in evaluation.score_counts.items():
            tag = f"precision-recall/{escape_line(name)}"
            values.append(events.precision_recall(tag, counts))
        if evaluation.generated:
            values.append(events.text("samples", generated_table(evaluation.generated)))
        first = evaluation.samples[0].inputs if evaluation.samples else ""
        if isinstance(first, Tensor) and pictures.is_image(first):
            values.append(events.image("val-pictures/samples", pictures.sample_grid(evaluation.samples)))
        elif evaluation.samples:
            values.append(events.text("samples", sample_table(evaluation.samples)))
        self._events.add(step, values)
        self._events.flush()
        self._drawn = time.monotonic()


def tag_of(name: str) -> str:
    """The tag of a figure of a record. The page sorts by name, and opens on the first groups: a tilde
    sends what is not of training or validation behind them."""
    if "/" in name:
        return name
    return f"~optimizer/{name}" if name in _OPTIMIZER else f"~clock/{name}"


def best_tag(monitor: str) -> str:
    """The tag of the best value so far of the monitored metric: `val-best/accuracy`. The page of curves
    shows it after those of validation. That of hyperparameters, which sorts otherwise and lists the
    first five metrics alone, shows it before them."""
    part, _, name = monitor.partition("/")
    return f"{part}-best/{name}"


def results(summary: Summary) -> Record:
    """What a run has reached: all figures of validation at its best record, and those of the test."""
    best = {f"~best/{name}": v for name, v in summary.best.items() if name.startswith("val/")}
    return best | {f"~{name}": value for name, value in summary.test.items()}


def charts(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Training and validation in one chart for each metric, then the learning rate; see `events.layout`.

    Args:
        names: those of a record's figures.
    """
    shared: dict[str, list[str]] = {}
    alone: dict[str, list[str]] = {}
    for name in names:
        part, _, metric = name.partition("/")
        if part in ("train", "val") and metric:
            shared.setdefault(metric, []).append(name)
        elif name in _OPTIMIZER:
            alone[name] = [tag_of(name)]
    # Always in the same order: of several runs, the page keeps one of equal charts.
    return {"train and val": {title: sorted(tags) for title, tags in shared.items()}, "optimizer": alone}


def hyperparameters(
    config: Mapping[str, Any], changed: Mapping[str, str] | None = None
) -> dict[str, bool | float | str]:
    """The settings of a run by flat key, lists as text, and `model.name` as `model`; without nulls and
    those that are no hyperparameters.

    The page shows five columns: the first, by name, of those in which runs differ. So model, data and
    what was changed keep their names, and all others begin with a tilde.

    Args:
        changed: the settings that were typed, or that a sweep has chosen, as text by key.
    """
    changed = changed or {}
    flat = dict(_flat(config))
    found: dict[str, bool | float | str] = {}
    for key in [*flat, *(key for key in changed if key not in flat)]:
        if key.startswith(_NOT_HYPERPARAMETERS) or (key.startswith(_PLACES) and key not in changed):
            continue
        value = flat.get(key, changed.get(key))
        if key in changed or key in ("model", "data"):
            found[key] = "null" if value is None else value
        elif value is not None:
            found[f"~{key}"] = value
    return found


def _flat(
    config: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, bool | float | str | None]]:
    for name, value in config.items():
        key = prefix.removesuffix(".") if prefix and name == "name" else f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        elif value is None or isinstance(value, bool | int | float | str):
            yield key, value
        else:
            yield key, str(list(value) if isinstance(value, Sequence) else value)


def add_pictures(run: Path, group: str, pictures: Mapping[str, bytes], step: int) -> None:
    """Adds PNG files to the Images page of a run that has been trained.

    Args:
        run: its folder.
        group: of the pictures, shown after those of training.
        pictures: by name.
        step: of the weights that they show.

    Raises:
        OSError: they cannot be written.
    """
    base = run / FOLDER
    file = events.EventFile(_known_folder(base) or base)
    file.add(step, [events.png(f"~{group}/{name}", data) for name, data in pictures.items()])
    file.close()


def _own_folder(base: Path, info: RunInfo) -> Path:
    """Where a run's files go: into a folder with its name, which the page shows."""
    return _known_folder(base) or base / folder_name(run_name(info))


def _known_folder(base: Path) -> Path | None:
    """Where a run has its files; earlier versions wrote into `tensorboard` itself."""
    if any(base.glob("events.out.*")):
        return base
    return min((path.parent for path in base.glob("*/events.out.*")), default=None)
