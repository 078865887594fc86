"""What to do when the process is asked to stop (SIGTERM, SIGINT, SIGHUP) or to save (SIGUSR1).

Nothing heavy is imported here, so that the handlers stand before anything else begins to load. What a
first request to stop does depends on what the program is doing:

* `LEAVE`: nothing has begun that could be lost; the process is left at once;
* `RAISE`: `Stopped` is raised wherever the program is, as Python does it on Ctrl-C, but not within an
  import or a destructor, where it might be swallowed, turned into another error, or printed;
* `WAIT`: it is noted; training looks at `pending` after each step, saves, and then raises `Stopped`;
* `OVER`: all is done; the process is left with the status of its work.

A second request leaves at once, whatever is going on: what lies on the disk is whole at every moment.
SIGHUP is no second one: when a terminal is closed, its shell, the kernel and systemd all send signals.
What is ignored when the process starts, as `nohup` has it with SIGHUP, stays ignored.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` itself takes longer to load than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any, TypeVar

    T = TypeVar("T")

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


_HUNG_UP = getattr(signal, "SIGHUP", None)  # Windows has neither it nor SIGUSR1
_WORDS: dict[int | None, str] = {
    signal.SIGTERM: "terminated",
    signal.SIGINT: "interrupted",
    _HUNG_UP: "the terminal was closed",
}
_STOP, _SAVE = ("SIGTERM", "SIGINT", "SIGHUP"), ("SIGUSR1",)
NUMBERS = tuple(getattr(signal, name) for name in _STOP + _SAVE if hasattr(signal, name))
"""The signals that are handled here."""

_IMPORT = "<frozen importlib._bootstrap>"


class SignalMode(enum.Enum):
    """What a first request to stop does."""

    LEAVE = enum.auto()
    RAISE = enum.auto()
    WAIT = enum.auto()
    OVER = enum.auto()


class Signals:
    """Requests from outside, and whether they have been acknowledged.

    Args:
        program: whose name is printed when the process ends at once.

    Attributes:
        pending: whether a request is waiting for training to act on it.
        on_leaving: what to do before the process ends at once; must be quick.
    """

    def __init__(self, program: str = "bigmodel-train") -> None:
        self.pending = False
        self.on_leaving: Callable[[], None] = lambda: None
        self._program = program
        self._mode = SignalMode.RAISE
        self._status = 0
        self._hook: Callable[[Any], Any] = sys.unraisablehook
        self._stop: int | None = None
        self._asked = 0.0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Within it, the process's signals come here. Python allows that in the main thread only."""
        before: dict[int, Any] = {}
        hook = sys.unraisablehook
        try:
            self.install(before)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.unraisablehook = hook

    def install(self, before: dict[int, Any] | None = None) -> None:
        """Has the process's signals come here from now on.

        Args:
            before: is given the handlers that stood there.
        """
        if sys.unraisablehook == self._unraisable:  # they do already
            return
        before = {} if before is None else before
        with contextlib.suppress(ValueError):  # another thread than the main one
            for number in NUMBERS:
                handler = signal.getsignal(number)
                if handler is signal.SIG_IGN:
                    continue
                save = number == getattr(signal, "SIGUSR1", None)
                signal.signal(number, self._asked_to_save if save else self._asked_to_stop)
                before[number] = handler
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable

    def enter(self, mode: SignalMode) -> None:
        """Changes what a request to stop does, from now on.

        Raises:
            Stopped: one came in meanwhile, and the mode is `RAISE`.
        """
        self._mode = mode
        if mode is SignalMode.RAISE:
            self.check()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it, a request to stop waits until it is acknowledged."""
        before, self._mode = self._mode, SignalMode.WAIT
        try:
            yield
        finally:
            self._mode = before

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Within it, a request to stop raises Stopped at once: nothing can be lost."""
        before = self._mode
        self.enter(SignalMode.RAISE)
        try:
            yield
        finally:
            self._mode = before

    def check(self) -> None:
        """Raises Stopped where the process was asked to stop."""
        if self._stop is not None:
            raise Stopped(self._stop)

    def acknowledged(self) -> None:
        """Says that everything is saved.

        Raises:
            Stopped: the process was asked to stop.
        """
        self.pending = False
        self.check()

    def over(self, status: int) -> None:
        """All work is done: a request to stop now ends the process at once, with `status`."""
        self._mode, self._status = SignalMode.OVER, status

    def ignore(self) -> None:
        """Ignores signals while the interpreter shuts down: nothing of ours runs any more."""
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def status(self, error: BaseException) -> int | None:
        """The exit status where an exception is a request to stop, or came from one on a detour."""
        seen: BaseException | None = error
        while seen is not None:
            if isinstance(seen, KeyboardInterrupt):
                return seen.status if isinstance(seen, Stopped) else 128 + signal.SIGINT
            seen = seen.__cause__ or seen.__context__
        return None

    def urgent(self) -> bool:
        """Whether a request to stop has waited so long that even a step should be left."""
        return self._stop is not None and time.monotonic() - self._asked > PATIENCE

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._mode is SignalMode.OVER:
            os._exit(self._status)
        before = self._stop
        if before is not None and number == _HUNG_UP:
            return
        waits = self._mode is SignalMode.WAIT
        again = before is not None and not (waits and before == _HUNG_UP)
        self._stop, self.pending, self._asked = number, True, time.monotonic()
        if again or self._mode is SignalMode.LEAVE:
            self._leave(number)
        if self._mode is SignalMode.RAISE:
            self._raise(frame)

    def _asked_to_save(self, _: int, __: FrameType | None) -> None:
        self.pending = True

    def _raise(self, frame: FrameType | None) -> None:
        """Raises Stopped in a frame; if that is importing something, once the import is done."""
        outside = _importer(frame)
        if outside is None:
            self.check()
        else:
            self._raise_later(outside)

    def _raise_later(self, frame: FrameType) -> None:
        """Raises Stopped in a frame once it continues, by a trace function, as debuggers do."""
        before = sys.gettrace()

        def stop(*_: object) -> None:
            frame.f_trace = None
            sys.settrace(before)
            self.check()

        frame.f_trace = stop
        sys.settrace(before or (lambda *_: None))

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        """Python drops what a destructor raises; a request to stop is raised in its caller instead."""
        frame = sys._getframe().f_back
        if not isinstance(lost.exc_value, Stopped):
            self._hook(lost)
        elif frame is not None:
            self._raise_later(_importer(frame) or frame)

    def _leave(self, number: int) -> None:
        """Ends the process at once, without unwinding what may be half done."""
        try:
            self.on_leaving()
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h")  # a live bar has hidden the cursor
            os.write(2, f"{self._program}: Stopped.\n".encode())
        finally:
            os._exit(128 + number)


def _importer(frame: FrameType | None) -> FrameType | None:
    """The frame that is importing something, the outermost of those below `frame`, if any."""
    found, inside = None, False
    while frame is not None:
        imports = frame.f_code.co_filename == _IMPORT
        if inside and not imports:
            found = frame
        frame, inside = frame.f_back, imports
    return found


def interruptible(work: Callable[[], T]) -> T:
    """The result of `work`, computed by another thread so that this one handles signals meanwhile; for
    libraries that release the GIL. Work that a signal interrupts goes on until the process ends.

    Raises:
        BaseException: whatever `work` raises.
    """
    import threading  # as heavy as all of this, and needed only here

    results: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # a panic of a library in Rust is no Exception
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)  # a join without a limit would hold signals up on some systems
    if raised:
        raise raised[0]
    return results[0]
