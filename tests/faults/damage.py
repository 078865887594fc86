"""Damaged checkpoints and full disks; shared by the tests and `scripts/prove_reliability.py`."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigmodel.checkpointing import manifest
from tests.faults import trials

KINDS = ("flip", "truncate to 0 %", "truncate to 50 %", "truncate to 99 %", "remove", "no manifest")


def stopped_run(cwd: Path, after: int = 9) -> Path:
    """A run that was asked to stop half-way, with `last` and `previous`."""
    cwd.mkdir(parents=True)
    attempt = trials.launch(cwd, *trials.RECIPE, hold=f"step {after + 1}")
    until_step(attempt, after)
    attempt.send(signal.SIGTERM)
    attempt.release()
    assert attempt.wait() == 143, attempt.log
    folder = trials.run_folder(cwd)
    assert folder is not None
    return folder


def damage(folder: Path, kind: str, chance: random.Random) -> str:
    """Damages one file of a checkpoint, chosen at random; says which, and how."""
    path = chance.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    if kind == "no manifest":
        (folder / "manifest.json").unlink()
        return kind
    if kind == "remove":
        path.unlink()
    elif kind == "flip":
        place, bits = chance.randrange(len(content)), chance.randrange(1, 256)
        path.write_bytes(content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :])
        return f"{path.name}: byte {place} xor {bits}"
    else:
        path.write_bytes(content[: len(content) * int(kind.split()[2]) // 100])
    return f"{path.name}: {kind}"


def resume_damaged(run: Path, cwd: Path, expected: str, kind: str, seed: int) -> list[str]:
    """Damages `last` of a copy of a stopped run, goes on, and compares.

    Returns:
        What went wrong, in words.
    """
    folder = cwd / "outputs" / "day" / "time"
    shutil.copytree(run, folder)
    done = damage(folder / "checkpoints" / "last", kind, random.Random(seed))
    attempt = trials.launch(cwd, f"resume={folder}")
    status, log = attempt.wait(), attempt.log
    faults = []
    if "Warning" not in log or str(folder / "checkpoints" / "last") not in log.replace("\n", ""):
        faults.append(f"{done}: no warning that names it:\n{log}")
    if status != 0:
        faults.append(f"{done}: exit status {status}:\n{log}")
    return faults + [f"{done}: {fault}" for fault in trials.differences(cwd, expected)]


def fill_the_disk(cwd: Path, expected: str, after: int) -> list[str]:
    """Fills the disk of a run that has done `after` steps, makes room again, goes on, and compares.

    Args:
        cwd: on a small disk of its own.
    """
    attempt = trials.launch(cwd, *trials.RECIPE, hold=f"step {after + 1}")
    until_step(attempt, after)
    filler = cwd / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 12)):
                pass
        except OSError:
            pass
    attempt.release()
    status, log = attempt.wait(), attempt.log
    folder = trials.run_folder(cwd)
    assert folder is not None
    faults = []
    if status != 1 or "Traceback" in log:
        faults.append(f"exit status {status}:\n{log}")
    last_words = " ".join(log.rpartition("bigmodel-train: ")[2].split())
    wanted = (str(folder.relative_to(cwd)), "It needs", "bytes are free there")
    faults += [f"lacks {words!r}: {last_words}" for words in wanted if words not in last_words]
    faults += [f"left behind: {left}" for left in trials.leftovers(folder)]
    if trials.last_saved_step(cwd) < after:
        faults.append(f"step {after} was acknowledged, and {trials.last_saved_step(cwd)} is left")
    filler.unlink()
    again = trials.launch(cwd, f"resume={folder}")
    if again.wait() != 0:
        faults.append(f"did not go on:\n{again.log}")
    return faults + trials.differences(cwd, expected)


def start_on_a_full_disk(disk: Path, folder: Path, pages: int) -> list[str]:
    """Starts a run on a disk with so many pages of 4,096 bytes left, makes room, and starts it again.

    Args:
        disk: a small one.
        folder: on it, for the run.

    Returns:
        What went wrong, in words.
    """
    room = disk / "room"
    with room.open("wb", buffering=0) as file:
        file.write(bytes(pages << 12))
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass
    room.unlink()
    words = ("resume=auto", *trials.RECIPE, f"hydra.run.dir={folder}")
    attempt = trials.launch(disk.parent, *words)
    status, faults = attempt.wait(), []
    last_words = " ".join(attempt.log.rpartition("bigmodel-train: ")[2].split())
    if status not in {0, 1} or "Traceback" in attempt.log:
        faults.append(f"{pages} pages: exit status {status}:\n{attempt.log}")
    if status == 1 and "cannot be" not in last_words:
        faults.append(f"{pages} pages: no word of the disk: {last_words}")
    filler.unlink()
    again = trials.launch(disk.parent, *words)
    if again.wait() != 0:
        faults.append(f"{pages} pages: did not begin or go on:\n{again.log}")
    return faults + [f"{pages} pages: left behind: {left}" for left in trials.leftovers(folder)]


@contextmanager
def small_disk(folder: Path, megabytes: int = 8) -> Iterator[Path]:
    """A file system of its own of that size, mounted at `folder`.

    Raises:
        PermissionError: nobody but root can mount.
    """
    folder.mkdir(parents=True)
    options = f"size={megabytes}m"
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if not made or made.returncode:
        raise PermissionError("mounting a small disk needs root")
    try:
        yield folder
    finally:
        os.sync()
        subprocess.run(["umount", "-l", folder], check=True)


def read_only(disk: Path) -> None:
    """Lets nobody write to a small disk any more, root included."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def until_step(attempt: trials.Attempt, step: int) -> None:
    """Waits until a run has saved that step."""
    attempt.wait_until(lambda: _step(attempt.cwd) >= step)


def _step(cwd: Path) -> float:
    folder = trials.run_folder(cwd)
    step = manifest.peek_step(folder / "checkpoints" / "last") if folder else 0.0
    return 0.0 if step == float("inf") else step
