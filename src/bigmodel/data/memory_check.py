"""Whether what a file unpacks to fits into memory: told in words, not by a process that is killed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from bigmodel.errors import DataError

_PIECE = 1 << 24
_GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes of memory that this process can still have, as far as the system tells."""
    try:
        free = 1024 * int(re.findall(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[0])
    except (OSError, IndexError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:  # of a container
        most, used = ((_GROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        stat = (_GROUP / "memory.stat").read_text()
    except OSError:
        return free
    # What is kept of files counts as used, but makes room as soon as memory is wanted.
    kept = sum(map(int, re.findall(r"^(?:in)?active_file (\d+)$", stat, re.MULTILINE)))
    return min(free, int(most) - int(used) + kept) if most.isdigit() else free


def check_memory(size: int, where: str) -> None:
    """Raises DataError if `size` bytes are more than there is memory for.

    Args:
        size: bytes.
        where: begins the message.
    """
    free = free_memory()
    if size > free:
        raise DataError(
            f"{where}: it holds {size:,} bytes when it is unpacked, but only {free:,} bytes of memory"
            " are free. Use a part of it, or a machine with more."
        )


def read_all(file: BinaryIO, where: str) -> bytes:
    """All bytes of a file, which may be packed and say nothing of its size.

    Raises:
        DataError: they are more than there is memory for.
    """
    free, content = free_memory(), bytearray()
    while piece := file.read(_PIECE):
        content += piece
        if len(content) > free:
            raise DataError(
                f"{where}: it holds more than {free:,} bytes when it is unpacked, which is all the"
                " memory that is free. Use a part of it, or a machine with more."
            )
    return bytes(content)
