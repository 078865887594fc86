"""srun, scancel and scontrol as far as `train.sbatch` uses them, with two processes of this machine for
the tasks of two. What scontrol was asked stands in a file of the folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

COMMANDS = ("srun", "scancel", "scontrol")


def install(folder: Path) -> None:
    """Puts the commands into a folder, which is also that of their state."""
    folder.mkdir()
    for name in COMMANDS:
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
        (folder / name).chmod(0o755)


def srun(folder: Path, *words: str) -> int:
    own = [*words]
    while own[0].startswith("--"):
        own.pop(0)
    shared = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    tasks = [
        subprocess.Popen(own, env=os.environ | shared | {"SLURM_PROCID": str(number)})
        for number in range(2)
    ]
    (folder / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
    return max(abs(task.wait()) for task in tasks)


def scancel(folder: Path, word: str, _: str) -> None:
    """Slurm's signals reach all processes of a step, also those that its tasks have started."""
    number = signal.Signals[f"SIG{word.removeprefix('--signal=')}"]
    found = [int(pid) for pid in (folder / "tasks").read_text().split()]
    for pid in found:
        found += [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for pid in found:
        os.kill(pid, number)


def scontrol(folder: Path, *words: str) -> None:
    if words[:2] == ("show", "hostnames"):
        sys.stdout.write("localhost\n")
        return
    with (folder / "asked").open("a") as file:
        file.write(" ".join(words) + "\n")


if __name__ == "__main__":
    place, command, *rest = sys.argv[1:]
    sys.exit(globals()[command](Path(place), *rest))
