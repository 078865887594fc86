"""What TensorBoard shows of a run: curves, hyperparameters with results, texts, pictures, histograms."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from torch import Tensor, nn

from bigmodel.models.summary import Layer
from bigmodel.reporting import tensorboard_events as events
from bigmodel.reporting.base import (
    EvaluationResult,
    GeneratedText,
    PredictedSample,
    Record,
    RunInfo,
    Sink,
    Summary,
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
    *("output_dir", "resume", "plugins", "profile", "logger", "run."),
    *("trainer.log_every", "trainer.record_every", "trainer.tensorboard", "trainer.histograms"),
    "trainer.checkpoint",
    *("data.root", "data.path", "data.val_path", "data.test_path", "data.cache"),
    "sweep.",
)


class TensorBoard(Sink):
    """Writes event files into `tensorboard/` of the run's folder; the x axis is the optimizer step.

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
        self._drawn = 0.0

    def start(self, info: RunInfo) -> None:
        for stale in self._folder.glob(f"*{HPARAMS}"):
            stale.unlink()
        hparams = events.EventFile(self._folder, HPARAMS)
        hparams.add(0, [events.session_start(hyperparameters(info.config))])
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
        shown = {name: value for name, value in record.items() if name != "step"}
        if self._monitor in record:
            # TensorBoard opens the first groups of curves, and lists the first metrics of its table, by
            # name: as a curve the best comes first in both.
            shown |= results("best", best, self._monitor)
        self._events.add(int(record["step"]), [events.scalar(*item) for item in shown.items()])

    def evaluated(self, evaluation: EvaluationResult, step: int) -> None:
        self._not_drawn = (evaluation, step)
        if time.monotonic() - self._drawn >= PICTURES_EVERY:
            self._draw()

    def weights(self, model: nn.Module, step: int) -> None:
        if self._events is None:
            return
        named = model.named_parameters()
        self._events.add(step, [events.histogram(f"weights/{name}", weight) for name, weight in named])

    def finish(self, summary: Summary, folder: Path) -> None:  # noqa: ARG002
        if self._events is None:
            return
        self._draw()
        self._events.close()  # first: files are read in the order of their times
        self._events = None
        figures = results("best", summary.best, summary.monitor) | summary.test
        figures |= results("final", summary.final, "train/loss")
        last = events.EventFile(self._folder, HPARAMS)
        last.add(summary.steps, [events.scalar(name, value) for name, value in figures.items()])
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
            values.append(events.image("confusion matrix", drawn))
        if evaluation.generated:
            values.append(events.text("samples", generated_table(evaluation.generated)))
        first = evaluation.samples[0].inputs if evaluation.samples else ""
        if isinstance(first, Tensor) and pictures.is_image(first):
            values.append(events.image("samples", pictures.sample_grid(evaluation.samples)))
        elif evaluation.samples:
            values.append(events.text("samples", sample_table(evaluation.samples)))
        self._events.add(step, values)
        self._events.flush()
        self._drawn = time.monotonic()


def results(group: str, record: Record, *also: str) -> Record:
    """The validation figures of a record, and those named, under a group: `final/val/accuracy`."""
    return {
        f"{group}/{name}": value
        for name, value in record.items()
        if name.startswith("val/") or name in also
    }


def hyperparameters(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | float | str]:
    """The configuration as flat keys, with lists as text and `model.name` as `model`; without nulls and
    settings that are no hyperparameters."""
    flat: dict[str, bool | float | str] = {}
    for name, value in config.items():
        key = prefix.removesuffix(".") if prefix and name == "name" else f"{prefix}{name}"
        if value is None or key.startswith(_NOT_HYPERPARAMETERS):
            continue
        if isinstance(value, Mapping):
            flat |= hyperparameters(value, f"{key}.")
        elif isinstance(value, bool | int | float | str):
            flat[key] = value
        else:
            flat[key] = str(list(value) if isinstance(value, Sequence) else value)
    return flat


def config_block(config: Mapping[str, Any]) -> str:
    """The configuration as a Markdown block of YAML."""
    dumped = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, default_flow_style=None)
    return _block(dumped, "yaml")


def run_table(info: RunInfo) -> str:
    """The header of the run as a Markdown table."""
    return _markdown(("", _literal(info.title)), [(label, _literal(text)) for label, text in info.rows])


def model_table(layers: Sequence[Layer]) -> str:
    """The model's summary as a Markdown table."""
    rows = [
        (*map(_literal, (layer.name, layer.kind, layer.shape)), f"{layer.parameters:,}")
        for layer in layers
    ]
    rows.append(("**total**", "", "", f"**{sum(layer.parameters for layer in layers):,}**"))
    return _markdown(("layer", "kind", "output shape", "parameters"), rows)


def sample_table(samples: Sequence[PredictedSample]) -> str:
    """Samples that are no images, as a Markdown table: first inputs, prediction, truth."""
    rows = []
    for sample in samples:
        shown = sample.inputs if isinstance(sample.inputs, str) else _numbers(sample.inputs.flatten())
        mark = {True: "✓", False: "**✗**", None: ""}[sample.correct]
        rows.append((*map(_literal, (shown, sample.prediction, sample.truth)), mark))
    return _markdown(("inputs", "prediction", "truth", ""), rows)


def generated_table(texts: Sequence[GeneratedText]) -> str:
    """Generated texts in Markdown, with prompt and reference: a table, or a block for each if a text has
    several lines."""
    if any("\n" in text for written in texts for text in (written.prompt, written.text)):
        return "\n".join(_block(f"{w.prompt}⟫{w.text}\n") for w in texts)
    known = any(written.truth for written in texts)
    rows = [tuple(map(_literal, (w.prompt, w.text, *([w.truth] if known else [])))) for w in texts]
    return _markdown(("given", "written", *(["truth"] if known else [])), rows)


def _numbers(values: Tensor) -> str:
    more = ", …" if len(values) > 8 else ""
    return ", ".join(f"{value:.4g}" for value in values[:8].tolist()) + more


def _literal(text: str) -> str:
    """Text for a cell, with Markdown and HTML escaped: no text may load a picture from elsewhere."""
    marked = re.sub(r"[\\`*_\[\]|]", r"\\\g<0>", escape_line(text.replace("\n", " ")))
    return marked.replace("&", "&amp;").replace("<", "&lt;")


def _block(text: str, language: str = "") -> str:
    """A block of verbatim text, which may contain backquotes."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{fence}\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])
