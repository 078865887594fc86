"""Ranks that are threads of one process, for tests that need no process group."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from bigmodel.distributed.ranks import Ranks

T = TypeVar("T")


class ThreadRanks(Ranks):
    """One of several threads; what they agree on goes over a list.

    Args:
        rank: the number of this thread.
        meeting: where all of them wait for each other.
        values: a place for each.
    """

    def __init__(self, rank: int, meeting: threading.Barrier, values: list[Any]) -> None:
        self.rank = self.data_rank = rank
        self.size = self.data_size = len(values)
        self._meeting, self._values = meeting, values

    def gather(self, value: T) -> list[T]:
        self._values[self.rank] = value
        self._meeting.wait(60)
        values = list(self._values)
        self._meeting.wait(60)
        return values

    def from_first(self, value: T) -> T:
        return self.gather(value)[0]

    def barrier(self) -> None:
        self._meeting.wait(60)


def on_ranks(size: int, act: Callable[[Ranks], T]) -> list[T | BaseException]:
    """What `act` returns or raises on each of so many ranks. One that raises ends the others' waits."""
    meeting, values = threading.Barrier(size), [None] * size

    def acting(rank: int) -> T | BaseException:
        try:
            return act(ThreadRanks(rank, meeting, values))
        except BaseException as error:
            meeting.abort()
            return error

    with ThreadPoolExecutor(size, "rank") as threads:
        return list(threads.map(acting, range(size)))
