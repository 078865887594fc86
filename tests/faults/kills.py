"""One run, killed again and again by SIGKILL; shared by the tests and `scripts/prove_reliability.py`."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.trials import (
    HELD,
    RECIPE,
    Attempt,
    differences,
    event_scalars,
    finished,
    last_saved_step,
    launch,
    run_folder,
)


@dataclass
class Killed:
    """What killing one run again and again has shown.

    Attributes:
        kills: how many there were.
        inside: how many of them left an unfinished checkpoint, so that they hit a save.
        faults: what went wrong, in words.
    """

    kills: int
    inside: int
    faults: list[str]


def kill_and_resume(
    cwd: Path,
    expected: str,
    kills: int,
    seed: int,
    recipe: Sequence[str] = RECIPE,
    **more: Any,
) -> Killed:
    """Starts a run, kills it by SIGKILL at random moments, goes on by `resume=auto`, and compares.

    Args:
        expected: the digest of the uninterrupted run.
        kills: how many at most; the last process is left to finish.
        seed: of the moments.
        recipe: the run's arguments.
        more: see `launch`.
    """
    chance, result = random.Random(seed), Killed(0, 0, [])
    cwd.mkdir(parents=True)
    for number in range(kills + 1):
        before = last_saved_step(cwd)
        within = number < kills and chance.random() < 2 / 3
        hold = f"sync {chance.randrange(1, 40)}" if within else None
        attempt = launch(cwd, "resume=auto", *recipe, hold=hold, **more)
        if number < kills and _kill(attempt, within, chance):
            result.kills += 1
            folder = run_folder(cwd)
            if folder is not None:
                result.inside += bool(list((folder / "checkpoints").glob(".*.tmp")))
                _check_log(folder, last_saved_step(cwd), result.faults)
        elif (status := attempt.wait()) != 0:
            result.faults.append(f"{cwd}: exit status {status}:\n{attempt.log}")
            return result
        log = attempt.log
        went_on = f"Resuming: after step {before} " in log
        if before and not went_on and ("Resuming" in log or "a new one starts" in log):
            result.faults.append(f"{cwd}: did not go on after step {before}:\n{attempt.log}")
        if finished(cwd):
            break
    result.faults += differences(cwd, expected, tidy=attempt.process.exitcode == 0)
    return result


def _kill(attempt: Attempt, within: bool, chance: random.Random) -> bool:
    """Kills where a file is on its way to the disk, or soon after; else in its first 0.4 seconds.

    Returns:
        Whether it was still there.
    """
    if within:
        while attempt.process.is_alive() and not (attempt.cwd / HELD).exists():
            attempt.process.join(0.002)
        if chance.random() < 1 / 3:
            attempt.release()
            attempt.process.join(chance.random() * 0.004)
    else:
        attempt.process.join(chance.random() * 0.4)
    alive = attempt.process.is_alive()
    attempt.process.kill()
    attempt.process.join()
    return alive and attempt.process.exitcode == -signal.SIGKILL


def _check_log(folder: Path, step: int, faults: list[str]) -> None:
    """After a kill, `metrics.jsonl` and the event files read whole up to the acknowledged step."""
    text = (folder / "metrics.jsonl").read_text() if step else ""
    steps = [json.loads(line)["step"] for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if steps[:step] != list(range(1, step + 1)):
        faults.append(f"{folder}: metrics.jsonl lacks steps before {step}: {steps}")
    told = {number for number, _ in event_scalars(folder, "train/loss")}
    if step and not set(range(1, step + 1)) <= told:
        faults.append(f"{folder}: the event files lack steps before {step}: {sorted(told)}")
