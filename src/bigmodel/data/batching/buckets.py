"""Batches of texts of about the same length, so that little is spent on filling them up.

Samples are sorted by length, at random among equals, and cut into batches; these come in a random
order. The cuts depend on the lengths alone: every epoch has as many batches, of the same sizes, and the
order is one that (seed, epoch) decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigmodel.data.batching.blocks import gathered
from bigmodel.data.counter_rng import generator_of
from bigmodel.data.parts import Giving, Stored
from bigmodel.runtime.device import sent

_ORDER, _BATCHES = 1, 4  # keeps the uses of (seed, epoch) apart


@dataclass
class Buckets:
    """How a part of texts becomes batches.

    Attributes:
        part: the texts, on `device` or in memory.
        device: where batches are wanted.
        seed: with the epoch, decides the order.
        shuffle: a new order each epoch; without, samples come as they are stored, or, where `tokens`
            bounds a batch, from the shortest to the longest.
        samples: the most samples in a batch.
        tokens: the most tokens in a batch, what fills it up included; None: no bound. A sample that is
            longer has a batch of its own.
        keep_rest: whether a last batch that is not full counts; only asked where `tokens` is None.
    """

    part: Stored
    device: torch.device
    seed: int
    shuffle: bool
    samples: int
    tokens: int | None
    keep_rest: bool = True
    bounds: list[int] = field(init=False)

    def __post_init__(self) -> None:
        assert self.part.lengths is not None
        self._lengths = self.part.lengths.cpu()
        self.bounds = self._cuts(self._lengths.sort().values.tolist())

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.bounds) - 1

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of each batch of an epoch from batch `start` on."""
        order = self._order(epoch)
        stored = sent(order, self.part.device)  # once an epoch: its batches are slices of it
        batches = torch.arange(len(self))
        if self.shuffle:
            generator = generator_of(self.seed, epoch, _BATCHES)
            batches = torch.randperm(len(self), generator=generator)
        for number in batches.tolist()[start:]:
            bounds = slice(self.bounds[number], self.bounds[number + 1])
            widest = Giving(width=int(self._lengths[order[bounds]].max()))
            yield gathered(self.part, stored[bounds], self.device, widest)

    def _order(self, epoch: int) -> Tensor:
        """All samples in the order in which they are cut into batches: (samples,) int64."""
        if not self.shuffle:
            stored = torch.arange(len(self._lengths))
            return stored if self.tokens is None else self._lengths.argsort(stable=True)
        generator = generator_of(self.seed, epoch, _ORDER)
        drawn = torch.randperm(len(self._lengths), generator=generator)
        return drawn[self._lengths[drawn].argsort(stable=True)]

    def _cuts(self, lengths: list[int]) -> list[int]:
        """Where batches begin among samples sorted by length, and where the last one ends."""
        bounds = [0]
        for place, length in enumerate(lengths):
            count = place - bounds[-1]
            full = self.tokens is not None and (count + 1) * length > self.tokens
            if count and (count == self.samples or full):
                bounds.append(place)
        rest = len(lengths) - bounds[-1]
        if self.tokens is not None or self.keep_rest or rest == self.samples:
            bounds.append(len(lengths))
        return bounds
