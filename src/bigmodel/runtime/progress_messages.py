"""Progress messages: work that takes long says so after every 30 silent seconds, from one thread.

Progress is reported like this:

    with progress_messages.report_progress("Learning subwords"):
        …
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

SILENCE = 30.0
"""Seconds without output after which a line says what is being done."""

_SLACK = 0.5
"""Extra seconds that give way to whoever prints more than that, such as training."""


What = str | Callable[[], str]


class _Task(NamedTuple):
    what: What
    began: float


def _print(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody reads
        print(text, file=sys.stderr, flush=True)  # noqa: T201


_tasks: list[_Task] = []
_last_output = 0.0
_say: Callable[[str], None] = _print


@contextmanager
def report_progress(what: What) -> Iterator[None]:
    """Within it, `what` is printed after each `SILENCE`, with the time it has taken; of nested ones, the
    innermost. A function is called then, so that it can say how far the work is."""
    global _last_output
    outermost = not _tasks
    task = _Task(what, time.monotonic())
    _tasks.append(task)
    over = threading.Event()
    if outermost:
        _last_output = time.monotonic()
        threading.Thread(target=_print_when_due, args=(over,), name="progress", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        _tasks.remove(task)


@contextmanager
def reporting_to(say: Callable[[str], None]) -> Iterator[None]:
    """Within it, progress lines go to `say` instead of standard error."""
    global _say
    before, _say = _say, say
    try:
        yield
    finally:
        _say = before


def note_output() -> None:
    """Something was printed: the next progress line is due only after another `SILENCE`."""
    global _last_output
    _last_output = time.monotonic()


def _print_when_due(over: threading.Event) -> None:
    while not over.wait(max(0.0, _last_output + SILENCE + _SLACK - time.monotonic())):
        tasks = list(_tasks)
        if tasks and time.monotonic() - _last_output >= SILENCE:
            what, began = tasks[-1]
            note_output()
            text = what if isinstance(what, str) else what()
            _say(f"{text}, {_words(time.monotonic() - began)} so far")


def _words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest:02d} s" if minutes else f"{rest} s"
