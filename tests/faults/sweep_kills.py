"""A sweep, killed again and again with all its processes; what tests and `scripts/prove_reliability.py`
share."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigmodel.sweeps.manifest import NAME
from tests.faults import trials

FOLDER = "sweep"
RECIPE = (
    "-m",
    f"hydra.sweep.dir={FOLDER}",
    "device=cpu",
    "trainer.epochs=30",
    "trainer.record_every_steps=23",
    "trainer.checkpoint.every_steps=23",
    "model.hidden_sizes=[16]",
    "data.batch_size=64",
)
"""A sweep but for its grid: jobs of 30 epochs on digits, saved after each."""


@dataclass
class Killed:
    """What killing a sweep again and again has shown.

    Attributes:
        kills: how many there were.
        running: how many jobs had begun and not finished, over all kills.
        faults: what went wrong, in words.
    """

    kills: int
    running: int
    faults: list[str]


def run_uninterrupted(cwd: Path, *grid: str) -> list[list[str]]:
    """The leaderboard of a sweep that nobody disturbs."""
    cwd.mkdir(parents=True)
    attempt = trials.launch(cwd, *RECIPE, *grid)
    assert attempt.wait() == 0, attempt.log
    return leaderboard(cwd)


def kill_and_resume(
    cwd: Path, expected: list[list[str]], grid: Sequence[str], kills: int, seed: int
) -> Killed:
    """Starts a sweep, kills it by SIGKILL at random moments, goes on by `sweep.resume`, and compares.

    Args:
        expected: the leaderboard of the sweep that nobody disturbs.
        grid: the sweep's.
        kills: how many; the last process is left to finish.
        seed: of the moments.
    """
    chance, result = random.Random(seed), Killed(0, 0, [])
    cwd.mkdir(parents=True)
    finished: dict[Path, bytes] = {}
    lines = 2 * (len(expected) - 1) // kills  # between two kills: one as a job begins, one as it ends
    for number in range(kills + 1):
        begun = (cwd / FOLDER / NAME).is_file()
        words = ("-m", f"sweep.resume={FOLDER}") if begun else (*RECIPE, *grid)
        attempt = trials.launch(cwd, *words)
        if number < kills:
            # Some lines of the record later, and then some milliseconds more.
            result.kills += _kill(attempt, chance.randrange(lines), chance.random())
            summaries = list((cwd / FOLDER).glob("*/summary.json"))
            result.running += len(summaries) - len(_finished(cwd)) // 2
        elif (status := attempt.wait()) != 0:
            result.faults.append(f"{cwd}: exit status {status}:\n{attempt.log}")
            return result
        result.faults += [
            f"{path}: a finished job was run again"
            for path, content in finished.items()
            if path.read_bytes() != content
        ]
        finished |= _finished(cwd)
    if (found := leaderboard(cwd)) != expected:
        result.faults.append(f"{cwd}: the leaderboard is another:\n{found}\nnot\n{expected}")
    # A job that was killed once it had finished is not run again, and so keeps its lock file.
    left = [path for path in trials.leftovers(cwd / FOLDER) if not path.endswith("/.lock")]
    result.faults += [f"left behind: {path}" for path in left]
    return result


def leaderboard(cwd: Path) -> list[list[str]]:
    """The rows of a sweep's table, without seconds, and with folders as they are called from `cwd`."""
    with (cwd / FOLDER / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    kept = [index for index, name in enumerate(head) if name != "seconds"]
    return [[row[index].removeprefix(f"{cwd}/") for index in kept] for row in (head, *rows)]


def _kill(attempt: trials.Attempt, lines: int, seconds: float) -> bool:
    """Kills a sweep with all its processes, once its record has got so many lines and time has passed.

    Returns:
        Whether it was still there.
    """
    record = attempt.cwd / FOLDER / NAME
    before = _lines(record)
    while attempt.process.is_alive() and _lines(record) < (before or _lines(record) + 1) + lines:
        before = before or _lines(record)  # its first lines come at once
        attempt.process.join(0.002)
    attempt.process.join(seconds)
    if not attempt.process.is_alive():
        return False
    attempt.send(signal.SIGSTOP)  # it starts no other process meanwhile
    for pid in (*_children(attempt.pid), attempt.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    attempt.process.join()
    return attempt.process.exitcode == -signal.SIGKILL


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in tasks for word in path.read_text().split()]


def _finished(cwd: Path) -> dict[Path, bytes]:
    """What jobs that are finished have written."""
    found = {}
    for path in (cwd / FOLDER).glob("*/summary.json"):
        if json.loads(path.read_text())["status"] == "finished":
            found |= {file: file.read_bytes() for file in (path, path.with_name("metrics.jsonl"))}
    return found
