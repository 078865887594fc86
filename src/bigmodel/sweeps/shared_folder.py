"""The folder for data that a sweep's jobs share: locked by the sweep, and removed if it was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "bigmodel-sweep-"

_OWNER = "owner"
"""A file that the sweep, and each job's process with it, holds locked."""


@contextlib.contextmanager
def shared_folder(place: Path) -> Iterator[Path]:
    """A folder for one sweep, which is removed afterwards; those of sweeps that were killed are removed
    before.

    Args:
        place: private to the user; if it cannot be made, the system's temporary folder takes its place.
    """
    with contextlib.suppress(OSError):
        place.mkdir(exist_ok=True)
    remove_abandoned(place)
    where = place if place.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=where) as folder, owned(Path(folder)):
        yield Path(folder)


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Within it, the folder counts as in use; also by processes that are forked meanwhile."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / _OWNER).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_abandoned(place: Path) -> None:
    """Removes the folders of sweeps that were killed.

    Args:
        place: the folder that they lie in.
    """
    try:
        import fcntl
    except ImportError:
        return
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, in use, or gone
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _OWNER).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
