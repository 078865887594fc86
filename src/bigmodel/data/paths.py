"""Where the files of a data set may lie: in the folder that was named, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from bigmodel.errors import DataError
from bigmodel.runtime.disk import check_regular


def check_no_device(path: Path, key: str) -> None:
    """Refuses a named pipe, a socket or a device: data is read more than once, and has an end.

    Args:
        path: of a file or folder that may be there.
        key: the option that names it, such as `data.path`.

    Raises:
        DataError: it is one.
    """
    try:
        check_regular(path)
    except OSError as error:
        if path.exists():
            raise DataError(
                f"{key}={path}: {error.strerror}. Write its output to a file and pass that file."
            ) from error


def check_inside(path: Path, folder: Path, key: str) -> None:
    """Refuses a file of a data set that a link takes out of the data set's folder.

    A folder of data may come from a stranger, and a link in it must not have anybody's other files read
    as samples. The folder may be a link itself: it is what the user named.

    Args:
        path: the file, by its name within the folder.
        folder: the folder that was named.
        key: the setting that names it, such as `data.root`.

    Raises:
        DataError: links followed, the file lies elsewhere.
    """
    place, inside = path.resolve(), folder.resolve()
    if not place.is_relative_to(inside):
        raise DataError(
            f"{path}: points outside its folder, to {place}, and only files within {inside} are read."
            f" Set {key}={place.parent} if that is the data you mean, or put the file itself there."
        )
