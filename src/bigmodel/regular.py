"""Files that are read: no named pipe, socket or device, which would be waited for, or never end."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

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
        raise OSError(errno.EINVAL, f"is {kind}, no regular file", str(path))


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        OSError: it is not there, no regular file, or cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    check_regular(path)
    return path.read_text(encoding="utf-8")
