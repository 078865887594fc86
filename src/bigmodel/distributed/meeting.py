"""Where processes that were started together find each other before they know what to do, and agree on
the one that says what has gone wrong."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from threading import Thread
from typing import TypeVar

import torch.distributed as dist

from bigmodel.distributed.environment import Place
from bigmodel.distributed.ranks import PATIENCE, LostRankError, ProcessGroup
from bigmodel.errors import DeviceError, first_line
from bigmodel.runtime.signals import interruptible

T = TypeVar("T")

_GRACE = 3.0
"""Seconds in which one that knows why all of them end may say so before those that only miss another."""
_POLL = 0.02


class Meeting:
    """Processes that were started together, seen from one of them.

    Args:
        place: of this process.
        patience: seconds to wait for the others.

    Raises:
        DeviceError: they have not come, or cannot come.
    """

    def __init__(self, place: Place, patience: float = PATIENCE) -> None:
        self.place = place
        self._is_open = False
        meeting = dist.rendezvous(  # type: ignore[attr-defined]
            f"tcp://{place.address}:{place.port}",
            place.rank,
            place.size,
            timeout=timedelta(seconds=patience),
        )
        try:
            store, *_ = interruptible(lambda: next(meeting))
        except RuntimeError as error:
            raise _not_met(place, patience, error) from error
        self._store = dist.PrefixStore("bigmodel", store)  # type: ignore[attr-defined]
        self._store.set(f"host {place.rank}", socket.gethostname())

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.place.size

    def open(self, task: str | int) -> None:
        """Tells the others what to do, once; or the exit status of all, if there is nothing to do."""
        if self._is_open:
            return
        self._is_open = True
        self._store.set("task", str(task))  # a text, and no pickle: other programs reach the port, too
        if isinstance(task, int):  # the store may be this process's: it stays until they have heard
            deadline = time.monotonic() + _GRACE
            while self._store.add("left", 0) < self.size - 1 and time.monotonic() < deadline:
                time.sleep(_POLL)

    def hear(self) -> str | int:
        """What the first has told the others to do, or the status to exit with.

        Raises:
            LostRankError: it has ended.
        """
        try:
            while not self._store.check(["task"]):
                time.sleep(_POLL)
            task: str = self._store.get("task").decode()
            if not task.isdecimal():
                return task
            self._store.add("left", 1)
        except RuntimeError as error:
            raise LostRankError from error
        return int(task)

    def form(self, timeout: float) -> ProcessGroup:
        """The group in which all of them train.

        Args:
            timeout: seconds that one of them waits for another.
        """
        place = self.place
        store = dist.PrefixStore("group", self._store)  # type: ignore[attr-defined]
        return ProcessGroup.join(place.rank, place.size, store, timeout, place.gpu)

    def wait_for_first(self, timeout: float) -> None:
        """Waits until the first is here, too, which saves last: once one of them has ended, what has
        started them may end the others.

        Args:
            timeout: seconds to wait at most.
        """
        deadline = time.monotonic() + timeout
        with contextlib.suppress(RuntimeError):  # the store was the first's, which has ended
            if self.place.rank == 0:
                self._store.set("saved", "")
            while not self._store.check(["saved"]) and time.monotonic() < deadline:
                time.sleep(_POLL)

    def is_told_here(self, error: BaseException) -> bool:
        """Whether this process says why all of them end; another one may have done so, or will.

        Args:
            error: that ends this one; if another rank is lost, it will name that one.
        """
        lost = isinstance(error, LostRankError)
        try:
            if not _within(2 * _GRACE, lambda: self._may_speak(lost)):
                return False
            missing = self._missing() if lost else []
        except TimeoutError:  # the store is the first process's, which stands still
            if not lost or self.place.rank != 1:
                return False
            missing = ["rank 0"]
        except RuntimeError:  # the store was the first process's, which has ended
            return False
        if isinstance(error, LostRankError):
            error.name(missing)
        return True

    def _may_speak(self, lost: bool) -> bool:
        self._store.set(f"ended {self.place.rank}", "")
        deadline = time.monotonic() + (_GRACE if lost else 0)
        while time.monotonic() < deadline and not self._store.check(["said"]):
            time.sleep(_POLL)
        return bool(self._store.add("said", 1) == 1)

    def _missing(self) -> list[str]:
        """Those of which nothing was heard, each with its machine."""
        return [
            f"rank {rank} on {self._store.get(f'host {rank}').decode()}"
            for rank in range(self.size)
            if not self._store.check([f"ended {rank}"])
        ]


def _within(seconds: float, act: Callable[[], T]) -> T:
    """What `act` returns; it may wait for a process that stands still, without an end.

    Raises:
        TimeoutError: it takes longer.
        RuntimeError: as `act` does.
    """
    results: list[T] = []
    errors: list[RuntimeError] = []

    def run() -> None:
        try:
            results.append(act())
        except RuntimeError as error:
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


def _not_met(place: Place, patience: float, error: RuntimeError) -> DeviceError:
    where, why = f"{place.address}:{place.port}", str(error)
    start = f"{place.starter} has started {place.size} processes, of which this is rank {place.rank}"
    if "EADDRINUSE" in why:
        return DeviceError(
            f"{start}: they meet at {where}, but another program has that port. Set MASTER_PORT, or"
            " torchrun's --master-port, to one that is free."
        )
    if "imed out" in why:
        missing = "some of them have not come to" if place.rank == 0 else "nobody was there at"
        return DeviceError(
            f"{start}: in {patience:.0f} seconds {missing} {where}. Start all of them within that time,"
            " on machines that reach each other by that address (MASTER_ADDR)."
        )
    return DeviceError(f"{start}: they cannot meet at {where}: {first_line(error)}")
