"""Power cuts: a run's disk is a file, copied while the run is stopped, and mounted in its place.

What the run had written, but the system had not yet handed to the disk, is gone then, as it would be.
Used by the tests and `scripts/prove_reliability.py`; only root can mount.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bigmodel.cli.launch.lock import holder
from tests.faults import trials

SIZES = {"ext4": 64, "xfs": 320, "btrfs": 128}
"""Megabytes; the smallest that each file system takes."""

_OPTIONS = {"ext4": "noauto_da_alloc,commit=60", "xfs": "defaults", "btrfs": "commit=60"}
"""ext4's own remedy for programs that sync nothing is switched off; nothing is written for a minute that
nobody asks for."""


@dataclass
class Disk:
    """A file system in a file.

    Attributes:
        place: where it is mounted.
    """

    kind: str
    image: Path
    place: Path

    def cut(self, attempt: trials.Attempt) -> int:
        """Takes the power from a run, and mounts what the disk holds.

        Returns:
            The newest step that the run had saved, as it looked before the cut; 0 for none.
        """
        attempt.send(signal.SIGSTOP)
        _until_stopped(attempt.pid)
        seen = trials.last_saved_step(self.place)
        copied = self.image.with_suffix(".copy")
        while True:
            before = self.image.stat().st_mtime_ns
            subprocess.run(["cp", "--sparse=always", self.image, copied], check=True)
            if self.image.stat().st_mtime_ns == before:  # the system has written nothing meanwhile
                break
        attempt.process.kill()
        attempt.process.join()
        self.unmount()
        copied.replace(self.image)
        self.mount()
        return seen

    def mount(self) -> None:
        options = f"loop,{_OPTIONS[self.kind]}"
        _run("mount", "-t", self.kind, "-o", options, str(self.image), str(self.place))

    def unmount(self) -> None:
        _run("umount", str(self.place))


@contextmanager
def disk(folder: Path, kind: str) -> Iterator[Disk]:
    """A file system of its own, mounted within `folder`.

    Raises:
        PermissionError: nobody but root can mount, or this system has no such file systems.
    """
    maker = shutil.which(f"mkfs.{kind}")
    if maker is None:
        raise PermissionError(f"there is no mkfs.{kind} here")
    made = Disk(kind, folder / "image", folder / "disk")
    made.place.mkdir(parents=True)
    with made.image.open("wb") as file:
        file.truncate(SIZES[kind] << 20)
    quiet = {"ext4": ["-q", "-F"], "xfs": ["-q"], "btrfs": ["-q"]}[kind]
    _run(maker, *quiet, str(made.image))
    try:
        made.mount()
    except RuntimeError as error:
        raise PermissionError(f"mounting a disk in a file needs root: {error}") from error
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", made.place], check=False, capture_output=True)
        made.image.unlink()


@dataclass
class Cuts:
    """What cutting one run's power again and again has shown.

    Attributes:
        cuts: how many there were.
        faults: what went wrong, in words.
    """

    cuts: int = 0
    faults: list[str] = field(default_factory=list)


def cut_and_resume(
    folder: Path,
    kind: str,
    expected: str,
    moments: Sequence[str | int],
    recipe: Sequence[str] = trials.RECIPE,
) -> Cuts:
    """Starts a run, cuts its power again and again, goes on by `resume=auto`, and compares.

    Args:
        expected: the digest of the uninterrupted run.
        moments: of the cuts, each a place that `trials.launch` holds a run at, or the seed of a random
            moment, which a run may have ended by. The last process is left to finish.
        recipe: the run's arguments.

    Raises:
        PermissionError: no such disk can be mounted here.
    """
    result, saved = Cuts(), 0
    with disk(folder, kind) as made:
        for moment in (*moments, None):
            hold = moment if isinstance(moment, str) else None
            attempt = trials.launch(made.place, "resume=auto", *recipe, hold=hold)
            if hold is not None:
                attempt.wait_until_held()
            cut = hold is not None or (moment is not None and _wait_at_random(attempt, int(moment)))
            if not cut and (status := attempt.wait()) != 0:
                result.faults.append(f"{kind}: exit status {status}:\n{attempt.log}")
            log = attempt.log
            went_on = f"Resuming: after step {saved} " in log
            if saved and not went_on and ("Resuming" in log or "a new one starts" in log):
                result.faults.append(f"{kind}: did not go on after step {saved}:\n{log}")
            if not cut:
                break
            seen, saved = made.cut(attempt), trials.last_saved_step(made.place)
            result.cuts += 1
            if saved < seen - 1:  # the newest save may not have been over
                result.faults.append(f"{kind}: step {seen} was saved, and {saved} is left")
            if trials.finished(made.place):  # nothing is left to go on with
                break
        result.faults += trials.differences(made.place, expected, tidy=not cut)
    return result


def _wait_at_random(attempt: trials.Attempt, seed: int) -> bool:
    """Waits until a run is under way, and then for any moment or a save; whether it still runs."""
    chance = random.Random(seed)
    in_a_save, wanted = chance.random() < 0.5, chance.randrange(1, 8)
    while attempt.process.is_alive():
        run = trials.run_folder(attempt.cwd)
        if run is not None and holder(run) is not None:
            break
        time.sleep(0.001)
    if not in_a_save:
        attempt.process.join(chance.random() * 0.5)
    else:
        begun = saves = 0
        while attempt.process.is_alive() and saves < wanted:
            saving = bool(run and list((run / "checkpoints").glob(".*.tmp")))
            saves, begun = saves + (saving and not begun), saving
            time.sleep(0.0005)
        attempt.process.join(chance.random() * 0.01)
    return attempt.process.is_alive()


def _until_stopped(pid: int) -> None:
    """A process that is told to stop goes on until the system has heard; Linux only."""
    deadline = time.monotonic() + 60
    tasks = Path(f"/proc/{pid}/task")
    while any(_state(task) not in "TtZX" for task in tasks.iterdir()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.001)


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has just ended
        return "X"


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
