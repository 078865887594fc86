"""The processes that train one model together, seen from one of them.

Every rank runs the same program on the same data, in the same order. Of each batch it computes its own
rows; sums over all ranks then give each of them the whole batch's gradient, loss and metrics. Whatever
depends on a clock, a signal or a file is decided once for all.
"""

from __future__ import annotations

import copy
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bigmodel.errors import DeviceError, join_names

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds in which processes that were started together have to come together."""


class Ranks:
    """One process that trains alone. `ProcessGroup` is the same for several.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
        data_rank: its number among those that share the rows of a batch. Ranks that compute layers
            together have the same rows, and the same number.
        data_size: how many of these there are.
        gpu: the number of its GPU among those that it sees; None for one alone, which may choose.
        sharing: how many of them, with this one, share its processors.
        timeout: seconds that one waits for another.
    """

    rank = 0
    size = 1
    data_rank = 0
    data_size = 1
    gpu: int | None = None
    sharing = 1
    timeout = PATIENCE

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and talks to the user."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This rank's rows of a batch of so many samples: `r n / R` to `(r + 1) n / R`."""
        rank, size = self.data_rank, self.data_size
        return slice(rank * count // size, (rank + 1) * count // size)

    def sharing_layers(self, tensor: int) -> Ranks:
        """The same ranks, if so many in a row compute each layer together."""
        assert tensor == 1
        return self

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all ranks with rows of their own; all have the same shape."""
        return tensor

    def max(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return number

    def from_first(self, value: T) -> T:
        """The first rank's value, on all ranks."""
        return value

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        return [value]

    def barrier(self) -> None:
        """Waits until all ranks are here."""

    @contextmanager
    def first(self) -> Iterator[None]:
        """The first rank passes the block before the others, which then find what it has made."""
        yield

    def naming_loss(self) -> AbstractContextManager[None]:
        """Within it, a library's error about another rank's end becomes a LostRankError."""
        return nullcontext()


ALONE = Ranks()


class CommunicationError(DeviceError):
    """What ranks send each other does not arrive."""


class LostRankError(CommunicationError):
    """Another rank has ended, or has not answered in time.

    Args:
        timeout: seconds in which it has not answered; None if it has ended.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        super().__init__()
        self.name([])

    def __reduce__(self) -> tuple[type[LostRankError], tuple[float | None]]:
        return LostRankError, (self.timeout,)

    def name(self, ranks: Sequence[str]) -> None:
        """Has its message name the ranks that are lost."""
        which = join_names(ranks) if ranks else "one of them"
        if self.timeout is None:
            message = f"device.ranks: all ranks have ended, since {which} ended without a message."
        else:
            message = (
                f"device.timeout={self.timeout:g}: all ranks have ended, since {which} did not answer"
                " for so many seconds. If it was only slow, raise device.timeout."
            )
        self.args = (message,)


_NCCL_REASON = re.compile(r"nccl(\w+): .*", re.DOTALL)


class ProcessGroup(Ranks):
    """The ranks of torch's process group, which has to be initialised.

    Decisions go over the processors, whatever device computes: they are small, and must not wait for it.

    Args:
        decisions: a group of all ranks for tensors on the processor.
        timeout: seconds that one waits for another.
        gpu: the number of its GPU; None: as there is one for each rank of this machine, its number among
            these.
    """

    def __init__(self, decisions: dist.ProcessGroup, timeout: float, gpu: int | None = None) -> None:
        self.rank, self.size, self.timeout = dist.get_rank(), dist.get_world_size(), timeout
        self.data_rank, self.data_size = self.rank, self.size
        self._decisions = decisions
        self._data: dist.ProcessGroup | None = None
        own = socket.gethostname(), _processors()
        all_ranks = self.gather(own)
        here = [rank for rank, (host, _) in enumerate(all_ranks) if host == own[0]]
        self.gpu = here.index(self.rank) if gpu is None else gpu
        self.sharing = sum(bool(all_ranks[rank][1] & own[1]) for rank in here)

    @classmethod
    def join(
        cls, rank: int, size: int, store: Any, timeout: float, gpu: int | None = None
    ) -> ProcessGroup:
        """Waits for the other ranks, and forms a group with them.

        Args:
            rank: the number of this process.
            size: how many there are.
            store: of torch, where they meet.
            timeout, gpu: as for the group.

        Raises:
            LostRankError: one has not come.
        """
        # No `device_id`: which device computes is not known yet. NCCL starts at its first tensor.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        most = timedelta(seconds=timeout)
        with _naming_loss(timeout):
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=most)
            return cls(dist.new_group(backend="gloo", timeout=most), timeout, gpu)

    def leave(self) -> None:
        """To be called by all ranks when all is done."""
        dist.destroy_process_group()

    def sharing_layers(self, tensor: int) -> Ranks:
        if tensor == 1:
            return self
        ranks = copy.copy(self)
        ranks.data_rank, ranks.data_size = self.rank // tensor, self.size // tensor
        groups = [list(range(first, self.size, tensor)) for first in range(tensor)]
        most = timedelta(seconds=self.timeout)
        made = [dist.new_group(group, timeout=most) for group in groups]  # by all ranks alike
        ranks._data = made[self.rank % tensor]
        return ranks

    def sum(self, tensor: Tensor) -> Tensor:
        summed = tensor.detach().clone()
        dist.all_reduce(summed, group=self._data)
        return summed

    def max(self, number: int) -> int:
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._decisions)
        return int(largest)

    def from_first(self, value: T) -> T:
        values: list[Any] = [value]
        dist.broadcast_object_list(values, 0, self._decisions)
        first: T = values[0]
        return first

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._decisions)
        return values

    def barrier(self) -> None:
        dist.barrier(self._decisions)

    @contextmanager
    def first(self) -> Iterator[None]:
        if not self.is_first:
            self.barrier()
        yield
        if self.is_first:
            self.barrier()

    def naming_loss(self) -> AbstractContextManager[None]:
        return _naming_loss(self.timeout)


@contextmanager
def _naming_loss(timeout: float) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        meaning = communication_error(error, timeout)
        if meaning is None:
            raise
        raise meaning from error


def communication_error(error: RuntimeError, timeout: float) -> CommunicationError | None:
    """What a library's error means, if it is about what ranks send each other.

    Args:
        timeout: seconds that one waits for another.
    """
    text = str(error)
    if not (isinstance(error, getattr(dist, "DistError", ())) or "gloo" in text.lower()):
        return None
    reason = _NCCL_REASON.search(text.split("\nException raised from")[0])  # a stack trace
    if reason and reason[1] != "RemoteError":
        return CommunicationError(
            f"device.ranks: NCCL, by which GPUs send each other tensors, has failed:"
            f" {' '.join(reason[0].split())} Set the environment variable NCCL_DEBUG=INFO to learn more."
        )
    return LostRankError(timeout if re.search("timed out|timeout", text.lower()) else None)


def _processors() -> frozenset[int]:
    """Those that this process may use; of systems that do not say which, all have the same."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])
