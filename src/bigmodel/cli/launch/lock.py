"""The lock of a run's folder: one process at a time uses it.

The holder locks the file `.lock` in the folder, and describes itself in it. The system releases the lock
when the process ends, however it ends, so a stale file locks nobody out. It is a POSIX record lock:
processes forked from the holder do not have it.

The first byte is locked exclusively by the holder. To find out who that is, a process takes a shared
lock on the rest for a moment, which blocks neither a new holder nor other readers.
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
except ImportError:  # Windows has none: there, the content of the file must be enough
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
_PREFIX = '{"pid": '
_LOCKED_ERRORS = {errno.EACCES, errno.EAGAIN}
_WAIT_SECONDS = 0.3
"""Seconds to wait for a holder that is ending to remove the file."""
_CAN_PROBE = os.name != "nt"
"""Whether signal 0 tests if a process exists; on Windows it would send Ctrl-C."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock within the block.

    Raises:
        CheckpointError: another process holds it, the folder cannot be written to, or `.lock` is another
            kind of file.
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
    """A description of the process that holds a run's folder; None if there is none."""
    try:
        with _opened(folder / NAME, "r+") as file:
            return _blocking_holder(file, _lock_shared)
    except OSError:
        return None


def _opened(path: Path, mode: str) -> IO[str]:
    """Opens the file itself: following a link would overwrite its target."""

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
        file.close()  # its holder has just ended and removed the file
        time.sleep(0.01)


def _release(path: Path, file: IO[str]) -> None:
    """Removes the file while it is still locked, so that nobody else holds it; not if it was moved with
    its folder, or replaced by another."""
    with contextlib.suppress(OSError):  # the folder may be gone
        if _is_same_file(path, file):
            file.truncate(0)  # Windows does not remove open files
            path.unlink()
    file.close()


def _lock_exclusively(file: IO[str]) -> None:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
    fcntl.lockf(file, fcntl.LOCK_EX, 0, 1)  # waits for readers


def _lock_shared(file: IO[str]) -> None:
    fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 0, 1)


def _blocking_holder(file: IO[str], lock: Callable[[IO[str]], None]) -> str | None:
    """Takes the exclusive or shared lock and returns None, or returns a description of the holder."""
    if fcntl is not None:
        try:
            lock(file)
            return None
        except OSError as error:
            if error.errno in _LOCKED_ERRORS:
                return _recorded_holder(file)[0]
            # a file system without locks: the content of the file must be enough
    words, alive = _recorded_holder(file)
    return words if alive else None


def _is_lock_file(file: IO[str]) -> bool:
    """Whether a holder wrote it or was about to; a power cut may have left zeros."""
    file.seek(0)
    start = file.read(len(_PREFIX)).strip("\0")
    return _PREFIX.startswith(start)


def _recorded_holder(file: IO[str]) -> tuple[str, bool]:
    """The holder as recorded in the file, and whether that process may be alive."""
    file.seek(0)
    try:
        record: dict[str, Any] = nested_json.loads(file.read())
        pid, host, started = int(record["pid"]), str(record["host"]), str(record["started"])
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
    except OSError:  # another user's
        return True
    return True


def _is_same_file(path: Path, file: IO[str]) -> bool:
    """Whether the path still leads to the locked file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _own_record() -> str:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": now})
