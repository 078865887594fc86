"""Keys and values of the tokens read so far, so that attention computes none of them twice."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.models.base import DecodingCache
from bigmodel.runtime.device import to_device

KeysValues = tuple[Tensor, Tensor]
"""Keys and values: (batch, kv_heads, positions, head_dim) each."""


class KVCache(DecodingCache):
    """Keys and values of every layer, in preallocated buffers, and the length of each text.

    A text's token i lies at position i, whatever the others' lengths. Beyond a text's end there may be
    padding up to a longer one's: attention does not see it, and later tokens overwrite it.

    Args:
        depth: layers of attention.
        lengths: how many tokens each text has.
        max_length: how many it may come to have.
        device: where the model is.

    Attributes:
        layers: the keys and values of each layer.
        positions: of the token being read in each text, (batch, 1); None during the prefill.
        mask: which positions that token sees, (batch, 1, 1, longest); None: all.
        source_mask: which positions of a source are real, (batch, 1, 1, length).
    """

    def __init__(self, depth: int, lengths: list[int], max_length: int, device: torch.device) -> None:
        self.lengths, self.max_length, self.device = lengths, max_length, device
        self.layers = [LayerKVCache(self) for _ in range(depth)]
        self.positions: Tensor | None = None
        self.mask: Tensor | None = None
        self.source_mask: Tensor | None = None

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def is_uniform(self) -> bool:
        """Whether all texts have the same length, so that nothing has to be masked."""
        return min(self.lengths) == self.longest

    def advance(self) -> None:
        """Makes room for one more token of each text."""
        self.positions = to_device(torch.tensor(self.lengths), self.device).unsqueeze(1)
        self.lengths = [length + 1 for length in self.lengths]
        self.mask = None
        if not self.is_uniform:
            visible = torch.arange(self.longest, device=self.device) <= self.positions
            self.mask = visible[:, None, None]

    def select(self, rows: list[int]) -> KVCache:
        lengths = [self.lengths[row] for row in rows]
        selected = KVCache(len(self.layers), lengths, self.max_length, self.device)
        index = to_device(torch.tensor(rows), self.device)
        selected.source_mask = None if self.source_mask is None else self.source_mask[index]
        for old, new in zip(self.layers, selected.layers, strict=True):
            new.own, new.source = _select(old.own, index), _select(old.source, index)
        return selected


class LayerKVCache:
    """Keys and values of one layer: of the text itself and, in a decoder, of the source."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.own: KeysValues | None = None
        self.source: KeysValues | None = None

    def update(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Stores keys and values of the tokens being read; returns all that there are so far."""
        if self.own is None or self.cache.positions is None:
            self.own = (self._allocate(keys), self._allocate(values))
            return keys, values
        longest = self.cache.longest
        for buffer, new in zip(self.own, (keys, values), strict=True):
            if self.cache.is_uniform:
                buffer[:, :, longest - 1 : longest] = new
            else:
                rows = torch.arange(len(new), device=new.device)
                buffer[rows, :, self.cache.positions[:, 0]] = new[:, :, 0]
        return self.own[0][:, :, :longest], self.own[1][:, :, :longest]

    def _allocate(self, first: Tensor) -> Tensor:
        """A buffer for `max_length` positions that begins with `first`."""
        batch, heads, steps, head_dim = first.shape
        buffer = first.new_zeros(batch, heads, self.cache.max_length, head_dim)
        buffer[:, :, :steps] = first
        return buffer


def _select(pair: KeysValues | None, index: Tensor) -> KeysValues | None:
    return None if pair is None else (pair[0][index], pair[1][index])
