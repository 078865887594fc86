"""Restricts the files of a data set to its folder, and to regular files."""

from __future__ import annotations

from pathlib import Path

from bigmodel.errors import DataError
from bigmodel.runtime.disk import check_regular


def check_no_device(path: Path, key: str) -> None:
    """Raises DataError for a named pipe, a socket or a device: data is read more than once, and ends.

    Args:
        path: of a file or folder that may exist.
        key: the option with this path, such as `data.path`.
    """
    try:
        check_regular(path)
    except OSError as error:
        if path.exists():
            raise DataError(
                f"{key}={path}: {error.strerror}. Write its output to a file and pass that file."
            ) from error


def check_inside(path: Path, folder: Path, key: str) -> None:
    """Raises DataError for a link out of the data set's folder.

    A folder of data may come from a stranger, and its links must not turn other files of the user into
    samples. The folder itself may be a link: the user has chosen it.

    Args:
        path: of the file, within the folder.
        folder: of the data set.
        key: the option with the folder, such as `data.root`.
    """
    target, inside = path.resolve(), folder.resolve()
    if not target.is_relative_to(inside):
        raise DataError(
            f"{path}: points outside its folder, to {target}, and only files within {inside} are read."
            f" Set {key}={target.parent} if that is the data you mean, or put the file itself there."
        )
