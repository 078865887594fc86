"""The leaderboard of a sweep, best job first, as it is printed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from bigmodel.reporting.formatting import aligned
from bigmodel.reporting.leaderboard_cells import (
    fitting_group_cells,
    fitting_job_cells,
    group_cells,
    job_cells,
)
from bigmodel.reporting.leaderboard_words import (
    cautions,
    failures,
    footer,
    metric_title,
    repeats_in_words,
    verdict,
)
from bigmodel.reporting.terminal import is_terminal, rich_console, write_line
from bigmodel.reporting.terminal_tables import drawn
from bigmodel.runtime.escaping import escape_line, escape_message
from bigmodel.sweeps.groups import group
from bigmodel.sweeps.leaderboard import Board, Row, metrics_of

TOP = 30
"""Jobs that are printed; all are in the file."""

_NUMBERS = ("#", "time", "final", "epochs", "n", "best", "95 % interval")
"""Heads of columns of numbers, beside the metrics."""


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
    printer.note(footer(boards, shown, path))
    for board in boards:
        if (grouping := group(board, by)) is not None:
            title = f"Means over {repeats_in_words(grouping)}: {metric_title(board, boards)}"
            printer.table(group_cells(grouping, board, max(2, top)), title)
            printer.note(verdict(grouping, board))
    for line in [*cautions(boards), *failures(boards)]:
        printer.problem(escape_message(line))


def _top(boards: Sequence[Board], top: int) -> list[Board]:
    """The boards, cut so that about `top` jobs are left, some of each."""
    each = max(3, top // max(1, len(boards))) if len(boards) > 1 else top
    return [Board(board.metric, board.mode, board.loss, board.rows[:each]) for board in boards]


class _Printer:
    """Where the parts of a leaderboard go."""

    def jobs(self, boards: Sequence[Board]) -> None:
        """The table of jobs."""

    def table(self, cells: list[list[str]], title: str) -> None:
        """The table of means, heading first."""

    def note(self, text: str) -> None:
        """A line below a table; nothing if it is empty."""

    def problem(self, text: str) -> None:
        """What went wrong."""


class _Plain(_Printer):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def jobs(self, boards: Sequence[Board]) -> None:
        self._write(aligned(job_cells(boards, folders=True)))

    def table(self, cells: list[list[str]], title: str) -> None:
        self._write(["", escape_line(title), *aligned(cells)])

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
        cells, caption = fitting_job_cells(boards, self._console.width)
        styles = [_style(row) for board in boards for row in board.rows]
        ends = list(itertools.accumulate(len(board.rows) for board in boards))[:-1]
        right = {*_NUMBERS, *metrics_of(boards)}
        self._console.print(drawn(cells, self._console.width, right=right, styles=styles, ends=ends))
        if caption:
            self._console.print(Text(caption, "faint"), soft_wrap=True)

    def table(self, cells: list[list[str]], title: str) -> None:
        cells = fitting_group_cells(cells, self._console.width)
        styles = ["good", *[""] * (len(cells) - 2)]
        right = {*_NUMBERS, *(head for head in cells[0] if head.startswith("mean "))}
        self._console.print(Text(escape_line(title), "label"))
        self._console.print(drawn(cells, self._console.width, right=right, styles=styles))

    def note(self, text: str) -> None:
        if text:
            self._console.print(Text(escape_message(text)))

    def problem(self, text: str) -> None:
        self._console.print(Text(text, "error"))


def _style(row: Row) -> str:
    if row.place == 1 and row.result.status == "finished":
        return "good"
    return {"failed": "error", "finished": ""}.get(row.result.status, "warning")
