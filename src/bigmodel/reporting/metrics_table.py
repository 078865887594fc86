"""The metrics of one evaluation as a table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bigmodel.reporting.formatting import aligned, figure
from bigmodel.reporting.terminal import is_terminal, rich_console, write_line
from bigmodel.reporting.terminal_tables import drawn
from bigmodel.runtime.escaping import escape_line


def print_metrics(
    title: str,
    rows: Sequence[tuple[str, str]],
    metrics: Mapping[str, float],
    by_class: Mapping[str, Mapping[str, float]] | None = None,
    *,
    stream: TextIO | None = None,
    terminal: bool | None = None,
    width: int | None = None,
) -> None:
    """Prints what was evaluated, and the metrics.

    Args:
        title: such as the run's folder.
        rows: label and text of each line above the metrics.
        metrics: by name.
        by_class: metrics of each class, by name and class; a second table. Only the first classes are
            shown of more than 50.
        stream: what to write to; None is standard output.
        terminal: whether to draw for a terminal; None asks the stream.
        width: columns; None measures the terminal.
    """
    stream = sys.stdout if stream is None else stream
    title, rows = escape_line(title), [(label, escape_line(text)) for label, text in rows]
    shown = {escape_line(name): figure(value) for name, value in metrics.items()}
    if not (is_terminal(stream) if terminal is None else terminal):
        labels = max(len(label) for label, _ in rows)
        names = max(len(name) for name in shown)
        write_line(stream, title)
        for label, text in rows:
            write_line(stream, f"{label.ljust(labels)}  {text}")
        for name, value in shown.items():
            write_line(stream, f"{name.ljust(names)}  {value}")
        cells, more = class_cells(by_class or {})
        for line in [*aligned(cells), *more]:
            write_line(stream, line)
        return
    console = rich_console(stream, width=width)
    console.print(_head(title, rows))
    table = Table(box=box.ROUNDED, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, value in shown.items():
        table.add_row(Text(name), Text(value, "good"))
    console.print(table)
    cells, more = class_cells(by_class or {})
    if cells:
        console.print(drawn(cells, console.width, right=cells[0][1:]))
    for line in more:
        console.print(Text(line))


def print_table(
    title: str,
    rows: Sequence[tuple[str, str]],
    cells: Sequence[Sequence[str]],
    *,
    stream: TextIO | None = None,
    terminal: bool | None = None,
    width: int | None = None,
) -> None:
    """Prints what was asked, and a table; numbers are aligned to the right of the first column.

    Args:
        title, rows, stream, terminal, width: as in `print_metrics`.
        cells: text in rows, the heads first.
    """
    stream = sys.stdout if stream is None else stream
    title, rows = escape_line(title), [(label, escape_line(text)) for label, text in rows]
    cells = [[escape_line(cell) for cell in row] for row in cells]
    if not (is_terminal(stream) if terminal is None else terminal):
        labels = max((len(label) for label, _ in rows), default=0)
        lines = [title, *(f"{label.ljust(labels)}  {text}" for label, text in rows), *aligned(cells)]
        for line in lines:
            write_line(stream, line)
        return
    console = rich_console(stream, width=width)
    console.print(_head(title, rows))
    console.print(drawn(cells, console.width, right=cells[0][1:]))


def _head(title: str, rows: Sequence[tuple[str, str]]) -> Panel:
    head = Table.grid(padding=(0, 2))
    for label, text in rows:
        head.add_row(Text(label, "label"), Text(text))
    return Panel(head, title=Text(title, "label"), title_align="left", expand=False)


MOST_CLASSES = 50
"""The most classes in a table of metrics."""


def class_cells(by_class: Mapping[str, Mapping[str, float]]) -> tuple[list[list[str]], list[str]]:
    """A table of each class's metrics, the heads first; and a line about classes that are left out."""
    if not by_class:
        return [], []
    classes = list(next(iter(by_class.values())))
    cells = [["", *map(escape_line, by_class)]]
    cells += [
        [escape_line(name), *(figure(each[name]) for each in by_class.values())]
        for name in classes[:MOST_CLASSES]
    ]
    left_out = len(classes) - MOST_CLASSES
    return cells, [f"and {left_out:,} more: --json has all"] if left_out > 0 else []
