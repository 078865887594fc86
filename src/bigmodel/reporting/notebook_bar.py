"""The progress bar in a notebook: one output of the cell that is redrawn, and gone at the end."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console, RenderableType

from bigmodel.reporting.terminal import THEME

WIDTH = 100
"""Columns of the bar."""

_INTERVAL = 0.5  # seconds between two drawings: each is a message to the browser

_FORMAT = '<pre style="white-space:pre;overflow-x:auto;line-height:normal;margin:0">{code}</pre>'


def is_notebook(stream: TextIO | None) -> bool:
    """Whether a stream leads to the cell of a notebook."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


class NotebookBar:
    """Shows a renderable below a cell. A notebook that cannot show it is left alone.

    Args:
        bar: what is drawn.
    """

    def __init__(self, bar: RenderableType) -> None:
        self._bar = bar
        self._handle: Any = None
        self._drawn = 0.0

    def start(self) -> None:
        """Shows it."""
        with suppress(Exception):
            import IPython.display

            show: Any = IPython.display.display
            self._handle = show(self._shown(), raw=True, display_id=True)
            self._drawn = time.monotonic()

    def refresh(self) -> None:
        """Draws it again, if that is due."""
        if self._handle is not None and time.monotonic() - self._drawn >= _INTERVAL:
            self._update(self._shown())

    def stop(self) -> None:
        """Removes it."""
        if self._handle is not None:
            self._update({"text/plain": "", "text/html": ""})
        self._handle = None

    def _update(self, shown: dict[str, str]) -> None:
        self._drawn = time.monotonic()
        with suppress(Exception):
            self._handle.update(shown, raw=True)

    def _shown(self) -> dict[str, str]:
        console = Console(
            file=io.StringIO(),
            force_terminal=True,
            force_jupyter=False,
            color_system="truecolor",
            width=WIDTH,
            record=True,
            theme=THEME,
        )
        console.print(self._bar, end="")
        html = console.export_html(inline_styles=True, code_format=_FORMAT, clear=False)
        return {"text/plain": console.export_text().rstrip(), "text/html": html}
