"""Locks between processes: what one makes, others wait for."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from pathlib import Path

_POLL = 0.1  # seconds between two attempts: a process that waits in the system could not be interrupted
_TAKEN = {errno.EAGAIN, errno.EACCES}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Within it, no other process has the lock on a file. The system frees it when the process ends,
    however it ends.

    Args:
        path: the file, which is created and stays.

    Yields:
        Whether there is a lock. Windows and some network disks have none: there, work is done twice at
        worst.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("w") as file:
        yield _acquire(file.fileno())


def _acquire(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _TAKEN:
                return False
        else:
            return True
        time.sleep(_POLL)
