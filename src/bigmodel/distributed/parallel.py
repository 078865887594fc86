"""How several ranks train a model: which module to call, and which part of the weights is whose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from bigmodel.distributed.layout import Part


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

    def retrain(self) -> None:
        """Called when other parameters are trained than before."""

    def accumulating(self) -> AbstractContextManager[Any]:
        """Within it, backward passes may leave gradients to be added up by a later one."""
        return nullcontext()

    def collect(self) -> None:
        """Moves the gradients that the backward passes have left to `own`, and gives all ranks the same
        buffers."""

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The norm of the whole gradient, of which these parameters of `own` have parts."""
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def any(self, flag: Tensor) -> Tensor:
        """1 if the flag is 1 on any rank."""
        return flag

    def gathered(self) -> AbstractContextManager[Any]:
        """Within it the model may be called by some ranks alone, and by other methods than `forward`."""
        return nullcontext()


def changing_buffers(model: nn.Module) -> list[Tensor]:
    """Buffers that a forward pass may change, such as running statistics: those that a checkpoint holds,
    but for batch norms', which ranks compute together."""
    saved = model.state_dict(keep_vars=True)
    return [
        buffer
        for path, module in model.named_modules()
        if not isinstance(module, nn.SyncBatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
        if (f"{path}.{name}" if path else name) in saved
    ]


def share_buffers(buffers: Iterable[Tensor]) -> None:
    """Gives all ranks those of the first, as torch's DistributedDataParallel does."""
    for buffer in buffers:
        dist.broadcast(buffer, 0)
