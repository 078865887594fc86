"""The console: a header, a live bar and log lines for a person at a terminal; plain lines elsewhere,
and in a notebook a bar below them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bigmodel.reporting import formatting
from bigmodel.reporting.base import ProgressReport, Record, RunInfo, Sink, Summary
from bigmodel.reporting.notebook_bar import NotebookBar, is_notebook
from bigmodel.reporting.progress_bar import Bar
from bigmodel.reporting.terminal import is_terminal, rich_console, write_line
from bigmodel.runtime import progress_messages
from bigmodel.runtime.escaping import escape_line, escape_message

LOG = "train.log"
PROGRESS_LINE_SECONDS = 30.0
"""Seconds without output after which, off a terminal, a line reports progress."""

REFRESH = 5
"""Updates of the bar per second: smooth to the eye, and too few to slow training down."""

_STYLES = {"warning": "warning", "error": "error"}
_STYLES |= {"failed": "error", "stopped": "warning", "pruned": "warning", "finished": "good"}


class Console(Sink):
    """Prints what happens, and writes the same to `train.log` without colours.

    If the stream is closed (a pipe without a reader) or the disk is full, it stops writing there, and
    training goes on.

    Args:
        folder: the run's, for `train.log`; None writes no log.
        terminal: whether to show colours and a bar; None asks the stream.
        stream: what to write to; None is standard output.
        width: columns; None measures the terminal.
        recording: keep what a terminal shows, for `save_svg`, and show no bar.
        resume: what to type to go on; None: `resume=` with the run's folder.
    """

    def __init__(
        self,
        folder: Path | None,
        terminal: bool | None = None,
        *,
        stream: TextIO | None = None,
        width: int | None = None,
        recording: bool = False,
        resume: str | None = None,
    ) -> None:
        self._stream: TextIO | None = stream if stream is not None else sys.stdout
        self._recording = recording
        shown = is_terminal(self._stream) if terminal is None else terminal
        self._rich = rich_console(self._stream, width=width, recording=recording) if shown else None
        self._folder, self._resume = folder, resume
        self._log: TextIO | None = None
        self._live: Live | NotebookBar | None = None
        self._bar: Bar | None = None
        self._info: RunInfo | None = None
        self._best: Record = {}
        self._last_line_at = time.monotonic()

    def start(self, info: RunInfo) -> None:
        self._info = info
        rows = [(escape_line(label), escape_line(text)) for label, text in formatting.header_rows(info)]
        grid = Table.grid(padding=(0, 2))
        for label, text in rows:
            style = _STYLES["warning"] if label == "Warning" else ""
            grid.add_row(Text(label, style or "label"), Text(text, style, overflow="fold"))
        title = Text(escape_line(info.title), "label")
        panel = Panel(grid, title=title, title_align="left", expand=False)
        self._write([f"{label}: {text}" for label, text in rows], panel)
        if self._rich is not None:
            self._bar = Bar(info)
            if not self._recording:
                self._live = Live(
                    self._bar, console=self._rich, refresh_per_second=REFRESH, transient=True
                )
                self._live.start()
        elif is_notebook(self._stream):
            self._bar = Bar(info)
            self._live = NotebookBar(self._bar)
            self._live.start()

    def progress(self, progress: ProgressReport) -> None:
        if self._bar is not None:
            self._bar.update(progress)
        if isinstance(self._live, NotebookBar):
            self._live.refresh()
        if self._info is not None and time.monotonic() - self._last_line_at >= PROGRESS_LINE_SECONDS:
            self._write([formatting.progress_line(progress, self._info)])

    def record(self, record: Record, best: Record) -> None:  # noqa: ARG002
        self._best = best

    def log(self, record: Record) -> None:
        assert self._info is not None, "log before start"
        line, monitor = formatting.log_line(record, self._info.steps_per_epoch), self._info.monitor
        text = Text(line if self._rich is None else formatting.wrapped(line, self._rich.width))
        if monitor in record and record[monitor] == self._best.get(monitor):
            text.highlight_words([formatting.log_figures(record)[monitor]], "good")
        self._write([line], text)

    def message(self, text: str, level: str = "info") -> None:
        line = escape_message(formatting.message_line(text, level))
        self._write([line], Text(line, _STYLES.get(level, "")))

    def finish(self, summary: Summary, folder: Path) -> None:
        self._stop_bar()
        root = self._info.config.get("output_dir") if self._info else None
        logdir = formatting.logdir_of(folder, Path(root) if isinstance(root, str) else None)
        results, outcome = formatting.result_lines(summary), escape_message(formatting.outcome(summary))
        if results:
            self._write(results, _results(summary))
        self._write([outcome], Text(outcome, _STYLES.get(summary.status, "")))
        for label, pointer in formatting.next_steps(summary, folder, logdir, self._resume):
            text = escape_line(pointer)
            shown = Text.assemble((f"{label}: ", "label"), text)
            self._write([f"{label}: {text}"], shown, soft_wrap=True)

    def close(self) -> None:
        self._stop_bar()
        if self._log is not None:
            self._log.close()
            self._log = None

    def save_svg(self, path: Path, title: str = "bigmodel-train") -> None:
        """Saves all output so far as a picture of a terminal; needs `recording` and a terminal.

        Args:
            path: of the SVG file.
            title: text in the window's title bar, such as the command.
        """
        assert self._rich is not None
        assert self._recording
        self._rich.save_svg(str(path), title=title)

    def _write(self, plain: Sequence[str], *shown: RenderableType, soft_wrap: bool = False) -> None:
        """Writes plain lines to the log and, off a terminal, to the stream; `shown` goes to a terminal.

        Args:
            soft_wrap: let the terminal wrap long lines, so that they can be copied whole.
        """
        self._last_line_at = time.monotonic()
        progress_messages.note_output()
        try:
            if self._rich is not None:
                for renderable in shown:
                    self._rich.print(renderable, soft_wrap=soft_wrap)
            elif self._stream is not None:
                write_line(self._stream, "\n".join(plain))
        except (OSError, ValueError):  # the reader is gone; a closed file raises ValueError
            self._rich = self._stream = None
        self._write_log(plain)

    def _write_log(self, plain: Sequence[str]) -> None:
        if self._folder is None:
            return
        try:
            if self._log is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._log = (self._folder / LOG).open("a", encoding="utf-8")
            write_line(self._log, "\n".join(plain))
        except OSError as error:
            folder, self._folder = self._folder, None
            self.message(
                f"{folder / LOG}: cannot be written: {error.strerror}. Logging to it stops.", "warning"
            )

    def _stop_bar(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = self._bar = None


def _results(summary: Summary) -> Table:
    """Best and final figures side by side. Test figures belong to the best weights, so they are in that
    column, if there is one; the monitored figure is green."""
    columns = {"best": summary.best, "final": summary.final}
    chosen = "best" if summary.best else "final"
    columns[chosen] = columns[chosen] | summary.test
    columns = {name: record for name, record in columns.items() if record}
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("")
    for name, record in columns.items():
        when = f"\nepoch {record['epoch']}" if "epoch" in record else ""
        table.add_column(Text.assemble(name, (when, "faint")), justify="right", header_style="label")
    metrics = dict.fromkeys(key for record in columns.values() for key in formatting.figures_of(record))
    for metric in metrics:
        cells = []
        for name, record in columns.items():
            style = "good" if (name, metric) == ("best", summary.monitor) else ""
            cells.append(Text(formatting.figure(record[metric]) if metric in record else "", style))
        table.add_row(metric, *cells)
    return table
