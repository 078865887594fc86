"""One of several ranks, killed; what tests and `scripts/prove_reliability.py` share."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.faults import trials

RECIPE = (
    *trials.RECIPE,
    *("device.ranks=2", "device.restarts=1", "data.batch_size=63"),
)
WAYS: dict[str, tuple[str, ...]] = {"copies": (), "parts": ("device.parallel.shard=2",)}
"""What the ranks have of the model."""
PLACES = {"training": ("step", 24), "a save": ("sync", 60)}
"""Where the ranks are held when one of them is killed, and how many moments there are."""
SECONDS = 10.0
"""In which all of them have to be gone or started again."""


def kill(cwd: Path, expected: str, place: str, seed: int, *words: str) -> list[str]:
    """Kills a rank, has all start again, and compares.

    Args:
        expected: the digest of the run that nobody disturbs.
        place: one of `PLACES`.
        seed: of the moment, and of which rank it is.
        words: further settings.

    Returns:
        What went wrong, in words.
    """
    chance = random.Random(seed)
    where, moments = PLACES[place]
    cwd.mkdir(parents=True)
    attempt = trials.launch(cwd, *RECIPE, *words, hold=f"{where} {1 + chance.randrange(moments)}")
    attempt.wait_until_held()
    attempt.wait_until(lambda: len(attempt.children) == 2)
    ranks = attempt.children
    os.kill(ranks[chance.randrange(2)], signal.SIGKILL)
    killed = time.monotonic()
    attempt.wait_until(lambda: gone(ranks))
    seconds = time.monotonic() - killed
    attempt.release()
    faults = [] if seconds <= SECONDS else [f"the other rank was there for {seconds:.1f} seconds"]
    if (status := attempt.wait()) != 0:
        return [*faults, f"exit status {status}:\n{attempt.log}"]
    folder = trials.run_folder(cwd)
    if folder is None or trials.digest(folder) != expected:
        faults.append(f"the end differs:\n{attempt.log}")
    return faults


def gone(pids: list[int]) -> bool:
    """Whether none of the processes is there."""
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)
