"""Slurm's commands as far as submitit and a sweep use them, with processes of this machine for jobs.

A folder holds its state: for each job a file with its state, and what is asked of it (`7_0.cancel`,
`7_0.requeue`). While the folder holds a file `hold`, no job begins. What sbatch was given stays there.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
HANGS = 600.0


def install(folder: Path) -> Path:
    """Puts the commands into a folder, which is also that of their state."""
    folder.mkdir()
    for name in COMMANDS:
        words = [sys.executable, "-SE", __file__, str(folder), name]
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def states(folder: Path) -> dict[str, str]:
    """By name, the states of all jobs."""
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.state"))}


def _set(folder: Path, name: str, state: str) -> None:
    new = folder / f"{name}.{os.getpid()}"
    new.write_text(state)
    new.replace(folder / f"{name}.state")


def sbatch(folder: Path, path: str) -> None:
    script = Path(path).read_text()
    if "--partition=nowhere" in script:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    number = 7 + len(list(folder.glob("*.sh")))
    (folder / f"{number}.sh").write_text(script)
    array = re.search(r"--array=0-(\d+)%(\d+)", script)
    names = [str(number)]
    if array is not None:
        names = [f"{number}_{index}" for index in range(int(array[1]) + 1)]
    for name in names:
        _set(folder, name, "PENDING")
    os.write(1, f"Submitted batch job {number}\n".encode())
    if os.fork() == 0:
        os.setsid()
        for stream in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        _serve(folder, names, len(names) if array is None else int(array[2]))


def _serve(folder: Path, names: list[str], at_once: int) -> None:
    """Runs the jobs of an array."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    waiting, until = list(names), time.monotonic() + HANGS
    while (waiting or running) and folder.is_dir() and time.monotonic() < until:
        for name in [name for name in waiting if (folder / f"{name}.cancel").exists()]:
            waiting.remove(name)
            _set(folder, name, "CANCELLED")
        while waiting and len(running) < at_once and not (folder / "hold").exists():
            name = waiting.pop(0)
            _set(folder, name, "RUNNING")
            running[name] = _start(folder, name)
        for name, process in list(running.items()):
            cancel = folder / f"{name}.cancel"
            if cancel.exists() and process.poll() is None:
                cancel.rename(folder / f"{name}.cancelled")
                os.killpg(process.pid, signal.SIGTERM)
            if process.poll() is not None:
                del running[name]
                _end(folder, name, process.returncode, waiting)
        time.sleep(0.02)


def _start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    number, _, index = name.partition("_")
    values = {"JOB_ID": number, "NTASKS": 1, "JOB_NUM_NODES": 1, "NODEID": 0, "PROCID": 0, "LOCALID": 0}
    if index:
        values |= {"ARRAY_JOB_ID": number, "ARRAY_TASK_ID": index}
    own = {f"SLURM_{key}": str(value) for key, value in values.items()}
    words = ["bash", str(folder / f"{number}.sh")]
    return subprocess.Popen(words, env=os.environ | own, start_new_session=True)


def _end(folder: Path, name: str, status: int, waiting: list[str]) -> None:
    if (folder / f"{name}.requeue").exists():
        (folder / f"{name}.requeue").unlink()
        waiting.append(name)
        _set(folder, name, "PENDING")
    elif (folder / f"{name}.cancelled").exists():
        _set(folder, name, "CANCELLED")
    else:
        _set(folder, name, "FAILED" if status else "COMPLETED")


def srun(_: Path, *words: str) -> None:
    own = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID"}
    files = {}
    rest = [word for word in words if word != "--unbuffered"]
    while rest[0] in ("--output", "--error"):
        path = rest[1].replace("%t", "0")
        for mark, variable in own.items():
            path = path.replace(mark, os.environ.get(variable, ""))
        files[rest[0]], rest = path, rest[2:]
    for stream, option in ((1, "--output"), (2, "--error")):
        os.dup2(os.open(files[option], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.execvp(rest[0], rest)


def squeue(folder: Path, *_: str) -> None:
    sys.stdout.writelines(f"{name}|{state}\n" for name, state in states(folder).items())


def scancel(folder: Path, *names: str) -> None:
    for name in states(folder):
        if name in names or name.partition("_")[0] in names:
            (folder / f"{name}.cancel").touch()


def scontrol(folder: Path, verb: str, name: str) -> None:
    assert verb == "requeue"
    (folder / f"{name}.requeue").touch()


if __name__ == "__main__":
    place, command, *rest = sys.argv[1:]
    globals()[command](Path(place), *rest)
