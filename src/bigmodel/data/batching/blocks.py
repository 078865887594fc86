"""Blocks: the samples of many batches, gathered, augmented and scaled at once.

What a sample looks like depends neither on its block nor on where the block is made: in training's own
process, or in a worker beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bigmodel.data.augment import AugmentConfig
from bigmodel.data.augment import augment as augmented
from bigmodel.data.counter_rng import generator_of, key_of
from bigmodel.data.parts import PLAINLY, Chosen, Giving, Stored
from bigmodel.data.prepared import Scaling
from bigmodel.runtime.device import sent

_ORDER, _AUGMENT, _DRAW = 1, 2, 3  # keeps the uses of (seed, epoch) apart


@dataclass
class Blocks:
    """How one part of the data becomes blocks, ready for a model.

    Attributes:
        part: the samples as stored, on `device` or in memory.
        device: where the blocks are made.
        scaling: from stored inputs to model inputs; None where they are ready.
        augment: random changes; None: none.
        seed: with the epoch, decides the order and the augmentation.
        shuffle: a new order each epoch, instead of the order they are stored in.
        size: samples in a block; the last one may be smaller.
        stop: samples in an epoch.
    """

    part: Stored
    device: torch.device
    scaling: Scaling | None
    augment: AugmentConfig | None
    seed: int
    shuffle: bool
    size: int
    stop: int
    _order: tuple[int, Tensor] | None = field(default=None, repr=False)  # of the latest epoch

    def starts(self, first: int) -> range:
        """Where the blocks of an epoch begin, in samples, from sample `first` on."""
        return range(first, self.stop, self.size)

    def count(self, first: int) -> int:
        """How many samples the block that begins at `first` has."""
        return min(self.size, self.stop - first)

    def order(self, epoch: int) -> Tensor | None:
        """The epoch's order, (samples,) int64, or None for the stored one.

        Drawn on the CPU, so that it is the same for every device.
        """
        if not self.shuffle:
            return None
        if self._order is None or self._order[0] != epoch:
            drawn = torch.randperm(len(self.part), generator=generator_of(self.seed, epoch, _ORDER))
            self._order = epoch, sent(drawn, self.part.device)
        return self._order[1]

    def read(self, epoch: int, first: int) -> tuple[Tensor, Tensor]:
        """The block of `epoch` that begins at sample `first`: inputs and targets, on the device."""
        order, stop = self.order(epoch), first + self.count(first)
        chosen = slice(first, stop) if order is None else order[first:stop]
        inputs, targets = gathered(self.part, chosen, self.device, Giving(draw=self.draw(epoch)))
        if self.augment is not None:
            index = torch.arange(first, stop) if isinstance(chosen, slice) else chosen
            key = key_of(self.seed, epoch, _AUGMENT)
            inputs = augmented(inputs, self.augment, sent(index, self.device), key)
        if self.scaling is not None:
            inputs = self.scaling(inputs)
        return inputs, targets

    def draw(self, epoch: int) -> int:
        """The number by which samples are given in one of several ways; 0 without shuffle."""
        return key_of(self.seed, epoch, _DRAW) if self.shuffle else 0


def gathered(
    part: Stored, chosen: Chosen, device: torch.device, how: Giving = PLAINLY
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of some samples, on `device`; see `Stored.take`."""
    if part.device.type == device.type:
        return part.take(chosen, how)
    taken = part.take(chosen, replace(how, pinned=device.type == "cuda"))
    inputs, targets = (tensor.to(device, non_blocking=True) for tensor in taken)
    return inputs, targets


def page_locked(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory that `device` copies from without anyone waiting; uninitialised.

    Torch reuses page-locked memory only when the copy out of it is done.
    """
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
