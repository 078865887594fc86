"""The processes that train one model together, seen from one of them.

Every rank runs the same program on the same data, in the same order. Of each batch it computes its own
rows; sums over all ranks then give each of them the whole batch's gradient, loss and metrics. Whatever
depends on a clock, a signal or a file is decided once for all.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bigmodel.errors import DeviceError

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for another one."""


class Ranks:
    """One process that trains alone. `ProcessGroup` is the same for several.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
        local: its number among the processes of this machine.
        data_rank: its number among those that share the rows of a batch. Ranks that compute layers
            together have the same rows, and the same number.
        data_size: how many of these there are.
    """

    rank = 0
    size = 1
    local = 0
    data_rank = 0
    data_size = 1

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


ALONE = Ranks()


class LostRankError(DeviceError):
    """Another rank has ended, or has not answered in time."""


def communication_error(error: BaseException) -> DeviceError | None:
    """What a library's error means, if it is about what ranks send each other."""
    text = str(error)
    of_ranks = isinstance(error, getattr(dist, "DistError", ())) or "gloo" in text.lower()
    if not (isinstance(error, RuntimeError) and of_ranks):
        return None
    reason = _NCCL_REASON.search(text.split("\nException raised from")[0])  # a stack trace
    if reason and reason[1] != "RemoteError":
        return DeviceError(
            f"device.ranks: NCCL, by which GPUs send each other tensors, has failed:"
            f" {' '.join(reason[0].split())} Set the environment variable NCCL_DEBUG=INFO to learn more."
        )
    return LostRankError(
        f"device.ranks: another process of this training has ended, or has not answered for"
        f" {PATIENCE.total_seconds():.0f} seconds."
    )


_NCCL_REASON = re.compile(r"nccl(\w+): .*", re.DOTALL)


class ProcessGroup(Ranks):
    """The ranks of torch's process group, which has to be initialised.

    Decisions go over the processors, whatever device computes: they are small, and must not wait for it.

    Args:
        local: this process's number among those of its machine.
        decisions: a group of all ranks for tensors on the processor.
    """

    def __init__(self, local: int, decisions: dist.ProcessGroup) -> None:
        self.rank, self.size, self.local = dist.get_rank(), dist.get_world_size(), local
        self.data_rank, self.data_size = self.rank, self.size
        self._decisions = decisions
        self._data: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, rank: int, size: int, local: int, meeting: str) -> ProcessGroup:
        """Waits for the other ranks, and forms a group with them.

        Args:
            rank: the number of this process.
            size: how many there are.
            local: its number among those of its machine.
            meeting: the address where they meet, as torch has it: `file://…`, `env://`.
        """
        # No `device_id`: which device computes is not known yet. NCCL starts at its first tensor.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, init_method=meeting, rank=rank, world_size=size, timeout=PATIENCE
        )
        return cls(local, dist.new_group(backend="gloo", timeout=PATIENCE))

    def leave(self) -> None:
        """To be called by all ranks when all is done."""
        dist.destroy_process_group()

    def sharing_layers(self, tensor: int) -> Ranks:
        if tensor == 1:
            return self
        ranks = copy.copy(self)
        ranks.data_rank, ranks.data_size = self.rank // tensor, self.size // tensor
        groups = [list(range(first, self.size, tensor)) for first in range(tensor)]
        made = [dist.new_group(group, timeout=PATIENCE) for group in groups]  # by all ranks alike
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
        dist.broadcast_object_list(values, group=self._decisions)
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
