"""What a report tells of one run."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from bigmodel.cli.commands.eval import EvalData, new_data, own_data
from bigmodel.cli.commands.loaded_run import LoadedRun, load_run, loading
from bigmodel.cli.commands.reports.held_out import add_evaluation
from bigmodel.cli.commands.run_files import RunFiles
from bigmodel.cli.messages import note
from bigmodel.data.base import PART_ORDER, SET_NAMES
from bigmodel.errors import CheckpointError, ConfigError, DataError
from bigmodel.models.summary import summarize
from bigmodel.reporting.base import Record, Summary
from bigmodel.reporting.formatting import duration, figure, figures_of, label_rows, outcome
from bigmodel.reporting.report import charts
from bigmodel.reporting.report.axes import Series
from bigmodel.reporting.report.content import (
    Block,
    Chart,
    Charts,
    Code,
    Facts,
    Folded,
    Note,
    RunReport,
    Table,
)
from bigmodel.spec import Classes

_MOST_FIGURES = 12  # charts of learning curves
_MOST_CLASSES = 30  # named with their training samples
_TITLES = {"lr": "learning rate", "grad_norm": "norm of the gradient"}
_LOGARITHMIC = ("loss", "grad_norm", "perplexity")


def report_run(text: str, name: str, arguments: Namespace, exhibits: int) -> tuple[RunReport, RunFiles]:
    """All that is told of a run.

    Args:
        text: its folder, or a checkpoint in it, as typed.
        name: see `RunReport`.
        arguments: the command line.
        exhibits: the most mistakes that are shown.

    Raises:
        BigModelError: there is no run, or it cannot be loaded.
    """
    loaded, problem = _load(text, arguments)
    files = RunFiles.read(Path(text).expanduser() if loaded is None else loaded.run_path.folder)
    title = _title(files) if loaded is None else loaded.name
    report = RunReport(name, title)
    report.add("What was run", *_what_was_run(files, loaded))
    if files.summary is not None:
        report.add("Results", *_results(files.summary))
    report.add("Learning curves", *learning_curves([("", files)]))
    data = None
    if loaded is not None:
        try:
            data = new_data(loaded, arguments) if arguments.data else own_data(loaded)
        except (ConfigError, DataError) as error:
            if arguments.data:
                raise
            problem = str(error)
    if loaded is not None and data is not None:
        add_evaluation(report, loaded, data, arguments.batch_size, exhibits)
    elif problem:
        note(f"Not evaluated: {problem}")
        report.add("Held-out data", Note(f"The model was not evaluated: {problem}", warning=True))
    if loaded is not None:
        report.add("Data", *_data(loaded, data, files.summary))
        report.add("Model", *_model(loaded, data))
    if files.summary is not None:
        report.add("Machine", Facts(_machine(files.summary)))
    return report, files


def _load(text: str, arguments: Namespace) -> tuple[LoadedRun | None, str]:
    """The run with its model; None, and why, if it is a run that has saved none."""
    try:
        return load_run(text, *loading(arguments)), ""
    except CheckpointError as error:
        folder = Path(text).expanduser()
        if (folder / "checkpoints").exists() or not (folder / "summary.json").is_file():
            raise
        return None, str(error)


def _title(files: RunFiles) -> str:
    names = [files.settings.get(f"{key}.name") for key in ("model", "data")]
    return " on ".join(name for name in names if name) or files.folder.resolve().name


def _what_was_run(files: RunFiles, loaded: LoadedRun | None) -> list[Block]:
    rows, summary = [], files.summary
    if summary is not None:
        rows += label_rows(summary.run)
        rows.append(("Outcome", outcome(summary)))
        rows += [("Found by trying", f"{key}={value:g}") for key, value in summary.found.items()]
    if loaded is not None:
        rows.append(("Weights", f"of step {loaded.step:,}"))
    if files.resumed:
        rows.append(("Resumed", "; ".join(files.resumed)))
    if files.started_in:
        rows.append(("Started in", files.started_in))
    blocks: list[Block] = [Facts(rows)] if rows else []
    if files.hydra:
        blocks += [Note("To run it again:"), Code(files.command)]
        if files.resumed:
            words = (
                "If settings were changed when it was resumed, they are below, and not in the command."
            )
            blocks.append(Note(words))
    if files.config:
        blocks.append(Folded("All settings", [Code(files.config.strip())]))
    return blocks


def _results(summary: Summary) -> list[Block]:
    """The figures of the test set, and of the best and the last record, a row for each metric."""
    columns: dict[str, dict[str, float]] = {}
    for kind, record in (("best", summary.best), ("final", summary.final)):
        when = f"{kind}, epoch {record['epoch']:g}" if "epoch" in record else kind
        for part in ("val", "train"):
            columns[f"{SET_NAMES[part]}, {when}"] = _of_part(figures_of(record), part)
    columns = {"test": _of_part(summary.test, "test"), **columns}
    columns = {head: figures for head, figures in columns.items() if figures}
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    rows = [
        [name, *(_figure(figures[name]) if name in figures else "" for figures in columns.values())]
        for name in names
    ]
    if not rows:
        return []
    better = {"max": "highest", "min": "lowest"}.get(summary.mode)
    words = [Note(f"Best is the checkpoint with the {better} {summary.monitor}.")] if better else []
    return [Table(["", *columns], rows, frozenset(range(1, len(columns) + 1))), *words]


def _of_part(figures: Record, part: str) -> dict[str, float]:
    prefix = f"{part}/"
    return {key.removeprefix(prefix): figures[key] for key in figures if key.startswith(prefix)}


def _figure(value: float) -> str:
    return figure(value) if math.isfinite(value) else "–"


def learning_curves(runs: Sequence[tuple[str, RunFiles]]) -> list[Block]:
    """A chart for each figure over time: training dashed, validation solid; a colour a run."""
    kinds: dict[str, None] = {}
    for _, files in runs:
        for name in dict.fromkeys(key for record in files.records for key in record):
            if name.startswith(("train/", "val/")) or name in ("lr", "grad_norm"):
                kinds.setdefault(name.partition("/")[2] or name)
    ordered = sorted(kinds, key=lambda kind: (kind != "loss", kind in ("lr", "grad_norm")))
    drawn = []
    for kind in ordered[:_MOST_FIGURES]:
        lines, title = [], _TITLES.get(kind, kind)
        for number, (label, files) in enumerate(runs):
            for part, colour in (("train", 1), ("val", 0), ("", 2)):
                points = files.curve(f"{part}/{kind}" if part else kind)
                if not points:
                    continue
                several = len(runs) > 1
                words = " ".join(word for word in (label, part or title) if word)
                lines.append(Series(words, points, number if several else colour, part == "train"))
        if any(len(line.points) > 1 for line in lines):
            drawing = charts.learning_curves(title, lines, log=kind in _LOGARITHMIC)
            drawn.append(Chart(f"curve-{kind}", drawing))
    return [Charts(drawn)] if drawn else []


def _data(loaded: LoadedRun, data: EvalData | None, summary: Summary | None) -> list[Block]:
    spec = loaded.preprocessing.spec
    rows = [("Source", spec.name), ("Inputs", str(spec.input)), ("Target", str(spec.target))]
    rows += [
        (f"{SET_NAMES[part].capitalize()} set", f"{spec.sizes[part]:,} samples")
        for part in PART_ORDER
        if part in spec.sizes
    ]
    if data is not None:
        rows += data.dataset.header_rows
    left_out = {} if summary is None else summary.left_out
    rows += [("Left out", f"{count:,} {why}") for why, count in left_out.items()]
    blocks: list[Block] = [Facts(rows)]
    if isinstance(spec.target, Classes) and spec.target.counts:
        pairs = list(zip(spec.target.names, spec.target.counts, strict=True))
        shown = [[name, f"{count:,}"] for name, count in pairs[:_MOST_CLASSES]]
        more = f", the first {_MOST_CLASSES}" if len(pairs) > len(shown) else ""
        table = Table(["class", "training samples"], shown, frozenset({1}))
        blocks.append(Folded(f"{len(pairs):,} classes{more}", [table]))
    return blocks


def _model(loaded: LoadedRun, data: EvalData | None) -> list[Block]:
    parameters = sum(each.numel() for each in loaded.model.parameters())
    rows = [("Model", loaded.settings["model"]["name"]), ("Parameters", f"{parameters:,}")]
    for key in ("optimizer", "scheduler"):
        chosen = loaded.settings.get(key) or {}
        words = ", ".join(f"{name} {value}" for name, value in chosen.items() if name != "name")
        rows.append(
            (key.capitalize(), f"{chosen.get('name')} ({words})" if words else str(chosen.get("name")))
        )
    blocks: list[Block] = [Facts(rows)]
    if data is not None:
        stored = data.dataset.part(data.part).take(torch.zeros(1, dtype=torch.int64))[0]
        scaling, device = loaded.preprocessing.scaling(loaded.runtime.device), loaded.runtime.device
        inputs = stored.to(device) if scaling is None else scaling(stored.to(device))
        layers = summarize(loaded.model, inputs)
        cells = [[each.name, each.kind, each.shape, f"{each.parameters:,}"] for each in layers]
        table = Table(["layer", "kind", "output of a sample", "parameters"], cells, frozenset({3}))
        blocks.append(Folded(f"{len(layers):,} layers", [table]))
    return blocks


def _machine(summary: Summary) -> list[tuple[str, str]]:
    known = {key: str(value) for key, value in summary.environment.items() if str(value) != "None"}
    rows = [(key.replace("_", " "), value) for key, value in known.items()]
    rows.append(("Training took", duration(summary.seconds)))
    used = ", ".join(f"{_energy(joules)} ({kind})" for kind, joules in summary.energy.items())
    return [*rows, ("Energy", used)] if used else rows


def _energy(joules: float) -> str:
    hours = joules / 3_600_000
    return f"{hours:.3g} kWh" if hours >= 0.1 else f"{joules:,.0f} J"
