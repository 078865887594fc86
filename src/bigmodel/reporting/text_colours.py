"""Texts in a terminal, their pieces coloured by a number; and tables below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.text import Text

from bigmodel.reporting.report.coloured_text import ColouredText, mixed_colour
from bigmodel.reporting.terminal import rich_console
from bigmodel.reporting.terminal_tables import drawn
from bigmodel.runtime.escaping import escape_line

_INK = "rgb(28,31,35)"  # on light colours, whatever the terminal's own are


def print_texts(stream: TextIO, texts: Sequence[ColouredText]) -> None:
    """Prints texts to a terminal that shows colours."""
    console = rich_console(stream)
    for text in texts:
        if text.caption:
            console.print(Text(text.caption, style="faint"))
        line = Text()
        for piece, shade in zip(text.pieces, text.shades, strict=True):
            red, green, blue = mixed_colour(shade)
            line.append(piece, f"{_INK} on rgb({red},{green},{blue})" if abs(shade) > 0.02 else "")
        console.print(line, soft_wrap=True)
        console.print()


def print_table(
    stream: TextIO, heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> None:
    """Prints a table to a terminal; one that is too wide as a paragraph for each row.

    Args:
        right: heads of the columns that are aligned to the right.
    """
    console = rich_console(stream)
    cells = [[escape_line(cell) for cell in row] for row in (heads, *rows)]
    console.print(drawn(cells, console.width, right=right))
