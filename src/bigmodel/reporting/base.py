"""The interface of a sink, which is its own null object, and the data that sinks receive.

The loop calls one `Sink`; `Sinks` passes each call on to several. Sinks receive plain data: they see
neither the optimizer nor the loop, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from bigmodel.errors import CheckpointError
from bigmodel.models.summary import Layer
from bigmodel.registry import Config
from bigmodel.runtime import disk

_Text = Annotated[str, Field(min_length=1, strict=False, coerce_numbers_to_str=True)]
_Name = Annotated[_Text, Field(max_length=200)]
_Tag = Annotated[_Text, Field(max_length=64)]


class Labels(Config):
    """What a user calls a run: shown wherever runs are, and of no effect on training."""

    name: _Name | None = Field(None, description="what to call the run")
    tags: list[_Tag] = Field([], description="words to find it by, such as [baseline, paper]")
    notes: _Text | None = Field(None, description="remarks on it")


Record = dict[str, float | int]
"""The figures of one moment: always `epoch` and `step`; then `train/loss`, `val/accuracy`, `lr`, …"""


@dataclass(frozen=True)
class RunInfo:
    """A run that is about to start, for headers.

    Attributes:
        title: such as `fnn on digits`.
        rows: label and text of each header line: Model, Data, Optimizer, Loss, Device, Output, …
        config: the whole configuration as plain nested values.
        layers: the model's summary.
        folder: the run's folder.
        epochs: how many epochs the run has in all.
        steps_per_epoch: optimizer steps in an epoch.
        total_steps: optimizer steps in all.
        first_step: 0, or how many steps a resumed run has done already.
        last_recorded_step: figures of later steps, which a resumed run may find, are dropped.
        monitor: the metric that chooses the best checkpoint, such as `val/accuracy`.
        labels: what the user calls it.
        evaluate_every: optimizer steps between evaluations.
        changed: the settings that were typed for it, by key; of a sweep's job, those that it has of its
            own.
        in_sweep: whether it is such a job.
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
    evaluate_every: int
    last_recorded_step: int = 0
    labels: Labels = field(default_factory=Labels)
    changed: Mapping[str, str] = field(default_factory=dict)
    in_sweep: bool = False


@dataclass(frozen=True)
class ProgressReport:
    """Where training stands, a few times a second.

    Attributes:
        epoch: the current epoch, from 1.
        step: optimizer steps done in all.
        loss: the mean training loss of this epoch so far; None before the first step's.
        metric: the newest value of the monitored metric; None before the first evaluation.
        samples_per_second: throughput of training, without evaluations.
        tokens_per_second: the same in tokens; None unless samples are texts.
        mfu: model FLOPs utilisation, the share of the GPU's peak, 0 to 1; None if unknown.
        memory_gib: peak memory of the GPU; None without one.
    """

    epoch: int
    step: int
    loss: float | None
    metric: float | None
    samples_per_second: float
    tokens_per_second: float | None = None
    mfu: float | None = None
    memory_gib: float | None = None


@dataclass(frozen=True)
class PredictedSample:
    """A validation sample with its prediction.

    Attributes:
        inputs: what the model saw, back on its stored scale (images: 0 to 1); the words of a text.
        prediction, truth: in words.
        correct: whether they agree; None for real values, which are never exactly right.
    """

    inputs: Tensor | str
    prediction: str
    truth: str
    correct: bool | None


@dataclass(frozen=True)
class GeneratedText:
    """A text that a model generated from `prompt`; `truth` is the reference, or empty."""

    prompt: str
    text: str
    truth: str


@dataclass(frozen=True)
class EvaluationResult:
    """The result of one pass over an evaluated set.

    Attributes:
        metrics: by name without the prefix: `loss`, `accuracy`, `mae`, …
        confusion: (classes, classes) counts, truth by prediction; None for other targets.
        class_names: the labels of its rows and columns.
        score_counts: by class or label, how many samples are of it and are not, by the probability that
            they are given, (2, steps) int64.
        samples: the first few samples of the set.
        generated: a few texts that the model generated.
        undefined: whether the model gave NaN or infinity; all metrics are NaN then.
        reasons: otherwise, why a metric is NaN, by its name.
        by_class: metrics of each class, label or value, by name and class.
        best_cuts: the decision thresholds that suit it best, if they were looked for.
    """

    metrics: dict[str, float]
    confusion: Tensor | None = None
    class_names: Sequence[str] = ()
    samples: Sequence[PredictedSample] = ()
    score_counts: Mapping[str, Tensor] = field(default_factory=dict)
    generated: Sequence[GeneratedText] = ()
    undefined: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    by_class: dict[str, dict[str, float]] = field(default_factory=dict)
    best_cuts: list[float] | None = None


@dataclass
class Summary:
    """How a run ended: the content of `summary.json`.

    `skipped` counts updates that were left out, `left_out` samples by reason; `loss` describes the loss.
    `directions` has `max` or `min` for each metric, without its prefix: which way it is better.
    `test_by_class` has the figures of each class of the test set, by name and class; None: undefined.
    `found` has what was found for settings that were `auto`, by key.
    `threshold` has the probabilities above which the best model's decisions are yes; empty: 0.5.
    `energy` has the joules of training, of the processors as `cpu` and of the `gpu`; empty: unknown.
    `run` has the name, tags and notes that the user gave it.
    `longer` is the setting to resume with, such as `trainer.epochs=60`, if the validation figures were
    still improving at the end; empty: they were not.
    """

    status: str  # "running" | "finished" | "stopped" | "pruned" | "failed"
    best: dict[str, float | int] = field(default_factory=dict)
    final: dict[str, float | int] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    test_by_class: dict[str, dict[str, float | None]] = field(default_factory=dict)
    threshold: dict[str, float] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)
    longer: str = ""
    monitor: str = ""
    mode: str = ""
    directions: dict[str, str] = field(default_factory=dict)
    loss: str = ""
    epochs: float = 0
    steps: int = 0
    seconds: float = 0.0
    energy: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    trained_parameters: int = 0
    skipped: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    run: dict[str, str | list[str] | None] = field(default_factory=Labels().model_dump)


class Sink:
    """Receives the events of a run. All methods do nothing by default.

    Attributes:
        essential: whether an error in it ends the run. Any other sink is dropped, with a warning.
    """

    essential = True

    def start(self, info: RunInfo) -> None:
        """Training is about to begin."""

    def progress(self, progress: ProgressReport) -> None:
        """Where training stands, a few times a second."""

    def record(self, record: Record, best: Record) -> None:
        """Figures of an epoch (or of a step, with `trainer.record_every_steps`), and those of the best
        record so far, which may be this one; `best` is empty before the first evaluation."""

    def log(self, record: Record) -> None:
        """The same figures when a printed line is due (`trainer.log_every`)."""

    def evaluated(self, evaluation: EvaluationResult, step: int) -> None:
        """The validation set was evaluated after `step` optimizer steps."""

    def weights(self, model: nn.Module, step: int) -> None:
        """The model's weights, for histograms."""

    def message(self, text: str, level: str = "info") -> None:
        """A message for the user; `level` is `info`, `warning` or `error`."""

    def flush(self) -> None:
        """A checkpoint is about to be saved: pass buffered data to the operating system."""

    def rewind(self, step: int) -> None:
        """Training went back to the state after `step`: drop the reports of later steps."""

    def finish(self, summary: Summary, folder: Path) -> None:
        """The run is over, however it ended."""

    def close(self) -> None:
        """Nothing follows: write buffered data and close files."""

    def abandon(self) -> None:
        """The folder is gone: close files, and write nothing more."""
        self.close()


class Sinks(Sink):
    """Passes every call on to each of its sinks, in order.

    Every sink is called before the error of an essential one is raised. Any other that fails is dropped,
    with a warning through the rest. Once the run's folder was moved or deleted no sink is called, and
    every call but `close` raises CheckpointError.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = list(sinks)
        self._place: disk.HeldFolder | None = None

    def start(self, info: RunInfo) -> None:
        self._place = disk.HeldFolder(info.folder)
        self._for_each(lambda sink: sink.start(info))

    def close(self) -> None:
        try:
            self._for_each(lambda sink: sink.close())
        except CheckpointError:
            if self._place is None or self._place.is_there():
                raise
            for sink in self.sinks:
                sink.abandon()
        finally:
            if self._place is not None:
                self._place.close()

    def _for_each(self, act: Callable[[Sink], None]) -> None:
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
            f"{type(sink).__name__} failed and is switched off: {type(error).__name__}: {error}",
            "warning",
        )


_FORWARDED = (
    *("progress", "record", "log", "evaluated", "weights"),
    *("message", "flush", "rewind", "finish"),
)


def _forwarded(name: str) -> Callable[..., None]:
    def forward(self: Sinks, *args: Any, **kwargs: Any) -> None:
        self._for_each(lambda sink: getattr(sink, name)(*args, **kwargs))

    return forward


for _name in _FORWARDED:
    setattr(Sinks, _name, _forwarded(_name))
