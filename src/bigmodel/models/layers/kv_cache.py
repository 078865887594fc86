"""Keys and values that attention has made of the tokens read so far, so that none is made twice."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.models.base import Memory
from bigmodel.runtime.device import sent

KeysValues = tuple[Tensor, Tensor]
"""Keys and values: (batch, kv_heads, positions, head_dim) each."""


class Cache(Memory):
    """Keys and values of every layer, in buffers made once, and how far each text has come.

    A text's token at place i lies at place i, whatever the others' lengths. Beyond its own end there may
    be what filled it up to a longer one's: that is hidden from attention, and overwritten in time.

    Args:
        depth: layers of attention.
        lengths: how many tokens each text has.
        room: how many it may come to have.
        device: where the model is.

    Attributes:
        layers: the keys and values of each layer.
        places: where the token being read stands in each text, (batch, 1); None: all known are read.
        mask: which places that token sees, (batch, 1, 1, longest); None: all.
        source_mask: which positions of a source are real, (batch, 1, 1, length).
    """

    def __init__(self, depth: int, lengths: list[int], room: int, device: torch.device) -> None:
        self.lengths, self.room, self.device = lengths, room, device
        self.layers = [LayerCache(self) for _ in range(depth)]
        self.places: Tensor | None = None
        self.mask: Tensor | None = None
        self.source_mask: Tensor | None = None

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def alike(self) -> bool:
        """Whether all texts have the same length, so that nothing need be hidden."""
        return min(self.lengths) == self.longest

    def grow(self) -> None:
        """Makes place for one more token of each text."""
        self.places = sent(torch.tensor(self.lengths), self.device).unsqueeze(1)
        self.lengths = [length + 1 for length in self.lengths]
        self.mask = None
        if not self.alike:
            seen = torch.arange(self.longest, device=self.device) <= self.places
            self.mask = seen[:, None, None]

    def select(self, rows: list[int]) -> Cache:
        chosen = Cache(len(self.layers), [self.lengths[row] for row in rows], self.room, self.device)
        index = sent(torch.tensor(rows), self.device)
        chosen.source_mask = None if self.source_mask is None else self.source_mask[index]
        for mine, theirs in zip(self.layers, chosen.layers, strict=True):
            theirs.known, theirs.source = _rows(mine.known, index), _rows(mine.source, index)
        return chosen


class LayerCache:
    """Keys and values of one layer: its own, and where it looks at a source, the source's."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.known: KeysValues | None = None
        self.source: KeysValues | None = None

    def update(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Takes in keys and values of the tokens being read, and gives all there are to look at."""
        if self.known is None or self.cache.places is None:
            self.known = (self._buffer(keys), self._buffer(values))
            return keys, values
        longest = self.cache.longest
        for buffer, new in zip(self.known, (keys, values), strict=True):
            if self.cache.alike:
                buffer[:, :, longest - 1 : longest] = new
            else:
                rows = torch.arange(len(new), device=new.device)
                buffer[rows, :, self.cache.places[:, 0]] = new[:, :, 0]
        return self.known[0][:, :, :longest], self.known[1][:, :, :longest]

    def _buffer(self, first: Tensor) -> Tensor:
        """Room for all, with the first positions filled in."""
        batch, heads, steps, head_dim = first.shape
        buffer = first.new_zeros(batch, heads, self.cache.room, head_dim)
        buffer[:, :, :steps] = first
        return buffer


def _rows(pair: KeysValues | None, index: Tensor) -> KeysValues | None:
    return None if pair is None else (pair[0][index], pair[1][index])
