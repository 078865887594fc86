"""What `bigmodel explain` asks a model about: samples of a file, or held-out ones of the run's data."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigmodel.cli.commands.eval import chosen_metrics, own_data
from bigmodel.cli.commands.loaded_run import LoadedRun, Notify
from bigmodel.cli.commands.new_data import read_new_data
from bigmodel.cli.commands.output_files import file_stem
from bigmodel.cli.messages import note
from bigmodel.data.parts import SplitData
from bigmodel.explain.figure import Figure
from bigmodel.explain.subject import Subject, output_index
from bigmodel.explain.texts import token_named
from bigmodel.reporting.formatting import shown_path
from bigmodel.spec import NextTokens


@dataclass(frozen=True)
class ExplainedPart:
    """Samples to explain.

    Attributes:
        part: the samples.
        source: what they are, for messages.
        with_targets: whether their targets are the truth.
        columns: identify the samples; see `NewSamples.columns`.
    """

    part: SplitData
    source: str
    with_targets: bool
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def labels(self, count: int) -> dict[str, Sequence[Any]]:
        """What identifies the first `count` samples: their files, or their rows, counted from 0."""
        if "file" in self.columns:
            return {"file": list(map(str, self.columns["file"]))[:count]}
        rows = self.columns.get("row") if len(self.columns) == 1 else None
        return {"row": list(range(count)) if rows is None else list(rows)[:count]}

    def file_names(self, count: int) -> list[str]:
        """A name for a file of each of the first `count` samples, in order."""
        digits = len(str(max(count - 1, 0)))
        (named,) = self.labels(count).values()
        stems = [file_stem(Path(str(name)).stem if isinstance(name, str) else "") for name in named]
        return [f"{n:0{digits}}-{stem}" if stem else f"{n:0{digits}}" for n, stem in enumerate(stems)]


def explained_part(loaded: LoadedRun, arguments: Namespace, *, needs_targets: bool) -> ExplainedPart:
    """The samples of `--data`, or of the run's test set, or of its validation set.

    Raises:
        DataError, ConfigError: they cannot be read, or have no targets though `needs_targets`.
    """
    if arguments.data is not None:
        new = read_new_data(loaded, "--data", arguments, targets=needs_targets)
        path = shown_path(Path(arguments.data).expanduser())
        return ExplainedPart(new.part, path, needs_targets, new.columns)
    return own_part(loaded)


def own_part(loaded: LoadedRun, notify: Notify = note, option: str = "--data") -> ExplainedPart:
    """The samples of the run's test set, or of its validation set if it has none; see `own_data`."""
    data = own_data(loaded, notify, option)
    columns: dict[str, Sequence[Any]] = {}
    if data.part == "val" and data.dataset.val_files:
        columns = {"file": data.dataset.val_files}
    elif data.part == "val" and data.dataset.val_rows is not None:
        columns = {"row": data.dataset.val_rows.tolist()}
    return ExplainedPart(data.dataset.part(data.part), data.source, True, columns)


def figure_of(loaded: LoadedRun) -> Figure:
    """The figure that chose the run's best weights."""
    saving = (loaded.settings.get("trainer") or {}).get("checkpoint") or {}
    name = str(saving.get("monitor", "auto"))
    target, loss = loaded.preprocessing.spec.target, loaded.loss().eval().cpu()
    return Figure.monitored(name, target, loss, chosen_metrics(loaded), loaded.cuts)


def subject_of(
    loaded: LoadedRun, part: ExplainedPart, class_name: str | None, *, samples: int | None
) -> Subject:
    """The run's model with samples.

    Args:
        class_name: the class, label, value or next token to explain; None: see `Subject.output`.
        samples: the most samples, the first ones; None: all.
    """
    target, output = loaded.preprocessing.spec.target, None
    if class_name is not None and isinstance(target, NextTokens):
        output = token_named(loaded.reader, class_name)
    elif class_name is not None:
        output = output_index(target, class_name)
    subject = Subject(
        loaded.model,
        loaded.preprocessing,
        loaded.runtime,
        part.part,
        output=output,
        figure=figure_of(loaded) if part.with_targets else None,
    )
    return subject if samples is None else subject.first(samples)
