"""What to do when the process is asked to stop (SIGTERM, SIGINT) or to save (SIGUSR1).

Nothing heavy is imported here, so that the handlers stand before torch begins to load. What a first
request to stop does depends on what the program is doing:

* `LEAVE`: nothing has begun that could be lost; the process is left at once;
* `RAISE`: `Stopped` is raised wherever the program is, as Python does it on Ctrl-C;
* `WAIT`: it is noted; training looks at `pending` after each step, saves, and then raises `Stopped`.

A second request leaves at once, whatever is going on: what lies on the disk is whole at every moment.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

PATIENCE = 3.0
"""Seconds after a request to stop in which a step that is under way is finished; after that it is left
between two of its micro-batches."""


class Stopped(KeyboardInterrupt):
    """The process was asked to stop.

    Attributes:
        status: the exit status that says so: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS.get(number, f"signal {number}"))
        self.status = 128 + number


_WORDS: dict[int, str] = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}


class Mode(enum.Enum):
    """What a first request to stop does."""

    LEAVE = enum.auto()
    RAISE = enum.auto()
    WAIT = enum.auto()


class Signals:
    """Requests from outside, and whether they have been heeded.

    Attributes:
        pending: whether anything was asked for that training has not done yet.
        on_leaving: what to do before the process is left without further ado; must be quick.
    """

    def __init__(self) -> None:
        self.pending = False
        self.on_leaving: Callable[[], None] = lambda: None
        self._mode = Mode.RAISE
        self._stop: int | None = None
        self._asked = 0.0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Within it, the process's signals come here. Python allows that in the main thread only."""
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
            signal.SIGTERM: self._asked_to_stop,
            signal.SIGINT: self._asked_to_stop,
        }
        if hasattr(signal, "SIGUSR1"):  # Windows has none
            handlers[signal.SIGUSR1] = self._asked_to_save
        if threading.current_thread() is not threading.main_thread():
            handlers = {}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def enter(self, mode: Mode) -> None:
        """Changes what a request to stop does, from now on.

        Raises:
            Stopped: one came in meanwhile, and the mode is `RAISE`.
        """
        self._mode = mode
        if mode is Mode.RAISE:
            self.check()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it, a request to stop waits until it is heeded."""
        before, self._mode = self._mode, Mode.WAIT
        try:
            yield
        finally:
            self._mode = before

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Within it, a request to stop raises Stopped at once: nothing is at stake."""
        before = self._mode
        self.enter(Mode.RAISE)
        try:
            yield
        finally:
            self._mode = before

    def check(self) -> None:
        """Raises Stopped where the process was asked to stop."""
        if self._stop is not None:
            raise Stopped(self._stop)

    def heeded(self) -> None:
        """Tells that everything is saved.

        Raises:
            Stopped: the process was asked to stop.
        """
        self.pending = False
        self.check()

    def urgent(self) -> bool:
        """Whether a request to stop has waited so long that even a step should be left."""
        return self._stop is not None and time.monotonic() - self._asked > PATIENCE

    def _asked_to_stop(self, number: int, _: FrameType | None) -> None:
        again, self._stop = self._stop is not None, number
        self.pending, self._asked = True, time.monotonic()
        if again or self._mode is Mode.LEAVE:
            self._leave(number)
        if self._mode is Mode.RAISE:
            raise Stopped(number)

    def _asked_to_save(self, _: int, __: FrameType | None) -> None:
        self.pending = True

    def _leave(self, number: int) -> None:
        """Ends the process here and now, without unwinding what may be half done."""
        try:
            self.on_leaving()
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h")  # a live bar has hidden the cursor
        finally:
            os._exit(128 + number)
