"""`find=`: instead of training, tells what a run could be trained with. No run is left behind."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from bigmodel.cli import invocation
from bigmodel.cli.launch import run_folder
from bigmodel.errors import ConfigError, program, shell_quoted

if TYPE_CHECKING:
    from bigmodel.distributed.ranks import Ranks
    from bigmodel.reporting.report.drawing import Drawing
    from bigmodel.training.finders.batch_sizes import BatchSizes, Trial
    from bigmodel.training.finders.range_test import RangeTest
    from bigmodel.training.run import Run

RECORD, PICTURE = "find.json", "find.png"
"""What is left in the folder."""

_COLUMNS = 60
"""Of the curve in a terminal, at most."""


def find(config: DictConfig, folder: Path, ranks: Ranks) -> None:
    """Finds what `find` names, prints it with the line to type, and records it in the folder.

    Raises:
        ConfigError: the folder is another run's, or nothing can be found for this configuration.
    """
    from bigmodel.build.new_run import build_run
    from bigmodel.config import parse, to_plain, to_shown
    from bigmodel.reporting.base import Sinks
    from bigmodel.reporting.console import Console
    from bigmodel.training.stopwatch import SharedStopwatch

    typed = parse(to_plain(config), to_shown(config))
    what = typed.top.find
    run_folder.check_free(folder, "hydra.run.dir")
    _check_no_record(folder)
    if what == "batch_size" and ranks.size > 1:
        raise ConfigError(
            f"find=batch_size: measures one process, and there are {ranks.size}. Leave device.ranks out."
        )
    sinks = Sinks([Console(None)] if ranks.is_first else [])
    run, signals = build_run(typed, folder, ranks=ranks), invocation.current.signals
    watch = run.watch if ranks.size == 1 else SharedStopwatch(ranks, signals)
    run = replace(run, signals=signals, sinks=sinks, watch=watch)
    for label, text in run.info.rows:
        if label not in ("Training", "Validation", "Output"):
            sinks.message(f"{label}: {text}")
    (_find_rate if what == "lr" else _find_batch_size)(run)


def _find_rate(run: Run) -> None:
    from bigmodel.reporting.report.finder_charts import range_test_chart
    from bigmodel.training.finders.range_test import range_test

    test = range_test(run)
    if not run.ranks.is_first:
        return
    run.sinks.message(f"Range test: {test}.")
    for line in _curve(test):
        run.sinks.message(line)
    chart = range_test_chart(test.rates, test.losses, test.smoothed, test.rate)
    if test.rate is None:
        run.sinks.message(
            "No rate can be suggested: the loss did not fall at any. The data may hold nothing to learn,"
            " or batches may be too small to show it (data.batch_size).",
            "warning",
        )
        _record(run, asdict(test), {}, chart)
        return
    run.sinks.message(f"Suggested learning rate: {test.rate:g}")
    _record(run, asdict(test), {"optimizer.lr": test.rate}, chart)


def _curve(test: RangeTest) -> list[str]:
    """The smoothed losses in text, with a mark below the suggested rate; nothing where it would be a
    field of question marks."""
    from bigmodel.reporting.text_curve import is_drawable, text_curve

    if not is_drawable(getattr(sys.stdout, "encoding", None)):
        return []
    stride = -(-len(test.rates) // _COLUMNS)
    rates, losses = test.rates[::stride], test.smoothed[::stride]
    marked = sum(rate < (test.rate or rates[0]) for rate in rates)
    return text_curve(losses, f"{rates[0]:.1g}", f"{rates[-1]:.2g}", min(marked, len(rates) - 1))


def _find_batch_size(run: Run) -> None:
    from bigmodel.reporting.report.finder_charts import batch_size_chart
    from bigmodel.training.finders.batch_sizes import find_batch_sizes

    found = find_batch_sizes(run)
    unit = found.unit
    for line in _table(found):
        run.sinks.message(line)
    largest, fastest = found.largest, found.fastest
    run.sinks.message(f"No larger batches were tried: {found.end}.")
    if found.fits is None:
        run.sinks.message(f"Largest: {largest.size:,}, {_speed(largest, unit)}")
    else:
        run.sinks.message(f"Largest that fits: about {found.fits:,}, by what {largest.size:,} needed")
    run.sinks.message(f"Fastest: {fastest.size:,}, {_speed(fastest, unit)}")
    run.sinks.message(
        "Another batch size needs another learning rate, and larger ones need more epochs: find=lr next."
    )
    points = [(float(trial.size), trial.speed) for trial in found.trials]
    _record(run, asdict(found), {found.key: fastest.size}, batch_size_chart(points, unit))


def _table(found: BatchSizes) -> list[str]:
    head = (found.key.removeprefix("data."), f"{found.unit}/s", "ms/step", "memory")
    rows = [head, *map(_cells, found.trials)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]


def _cells(trial: Trial) -> tuple[str, str, str, str]:
    memory = "" if trial.memory is None else f"{trial.memory / 2**20:,.0f} MiB"
    return f"{trial.size:,}", f"{trial.speed:,.0f}", f"{1000 * trial.seconds:,.3g}", memory


def _speed(trial: Trial, unit: str) -> str:
    return f"{trial.speed:,.0f} {unit} per second"


def _record(run: Run, found: dict[str, Any], suggested: dict[str, Any], chart: Drawing) -> None:
    """Writes the record and its picture, and says where they are and what to type."""
    from bigmodel.reporting.formatting import shown_path
    from bigmodel.reporting.report.raster import png_of_drawing
    from bigmodel.runtime import disk

    folder, command = run.info.folder, _command(suggested)
    record = {
        "find": "lr" if "rates" in found else "batch_size",
        "suggested": suggested,
        "command": command,
        **found,
        "settings": run.settings,
        "environment": run.summary.environment,
    }
    _check_no_record(folder)
    disk.write_bytes(folder / PICTURE, png_of_drawing(chart))
    disk.write_text(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    run.sinks.message(f"Record: {shown_path(folder / RECORD)}, picture: {shown_path(folder / PICTURE)}")
    if suggested:
        run.sinks.message(f"Train with: {command}")


def _command(suggested: dict[str, Any]) -> str:
    """What was typed, with what was found instead of `find`."""
    replaced = {"find", *suggested}
    kept = [w for w in invocation.current.words if w.lstrip("+~").partition("=")[0] not in replaced]
    words = [*kept, *(f"{key}={value}" for key, value in suggested.items())]
    return " ".join([program("bigmodel-train"), *map(shell_quoted, words)])


def _check_no_record(folder: Path) -> None:
    if there := [name for name in (RECORD, PICTURE) if os.path.lexists(folder / name)]:
        raise ConfigError(
            f"hydra.run.dir: {folder} holds {' and '.join(there)} already. Name another folder with"
            " hydra.run.dir=<folder>, or move them away."
        )
