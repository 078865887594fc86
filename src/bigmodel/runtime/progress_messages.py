"""Progress messages: long work reports itself after every 30 seconds without output, from one thread.

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
"""Seconds without output after which a message says what is being done."""

_SLACK = 0.5
"""Extra seconds, so that other regular output, such as that of training, comes first."""


What = str | Callable[[], str]


class _Task(NamedTuple):
    what: What
    began: float


def _print(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # the stream is closed
        print(text, file=sys.stderr, flush=True)  # noqa: T201


_tasks: list[_Task] = []
_last_output = 0.0
_say: Callable[[str], None] = _print


@contextmanager
def report_progress(what: What) -> Iterator[None]:
    """Within the block, prints `what` and the time taken after each `SILENCE`; of nested blocks, only
    the innermost does. A function is called each time, so that it can report progress."""
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
    """Within the block, progress messages go to `say` instead of standard error."""
    global _say
    before, _say = _say, say
    try:
        yield
    finally:
        _say = before


def note_output() -> None:
    """Something was printed: the next progress message is due after another `SILENCE`."""
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
