"""Ranks that write one checkpoint together, each in its own thread; they tell each other by files alone.

The first rank makes a temporary folder, whose name all can tell. The others wait for it, write their
files, and then a small file that says so, with the fingerprints. The first waits for all of those.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bigmodel.checkpointing.manifest import fingerprint
from bigmodel.distributed.ranks import Ranks
from bigmodel.errors import CheckpointError
from bigmodel.runtime import disk, nested_json

_LONGEST_PAUSE = 1.0
"""Seconds between two looks at the folder; shorter at first."""


class ClosedError(Exception):
    """The rank is ending, and waits for no other one."""


class Writers:
    """The ranks of a run whose checkpoints have a part of each, seen from one of them.

    All of them have to be created at the same time, and save the same checkpoints in the same order.

    Args:
        ranks: as they are.
        patience: seconds without any sign of another rank; None: as many as ranks wait for each other.

    Attributes:
        rank: the number of this rank.
        size: how many there are.
    """

    def __init__(self, ranks: Ranks, patience: float | None = None) -> None:
        self.rank, self.size = ranks.rank, ranks.size
        self._first_process = ranks.from_first(os.getpid())
        self._saves = 0
        self._patience = ranks.timeout if patience is None else patience
        self._closing = threading.Event()

    def close(self) -> None:
        """Ends all waiting, in whichever thread."""
        self._closing.set()

    def next_folders(self, folders: Iterable[Path]) -> list[Path]:
        """The temporary folders of this rank's next save. No two saves have the same ones, so that a
        rank that is ahead of the first one waits for it."""
        self._saves += 1
        own = f"{self._first_process}.{self._saves}"
        return [folder.with_name(f".{folder.name}.{own}.tmp") for folder in folders]

    def wait_for(self, folders: Sequence[Path]) -> None:
        """Waits until the first rank has made temporary folders.

        Raises:
            ClosedError: this rank is ending.
            CheckpointError: it has not, for too long.
        """
        parent = folders[0].parent
        # Listed, since a network file system may remember for long that a name was not there.
        self._wait(lambda: set(folders) <= set(parent.iterdir()), parent)

    def tell(self, folder: Path, files: Iterable[Path]) -> None:
        """Tells the first rank that this one has written its files."""
        self._tell(folder, {"files": {path.name: fingerprint(path) for path in files}})

    def tell_failure(self, folder: Path, error: Exception) -> None:
        """Tells the first rank, if the disk takes that much, that this one cannot write."""
        with contextlib.suppress(OSError):
            self._tell(folder, {"error": str(error)})

    def collect(self, folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
        """Waits for the other ranks' files.

        Args:
            folders: temporary ones; the others tell in the first, and have copied files to the rest.

        Returns:
            The fingerprints of the files, by name.

        Raises:
            ClosedError: this rank is ending.
            CheckpointError: another rank has failed, or is silent for too long.
        """
        pending = {self._note(folders[0], rank) for rank in range(1, self.size)}
        files: dict[str, dict[str, Any]] = {}

        def all_there() -> bool:
            for note in pending.intersection(folders[0].iterdir()):
                files.update(self._read(note, folders))
                pending.remove(note)
            return not pending

        self._wait(all_there, folders[0].parent)
        return files

    def _read(self, note: Path, folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
        told = nested_json.loads(disk.read_text(note))
        if "error" in told:
            raise CheckpointError(told["error"])
        files: dict[str, dict[str, Any]] = told["files"]
        for path in (folder / name for folder in folders for name in files):
            if not path.is_file() or path.stat().st_size != files[path.name]["bytes"]:
                raise CheckpointError(f"{path}: is not as another rank has written it.")
        note.unlink()
        return files

    def _note(self, folder: Path, rank: int) -> Path:
        return folder / f"written-{rank + 1:05}-of-{self.size:05}.tmp"

    def _tell(self, folder: Path, content: dict[str, Any]) -> None:
        note = self._note(folder, self.rank)
        unfinished = note.with_name(f".{note.name}")
        with unfinished.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(note)

    def _wait(self, is_over: Callable[[], bool], checkpoints: Path) -> None:
        begin = last_sign = time.monotonic()
        before = _signs(checkpoints)
        while not is_over():
            if self._closing.wait(min(0.002 + (time.monotonic() - begin) / 10, _LONGEST_PAUSE)):
                raise ClosedError
            now = _signs(checkpoints)
            if now != before:
                last_sign, before = time.monotonic(), now
            elif time.monotonic() - last_sign > self._patience:
                raise CheckpointError(
                    f"{checkpoints}: cannot be written: rank {self.rank} of {self.size} has seen nothing"
                    f" of another rank there for {self._patience:g} seconds. Does every machine see this"
                    " folder (output_dir)?"
                )


def _signs(checkpoints: Path) -> set[tuple[str, int, int]]:
    """What shows that somebody is writing: the files of unfinished checkpoints, and how they grow."""
    signs = set()
    for folder in checkpoints.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # it may be gone again
            for path in folder.iterdir():
                found = path.stat()
                signs.add((str(path), found.st_size, found.st_mtime_ns))
    return signs
