"""Chooses how ranks train a model together: each with a copy, or with a part of it."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bigmodel.distributed.parallel import Parallel, changing_buffers, share_buffers
from bigmodel.distributed.ranks import Ranks
from bigmodel.runtime.device import Runtime
from bigmodel.runtime.parallel_config import Degrees


def parallelise(
    model: nn.Module, ranks: Ranks, degrees: Degrees, runtime: Runtime, *, all_used: bool
) -> Parallel:
    """Has the ranks train a model together.

    Args:
        model: the same on all ranks, on their devices.
        all_used: whether each weight takes part in every forward pass. If not, the unused ones have to
            be looked for in each.

    Raises:
        ConfigError: the model's layers cannot be split over `degrees.tensor` ranks.
    """
    if ranks.size == 1:
        return Parallel(model)
    if not degrees.share_weights:
        return _Replicated(model, all_used)
    from bigmodel.distributed.sharded import Sharded  # loads much of torch

    return Sharded(model, degrees, runtime, all_used=all_used)


class _Replicated(Parallel):
    """Each rank has a copy of the model (torch's DistributedDataParallel); gradients are sums."""

    def __init__(self, model: nn.Module, all_used: bool) -> None:
        super().__init__(model)
        self._all_used = all_used
        # cuDNN gives 1×1 kernels, and others, strides of its own: a copy, and no reason to warn a user.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        self._buffers = changing_buffers(model)
        self.retrain()

    def retrain(self) -> None:
        with warnings.catch_warnings():  # the newest torch has another name for an argument
            warnings.simplefilter("ignore", FutureWarning)
            self._ddp = DistributedDataParallel(
                self.model,
                broadcast_buffers=False,  # before a pass, and not before an evaluation: see `collect`
                find_unused_parameters=not self._all_used,
                gradient_as_bucket_view=True,  # gradients are in memory once, and copied once less
            )
        self._ddp.register_comm_hook(None, lambda _, bucket: _summed(bucket))
        self.in_training = self._ddp

    def accumulating(self) -> AbstractContextManager[Any]:
        return self._ddp.no_sync()

    def collect(self) -> None:
        share_buffers(self._buffers)


def _summed(bucket: Any) -> torch.futures.Future[Tensor]:
    """torch's own hook divides by the number of ranks: the losses here are sums already."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed
