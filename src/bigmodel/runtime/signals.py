"""What to do when the process is asked to stop (SIGTERM, SIGINT, SIGHUP) or to save (SIGUSR1).

Nothing heavy is imported here, so that the handlers are installed before anything else loads. What a
first request to stop does depends on the mode:

* `LEAVE`: nothing can be lost yet; the process exits at once;
* `RAISE`: `Stopped` is raised wherever the program is, like Python's KeyboardInterrupt, but not in an
  import or a destructor, where it might be swallowed, turned into another error, or printed;
* `WAIT`: training checks `pending` after each step, saves, and then raises `Stopped`;
* `OVER`: all work is done; the process exits with its status.

A second request exits at once in any mode: files on disk are complete at any moment. SIGHUP does not
count as a second one: when a terminal is closed, its shell, the kernel and systemd all send signals.
Nor does a signal beside the one by which a queue asks for the process's place: it may send both. Nor,
among processes that train together, one within three seconds: it may be the same, passed on by another.
Signals that are ignored when the process starts, as `nohup` does with SIGHUP, stay ignored.
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
"""Seconds after a request to stop in which the current step may finish; after that it is abandoned
between two micro-batches."""


class Stopped(KeyboardInterrupt):
    """The process was asked to stop.

    Attributes:
        status: the exit status: 128 plus the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS.get(number, f"signal {number}"))
        self.status = 128 + number

    def __reduce__(self) -> tuple[type[Stopped], tuple[int]]:
        return Stopped, (self.status - 128,)


class Pruned(Stopped):
    """A search ends the run: it is worse than others were at the same point.

    Args:
        reason: in words.
    """

    def __init__(self, reason: str) -> None:
        KeyboardInterrupt.__init__(self, reason)
        self.status = 0


_HUNG_UP = getattr(signal, "SIGHUP", None)  # Windows has neither it nor SIGUSR1
_WORDS: dict[int | None, str] = {
    signal.SIGTERM: "terminated",
    signal.SIGINT: "interrupted",
    _HUNG_UP: "the terminal was closed",
    getattr(signal, "SIGUSR2", None): "its time was up, or its place was needed",
}
_STOP, _SAVE = ("SIGTERM", "SIGINT", "SIGHUP"), ("SIGUSR1",)
NUMBERS = tuple(getattr(signal, name) for name in _STOP + _SAVE if hasattr(signal, name))
"""The signals that are handled here."""

_SAVING, _STOPPING = 1, 1000
"""What `Signals.received` has for a request to save; and, with the signal's number, to stop."""

_IMPORT = "<frozen importlib._bootstrap>"


class SignalMode(enum.Enum):
    """What a first request to stop does."""

    LEAVE = enum.auto()
    RAISE = enum.auto()
    WAIT = enum.auto()
    OVER = enum.auto()


class Signals:
    """Requests to stop or to save, and whether they have been handled.

    Args:
        program: the name to print when the process exits at once.

    Attributes:
        pending: whether a request waits for training to handle it.
        received: what has arrived since `tell`, while requests are shared.
        preempted: whether the process was asked to make room, and may be started again later.
        shared: whether training handles only what it is told by `hear`: of several processes that train
            together, each hears of a request at the same step, whichever received it.
        on_leaving: called before the process exits at once; must be fast.
    """

    def __init__(self, program: str = "bigmodel-train") -> None:
        self.pending = self.preempted = self.shared = False
        self.received: list[int] = []
        self.on_leaving: Callable[[], None] = lambda: None
        self._program = program
        self._mode = SignalMode.RAISE
        self._status = 0
        self._hook: Callable[[Any], Any] = sys.unraisablehook
        self._stop: int | None = None
        self._own: int | None = None
        self._pruned: str | None = None
        self._asked = 0.0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handles the process's signals within the block. Python allows that in the main thread only."""
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
        """Handles the process's signals from now on.

        Args:
            before: receives the previous handlers.
        """
        if sys.unraisablehook == self._unraisable:  # already installed
            return
        before = {} if before is None else before
        with contextlib.suppress(ValueError):  # not the main thread
            for number in NUMBERS:
                handler = signal.getsignal(number)
                if handler is signal.SIG_IGN:
                    continue
                save = number == getattr(signal, "SIGUSR1", None)
                signal.signal(number, self._asked_to_save if save else self._asked_to_stop)
                before[number] = handler
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable

    def preempt_on(self, number: int) -> None:
        """Takes a signal for a request to make room, from now on: the process stops, as it would for
        SIGTERM."""
        signal.signal(number, self._asked_to_make_room)

    def enter(self, mode: SignalMode) -> None:
        """Changes what a request to stop does, from now on.

        Raises:
            Stopped: a request has arrived, and the mode is `RAISE`.
        """
        self._mode = mode
        if mode is SignalMode.RAISE:
            self.check()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the block, a request to stop waits until it is acknowledged."""
        before, self._mode = self._mode, SignalMode.WAIT
        try:
            yield
        finally:
            self._mode = before

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Within the block, a request to stop raises Stopped at once: nothing can be lost."""
        before = self._mode
        self.enter(SignalMode.RAISE)
        try:
            yield
        finally:
            self._mode = before

    def check(self) -> None:
        """Raises Stopped if the process was asked to stop, and Pruned if the run is pruned."""
        if self._stop is not None:
            raise Stopped(self._stop)
        if self._pruned is not None:
            raise Pruned(self._pruned)

    def ask_to_stop(self) -> None:
        """Has training save and raise Stopped after the step that is under way, as SIGINT would: for a
        program in which no signals are handled here."""
        self._stop, self._asked = int(signal.SIGINT), time.monotonic()
        self.pending = True

    def prune(self, reason: str) -> None:
        """Has training save and raise Pruned after the step that is under way."""
        self._pruned, self.pending = reason, True

    def acknowledged(self) -> None:
        """Says that everything is saved.

        Raises:
            Stopped: the process was asked to stop.
        """
        self.pending = False
        self.check()

    def take(self) -> int | None:
        """The signal that has arrived since the last call, for a process that passes it on to others."""
        if not self.pending:
            return None
        self.pending = False
        return getattr(signal, "SIGUSR1", None) if self._stop is None else self._stop

    def over(self, status: int) -> None:
        """All work is done: from now on a request to stop exits at once with `status`."""
        self._mode, self._status = SignalMode.OVER, status

    def ignore(self) -> None:
        """Ignores signals while the interpreter shuts down."""
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def status(self, error: BaseException) -> int | None:
        """The exit status if an exception is a request to stop or was caused by one; otherwise None."""
        seen: BaseException | None = error
        while seen is not None:
            if isinstance(seen, KeyboardInterrupt):
                return seen.status if isinstance(seen, Stopped) else 128 + signal.SIGINT
            seen = seen.__cause__ or seen.__context__
        return None

    def urgent(self) -> bool:
        """Whether a request to stop has waited so long that the current step should be abandoned."""
        return self._stop is not None and time.monotonic() - self._asked > PATIENCE

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._mode is SignalMode.OVER:
            os._exit(self._status)
        before = self._own  # that another process was asked before, and this one heard of it, is none
        if before is not None and number == _HUNG_UP:
            return
        waits = self._mode is SignalMode.WAIT
        again = before is not None and not (waits and before == _HUNG_UP) and not self.preempted
        if again and self.shared and time.monotonic() - self._asked < PATIENCE:
            return  # a queue tells this process and the one that has started it, which passes it on
        if again or self._mode is SignalMode.LEAVE:
            self._leave(number)
        self._own, self._asked = number, time.monotonic()
        if waits and self.shared:
            self.received.append(_STOPPING + number)
            return
        self._stop, self.pending = number, True
        if self._mode is SignalMode.RAISE:
            self._raise(frame)

    def _asked_to_make_room(self, number: int, frame: FrameType | None) -> None:
        self.preempted = True
        if self._stop is None:
            self._asked_to_stop(number, frame)

    def _asked_to_save(self, _: int, __: FrameType | None) -> None:
        if self.shared:
            self.received.append(_SAVING)
        else:
            self.pending = True

    def tell(self) -> int:
        """The request that has arrived here since the last call; 0: none. One that arrives meanwhile, or
        later, is told by the next call: processes that train together mostly wait for each other."""
        largest = 0
        while self.received:
            largest = max(largest, self.received.pop())
        return largest

    def hear(self, request: int) -> None:
        """Takes the largest of what several processes tell for a request to this one."""
        if request >= _STOPPING:
            self._stop, self._asked = request - _STOPPING, time.monotonic()
        self.pending = self.pending or request > 0

    def _raise(self, frame: FrameType | None) -> None:
        """Raises Stopped in a frame; if it is importing something, after the import."""
        outside = _importer(frame)
        if outside is None:
            self.check()
        else:
            self._raise_later(outside)

    def _raise_later(self, frame: FrameType) -> None:
        """Raises Stopped when a frame continues, with a trace function, as debuggers do."""
        before = sys.gettrace()

        def stop(*_: object) -> None:
            frame.f_trace = None
            sys.settrace(before)
            self.check()

        frame.f_trace = stop
        sys.settrace(before or (lambda *_: None))

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        """Python drops exceptions in destructors, so Stopped is raised in the caller instead."""
        frame = sys._getframe().f_back
        if not isinstance(lost.exc_value, Stopped):
            self._hook(lost)
        elif frame is not None:
            self._raise_later(_importer(frame) or frame)

    def _leave(self, number: int) -> None:
        """Exits at once, without unwinding."""
        try:
            self.on_leaving()
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h")  # a live bar has hidden the cursor
            os.write(2, f"{self._program}: Stopped.\n".encode())
        finally:
            os._exit(128 + number)


def _importer(frame: FrameType | None) -> FrameType | None:
    """The outermost frame from `frame` on that is importing something, if any."""
    outermost, inside = None, False
    while frame is not None:
        imports = frame.f_code.co_filename == _IMPORT
        if inside and not imports:
            outermost = frame
        frame, inside = frame.f_back, imports
    return outermost


def interruptible(work: Callable[[], T]) -> T:
    """Runs `work` in another thread, so that this one handles signals meanwhile; for libraries that
    release the GIL. If a signal interrupts it, `work` continues until the process ends.

    Raises:
        BaseException: whatever `work` raises.
    """
    import threading  # needed only here

    results: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # a panic in Rust is no Exception
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)  # without a limit, join delays signals on some systems
    if raised:
        raise raised[0]
    return results[0]
