"""What to say when the disk does not take a file."""

from __future__ import annotations

import shutil
from pathlib import Path

from bigmodel.errors import CheckpointError


def refused(path: Path, error: Exception, needed: int) -> CheckpointError:
    """The error of a file or folder that cannot be written, with what is needed and what is free.

    Args:
        path: what was to be written.
        error: what the system said.
        needed: bytes.
    """
    if not path.parent.is_dir():
        return CheckpointError(
            f"{path}: cannot be written, because {path.parent} is gone: the run's folder was moved or"
            " deleted while it ran."
        )
    try:
        free = f"{shutil.disk_usage(path.parent).free:,} bytes are free there"
    except OSError as unknown:
        free = f"what is free there is not known ({unknown.strerror})"
    said = getattr(error, "strerror", None) or error
    return CheckpointError(
        f"{path}: cannot be written: {said}. It needs {needed:,} bytes, and {free}. Make room, or see to"
        " the folder's permissions; then go on with resume=<the run's folder>."
    )
