"""Whether all machines that train one run see its folder, which the first of them has made."""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bigmodel.errors import ConfigError, join_names
from bigmodel.runtime import disk

if TYPE_CHECKING:
    from bigmodel.distributed.ranks import Ranks

NAME = "summary.json"
"""The unfinished file of this name is what the others look for: should it stay, the next process of the
run removes it."""

_PATIENCE = 10.0
"""Seconds in which a network disk has to show a new file."""


def check_seen(folder: Path, ranks: Ranks) -> None:
    """Makes sure that all ranks see the folder of the run: they look for a file that the first has
    written into it.

    Raises:
        ConfigError: some do not.
        CheckpointError: the first cannot write there.
    """
    if ranks.size == 1:
        return
    path, token = folder / f".{NAME}.{os.getpid()}.tmp", secrets.token_hex(16)
    if ranks.is_first:
        try:
            path.write_text(token)
        except OSError as error:
            raise disk.write_error(path, error, len(token)) from error
    try:
        name, expected = ranks.from_first((path.name, token))
        seen = ranks.gather((_shows(folder / name, expected), socket.gethostname()))
    finally:
        if ranks.is_first:
            path.unlink(missing_ok=True)
    blind = sorted({host for sees, host in seen if not sees})
    if blind:
        raise ConfigError(
            f"{folder}: {seen[0][1]} writes the run into this folder, which {join_names(blind)} cannot"
            " see. Name one on a disk that all machines share: hydra.run.dir=<folder>, or"
            " output_dir=<folder> for all runs."
        )


def _shows(path: Path, expected: str) -> bool:
    """Whether a file is there, with what was written into it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            list(path.parent.iterdir())  # network disks ask for what is new when a folder is opened
            if path.read_text() == expected:
                return True
        except (OSError, UnicodeDecodeError):  # not there yet, or never
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
