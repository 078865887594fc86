"""The tables of a leaderboard as text in cells, heading first."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from bigmodel.reporting.formatting import duration, figure, shown_path
from bigmodel.reporting.terminal_tables import CHANGES
from bigmodel.runtime.escaping import escape_line
from bigmodel.sweeps.groups import Grouping
from bigmodel.sweeps.jobs import in_one_line
from bigmodel.sweeps.leaderboard import Board, keys_of, labels_of, losses_of, metrics_of

LOSS = "loss used"
"""The head of a column; `loss` is a key that jobs may differ in."""


_MOST_LETTERS = 40  # of a name in a table


def shows_losses(boards: Sequence[Board]) -> bool:
    """Whether a column describes the losses: there are different ones, or one with settings."""
    losses = [losses_of(boards, metric) for metric in metrics_of(boards)]
    return any(len(each) > 1 or any(" " in loss for loss in each) for each in losses)


def job_cells(
    boards: Sequence[Board],
    *,
    folders: bool,
    named: bool = True,
    folded: bool = False,
    short: bool = False,
) -> list[list[str]]:
    """The jobs, best first.

    Args:
        folders: with a column for the folder.
        named: with their names and tags, if these differ.
        folded: all changes in one column instead of one each.
        short: without the final figure and the epochs.
    """
    keys, metrics = keys_of(boards), metrics_of(boards)
    loss = [LOSS] if shows_losses(boards) else []
    labels = _differing_labels(boards) if named else []
    more = [] if short else ["final", "epochs"]
    heads = ["#", "job", *labels, *([CHANGES] if folded else keys), *metrics, *more, *loss]
    heads += ["time", "status"]
    table = [[*heads, "folder"] if folders else heads]
    for board in boards:
        for row in board.rows:
            result, changed = row.result, row.result.changed
            changes = [in_one_line(changed)] if folded else [changed.get(key, "") for key in keys]
            values = [_figure(row.value) if metric == board.metric else "" for metric in metrics]
            figures = [] if short else [_figure(row.final), f"{result.epochs:.3g}"]
            place = "–" if row.place is None else str(row.place)
            called = [cut(result.labels[label]) for label in labels]
            cells = [place, result.job, *called, *changes, *values, *figures]
            cells += [*([result.loss] if loss else []), duration(result.seconds), result.status]
            folder = [shown_path(Path(result.folder)) if result.folder else "–"] if folders else []
            table.append([*cells, *folder])
    return [[escape_line(cell) for cell in cells] for cells in table]


def _differing_labels(boards: Sequence[Board]) -> list[str]:
    """Which of name and tags tell jobs apart, or are those of the only one."""
    labels = [row.result.labels for board in boards for row in board.rows]
    known = [label for label in labels_of(boards) if label != "notes"]
    return [key for key in known if len(labels) == 1 or len({each[key] for each in labels}) > 1]


def cut(text: str) -> str:
    """The beginning of a text that would make a table too wide."""
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"


def fitting_job_cells(boards: Sequence[Board], width: int) -> tuple[list[list[str]], str]:
    """The most complete table of jobs that fits, and a line about the folders if their column does
    not."""
    table = job_cells(boards, folders=True)
    folders = [Path(row.result.folder) for board in boards for row in board.rows if row.result.folder]
    if _width(table) <= width or not folders:
        return table, ""
    common = os.path.commonpath([folder.resolve().parent for folder in folders])
    caption = f"Folders: {shown_path(Path(common))}{os.sep}<job>"
    for named, folded, short in itertools.product((True, False), (False, True), (False, True)):
        table = job_cells(boards, folders=False, named=named, folded=folded, short=short)
        if _width(table) <= width:
            break
    return table, caption


def group_cells(grouping: Grouping, board: Board, top: int | None = None) -> list[list[str]]:
    """The means of groups, best first."""
    table = [["#", *grouping.keys, f"mean {board.metric}", "95 % interval", "n", "best", "job"]]
    for place, each in enumerate(grouping.groups[:top], start=1):
        changes = [each.changed.get(key, "") for key in grouping.keys]
        best = each.rows[0]
        if each.estimate is None:
            table.append(["–", *changes, "–", "–", f"0 of {each.repeats}", "–", ""])
            continue
        bounds = each.estimate.interval
        interval = "–" if bounds is None else " to ".join(map(figure, bounds))
        n = f"{each.estimate.n}" + (f" of {each.repeats}" if each.estimate.n < each.repeats else "")
        cells = [figure(each.estimate.mean), interval, n, _figure(best.value), best.result.job]
        table.append([str(place), *changes, *cells])
    return [[escape_line(cell) for cell in cells] for cells in table]


def _figure(value: float | None) -> str:
    return "–" if value is None else figure(float(value))


def fitting_group_cells(cells: list[list[str]], width: int) -> list[list[str]]:
    """A table of groups that is no wider than needed: without its best job, its changes in one
    column."""
    if _width(cells) > width:
        cells = [line[:-2] for line in cells]
    if _width(cells) <= width:
        return cells
    first, last = 1, next(i for i, head in enumerate(cells[0]) if head.startswith("mean "))
    keys = cells[0][first:last]
    changes = [
        in_one_line({key: cell for key, cell in zip(keys, line[first:last], strict=True) if cell})
        for line in cells[1:]
    ]
    return [
        [*line[:first], change, *line[last:]]
        for line, change in zip(cells, [CHANGES, *changes], strict=True)
    ]


def _width(table: list[list[str]]) -> int:
    """Columns of a terminal that it takes with its lines."""
    return sum(max(len(cell) for cell in column) + 3 for column in zip(*table, strict=True)) + 1
