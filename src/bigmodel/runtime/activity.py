"""Signs of life: whatever takes long says so, every 30 seconds without a word, by one thread.

    with activity.report_progress("Learning pieces of words"):
        …

`interruptible` keeps a process answering to signals while a library computes.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

T = TypeVar("T")

SILENCE = 30.0
"""Seconds without a word after which a line says what is being done."""

_SLACK = 0.5
"""Seconds that are left to whoever has more to say than that, such as training."""


What = str | Callable[[], str]


class _Work(NamedTuple):
    what: What
    began: float


def _to_stderr(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody reads
        print(text, file=sys.stderr, flush=True)  # noqa: T201


_works: list[_Work] = []
_spoken = 0.0
_say: Callable[[str], None] = _to_stderr


@contextmanager
def report_progress(what: What) -> Iterator[None]:
    """Within it, `what` is told after each `SILENCE`, and for how long it has been done; of several, one
    in the other, the innermost. A function is asked then, so that it can say how far the work is."""
    global _spoken
    outermost = not _works
    work = _Work(what, time.monotonic())
    _works.append(work)
    over = threading.Event()
    if outermost:
        _spoken = time.monotonic()
        threading.Thread(target=_beat, args=(over,), name="signs of life", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        _works.remove(work)


@contextmanager
def reporting_to(say: Callable[[str], None]) -> Iterator[None]:
    """Within it, signs of life are lines that `say` is given; else they go to standard error."""
    global _say
    before, _say = _say, say
    try:
        yield
    finally:
        _say = before


def note_output() -> None:
    """Something was said: the next sign of life is not due before another `SILENCE`."""
    global _spoken
    _spoken = time.monotonic()


def interruptible(work: Callable[[], T]) -> T:
    """What `work` gives, which a library does without holding Python up: done by another thread, so that
    this one answers to signals meanwhile. What is left in this way goes on until the process ends.

    Raises:
        BaseException: whatever `work` raises.
    """
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            given.append(work())
        except BaseException as error:  # a panic of a library in Rust is no Exception
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)  # a join without a limit would hold signals up on some systems
    if raised:
        raise raised[0]
    return given[0]


def _beat(over: threading.Event) -> None:
    while not over.wait(max(0.0, _spoken + SILENCE + _SLACK - time.monotonic())):
        works = list(_works)
        if works and time.monotonic() - _spoken >= SILENCE:
            what, began = works[-1]
            note_output()
            told = what if isinstance(what, str) else what()
            _say(f"{told}, {_words(time.monotonic() - began)} so far")


def _words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest:02d} s" if minutes else f"{rest} s"
