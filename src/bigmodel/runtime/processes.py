"""Processes that this one starts: how, where they print, and why they ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path


def context() -> multiprocessing.context.BaseContext:
    """How processes are started on this system: forked only where libraries bear it."""
    return multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")


def print_to(path: Path, mode: int) -> None:
    """Sends everything that this process prints, C libraries included, to a file.

    Args:
        mode: of the file, if it is created.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.close(number)


def exit_reason(status: int | None) -> str:
    """Why a process ended that has not said so, by its exit status: `was ended by SIGKILL`."""
    if status is None or status >= 0:
        return f"exited with status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"
