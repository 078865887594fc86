"""A sweep while it runs: one table at a terminal, a line for each job that ends elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from bigmodel.reporting.formatting import duration, figure
from bigmodel.reporting.terminal import is_terminal, rich_console, write_line
from bigmodel.reporting.terminal_tables import CHANGES, drawn, fits
from bigmodel.runtime.escaping import escape_line, escape_message
from bigmodel.sweeps.jobs import Job, Observer, Outcome

MOST_ROWS = 20
"""Running jobs that are shown; there are rarely more processors or GPUs."""


@dataclass
class _Running:
    job: Job
    began: float
    report: dict[str, Any] = field(default_factory=dict)

    def seconds_left(self, now: float) -> float | None:
        """None before its first step is reported."""
        step, steps = self.report.get("step", 0), self.report.get("steps")
        return (now - self.began) / step * (steps - step) if step and steps else None


class SweepView(Observer):
    """Shows how far a sweep is.

    Args:
        describe: what tells a job from the others, in one line.
        total: how many jobs there are; None if it is not known.
        terminal: whether to draw a table; None asks the stream.
        stream: what to write to; None is standard output.
        width: columns; None measures the terminal.
    """

    def __init__(
        self,
        describe: Callable[[Job], str],
        *,
        total: int | None = None,
        terminal: bool | None = None,
        stream: TextIO | None = None,
        width: int | None = None,
    ) -> None:
        self._describe = describe
        self._total = total
        self._stream = sys.stdout if stream is None else stream
        shown = is_terminal(self._stream) if terminal is None else terminal
        self._rich = rich_console(self._stream, width=width) if shown else None
        self._live: Live | None = None
        self._began = time.monotonic()
        self._running: dict[int, _Running] = {}
        self._ended: dict[int, str] = {}
        self._best: tuple[float, int, str] | None = None

    def started(self, job: Job, folder: Path) -> None:  # noqa: ARG002
        self._running[job.number] = _Running(job, time.monotonic())

    def progressed(self, job: Job, report: dict[str, Any]) -> None:
        if job.number in self._running:
            known = {key: value for key, value in report.items() if value is not None}
            self._running[job.number].report |= known

    def ended(self, job: Job, outcome: Outcome) -> None:
        running = self._running.pop(job.number, None)
        self._ended[job.number] = outcome.status  # a job that is tried again counts once
        metric, mode = outcome.details.get("monitor", ""), outcome.details.get("mode", "max")
        if outcome.status == "finished" and outcome.value is not None:
            better = self._best is None or (outcome.value > self._best[0]) == (mode == "max")
            if better and (self._best is None or outcome.value != self._best[0]):
                self._best = (outcome.value, job.number, metric)
        seconds = 0.0 if running is None else time.monotonic() - running.began
        line = self._line(job, outcome, metric, seconds)
        if self._rich is None:
            write_line(self._stream, line)
        elif outcome.status not in ("finished", "pruned"):
            self._console().print(Text(line, "error" if outcome.status == "failed" else "warning"))

    def note(self, text: str) -> None:
        """Prints a line."""
        if self._rich is None:
            write_line(self._stream, text)
        else:
            self._console().print(Text(text, "warning"))

    def tick(self) -> None:
        if self._rich is not None:
            if self._live is None:
                # Drawn here alone: a thread of its own would be copied into each job's process.
                self._live = Live(console=self._rich, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(self._drawn(), refresh=True)

    def close(self) -> None:
        """Takes the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _console(self) -> Any:
        return self._rich if self._live is None else self._live.console

    def _line(self, job: Job, outcome: Outcome, metric: str, seconds: float) -> str:
        done = len(self._ended)
        of = f" of {self._total}" if self._total is not None else ""
        value = "" if outcome.value is None else f"  {metric} {figure(outcome.value)}"
        why = f": {outcome.error}" if outcome.error else ""
        parts = [
            f"[{done}{of}] job {job.number}",
            self._describe(job),
            f"{outcome.status}{value}",
            duration(seconds),
        ]
        return escape_message("  ".join(filter(None, parts)) + why)

    def _drawn(self) -> RenderableType:
        now = time.monotonic()
        running = list(self._running.values())[:MOST_ROWS]
        metrics = {each.report["metric"] for each in running if "metric" in each.report}
        shared = metrics.pop() if len(metrics) == 1 else None
        rows = [self._cells(each, now, shared) for each in running]
        heads = ["job", CHANGES, "epoch", shared or "metric", "time", "left"]
        assert self._rich is not None
        if not fits([heads, *rows], self._rich.width):
            heads, *rows = ([*row[:4], row[5]] for row in [heads, *rows])  # the time is the least of it
        table = drawn([heads, *rows], self._rich.width, right=heads[2:])
        # The totals come first: rich cuts off below what is higher than the terminal.
        return Group(Text(escape_line(self._totals(now)), "faint"), table)

    def _cells(self, running: _Running, now: float, shared: str | None) -> list[str]:
        report, seconds = running.report, now - running.began
        value, left = report.get("value"), running.seconds_left(now)
        metric = "" if shared else f"{report.get('metric', '')} "
        cells = [
            str(running.job.number),
            self._describe(running.job),
            f"{report.get('epoch', 0)} / {report.get('epochs', '?')}",
            "" if value is None else f"{metric}{figure(value)}",
            duration(seconds),
            "" if left is None else duration(left),
        ]
        return [escape_line(cell) for cell in cells]

    def _totals(self, now: float) -> str:
        done = len(self._ended)
        parts = [f"{done} of {self._total} done" if self._total is not None else f"{done} done"]
        ended = Counter(self._ended.values())
        parts += [f"{ended[s]} {s}" for s in ("failed", "pruned", "stopped") if ended[s]]
        if self._best is not None:
            value, number, metric = self._best
            parts.append(f"best {metric} {figure(value)} (job {number})")
        if done and self._total is not None:
            # By the average so far, but no sooner than each of those that run, which may take longer.
            lefts = [(now - self._began) / done * (self._total - done)]
            lefts += [each.seconds_left(now) or 0.0 for each in self._running.values()]
            parts.append(f"{duration(max(lefts))} left")
        return " · ".join(parts)
