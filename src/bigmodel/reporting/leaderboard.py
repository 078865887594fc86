"""The leaderboard of a sweep, best job first: as a printed table and as `leaderboard.csv`."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from bigmodel.reporting.formatting import duration, figure, shown_path
from bigmodel.reporting.terminal import is_terminal, rich_console, write_line
from bigmodel.runtime import disk
from bigmodel.runtime.escaping import escape_line, escape_message


@dataclass(frozen=True)
class Row:
    """One job.

    Attributes:
        job: its number or name in the sweep.
        changed: the overrides in which jobs differ, key to value.
        metric: the best value of the monitored metric; None if the job was never evaluated.
        seconds: how long it ran.
        status: `finished`, `stopped`, `failed` or `running`.
        folder: its run folder.
        error: why it failed, or has no rank.
        loss: a description of its loss.
        val_loss: the validation loss of its best record.
    """

    job: str
    changed: dict[str, str]
    metric: float | None
    seconds: float
    status: str
    folder: str
    error: str | None = None
    loss: str = ""
    val_loss: float | None = None


def rank(rows: Sequence[Row], mode: str) -> list[Row]:
    """The rows, best first: those that finished with a metric, then the unfinished, then the failed.

    Of equal ones the job with the lower validation loss comes first, if all jobs use the same loss.

    Args:
        mode: `max` or `min`: which way the metric is better.
    """
    comparable = len({row.loss for row in rows if row.loss}) <= 1

    def key(row: Row) -> tuple[int, float, float]:
        if row.status == "failed":
            return _FAILED, 0.0, 0.0
        if row.metric is None or not math.isfinite(row.metric):
            return _UNKNOWN, 0.0, 0.0
        group = _RANKED if row.status == "finished" else _UNFINISHED
        loss = row.val_loss if comparable and row.val_loss is not None else math.inf
        return group, -row.metric if mode == "max" else row.metric, loss

    return sorted(rows, key=key)


_LOSS = "loss used"  # `loss` is a key that jobs may differ in

_RANKED, _UNFINISHED, _UNKNOWN, _FAILED = range(4)


def _has_rank(row: Row) -> bool:
    return row.status != "failed" and row.metric is not None and math.isfinite(row.metric)


def write_csv(rows: Sequence[Row], path: Path, metric_name: str, mode: str) -> None:
    """Writes `leaderboard.csv` atomically: a column for each changed key, in full precision.

    Raises:
        CheckpointError: it cannot be written.
    """
    keys = _keys(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    loss = [_LOSS] if _shows_losses(rows, metric_name) else []
    writer.writerow(["rank", "job", *keys, metric_name, *loss, "seconds", "status", "folder", "error"])
    for place, row in enumerate(rank(rows, mode), start=1):
        values = [row.changed.get(key, "") for key in keys]
        metric = "" if row.metric is None else repr(float(row.metric))
        end = [f"{row.seconds:.3f}", row.status, row.folder, row.error or ""]
        own = [row.loss for _ in loss]
        writer.writerow([place if _has_rank(row) else "", row.job, *values, metric, *own, *end])
    disk.write_text(path, text.getvalue())


def print_leaderboard(
    rows: Sequence[Row],
    metric_name: str,
    mode: str,
    *,
    stream: TextIO | None = None,
    terminal: bool | None = None,
    width: int | None = None,
) -> None:
    """Prints the table, and below it the errors of failed jobs.

    Args:
        stream: what to write to; None is standard output.
        terminal: whether to draw for a terminal; None asks the stream.
        width: columns; None measures the terminal. Plain text is as wide as it needs to be.
    """
    stream = sys.stdout if stream is None else stream
    ranked = rank(rows, mode)
    failures = [
        f"Job {row.job} ({_changes(row) or 'no changes'}) {row.status}: {row.error}"
        for row in ranked
        if row.error
    ]
    if len(_losses(rows, metric_name)) > 1:
        failures.insert(
            0,
            f"Warning: {metric_name} comes from different losses and cannot be compared. Rank"
            " by a metric, such as trainer.checkpoint.monitor=val/rmse or val/accuracy.",
        )
    failures = [escape_message(failure) for failure in failures]
    if not (is_terminal(stream) if terminal is None else terminal):
        write_line(stream, "\n".join([*_plain(_cells(ranked, metric_name, folders=True)), *failures]))
        return
    console = rich_console(stream, width=width)
    table, caption = _fitting(ranked, metric_name, console.width)
    console.print(_drawn(table, ranked, metric_name))
    if caption:
        console.print(Text(caption, "faint"), soft_wrap=True)
    for failure in failures:
        console.print(Text(failure, "error"))


def _losses(rows: Sequence[Row], metric_name: str) -> set[str]:
    """The losses that jobs are ranked by; empty if they are ranked by another metric."""
    return {row.loss for row in rows if row.loss} if metric_name.endswith("/loss") else set()


def _shows_losses(rows: Sequence[Row], metric_name: str) -> bool:
    """Whether a column describes the losses: there are different ones, or one with settings."""
    losses = _losses(rows, metric_name)
    return len(losses) > 1 or any(" " in loss for loss in losses)


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.changed))


def _changes(row: Row) -> str:
    return " ".join(f"{key}={value}" for key, value in row.changed.items())


def _cells(
    ranked: Sequence[Row], metric_name: str, *, folders: bool, folded: bool = False
) -> list[list[str]]:
    """The table as text, heading first.

    Args:
        folders: with a column for the folder.
        folded: all changes in one column instead of one each.
    """
    keys = _keys(ranked)
    loss = [_LOSS] if _shows_losses(ranked, metric_name) else []
    heads = ["#", "job", *(["changes"] if folded else keys), metric_name, *loss, "time", "status"]
    table = [[*heads, "folder"] if folders else heads]
    for place, row in enumerate(ranked, start=1):
        changes = [_changes(row)] if folded else [row.changed.get(key, "") for key in keys]
        metric = "–" if row.metric is None else figure(float(row.metric))
        losses, rank_text = [row.loss for _ in loss], str(place) if _has_rank(row) else "–"
        cells = [rank_text, row.job, *changes, metric, *losses, duration(row.seconds), row.status]
        table.append([*cells, shown_path(Path(row.folder))] if folders else cells)
    return [[escape_line(cell) for cell in cells] for cells in table]


def _fitting(ranked: Sequence[Row], metric_name: str, width: int) -> tuple[list[list[str]], str]:
    """The most complete table that fits, and a line about the folders if their column does not."""
    full = _cells(ranked, metric_name, folders=True)
    if _width(full) <= width or not ranked:
        return full, ""
    common = os.path.commonpath([Path(row.folder).resolve().parent for row in ranked])
    caption = f"Folders: {shown_path(Path(common))}{os.sep}<job>"
    table = _cells(ranked, metric_name, folders=False)
    if _width(table) > width:
        table = _cells(ranked, metric_name, folders=False, folded=True)
    return table, caption


def _width(table: list[list[str]]) -> int:
    return sum(max(len(cell) for cell in column) + 3 for column in zip(*table, strict=True)) + 1


def _drawn(table: list[list[str]], ranked: Sequence[Row], metric_name: str) -> Table:
    drawn = Table(box=box.ROUNDED)
    for head in table[0]:
        side: Literal["left", "right"] = "right" if head in {"#", metric_name, "time"} else "left"
        drawn.add_column(Text(head), justify=side, no_wrap=head != "changes", overflow="fold")
    for index, (cells, row) in enumerate(zip(table[1:], ranked, strict=True)):
        style = {"failed": "error", "finished": ""}.get(row.status, "warning")
        if index == 0 and row.status == "finished" and _has_rank(row):
            style = "good"
        drawn.add_row(*(Text(cell) for cell in cells), style=style)
    return drawn


def _plain(table: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]
