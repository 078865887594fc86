"""The worker of one tracker, seen from the process that trains: a thread that never holds up another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from bigmodel.errors import CheckpointError
from bigmodel.reporting import jsonl
from bigmodel.reporting.trackers import described
from bigmodel.reporting.trackers.described import Progress
from bigmodel.reporting.trackers.records import Records
from bigmodel.runtime.processes import exit_reason

PAUSES = (5.0, 300.0)
"""Seconds before a worker is started again: at first, and at most; each pause is twice the last."""

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from bigmodel.reporting.trackers.worker import main
main()
"""


class Supervisor:
    """Starts workers until one of them has sent everything.

    Args:
        name: of the tracker.
        folder: the run's; the description of the run is in it.
        after: the step after which the run goes on; None: nothing of it is changed.
        once: start one worker only, for a run that is over.

    Attributes:
        failure: why a worker has failed, the last that did so by itself.
        done: whether the tracker has everything.
        messages: for the user, as they come, each with its level.
    """

    def __init__(self, name: str, folder: Path, after: int | None = None, *, once: bool = False) -> None:
        self.name, self._folder = name, folder
        self.failure, self.done = "", False
        self.messages: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._after = after
        self._where = ""
        self._told_failure = False
        self._finishing, self._ended = threading.Event(), threading.Event()
        if once:
            self._finishing.set()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def rewind(self, step: int) -> None:
        """The run goes on after an earlier step."""
        with self._lock:
            self._after = step if self._after is None else min(step, self._after)
            self._tell(f"rewind {step}")

    def finish(self) -> None:
        """Nothing more will be recorded: the rest is sent, and the thread ends."""
        with self._lock:
            self._finishing.set()
            self._tell("finish")

    def wait(self, seconds: float | None) -> bool:
        """Waits for the end of the thread, and returns whether it has ended."""
        # Without a limit, `join` would delay signals on some systems.
        deadline = time.monotonic() + (1e9 if seconds is None else seconds)
        while self._thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            self._thread.join(min(left, 0.1))
        return not self._thread.is_alive()

    def end(self) -> None:
        """Ends the worker at once."""
        self._ended.set()
        self._finishing.set()
        with self._lock:
            if self._process is not None:
                _kill(self._process)
        self._thread.join(1.0)

    def unsent(self) -> int:
        """How many records the tracker does not have, as far as is known."""
        progress = None
        with contextlib.suppress(CheckpointError):
            progress = Progress.read(described.progress_path(self._folder, self.name))
        position = 0 if progress is None else progress.position
        return Records(self._folder / jsonl.NAME, position).left()

    def _run(self) -> None:
        pause, most = PAUSES
        while not self._ended.is_set():
            last = self._finishing.is_set()
            began = time.monotonic()
            self._attempt()
            if self.done or last or self._ended.is_set():
                return
            if not self._told_failure and not self._finishing.is_set():  # once: it may go on for hours
                self._told_failure = True
                text = f"{self.name}: {self.failure} Training goes on, and {self.name} is tried again."
                self.messages.put((text, "warning"))
            if time.monotonic() - began > most:  # it had worked for long
                pause = PAUSES[0]
            self._finishing.wait(pause)
            pause = min(2 * pause, most)

    def _attempt(self) -> None:
        """One worker, from start to end."""
        try:
            with self._lock:
                if self._ended.is_set():
                    return
                after = self._after
                process = self._process = _start(self.name, self._folder, after)
                if self._finishing.is_set():
                    self._tell("finish")
        except OSError as error:
            self.failure = f"its process cannot be started: {error}."
            return
        heard = False
        assert process.stdout is not None
        for said in process.stdout:
            with contextlib.suppress(ValueError):
                heard = self._hear(json.loads(said), after)
            if heard:
                break
        with self._lock:
            self._process = None
        if not heard and not self._ended.is_set():
            # Its own end, not that of a process that it has started and that still has its output.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            self.failure = f"its process {exit_reason(process.poll())}."
        _kill(process)
        process.wait()
        for stream in (process.stdin, process.stdout):
            _close(stream)

    def _hear(self, said: dict[str, Any], after: int | None) -> bool:
        """Takes what a worker says; returns whether it was its last word."""
        if "where" in said:
            with self._lock:
                if self._after == after:  # it knows, and has kept it
                    self._after = None
            if said["where"] != self._where:
                self._where = said["where"]
                self.messages.put((f"{self.name}: {self._where}", "info"))
            return False
        if "failed" in said:
            self.failure = f"{said['failed'].rstrip('.')}."
        self.done = "done" in said
        if said.get("done"):
            self.messages.put((f"{self.name}: to send it, type: {said['done']}", "info"))
        return self.done or "failed" in said

    def _tell(self, request: str) -> None:
        """Tells the worker, if there is one; with the lock held. A pipe holds thousands of requests, and
        the worker reads them at once: one that does not is started again."""
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            os.write(process.stdin.fileno(), f"{request}\n".encode())
        except BlockingIOError:
            _kill(process)
        except OSError:  # it has ended, which its thread finds out
            return


def _start(name: str, folder: Path, after: int | None) -> subprocess.Popen[bytes]:
    path = json.dumps([entry for entry in sys.path if entry])  # modules are found where they are here
    arguments = [path, name, str(folder.absolute()), str(-1 if after is None else after)]
    own: dict[str, Any] = {"start_new_session": True}  # Ctrl-C is not for it
    if os.name == "nt":
        own = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **own,
    )  # fmt: skip
    assert process.stdin is not None
    if os.name != "nt":  # which cannot, before Python 3.12
        os.set_blocking(process.stdin.fileno(), False)
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a worker that was not waited for yet, so that its number is not another's, and what it has
    started."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _close(stream: IO[bytes] | None) -> None:
    with contextlib.suppress(OSError):
        if stream is not None:
            stream.close()


def take(messages: SimpleQueue[tuple[str, str]], say: Callable[[str, str], None]) -> None:
    """Shows the user what has come since the last call."""
    with contextlib.suppress(Empty):
        while True:
            say(*messages.get_nowait())
