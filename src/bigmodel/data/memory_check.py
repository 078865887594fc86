"""Checks that a file's content fits into memory: a message instead of a killed process."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from bigmodel.errors import DataError

_PIECE = 1 << 24
_GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes of memory that this process can still allocate, according to the system."""
    try:
        free = 1024 * int(re.findall(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[0])
    except (OSError, IndexError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:  # of a container
        most, used = ((_GROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        stat = (_GROUP / "memory.stat").read_text()
    except OSError:
        return free
    # The file cache counts as used, but is freed as soon as memory is needed.
    kept = sum(map(int, re.findall(r"^(?:in)?active_file (\d+)$", stat, re.MULTILINE)))
    return min(free, int(most) - int(used) + kept) if most.isdigit() else free


def check_memory(size: int, where: str) -> None:
    """Raises DataError if `size` bytes do not fit into memory.

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
    """All bytes of a file, whose size may be unknown because it is compressed.

    Raises:
        DataError: they do not fit into memory.
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
