"""How several ranks train a model: which module to call, and which part of the weights is whose."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bigmodel.distributed.layout import Part
from bigmodel.distributed.ranks import Ranks
from bigmodel.runtime.device import Runtime
from bigmodel.runtime.parallel_config import Degrees


class Parallel:
    """A model of which this process holds all weights, and computes all gradients.

    Subclasses do the same for several ranks. Whatever updates, averages or saves weights works on `own`,
    in which each weight is a plain tensor: the whole, or this rank's part of it.

    Attributes:
        model: to evaluate, and to write texts, with.
        in_training: to call in training; its backward pass adds up the gradients of all ranks.
        own: has the model's modules and names, and this rank's part of each weight.
        parts: where these lie in the whole weights, by name; a weight that is not named is whole.
        lockstep: whether all ranks have to call the model equally often.
    """

    lockstep = False

    def __init__(self, model: nn.Module) -> None:
        self.model = self.in_training = self.own = model
        self.parts: Mapping[str, Part] = {}

    def accumulating(self) -> AbstractContextManager[Any]:
        """Within it, backward passes may leave gradients to be added up by a later one."""
        return nullcontext()

    def collect(self) -> None:
        """Moves the gradients that the backward passes have left to `own`."""

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The norm of the whole gradient, of which these parameters of `own` have parts."""
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def any(self, flag: Tensor) -> Tensor:
        """1 if the flag is 1 on any rank."""
        return flag

    def gathered(self) -> AbstractContextManager[Any]:
        """Within it the model may be called by some ranks alone, and by other methods than `forward`."""
        return nullcontext()


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
    if degrees.replicate == ranks.size:
        return _Replicated(model, all_used)
    from bigmodel.distributed.sharded import Sharded  # loads much of torch

    return Sharded(model, degrees, runtime, all_used=all_used)


class _Replicated(Parallel):
    """Each rank has a copy of the model (torch's DistributedDataParallel); gradients are sums."""

    def __init__(self, model: nn.Module, all_used: bool) -> None:
        super().__init__(model)
        with warnings.catch_warnings():  # the newest torch has another name for an argument
            warnings.simplefilter("ignore", FutureWarning)
            self._ddp = DistributedDataParallel(
                model,
                broadcast_buffers=False,
                find_unused_parameters=not all_used,
                gradient_as_bucket_view=True,  # gradients are in memory once, and copied once less
            )
        # cuDNN gives 1×1 kernels, and others, strides of its own: a copy, and no reason to warn a user.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        self._ddp.register_comm_hook(None, lambda _, bucket: _summed(bucket))
        self.in_training = self._ddp

    def accumulating(self) -> AbstractContextManager[Any]:
        return self._ddp.no_sync()


def _summed(bucket: Any) -> torch.futures.Future[Tensor]:
    """torch's own hook divides by the number of ranks: the losses here are sums already."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed
