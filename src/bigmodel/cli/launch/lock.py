"""A run's folder belongs to one process at a time.

The holder holds a lock on `.lock` in the folder, which names it. The system gives the lock back when the
process ends, however it ends, so that a file that was left behind keeps nobody out. It is a POSIX record
lock: processes forked from the holder do not have it.

The first byte is the holder's alone. Who only looks shares the rest for that moment, which keeps neither
an holder out nor another who looks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from bigmodel.errors import CheckpointError
from bigmodel.runtime import disk, nested_json

try:
    import fcntl
except ImportError:  # Windows has none: there, what the file says has to do
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
_PREFIX = '{"pid": '
_LOCKED_ERRORS = {errno.EACCES, errno.EAGAIN}
_WAIT_SECONDS = 0.3
"""Seconds in which an holder that has just ended takes the file away."""
_CAN_PROBE = os.name != "nt"
"""Whether a process can be asked whether it is there; on Windows that would be Ctrl-C."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it, the folder is this process's.

    Raises:
        CheckpointError: another process has it, it cannot be written to, or the file is none of ours.
    """
    path = folder / NAME
    try:
        file = _acquire(path)
    except OSError as error:
        raise disk.write_error(path, error, len(_own_record())) from error
    try:
        yield
    finally:
        _release(path, file)


def holder(folder: Path) -> str | None:
    """Who has a run's folder now, in words; None where nobody has it."""
    try:
        with _opened(folder / NAME, "r+") as file:
            return _blocking_holder(file, _lock_to_look)
    except OSError:
        return None


def _opened(path: Path, mode: str) -> IO[str]:
    """The file itself: through a link, whatever it leads to would be written over."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    return open(path, mode, encoding="utf-8", errors="replace", opener=opener)


def _acquire(path: Path) -> IO[str]:
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        file = _opened(path, "a+")
        try:
            other = _blocking_holder(file, _lock_exclusively)
            if other is not None and time.monotonic() > until:
                raise CheckpointError(
                    f"{path.parent}: this run is already running, in {other}. Wait for it, or stop it"
                    " first."
                )
            if other is None and _is_same_file(path, file):
                if not _is_lock_file(file):
                    raise CheckpointError(
                        f"{path}: is not what a run writes there, and would be overwritten. Move it"
                        " away."
                    )
                try:
                    file.truncate(0)
                    os.write(file.fileno(), _own_record().encode())  # unbuffered
                except OSError:  # a full disk
                    _release(path, file)
                    raise
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its holder has just ended and taken the file away
        time.sleep(0.01)


def _release(path: Path, file: IO[str]) -> None:
    """Removes the file while it is locked, so that nobody can have taken it; not one that was moved with
    its folder, or another's that stands in its place."""
    with contextlib.suppress(OSError):  # the folder may be gone
        if _is_same_file(path, file):
            file.truncate(0)  # Windows removes no file that is open
            path.unlink()
    file.close()


def _lock_exclusively(file: IO[str]) -> None:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
    fcntl.lockf(file, fcntl.LOCK_EX, 0, 1)  # waits for those who look


def _lock_to_look(file: IO[str]) -> None:
    fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 0, 1)


def _blocking_holder(file: IO[str], lock: Callable[[IO[str]], None]) -> str | None:
    """Takes the holder's part of the lock or a looker's; or says who has it."""
    if fcntl is not None:
        try:
            lock(file)
            return None
        except OSError as error:
            if error.errno in _LOCKED_ERRORS:
                return _recorded_holder(file)[0]
            # a file system without locks: what the file says has to do
    words, alive = _recorded_holder(file)
    return words if alive else None


def _is_lock_file(file: IO[str]) -> bool:
    """Whether an holder wrote it, or was about to; a power cut may have left zeros."""
    file.seek(0)
    begun = file.read(len(_PREFIX)).strip("\0")
    return _PREFIX.startswith(begun)


def _recorded_holder(file: IO[str]) -> tuple[str, bool]:
    """Who the file says that its holder is, and whether that process may be alive."""
    file.seek(0)
    try:
        found: dict[str, Any] = nested_json.loads(file.read())
        pid, host, started = int(found["pid"]), str(found["host"]), str(found["started"])
    except (ValueError, KeyError, TypeError, OverflowError):  # not written yet, or cut off
        return "another process", False
    words = f"process {pid} on {host}, since {started}"
    if host != socket.gethostname() or not _CAN_PROBE:
        return f"{words} (if it has ended, remove {file.name})", True
    return words, pid != os.getpid() and _is_alive(pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _is_same_file(path: Path, file: IO[str]) -> bool:
    """Whether the path leads to the very file that was locked."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _own_record() -> str:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": now})
