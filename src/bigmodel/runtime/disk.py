"""Atomic writes that survive a power cut, and the errors of a full disk or lost folder.

Data is on the disk only once it is synced: a file's content by syncing the file, its name by syncing the
folder that holds it. A file that is renamed into place before its content is synced may come back empty.
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
"""Errors of file systems that sync names by themselves, and of folders that cannot be read."""


def write_text(path: Path, text: str) -> None:
    """Writes a file of a run, as `write_bytes` does.

    Raises:
        CheckpointError: it cannot be written; an existing file is unchanged.
    """
    content = text.encode("utf-8", "backslashreplace")  # file names may not be valid text
    try:
        write_bytes(path, content)
    except OSError as error:
        raise write_error(path, error, len(content)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically and syncs it.

    At every moment, even in a power cut, `path` is the old file or the new one. The new one gets the
    mode of the old. If the content is unchanged, the file is only synced. A special path is
    written to; see `is_special`.

    Raises:
        OSError: it cannot be written; an existing file is unchanged.
    """
    if is_special(path):
        with path.open("ab") as stream:  # /dev/stdout may be a file to which others write, too
            stream.write(content)
        return
    if not path.is_symlink() and path.is_file() and _holds(path, content):
        sync(path)  # it may not have been synced
        sync(path.parent)
        return
    with atomic_write(path) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write to; at the end of the block it replaces `path`, as `write_bytes` does.

    Raises:
        OSError: it cannot be written; an existing file is unchanged.
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


def is_special(path: Path) -> bool:
    """Whether a path leads to a pipe, a device or an open file, such as /dev/stdout: no file may replace
    it."""
    if path.is_symlink() and any(
        place.is_relative_to("/proc") for place in (path.parent.resolve(), path.parent / path.readlink())
    ):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def make_folder(folder: Path) -> None:
    """Creates a folder and its missing parents, and syncs them.

    Raises:
        OSError: it cannot be created.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync(path.parent)


def sync(path: Path) -> None:
    """Syncs a file's content, or a folder's names, to the disk.

    Raises:
        OSError: it fails.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows cannot open folders, and syncs names by itself
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
    """An unused name beside `path`: `path.what`, `path.what-2`, …"""
    names = (path.with_name(f"{path.name}.{what}{f'-{n}' if n > 1 else ''}") for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


class HeldFolder:
    """Detects that a folder was moved, deleted or replaced.

    It keeps the folder open, so that the system does not reuse its inode. A folder that cannot be
    opened, as on Windows, counts as unchanged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None
        with contextlib.suppress(OSError):
            self._handle = os.open(folder, os.O_RDONLY)

    def check(self) -> None:
        """Checks that the folder is still at its path.

        Raises:
            CheckpointError: it was moved or deleted.
        """
        if not self.is_there():
            raise folder_gone_error(self._folder)

    def is_there(self) -> bool:
        """Whether the folder is still at its path."""
        if self._handle is None:
            return True
        try:
            return os.path.samestat(self._folder.stat(), os.fstat(self._handle))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        """Closes the folder; from then on it counts as unchanged."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def folder_gone_error(folder: Path) -> CheckpointError:
    """The error for a folder of a run or sweep that was moved or deleted."""
    return CheckpointError(
        f"{folder}: is gone: it was moved or deleted while it was in use.",
        "A run saved in it can be resumed from its new place: resume=<the run's folder>.",
    )


def write_error(path: Path, error: Exception, needed: int) -> CheckpointError:
    """The error for a file or folder that cannot be written, with the space that is needed and free.

    Args:
        path: the file or folder.
        error: the system's error.
        needed: bytes to be written.
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
        "or check the folder's permissions.",
        "Then continue with resume=<the run's folder>.",
    )


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:  # not readable, but perhaps replaceable
        return False


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path) -> None:
    """Refuses anything but regular files and folders; call it before opening a file.

    Raises:
        OSError: it is something else, or does not exist; `strerror` says what.
    """
    kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        OSError: it does not exist, is no regular file, or cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    check_regular(path)
    return path.read_text(encoding="utf-8")
