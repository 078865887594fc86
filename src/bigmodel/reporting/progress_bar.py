"""The progress bar on a terminal: progress, loss, metric and speed."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bigmodel.reporting.base import ProgressReport, RunInfo
from bigmodel.reporting.formatting import clock, figure, speeds

NARROWEST, WIDEST = 8, 40
"""Width of the bar itself. If facts leave it less, the least important ones are dropped."""


class Bar:
    """A renderable of the newest `ProgressReport`. Only rich's thread draws it.

    Args:
        info: the run.
        now: a clock in seconds.
    """

    def __init__(self, info: RunInfo, now: Callable[[], float] = time.monotonic) -> None:
        self._info = info
        self._now = now
        self._began = now()
        self._newest: tuple[float, ProgressReport] | None = None

    def update(self, progress: ProgressReport) -> None:
        """Keeps the report for the next drawing; draws nothing itself."""
        self._newest = (self._now(), progress)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        newest = self._newest
        head = Text("starting" if newest is None else f"epoch {newest[1].epoch}/{self._info.epochs}")
        facts = self._facts(newest)
        room = options.max_width - NARROWEST - len(head) - 1
        for least in ("memory", "mfu", "speed", "figure", "loss", "left"):
            if _length(facts) > room and "speed" in facts:
                facts["speed"] = facts["speed"].replace(" samples/s", "/s").replace("tokens", "tok")
            if _length(facts) > room:
                facts.pop(least, None)
        width = min(WIDEST, options.max_width - len(head) - 1 - _length(facts))
        done = newest[1].step if newest else self._info.first_step
        total, width = max(1, self._info.total_steps), max(1, width)
        bar = ProgressBar(total, done, width, complete_style="cyan", finished_style="cyan")
        line = Table.grid(padding=0)
        line.add_row(head, " ", bar, *(Text(f"  {text}", no_wrap=True) for text in facts.values()))
        yield line

    def _facts(self, newest: tuple[float, ProgressReport] | None) -> dict[str, str]:
        if newest is None:
            return {}
        moment, progress = newest
        facts = {}
        if progress.loss is not None:
            facts["loss"] = f"loss {figure(progress.loss)}"
        if progress.metric is not None:
            facts["figure"] = f"{self._info.monitor} {figure(progress.metric)}"
        if progress.samples_per_second > 0:
            facts |= speeds(progress)
        left = self._seconds_left(moment, progress)
        if left is not None:
            facts["left"] = f"{clock(left)} left"
        return facts

    def _seconds_left(self, moment: float, progress: ProgressReport) -> float | None:
        # The mean pace since the start, so that evaluations and saves count as well.
        done = progress.step - self._info.first_step
        if done <= 0:
            return None
        pace = (moment - self._began) / done
        return pace * (self._info.total_steps - progress.step) - (self._now() - moment)


def _length(facts: dict[str, str]) -> int:
    return sum(len(text) + 2 for text in facts.values())
