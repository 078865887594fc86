"""The interface of a sink, which is its own null object, and the facts that sinks are told.

The loop calls a `Sink`; `Sinks` passes each call on to many. Plain data only: a sink never sees the
optimizer or the loop, and none of them decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bigmodel.errors import CheckpointError
from bigmodel.models.summary import Layer
from bigmodel.runtime import disk

Record = dict[str, float | int]
"""Figures of one moment: always `epoch` and `step`; then `train/loss`, `val/accuracy`, `lr`, …"""


@dataclass(frozen=True)
class RunInfo:
    """What is about to run, for headers.

    Attributes:
        title: such as `fnn on digits`.
        rows: label and text of each header line: Model, Data, Optimizer, Loss, Device, Output, …
        config: the whole configuration as plain nested values.
        layers: the model's summary.
        folder: the run's folder.
        epochs: how many epochs will run in all.
        steps_per_epoch: optimizer steps in one of them.
        total_steps: optimizer steps in all.
        first_step: 0, or the step a resumed run goes on from.
        last_recorded_step: figures of later steps, which a resumed run may find, are dropped.
        monitor: the metric that chooses the best checkpoint, such as `val/accuracy`.
    """

    title: str
    rows: Sequence[tuple[str, str]]
    config: dict[str, Any]
    layers: Sequence[Layer]
    folder: Path
    epochs: int
    steps_per_epoch: int
    total_steps: int
    first_step: int
    monitor: str
    last_recorded_step: int = 0


@dataclass(frozen=True)
class ProgressReport:
    """Where training stands now, told a few times a second.

    Attributes:
        epoch: the running epoch, from 1.
        step: optimizer steps done in all.
        loss: the mean training loss of this epoch so far; None before the first figure.
        figure: the newest value of the monitored metric; None before the first evaluation.
        samples_per_second: throughput of training, evaluations left out.
        tokens_per_second: the same in tokens; None where samples are no texts.
        mfu: the share of the GPU's peak that the model makes use of, 0 to 1; None where it is not known.
        memory_gib: the most memory that was in use on the GPU; None without one.
    """

    epoch: int
    step: int
    loss: float | None
    figure: float | None
    samples_per_second: float
    tokens_per_second: float | None = None
    mfu: float | None = None
    memory_gib: float | None = None


@dataclass(frozen=True)
class PredictedSample:
    """One validation sample with what the model said of it.

    Attributes:
        inputs: as the model saw it, undone to its stored scale (images: 0 to 1); of a text, its words.
        prediction, truth: in words.
        correct: whether they agree; None where that is no question, as with real values.
    """

    inputs: Tensor | str
    prediction: str
    truth: str
    correct: bool | None


@dataclass(frozen=True)
class GeneratedText:
    """What a model wrote: `text`, given `prompt`; `truth` is what it should be, or empty."""

    prompt: str
    text: str
    truth: str


@dataclass(frozen=True)
class EvaluationResult:
    """One pass over a held-out part.

    Attributes:
        figures: by metric name without the part: `loss`, `accuracy`, `mae`, …
        confusion: (classes, classes) counts, truth by prediction; None where there are no classes.
        class_names: labels of its rows and columns.
        samples: the first few samples of the part.
        generated: a few texts that the model wrote.
        undefined: whether the model gave NaN or infinity, so that no figure is known: all are NaN.
    """

    figures: dict[str, float]
    confusion: Tensor | None = None
    class_names: Sequence[str] = ()
    samples: Sequence[PredictedSample] = ()
    generated: Sequence[GeneratedText] = ()
    undefined: bool = False


@dataclass
class Summary:
    """How a run ended; `summary.json` holds just this. `skipped` counts updates that were left out, and
    `left_out` samples, by reason; `loss` says what the losses are of."""

    status: str  # "running" | "finished" | "stopped" | "failed"
    best: dict[str, float | int] = field(default_factory=dict)
    final: dict[str, float | int] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    monitor: str = ""
    mode: str = ""
    loss: str = ""
    epochs: float = 0
    steps: int = 0
    seconds: float = 0.0
    parameters: int = 0
    skipped: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


class Sink:
    """Receives what happens in a run. Every method does nothing here: override what is of use.

    Attributes:
        essential: whether a fault in it ends the run. One that is not is dropped, with a warning.
    """

    essential = True

    def start(self, info: RunInfo) -> None:
        """Training is about to begin."""

    def progress(self, progress: ProgressReport) -> None:
        """A sign of life, a few times a second."""

    def record(self, record: Record, best: Record) -> None:
        """Figures of an epoch (or of a step, with `trainer.record_every_steps`), and those of the best
        record so far, which may be this one; `best` is empty before the first evaluation."""

    def log(self, record: Record) -> None:
        """The same figures when a printed line is due (`trainer.log_every`)."""

    def evaluated(self, evaluation: EvaluationResult, step: int) -> None:
        """The validation part was read after `step` optimizer steps."""

    def weights(self, model: nn.Module, step: int) -> None:
        """The model's weights, for histograms."""

    def message(self, text: str, level: str = "info") -> None:
        """Something to tell the user: `info`, `warning` or `error`."""

    def flush(self) -> None:
        """A checkpoint is about to be taken: hand on to the system all that was told."""

    def rewind(self, step: int) -> None:
        """Training has gone back to where it was after `step`: what was told of later steps is void."""

    def finish(self, summary: Summary, folder: Path) -> None:
        """The run is over, however it ended."""

    def close(self) -> None:
        """Nothing follows: write what is buffered and free what is held."""

    def abandon(self) -> None:
        """The folder is gone: free what is held, and write nothing more."""
        self.close()


class Sinks(Sink):
    """Passes every call on to each of its sinks, in order.

    All are told before an essential one's error is raised; any other that fails is dropped, and the
    rest pass on a warning. Once the run's folder was moved or deleted, nobody is told anything, and
    every call but `close` raises CheckpointError.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = list(sinks)
        self._place: disk.HeldFolder | None = None

    def start(self, info: RunInfo) -> None:
        self._place = disk.HeldFolder(info.folder)
        self._tell(lambda sink: sink.start(info))

    def progress(self, progress: ProgressReport) -> None:
        self._tell(lambda sink: sink.progress(progress))

    def record(self, record: Record, best: Record) -> None:
        self._tell(lambda sink: sink.record(record, best))

    def log(self, record: Record) -> None:
        self._tell(lambda sink: sink.log(record))

    def evaluated(self, evaluation: EvaluationResult, step: int) -> None:
        self._tell(lambda sink: sink.evaluated(evaluation, step))

    def weights(self, model: nn.Module, step: int) -> None:
        self._tell(lambda sink: sink.weights(model, step))

    def message(self, text: str, level: str = "info") -> None:
        self._tell(lambda sink: sink.message(text, level))

    def flush(self) -> None:
        self._tell(lambda sink: sink.flush())

    def rewind(self, step: int) -> None:
        self._tell(lambda sink: sink.rewind(step))

    def finish(self, summary: Summary, folder: Path) -> None:
        self._tell(lambda sink: sink.finish(summary, folder))

    def close(self) -> None:
        try:
            self._tell(lambda sink: sink.close())
        except CheckpointError:
            if self._place is None or self._place.is_there():
                raise
            for sink in self.sinks:
                sink.abandon()
        finally:
            if self._place is not None:
                self._place.close()

    def _tell(self, act: Callable[[Sink], None]) -> None:
        if self._place is not None:
            self._place.check()
        failure: Exception | None = None
        for sink in list(self.sinks):
            try:
                act(sink)
            except Exception as error:
                if sink.essential:
                    failure = failure or error
                else:
                    self._drop(sink, error)
        if failure is not None:
            raise failure

    def _drop(self, sink: Sink, error: Exception) -> None:
        self.sinks.remove(sink)
        with suppress(Exception):
            sink.close()
        self.message(
            f"{type(sink).__name__} failed and is left out from now on: {type(error).__name__}: {error}",
            "warning",
        )
