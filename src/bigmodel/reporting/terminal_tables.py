"""Tables for a terminal. One that is too wide is a paragraph for each row instead: nothing is cut."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

CHANGES = "changes"
"""The head of the column that may wrap between words: what jobs set, as they are typed."""

Cells = Sequence[Sequence[str]]
"""Text in rows, the heads first."""


def fits(cells: Cells, width: int) -> bool:
    """Whether a table is no wider than so many columns of a terminal."""
    needed = 1
    for head, *column in zip(*cells, strict=True):
        words = [word for cell in column for word in cell.split(" ")] if head == CHANGES else column
        needed += max(map(len, [head, *words])) + 3
    return needed <= width


def drawn(
    cells: Cells,
    width: int,
    *,
    right: Container[str],
    styles: Sequence[str] = (),
    ends: Container[int] = (),
) -> RenderableType:
    """A table that fits, or a paragraph for each row.

    Args:
        cells: without control characters.
        width: columns of the terminal.
        right: heads of the columns that are aligned to the right.
        styles: of the rows, the heads left out; none: all are plain.
        ends: rows, counted from 1, below which there is a line.
    """
    heads, *rows = cells
    styles = styles or [""] * len(rows)
    if not fits(cells, width):
        each = zip(rows, styles, strict=True)
        return Group(*(_paragraph(heads, row, width, style) for row, style in each))
    table = Table(box=box.ROUNDED)
    for head in heads:
        side: Literal["left", "right"] = "right" if head in right else "left"
        table.add_column(Text(head), justify=side, no_wrap=head != CHANGES)
    for number, (row, style) in enumerate(zip(rows, styles, strict=True), start=1):
        table.add_row(*map(Text, row), style=style, end_section=number in ends)
    return table


def _paragraph(heads: Sequence[str], row: Sequence[str], width: int, style: str) -> Text:
    """A row in as few lines as its parts fit into; those after the first are indented."""
    title, *parts = [
        part
        for head, cell in zip(heads, row, strict=True)
        for part in (cell.split(" ") if head == CHANGES else [f"{head} {cell}"])
        if cell
    ]
    lines = [title]
    for part in parts:
        if len(lines[-1]) + len(part) + 2 <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"  {part}")
    text = Text("\n".join(lines), style)
    text.stylize("label", 0, len(title))
    return text
