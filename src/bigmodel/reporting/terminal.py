"""Output to a terminal with rich, and plain lines everywhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.theme import Theme

from bigmodel.runtime.escaping import escape

THEME = Theme(
    {"good": "green", "warning": "yellow", "error": "bold red", "label": "bold", "faint": "dim"}
)
"""Meaning of the colours: green is good or best, yellow a warning, red an error, dim secondary."""


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal on which lines can be redrawn.

    False for a pipe, a file, `nohup` and Slurm, whatever FORCE_COLOR says, since a bar would flood them;
    and if TERM is `dumb`, CI is set, or the encoding has no box-drawing characters. NO_COLOR
    (https://no-color.org) removes the colours and changes nothing else.
    """
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        return False
    if os.environ.get("TERM", "") in {"dumb", "unknown"}:
        return False
    return stream.isatty() and "utf" in (getattr(stream, "encoding", None) or "").lower()


def rich_console(stream: TextIO, *, width: int | None = None, recording: bool = False) -> Console:
    """A rich console for a terminal that shows text as it is: no markup, emoji codes or guessed colours,
    and control characters escaped.

    Args:
        stream: what to write to.
        width: columns; None measures the terminal.
        recording: keep the output for an SVG, in the same colours on every machine.
    """
    return _Console(
        file=stream,
        force_terminal=True,
        force_interactive=True,
        color_system="truecolor" if recording else "auto",
        legacy_windows=False,
        width=width,
        record=recording,
        theme=THEME,
        markup=False,
        emoji=False,
        highlight=False,
    )


class _Console(Console):
    """A console that sends no control characters but its own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape(segment.text), segment.style)


def write_line(stream: TextIO, text: str) -> None:
    """Writes one plain line and flushes; characters that the encoding lacks become `?`."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(escape(text).encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()
