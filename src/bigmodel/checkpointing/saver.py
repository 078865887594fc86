"""Writes a run's checkpoints in the background, from copies, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.checkpointing import checkpoint, retention
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.checkpointing.tensor_files import Parts, own_tensors
from bigmodel.checkpointing.writers import Writers
from bigmodel.distributed.ranks import ALONE, CommunicationError, Ranks
from bigmodel.errors import CheckpointError, is_out_of_memory
from bigmodel.runtime import disk


class Snapshot(NamedTuple):
    """A copy of a state, which training does not change any more; see `checkpoint.save`."""

    groups: TensorGroups
    facts: dict[str, Any]
    parts: Parts


class NoSaver:
    """The saver of a rank that leaves saving to the first one.

    Args:
        checkpoints: the folder for all of them.
    """

    damaged: Sequence[Path] = ()
    place: disk.HeldFolder | None = None

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints

    @property
    def seconds_since_write(self) -> float:
        """See `Saver.seconds_since_write`."""
        return 0.0

    def start(self) -> None:
        """See `Saver.start`."""

    def offer(
        self,
        groups: TensorGroups,
        facts: dict[str, Any],
        *,
        best: bool,
        last: bool,
        now: bool,
        parts: Parts | None = None,
    ) -> None:
        """See `Saver.offer`."""

    def check(self) -> None:
        """See `Saver.check`."""

    def wait(self) -> None:
        """See `Saver.wait`."""

    def flush(self) -> None:
        """See `Saver.flush`."""

    def rescue(self, error: BaseException) -> None:
        """See `Saver.rescue`."""

    def close(self) -> None:
        """See `Saver.close`."""


class Saver(NoSaver):
    """Writes `last` and the best checkpoints of a run, no more often than makes sense.

    An offered state is copied, and a thread writes the copy while training continues. Only one write
    runs at a time: the next one waits for it. Its error is raised by the next call of any
    method.

    At least `interval` seconds pass between two writes, since epochs may take milliseconds. What is due
    meanwhile is kept in memory until the next write, or until `flush`: the newest state and the `keep`
    newest bests. With those being written and one being copied, there are 2 × `keep` + 3 copies at most.

    Args:
        checkpoints: the folder for all of them.
        keep: how many best checkpoints are kept; 0 if none is the best: those of before are renamed.
        interval: seconds.
        clock: a monotonic clock, in seconds.
        records: files, and folders of files, that hold the metrics of each step; they are synced to disk
            before a checkpoint that relies on them.
        ranks: those that write a part of each checkpoint; this is the first, and the others have a
            `ShardSaver`. All have to call `offer` and `flush` for the same states.

    Attributes:
        damaged: checkpoints that a resume found damaged; `start` renames them.
        place: the run's folder, held from the start on; None before.
    """

    def __init__(
        self,
        checkpoints: Path,
        keep: int,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
        records: Sequence[Path] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self.checkpoints = checkpoints
        self.damaged: Sequence[Path] = ()
        self.place: disk.HeldFolder | None = None
        self._ranks = ranks
        self._writers = Writers(ranks) if ranks.size > 1 else None
        self._records = records
        self._synced: dict[Path, tuple[int, int]] = {}
        self._keep = keep
        self._interval = interval
        self._clock = clock
        self._written = clock()
        self._best: list[Snapshot] = []  # each better than those before it
        self._last: Snapshot | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._flight: Future[None] | None = None
        self._in_flight: list[Snapshot] = []
        self._memory: list[TensorGroups] = []

    def start(self) -> None:
        """Creates the folder, and removes what a killed process left unfinished in it.

        Raises:
            CheckpointError: it cannot be created or written to.
        """
        try:
            disk.make_folder(self.checkpoints)
            for folder in self.damaged:
                checkpoint.set_aside(folder, "damaged")
            checkpoint.remove_unfinished(self.checkpoints)
            retention.initialize(self.checkpoints)
            if self._keep == 0:  # a run that went on without its validation set
                for folder in checkpoint.best_candidates(self.checkpoints):
                    checkpoint.set_aside(folder, "earlier")
            self.place = disk.HeldFolder(self.checkpoints.parent)
        except OSError as error:
            raise CheckpointError(
                f"{self.checkpoints}: cannot be written: {error.strerror or error}. Check its "
                "permissions, or choose another output_dir."
            ) from error

    @property
    def seconds_since_write(self) -> float:
        """Seconds since the last write began."""
        return self._clock() - self._written

    def offer(
        self,
        groups: TensorGroups,
        facts: dict[str, Any],
        *,
        best: bool,
        last: bool,
        now: bool,
        parts: Parts | None = None,
    ) -> None:
        """Takes a state to be saved, now or after the interval.

        Args:
            groups, facts: as for `checkpoint.save`; the tensors are copied.
            best: whether it is the best so far.
            last: whether it is one to resume from.
            now: write it at once, however recent the last write is.
            parts: which part of a tensor this rank holds, if it does not hold all.

        Raises:
            CheckpointError: the previous write failed.
        """
        self.check()
        now = self._ranks.from_first(now or self.seconds_since_write >= self._interval)
        snapshot = self._copied(own_tensors(groups, parts or {}, self._ranks.rank), facts, parts or {})
        if best:
            self._best = [*self._best, snapshot][-self._keep :]
        if last or now:  # a write for the best's sake takes the newest state along
            self._last = snapshot
        if now:
            self._send()

    def check(self) -> None:
        """Raises CheckpointError if a finished write has failed."""
        if self._flight is not None and self._flight.done():
            self.wait()

    def wait(self) -> None:
        """Waits until nothing is being written.

        Raises:
            CheckpointError: the write failed.
        """
        if self._flight is not None:
            flight, self._flight = self._flight, None
            self._in_flight = []
            flight.result()

    def flush(self) -> None:
        """Writes what is kept in memory, and waits until it is on the disk.

        Raises:
            CheckpointError: a write failed.
        """
        self._send()
        self.wait()

    def rescue(self, error: BaseException) -> None:
        """Writes what can be written after an error of this rank: with others, the write under way.

        Raises:
            CheckpointError: a write failed.
        """
        if self._writers is None:
            self.flush()
        elif not isinstance(error, CommunicationError):
            self.wait()

    def close(self) -> None:
        """Ends the thread; anything not written is dropped."""
        if self._writers is not None:
            self._writers.close()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        if self.place is not None:
            self.place.close()

    def _send(self) -> None:
        """Hands what is kept in memory to the thread, once it is free."""
        self.wait()
        best, last = self._best, self._last
        if not best and last is None:
            return
        self._best, self._last = [], None
        self._written = self._clock()
        self._in_flight = [*best, *([] if last is None else [last])]
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._flight = self._thread.submit(self._write, best, last)

    def _write(self, best: list[Snapshot], last: Snapshot | None) -> None:
        self._sync_records()
        for (groups, facts, parts), folder, also in self._due(best, last):
            self._check_place()
            if self.checkpoints / "best" in (folder, *also):
                retention.rotate(self.checkpoints, self._keep, facts["progress"]["step"])
            checkpoint.save(
                folder, groups, facts, *also, place=self.place, parts=parts, writers=self._writers
            )
        self._check_place()
        retention.mark_saved(self.checkpoints)

    def _due(
        self, best: list[Snapshot], last: Snapshot | None
    ) -> Iterator[tuple[Snapshot, Path, list[Path]]]:
        """What is to be written, and where."""
        # `last` comes last, so that a resumed run knows of no best that does not exist.
        resumable, chosen = self.checkpoints / "last", self.checkpoints / "best"
        for snapshot in best:
            yield (snapshot, resumable, [chosen]) if snapshot is last else (snapshot, chosen, [])
        if last is not None and not any(snapshot is last for snapshot in best):
            yield last, resumable, []

    def _sync_records(self) -> None:
        paths = [path for place in self._records for path in (*place.rglob("*"), place) if path.exists()]
        for path in paths:
            state = (path.stat().st_size, path.stat().st_mtime_ns)
            if self._synced.get(path) != state and not path.is_symlink():
                try:
                    disk.sync(path)
                except OSError as error:
                    raise disk.write_error(path, error, state[0]) from error
                self._synced[path] = state

    def _check_place(self) -> None:
        if self.place is not None:
            self.place.check()

    def _copied(self, groups: TensorGroups, facts: dict[str, Any], parts: Parts) -> Snapshot:
        """A copy, in memory that no other snapshot uses any more: allocating takes longer."""
        needed = [held.groups for held in (*self._best, self._last, *self._in_flight) if held]
        used = [m for m in self._memory if any(m is groups for groups in needed)]
        free = [m for m in self._memory if all(m is not groups for groups in needed)]
        memory = free.pop() if free else {}
        copies: TensorGroups = {
            group: {name: _copy_into(memory.get(group, {}).get(name), t) for name, t in tensors.items()}
            for group, tensors in groups.items()
        }
        self._memory = [*used, *free[:1], copies]  # one to spare, however many were needed once
        if any(t.is_cuda for tensors in groups.values() for t in tensors.values()):
            torch.cuda.synchronize()  # once for all copies, which are queued
        return Snapshot(copies, facts, parts)


class ShardSaver(Saver):
    """The saver of another rank than the first: it writes this rank's parts, when the first saves.

    Args:
        checkpoints, keep, interval: as for the first rank's `Saver`.
        ranks: those that write a part of each checkpoint.
    """

    def __init__(self, checkpoints: Path, keep: int, interval: float, ranks: Ranks) -> None:
        super().__init__(checkpoints, keep, interval, ranks=ranks)

    def start(self) -> None:
        """The first rank makes the folder, before it agrees to any save."""

    def _write(self, best: list[Snapshot], last: Snapshot | None) -> None:
        assert self._writers is not None
        for (groups, _, parts), folder, also in self._due(best, last):
            checkpoint.save_shards(folder, groups, *also, parts=parts, writers=self._writers)


def _copy_into(memory: Tensor | None, tensor: Tensor) -> Tensor:
    """A copy on the CPU, in `memory` if it fits; from CUDA it is queued, into page-locked memory if any
    is left."""
    if memory is None or memory.shape != tensor.shape or memory.dtype != tensor.dtype:
        try:
            memory = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        except RuntimeError as error:
            if not (tensor.is_cuda and is_out_of_memory(error)):
                raise
            memory = torch.empty(tensor.shape, dtype=tensor.dtype)
    return memory.copy_(tensor.detach(), non_blocking=True)
