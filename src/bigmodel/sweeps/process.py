"""The process of one job, seen from both ends.

The parent forks it from a process that has imported everything, so that a job begins within
milliseconds. The parent itself computes nothing with torch: a child forked after a threaded operation
would wait for threads that it does not have. Where there is no safe fork (macOS, Windows), processes are
spawned.

A job is prepared before its turn comes: its process composes the configuration, then waits for a slot.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bigmodel.errors import BigModelError, DeviceError
from bigmodel.runtime.processes import context, exit_reason, print_to
from bigmodel.sweeps.jobs import Job, Outcome

_SIGNALS = {
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if (number := getattr(signal, name, None))
}


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time.

    Attributes:
        name: for tables, such as `gpu 1`; empty on a CPU.
        environment: variables that a job's process is given before it uses a device.
    """

    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


class OrphanedError(Exception):
    """The sweep's own process is gone."""


class Channel:
    """A job's line to its sweep.

    Args:
        connection: to the parent.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def wait_for_slot(self) -> None:
        """Says that the job is prepared, and waits until there is room for it.

        Raises:
            OrphanedError: the sweep is gone.
        """
        self._send("ready")
        os.environ.update(self._receive())

    def started(self, folder: Path) -> None:
        """The job owns its folder from now on. Returns once the sweep has recorded that: else a folder
        that was written to before a kill would be taken for a stranger's afterwards.

        Raises:
            OrphanedError: the sweep is gone.
        """
        self._send("started", folder)
        self._receive()

    def progressed(self, report: dict[str, Any]) -> None:
        """Where the job stands; see `Observer.progressed`."""
        self._send("progressed", report)

    def evaluated(self, evaluation: int, value: float) -> int | None:
        """See `Line.evaluated`: this one, if any.

        Raises:
            OrphanedError: the sweep is gone.
        """
        self._send("evaluated", evaluation, value)
        return evaluation if self._receive() else None

    def ended(self, outcome: Outcome) -> None:
        """The job is over."""
        self._send("ended", outcome)

    def imported(self, modules: list[str]) -> None:
        """The job had to import these modules of ours."""
        self._send("imported", modules)

    def _send(self, *message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise OrphanedError from error

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise OrphanedError from error


_SHARED = ("bigmodel.", "numpy.", "PIL.")

Work = Callable[[Job, Channel], None]
"""What a job does, in its own process; it has to report its outcome."""


class JobProcess:
    """A job's process, for the launcher.

    Args:
        job: what it runs.
        work: what it does.
        log: the file for what it prints.
        inherited: the launcher's ends of other jobs' lines, which a forked process has to close: a line
            is known to be cut only when nobody holds its other end.

    Attributes:
        slot: where it runs; None while it waits.
    """

    def __init__(self, job: Job, work: Work, log: Path, inherited: Iterable[Connection] = ()) -> None:
        self.job = job
        self._log = log
        self.slot: Slot | None = None
        self.outcome: Outcome | None = None
        self.folder: Path | None = None
        self.ready = False
        processes = context()
        self.connection, theirs = processes.Pipe()
        to_close = [*inherited, self.connection] if processes.get_start_method() == "fork" else []
        self._process = processes.Process(  # type: ignore[attr-defined]
            target=_run, args=(job, work, theirs, log, to_close), name=f"job {job.number}"
        )
        with _signals_blocked():  # a child would take them for its parent
            self._process.start()
        theirs.close()

    @property
    def sentinel(self) -> int:
        """Becomes readable when the process ends."""
        return int(self._process.sentinel)

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return bool(self._process.is_alive())

    def run_in(self, slot: Slot) -> None:
        """Lets the job go on, now that there is room for it."""
        self.slot = slot
        self.answer(dict(slot.environment))

    def answer(self, message: Any) -> None:
        """Answers what the job has asked."""
        with contextlib.suppress(OSError):  # it has ended, which its sentinel says
            self.connection.send(message)

    def messages(self) -> Iterable[tuple[Any, ...]]:
        """What the job has said since the last call."""
        try:
            while self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            return

    def signal(self, number: int) -> None:
        """Sends the process a signal, if it is there."""
        if not self._process.is_alive() or self._process.pid is None:
            return
        if number == getattr(signal, "SIGKILL", None):  # it cannot end its own processes itself
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def close(self) -> Outcome:
        """Waits for the end of the process, and returns how the job ended."""
        self._process.join()
        self.connection.close()
        with contextlib.suppress(OSError):
            if not self._log.stat().st_size:
                self._log.unlink()
        status = self._process.exitcode
        self._process.close()
        if self.outcome is not None:
            return self.outcome
        asked = status is not None and status - 128 in _SIGNALS  # told twice to stop, it left at once
        return Outcome("stopped" if asked else "failed", _reason(status), self.folder)


def call(function: Callable[[], Any]) -> Any:
    """The result of a function, called in a process of its own: this one computes nothing.

    Raises:
        BigModelError: the function raised it, or the process was ended from outside.
        RuntimeError: the process ended otherwise.
    """
    processes = context()
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_answer, args=(function, theirs))  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    try:
        result, modules = ours.recv()
    except EOFError:
        process.join()
        reason = _reason(process.exitcode)
        if process.exitcode < 0:
            raise DeviceError(f"Preparing the sweep failed: {reason}") from None
        raise RuntimeError(reason) from None
    process.join()
    import_modules(modules)
    if isinstance(result, BigModelError):
        raise result
    return result


def _answer(function: Callable[[], Any], connection: Connection) -> None:
    # Ctrl-C at a terminal reaches both processes, and one message is enough.
    for number in _SIGNALS - {getattr(signal, "SIGUSR1", None)}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    before = set(sys.modules)
    try:
        result = function()
    except BigModelError as error:
        result = error
    with contextlib.suppress(OSError):  # the sweep was stopped meanwhile
        connection.send((result, _own_modules(before)))


def _own_modules(before: set[str]) -> list[str]:
    """Modules of ours, and of numpy and Pillow, that were imported since then."""
    new = sys.modules.keys() - before
    return sorted(name for name in new if name.startswith(_SHARED))


def import_modules(names: Iterable[str]) -> None:
    """Imports what a child had to, so that those forked later need not. Only modules are, that
    neither compute nor start threads when they are imported; a plugin's might."""
    for name in names:
        with contextlib.suppress(ImportError):  # a plugin can call its own modules as it likes
            importlib.import_module(name)


def _reason(status: int | None) -> str:
    """Why a process ended that has not said so."""
    reason = exit_reason(status)
    hint = ", as the system does when memory is short" if reason.endswith("SIGKILL") else ""
    return f"its process {reason}{hint}"


@contextlib.contextmanager
def _signals_blocked() -> Any:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(job: Job, work: Work, connection: Connection, log: Path, to_close: list[Connection]) -> None:
    """The whole of a job's process."""
    for other in to_close:
        other.close()
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C goes to the sweep alone, which decides what its jobs are told
    print_to(log, 0o666)
    faulthandler.enable(2)  # the log says where a library crashed
    before = set(sys.modules)
    channel = Channel(connection)
    # Signals stay blocked until the work handles them itself.
    work(job, channel)
    if modules := _own_modules(before):
        with contextlib.suppress(OrphanedError):
            channel.imported(modules)
    sys.stdout.flush()
    sys.stderr.flush()


def unblock_signals() -> None:
    """To be called by the work once its handlers stand: until then, signals wait."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
