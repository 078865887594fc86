"""How a model is trained by several ranks: the module to call in training."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bigmodel.distributed.ranks import Ranks


def replicated(model: nn.Module, ranks: Ranks, *, all_used: bool) -> nn.Module:
    """A model of which each rank has a copy, in training: its gradients are the sums over all ranks.

    Args:
        model: on its device; all ranks start from the first one's weights.
        all_used: whether each weight takes part in every forward pass. If not, the unused ones have to
            be looked for in each, since DDP would wait for their gradients.
    """
    if ranks.size == 1:
        return model
    with warnings.catch_warnings():  # the newest torch has another name for an argument
        warnings.simplefilter("ignore", FutureWarning)
        parallel = DistributedDataParallel(
            model, broadcast_buffers=False, find_unused_parameters=not all_used
        )
    parallel.register_comm_hook(None, lambda _, bucket: _summed(bucket))
    return parallel


def unsynchronised(parallel: nn.Module) -> AbstractContextManager[Any]:
    """Within it, backward passes leave gradients where they are, to be summed up by a later one."""
    if isinstance(parallel, DistributedDataParallel):
        return parallel.no_sync()
    return nullcontext()


def _summed(bucket: Any) -> torch.futures.Future[torch.Tensor]:
    """torch's own hook divides by the number of ranks: the losses here are sums already."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    summed: torch.futures.Future[torch.Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed
