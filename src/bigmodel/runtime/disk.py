"""Files that are there whole or not at all, after a power cut too; what to say when the disk takes none.

What was written is on the disk only once it was synced: a file's content by syncing the
file, its name by syncing the folder that holds it. A file that was renamed into place before its content
was synced comes back empty.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bigmodel.errors import CheckpointError

_CANNOT_SYNC_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EACCES}
"""What file systems answer that keep names by themselves, and folders that may be written, not read."""


def write_text(path: Path, text: str) -> None:
    """Puts a file of a run in place, as `write_bytes` does.

    Raises:
        CheckpointError: it cannot be written; what was there before still is.
    """
    content = text.encode("utf-8", "backslashreplace")  # a file's name may be no text
    try:
        write_bytes(path, content)
    except OSError as error:
        raise write_error(path, error, len(content)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Puts a file in place: whole, on the disk, under its name.

    At every moment, a power cut included, `path` is the old file or the new one. The new one has the
    mode of the old. One that holds this very content already is left alone.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    if not path.is_symlink() and path.is_file() and _holds(path, content):
        sync(path)  # whoever wrote it may not have
        sync(path.parent)
        return
    with atomic_write(path) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write to; it replaces `path` when the `with` block ends, as `write_bytes` does.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if path.is_file():
                shutil.copymode(path, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the folder may be gone
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are missing; a power cut does not take them away again.

    Raises:
        OSError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync(path.parent)


def sync(path: Path) -> None:
    """Has the disk hold what was written to a file, or which names a folder has.

    Raises:
        OSError: the disk does not take it.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # which opens no folders, and keeps their names by itself
        return
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not is_folder or error.errno not in _CANNOT_SYNC_FOLDERS:
            raise


def free_name(path: Path, what: str) -> Path:
    """A name beside `path` that nothing has: `path.what`, `path.what-2`, …"""
    names = (path.with_name(f"{path.name}.{what}{f'-{n}' if n > 1 else ''}") for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


class HeldFolder:
    """A folder as it is now, distinguished from any other that later gets its name.

    It is held open, so that the system gives its number to no other. A folder that cannot be held, as on
    Windows, counts as being in its place.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None
        with contextlib.suppress(OSError):
            self._handle = os.open(folder, os.O_RDONLY)

    def check(self) -> None:
        """Makes sure that what is written to the folder's name gets there.

        Raises:
            CheckpointError: it was moved or deleted.
        """
        if not self.is_there():
            raise folder_gone_error(self._folder)

    def is_there(self) -> bool:
        """Whether it is where it was."""
        if self._handle is None:
            return True
        try:
            return os.path.samestat(self._folder.stat(), os.fstat(self._handle))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        """Lets go of the folder; from then on it counts as being in its place."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def folder_gone_error(folder: Path) -> CheckpointError:
    """The error of a folder, a run's or a sweep's, that is not where it was."""
    return CheckpointError(
        f"{folder}: is gone: it was moved or deleted while it was in use. A run saved in it can be "
        "resumed from its new place: resume=<the run's folder>."
    )


def write_error(path: Path, error: Exception, needed: int) -> CheckpointError:
    """The error of a file or folder that cannot be written, with what is needed and what is free.

    Args:
        path: what was to be written.
        error: the system's.
        needed: bytes.
    """
    if not path.parent.is_dir():
        return folder_gone_error(path.parent)
    try:
        free = f"{shutil.disk_usage(path.parent).free:,} bytes are free there"
    except OSError as unknown:
        free = f"the free space there is unknown ({unknown.strerror})"
    reason = getattr(error, "strerror", None) or error
    return CheckpointError(
        f"{path}: cannot be written: {reason}. It needs {needed:,} bytes, and {free}. Free some space, "
        "or check the folder's permissions; then continue with resume=<the run's folder>."
    )


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:  # not readable; whoever may write beside it may replace it
        return False


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path) -> None:
    """Refuses what is neither a file nor a folder; to be called before it is opened.

    Raises:
        OSError: it is something else, or not there; `strerror` says what.
    """
    kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        OSError: it is not there, no regular file, or cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    check_regular(path)
    return path.read_text(encoding="utf-8")
