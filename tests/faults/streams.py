"""Processes whose standard streams are closed, full or not read; what the tests and
`scripts/prove_reliability.py` share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bigmodel.checkpointing import checkpoint
from tests.faults import trials

TRAIN = ("-m", "bigmodel.cli.train")
USE = ("-m", "bigmodel.cli.commands.main")
QUICK = ("debug=fast", "device=cpu", "device.threads=1")
REDIRECTIONS = (
    *(">&-", "2>&-", "<&-", "<&- >&- 2>&-"),
    *("| true", "2>&1 | true", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"),
)
"""As a shell has them."""


@dataclass
class Ended:
    """How a process ended: its status, as a shell has it, and what arrived of its output."""

    status: int
    out: str
    err: str


def called(cwd: Path, start: tuple[str, ...], *argv: str, redirected: str = "") -> Ended:
    """Calls a program with its streams redirected.

    Args:
        cwd: its current folder.
        start: what follows `python`.
        argv: the program's arguments.
        redirected: in a shell's words.
    """
    cwd.mkdir(parents=True, exist_ok=True)
    first, pipe, reader = redirected.partition("|")
    out, status = subprocess.PIPE, cwd / "status"
    if reader.strip() == "true":  # which is gone before anything is written, and not just most often
        read, out = os.pipe()
        os.close(read)
        pipe = reader = ""
    command = f'{{ "$@" {first}; echo $? >&9; }} {pipe} {reader}'
    done = subprocess.run(
        ["sh", "-c", f"exec 9>{status.name}; {command}", "sh", sys.executable, *start, *argv],
        cwd=cwd, env=os.environ | {"NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=out, stderr=subprocess.PIPE, text=True, timeout=trials.HANGS, check=False,
    )  # fmt: skip
    if out != subprocess.PIPE:
        os.close(out)
    code = int(status.read_text())
    status.unlink()
    return Ended(code, done.stdout or "", done.stderr)


def train(cwd: Path, redirected: str) -> list[str]:
    """Trains with streams redirected.

    Returns:
        What went wrong, in words.
    """
    ended = called(cwd, TRAIN, *QUICK, redirected=redirected)
    faults = [] if ended.status == 0 else [f"{redirected}: exit status {ended.status}"]
    if ended.err:
        faults.append(f"{redirected}: {ended.err}")
    folder = trials.run_folder(cwd)
    if folder is None:
        return [*faults, f"{redirected}: no run"]
    if json.loads((folder / "summary.json").read_text())["status"] != "finished":
        faults.append(f"{redirected}: it is not finished")
    if not checkpoint.load(folder / "checkpoints" / "last"):
        faults.append(f"{redirected}: no checkpoint")
    if "Finished" not in (folder / "train.log").read_text():
        faults.append(f"{redirected}: train.log is not whole")
    return faults
