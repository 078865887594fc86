"""The leaderboard of a sweep, best job first: as a printed table and as `leaderboard.csv`."""

from __future__ import annotations

import csv
import io
import itertools
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bigmodel.errors import counted
from bigmodel.reporting.formatting import duration, figure, shown_path
from bigmodel.reporting.terminal import is_terminal, rich_console, write_line
from bigmodel.runtime import disk
from bigmodel.runtime.escaping import escape_line, escape_message
from bigmodel.sweeps.jobs import in_one_line
from bigmodel.sweeps.leaderboard import Board, Group, Grouping, Row, changed_keys, group
from bigmodel.sweeps.statistics import Comparison, Estimate

TOP = 30
"""Jobs that are printed; all are in the file."""

_REASONS = 8  # different reasons that are printed
_NAMES = 5  # jobs that one reason names

_DATA = (
    "data",
    "data.path",
    "data.target",
    "data.val_path",
    "data.val_fraction",
    "data.split_seed",
    "data.folds",
)
"""Keys that decide which samples are for validation."""

_LOSS = "loss used"  # `loss` is a key that jobs may differ in


def write_csv(boards: Sequence[Board], path: Path, by: Sequence[str] = ()) -> None:
    """Writes `leaderboard.csv` atomically: a column for each changed key, in full precision.

    Args:
        boards: from `bigmodel.sweeps.leaderboard.rank`.
        path: of the file.
        by: keys that tell groups apart; none takes all but seeds and folds.

    Raises:
        CheckpointError: it cannot be written.
    """
    keys, metrics = _keys(boards), _metrics(boards)
    loss = [_LOSS] if _shows_losses(boards) else []
    groupings = [group(board, by) for board in boards]
    means = ["mean", "interval_low", "interval_high", "n"] if any(groupings) else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [*metrics, *loss, "seconds", "status", "folder", "error", "final", "epochs", "checkpoint"]
    writer.writerow(["rank", "job", *keys, *figures, *means])
    for board, grouping in zip(boards, groupings, strict=True):
        of_group = {id(row): each for each in (grouping.groups if grouping else []) for row in each.rows}
        for row in board.rows:
            result = row.result
            values = [_exact(row.value) if metric == board.metric else "" for metric in metrics]
            mine = of_group.get(id(row))
            writer.writerow(
                ["" if row.place is None else row.place, result.job]
                + [result.changed.get(key, "") for key in keys]
                + [*values, *([result.loss] if loss else []), f"{result.seconds:.3f}", result.status]
                + [result.folder, row.remark or "", _exact(row.final), f"{result.epochs:g}"]
                + [result.checkpoint, *(_mean_cells(mine) if means else [])]
            )
    disk.write_text(path, text.getvalue())


def _exact(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _mean_cells(group: Group | None) -> list[str]:
    if group is None or group.estimate is None:
        return ["", "", "", "" if group is None else "0"]
    low, high = _bounds(group.estimate)
    return [_exact(group.estimate.mean), _exact(low), _exact(high), str(group.estimate.n)]


def _bounds(estimate: Estimate) -> tuple[float | None, float | None]:
    if estimate.half_width is None:
        return None, None
    return estimate.mean - estimate.half_width, estimate.mean + estimate.half_width


def print_leaderboard(
    boards: Sequence[Board],
    *,
    by: Sequence[str] = (),
    top: int = TOP,
    path: Path | None = None,
    stream: TextIO | None = None,
    terminal: bool | None = None,
    width: int | None = None,
) -> None:
    """Prints the table, means over seeds and folds if there are any, and what went wrong in jobs.

    Args:
        boards: from `bigmodel.sweeps.leaderboard.rank`.
        by: keys that tell groups apart; none takes all but seeds and folds.
        top: most jobs to list.
        path: of the file that lists all.
        stream: what to write to; None is standard output.
        terminal: whether to draw for a terminal; None asks the stream.
        width: columns; None measures the terminal. Plain text is as wide as it needs to be.
    """
    stream = sys.stdout if stream is None else stream
    if not (is_terminal(stream) if terminal is None else terminal):
        printer: _Printer = _Plain(stream)
    else:
        printer = _Drawn(rich_console(stream, width=width))
    shown = _top(boards, top)
    printer.jobs(shown)
    if footer := _footer(boards, shown, path):
        printer.note(footer)
    for board in boards:
        if (grouping := group(board, by)) is not None:
            title = f"Means over {_repeats(grouping.repeats)}: {_metric_title(board, boards)}"
            printer.table(group_cells(grouping, board, max(2, top)), title)
            printer.note(verdict(grouping, board))
    for line in [*cautions(boards), *_failures(boards)]:
        printer.problem(escape_message(line))


def _top(boards: Sequence[Board], top: int) -> list[Board]:
    """The boards, cut so that about `top` jobs are left, some of each."""
    each = max(3, top // max(1, len(boards))) if len(boards) > 1 else top
    return [Board(board.metric, board.mode, board.loss, board.rows[:each]) for board in boards]


def _footer(boards: Sequence[Board], shown: Sequence[Board], path: Path | None) -> str:
    rows = [row for board in boards for row in board.rows]
    more = len(rows) - sum(len(board.rows) for board in shown)
    count = Counter(row.result.status for row in rows)
    lines = []
    if more or set(count) - {"finished"}:
        states = ", ".join(f"{number:,} {status}" for status, number in count.most_common())
        lines.append(f"{counted(len(rows), 'job')}: {states}.")
    if more:
        place = "" if path is None else f"; all are in {shown_path(path)}"
        lines.append(f"{more:,} are not shown{place}.")
    if len(_metrics(boards)) > 1:
        metrics = ", ".join(_metrics(boards))
        lines.append(f"Jobs that monitor different metrics ({metrics}) are ranked apart.")
    return " ".join(lines)


def _metric_title(board: Board, boards: Sequence[Board]) -> str:
    loss = f" ({board.loss})" if board.loss and len(boards) > 1 else ""
    return f"{board.metric}{loss}, {'higher' if board.mode == 'max' else 'lower'} is better"


def verdict(grouping: Grouping, board: Board) -> str:
    """Whether the best group is better than the next by more than luck, in words; nothing if they were
    evaluated on different samples."""
    groups = [each for each in grouping.groups if each.estimate is not None]
    if len(groups) < 2:
        return ""
    if any(len({each.changed.get(key) for each in groups[:2]}) > 1 for key in _DATA):
        return ""  # evaluated on different samples, which `cautions` says
    first, second = (_described(each.changed) for each in groups[:2])
    found, repeats = grouping.comparison, _repeats(grouping.repeats)
    if found is None:
        again = "sweep.seeds=5" if repeats == "seeds" else f"more {repeats}"
        return (
            f"Whether {first} is better than {second} or was only lucky cannot be told from a single"
            f" job: run each with {again}."
        )
    by = figure(abs(found.difference))
    same = f"over the same {found.n} {repeats}" if found.kind == "paired" else f"over their {repeats}"
    if found.p is None:
        if not found.difference:
            return f"{first} and {second} are equally good {same}."
        return (
            f"{first} beats {second} by {by} {same}, without any spread, so that nothing can be tested."
        )
    sign = 1 if board.mode == "max" else -1
    low, high = (sign * found.difference + side * found.half_width for side in (-1, 1))
    test = "paired t-test" if found.kind == "paired" else "Welch's t-test"
    numbers = f"95 % interval {figure(low)} to {figure(high)}, {test}, {_probability(found)}"
    if found.significant:
        said = (
            f"{first} is better than {second}: by {by} on average {same}, which is hardly luck"
            f" ({numbers})."
        )
    else:
        said = (
            f"{first} leads {second} by {by} on average {same}, which may well be luck ({numbers})."
            f" More {repeats if len(grouping.repeats) == 1 else 'runs'} would tell."
        )
    if repeats == "folds":
        said += " Folds share training data, so that the interval is a little too narrow."
    if found.significant and len(groups) > 2:
        said += f" The best of {len(groups)} is also a lucky one: confirm it with new seeds."
    return said


def _probability(comparison: Comparison) -> str:
    assert comparison.p is not None
    return f"p = {comparison.p:.2g}" if comparison.p >= 0.001 else "p < 0.001"


def _repeats(keys: Sequence[str]) -> str:
    names = {"seed": "seeds", "data.val_fold": "folds"}
    known = [names[key] for key in keys if key in names]
    return " and ".join(known) if len(known) == len(keys) else f"combinations of {' and '.join(keys)}"


def _described(changed: Mapping[str, str]) -> str:
    return escape_line(in_one_line(changed)) or "the defaults"


def group_cells(grouping: Grouping, board: Board, top: int | None = None) -> list[list[str]]:
    """The means of groups as text, heading first."""
    table = [["#", *grouping.keys, f"mean {board.metric}", "95 % interval", "n", "best", "job"]]
    for place, each in enumerate(grouping.groups[:top], start=1):
        changes = [each.changed.get(key, "") for key in grouping.keys]
        best = each.rows[0]
        if each.estimate is None:
            table.append(["–", *changes, "–", "–", f"0 of {each.repeats}", "–", ""])
            continue
        low, high = _bounds(each.estimate)
        interval = "–" if low is None or high is None else f"{figure(low)} to {figure(high)}"
        n = f"{each.estimate.n}" + (f" of {each.repeats}" if each.estimate.n < each.repeats else "")
        cells = [figure(each.estimate.mean), interval, n, _figure(best.value), best.result.job]
        table.append([str(place), *changes, *cells])
    return [[escape_line(cell) for cell in cells] for cells in table]


def cautions(boards: Sequence[Board]) -> list[str]:
    """Why the figures of some jobs cannot be compared."""
    lines = []
    if any(len(_losses(boards, metric)) > 1 for metric in _metrics(boards)):
        metric = next(metric for metric in _metrics(boards) if len(_losses(boards, metric)) > 1)
        lines.append(
            f"Warning: {metric} comes from different losses and cannot be compared: each loss is ranked"
            " apart. Rank by a metric, such as trainer.checkpoint.monitor=val/rmse or val/accuracy."
        )
    if keys := _data_keys(boards):
        lines.append(
            f"Warning: jobs differ in {' and '.join(keys)}, and so in the samples that they were"
            " evaluated on. Compare only those with the same data."
        )
    return lines


def _data_keys(boards: Sequence[Board]) -> list[str]:
    """The keys of validation data in which jobs of a board differ."""
    found: dict[str, None] = {}
    for board in boards:
        ranked = [row.result.changed for row in board.rows if row.place is not None]
        found |= {key: None for key in _DATA if len({changed.get(key) for changed in ranked}) > 1}
    return list(found)


def _failures(boards: Sequence[Board]) -> list[str]:
    """Why jobs failed: a line for each reason."""
    lines = []
    reasons: dict[tuple[str, str], list[Row]] = {}
    for row in (row for board in boards for row in board.rows if row.remark):
        if row.result.status == "pruned":  # as it should be
            continue
        reasons.setdefault((row.result.status, str(row.remark)), []).append(row)
    for (status, reason), rows in itertools.islice(reasons.items(), _REASONS):
        if len(rows) == 1:
            result = rows[0].result
            changes = _changes(rows[0]) or "no changes"
            lines.append(f"Job {result.job} ({changes}) {status}: {reason}")
        else:
            names = ", ".join(row.result.job for row in rows[:_NAMES])
            more = f", … ({len(rows):,} in all)" if len(rows) > _NAMES else ""
            lines.append(f"Jobs {names}{more} {status}: {reason}")
    if len(reasons) > _REASONS:
        lines.append(f"{len(reasons) - _REASONS:,} more reasons are in the file, column `error`.")
    return lines


class _Printer:
    """Where the parts of a leaderboard go."""

    def jobs(self, boards: Sequence[Board]) -> None:
        """The table of jobs."""

    def table(self, cells: list[list[str]], title: str) -> None:
        """Another table, heading first."""

    def note(self, text: str) -> None:
        """A line below a table; nothing if it is empty."""

    def problem(self, text: str) -> None:
        """What went wrong."""


class _Plain(_Printer):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def jobs(self, boards: Sequence[Board]) -> None:
        self._write(_aligned(_cells(boards, folders=True)))

    def table(self, cells: list[list[str]], title: str) -> None:
        self._write(["", escape_line(title), *_aligned(cells)])

    def note(self, text: str) -> None:
        if text:
            self._write([escape_message(text)])

    def problem(self, text: str) -> None:
        self._write([text])

    def _write(self, lines: Sequence[str]) -> None:
        write_line(self._stream, "\n".join(lines))


class _Drawn(_Printer):
    def __init__(self, console: Console) -> None:
        self._console = console

    def jobs(self, boards: Sequence[Board]) -> None:
        cells, caption = _fitting(boards, self._console.width)
        ranked = [(row, board) for board in boards for row in board.rows]
        ends = set(itertools.accumulate(len(board.rows) for board in boards))
        table = _table(cells[0], _metrics(boards))
        for number, (line, (row, _)) in enumerate(zip(cells[1:], ranked, strict=True), start=1):
            style = {"failed": "error", "finished": ""}.get(row.result.status, "warning")
            if row.place == 1 and row.result.status == "finished":
                style = "good"
            texts = (Text(cell) for cell in line)
            table.add_row(*texts, style=style, end_section=len(boards) > 1 and number in ends)
        self._console.print(table)
        if caption:
            self._console.print(Text(caption, "faint"), soft_wrap=True)

    def table(self, cells: list[list[str]], title: str) -> None:
        if _width(cells) > self._console.width:
            cells = [line[:-2] for line in cells]  # its best job
        if _width(cells) > self._console.width:
            cells = _folded(cells)
        drawn = _table(cells[0], [head for head in cells[0] if head.startswith("mean ")])
        drawn.title, drawn.title_justify, drawn.title_style = Text(escape_line(title)), "left", "label"
        for number, line in enumerate(cells[1:]):
            drawn.add_row(*(Text(cell) for cell in line), style="" if number else "good")
        self._console.print(drawn)

    def note(self, text: str) -> None:
        if text:
            self._console.print(Text(escape_message(text)))

    def problem(self, text: str) -> None:
        self._console.print(Text(text, "error"))


def _losses(boards: Sequence[Board], metric: str) -> set[str]:
    """The losses that jobs are ranked by; empty if they are ranked by another metric."""
    return {board.loss for board in boards if board.metric == metric and board.loss}


def _shows_losses(boards: Sequence[Board]) -> bool:
    """Whether a column describes the losses: there are different ones, or one with settings."""
    losses = [_losses(boards, metric) for metric in _metrics(boards)]
    return any(len(each) > 1 or any(" " in loss for loss in each) for each in losses)


def _keys(boards: Sequence[Board]) -> list[str]:
    return changed_keys(row.result for board in boards for row in board.rows)


def _metrics(boards: Sequence[Board]) -> list[str]:
    return list(dict.fromkeys(board.metric for board in boards)) or ["metric"]


def _changes(row: Row) -> str:
    return in_one_line(row.result.changed)


def _cells(
    boards: Sequence[Board], *, folders: bool, folded: bool = False, short: bool = False
) -> list[list[str]]:
    """The table as text, heading first.

    Args:
        folders: with a column for the folder.
        folded: all changes in one column instead of one each.
        short: without the final figure and the epochs.
    """
    keys, metrics = _keys(boards), _metrics(boards)
    loss = [_LOSS] if _shows_losses(boards) else []
    more = [] if short else ["final", "epochs"]
    heads = ["#", "job", *(["changes"] if folded else keys), *metrics, *more, *loss, "time", "status"]
    table = [[*heads, "folder"] if folders else heads]
    for board in boards:
        for row in board.rows:
            result = row.result
            changes = [_changes(row)] if folded else [result.changed.get(key, "") for key in keys]
            values = [_figure(row.value) if metric == board.metric else "" for metric in metrics]
            figures = [] if short else [_figure(row.final), f"{result.epochs:.3g}"]
            place = "–" if row.place is None else str(row.place)
            cells = [place, result.job, *changes, *values, *figures, *([result.loss] if loss else [])]
            cells += [duration(result.seconds), result.status]
            folder = [shown_path(Path(result.folder)) if result.folder else "–"] if folders else []
            table.append([*cells, *folder])
    return [[escape_line(cell) for cell in cells] for cells in table]


def _figure(value: float | None) -> str:
    return "–" if value is None else figure(float(value))


def _fitting(boards: Sequence[Board], width: int) -> tuple[list[list[str]], str]:
    """The most complete table that fits, and a line about the folders if their column does not."""
    table = _cells(boards, folders=True)
    folders = [Path(row.result.folder) for board in boards for row in board.rows if row.result.folder]
    if _width(table) <= width or not folders:
        return table, ""
    common = os.path.commonpath([folder.resolve().parent for folder in folders])
    caption = f"Folders: {shown_path(Path(common))}{os.sep}<job>"
    for short, folded in ((False, False), (True, False), (False, True), (True, True)):
        table = _cells(boards, folders=False, folded=folded, short=short)
        if _width(table) <= width:
            break
    return table, caption


def _folded(cells: list[list[str]]) -> list[list[str]]:
    """A table of groups with the changes in one column."""
    first, last = 1, next(i for i, head in enumerate(cells[0]) if head.startswith("mean "))
    keys = cells[0][first:last]
    changes = [
        " ".join(f"{key}={cell}" for key, cell in zip(keys, line[first:last], strict=True) if cell)
        for line in cells[1:]
    ]
    return [
        [*line[:first], change, *line[last:]]
        for line, change in zip(cells, ["changes", *changes], strict=True)
    ]


def _width(table: list[list[str]]) -> int:
    return sum(max(len(cell) for cell in column) + 3 for column in zip(*table, strict=True)) + 1


def _table(heads: Sequence[str], metrics: Sequence[str]) -> Table:
    drawn = Table(box=box.ROUNDED)
    numbers = {"#", "time", "final", "epochs", "n", "best", "95 % interval", *metrics}
    for head in heads:
        side: Literal["left", "right"] = "right" if head in numbers else "left"
        drawn.add_column(Text(head), justify=side, no_wrap=head != "changes", overflow="fold")
    return drawn


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]
