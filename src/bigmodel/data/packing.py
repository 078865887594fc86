"""Whole documents for language models: a document in each row, or several packed into one.

Packed documents do not see each other, and each has positions of its own, so that the loss and its
gradient are those of a document in each row. Only the tokens that would fill up rows are saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from bigmodel.data.counter_rng import generator_of
from bigmodel.data.parts import Chosen, GatherOptions, SplitData, gather_tokens
from bigmodel.runtime.device import to_device
from bigmodel.spec import IGNORED

_STORED = GatherOptions()


def best_fit(sizes: Sequence[int], length: int) -> list[int]:
    """Packs texts into windows by best-fit decreasing: from the longest to the shortest, each goes where
    the least room is left after it. At most 11/9 of the fewest possible windows are needed, and 4 more
    (Johnson, Demers, Ullman, Garey and Graham 1974).

    Args:
        sizes: tokens of each text, 1 to `length`.
        length: of a window.

    Returns:
        The window of each text, counted from 0.
    """
    with_room: list[list[int]] = [[] for _ in range(length + 1)]
    rooms, count = 0, 0  # bit r of `rooms`: some window has room for exactly r
    chosen = [0] * len(sizes)
    for text in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        size = sizes[text]
        room, fitting = length, rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            window = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            window, count = count, count + 1
        chosen[text] = window
        if left := room - size:
            with_room[left].append(window)
            rooms |= 1 << left
    return chosen


def pieces(sizes: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cuts documents so that each piece has at most `length` positions that ask for the next token.

    Args:
        sizes: (documents,) int64, tokens of each, at least 2; they lie one after another.

    Returns:
        The first token of each piece, and its number of positions: (pieces,) int64 each. A piece's last
        position asks for the token that the next piece begins with.
    """
    asked = sizes - 1
    counts = (asked + length - 1) // length
    document = torch.arange(len(sizes)).repeat_interleave(counts)
    within = torch.arange(len(document)) - (counts.cumsum(0) - counts)[document]
    starts = (sizes.cumsum(0) - sizes)[document] + within * length
    return starts, (asked[document] - within * length).clamp(max=length)


@dataclass
class Documents(SplitData):
    """Documents, or pieces of them, each in a row; the targets are the token after every position.

    Attributes:
        tokens: (all tokens,) any integer type; document after document, with the tokens that stand
            before and after its text.
        starts, sizes: (documents,) int64: first token and number of positions of each. Its tokens are
            one more: the last is only asked for.
        pad: the token that pads documents to the longest of a batch.
        learnt: (all tokens,) bool: which of them are targets; None: all.
    """

    _by_sample = ("starts", "sizes")

    tokens: Tensor
    starts: Tensor
    sizes: Tensor
    pad: int
    learnt: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """See `SplitData.lengths`."""
        return self.sizes

    @property
    def asked(self) -> float:
        """Mean number of tokens in a row, without padding."""
        return float(self.sizes.double().mean())

    def take(self, chosen: Chosen, options: GatherOptions = _STORED) -> tuple[Tensor, Tensor]:
        """See `SplitData.take`."""
        sizes = self.sizes[chosen]
        place = torch.arange(options.width or int(sizes.max()), device=self.device)
        return _gathered(self, self.starts[chosen, None] + place, place < sizes[:, None])

    def prompts(self, count: int, most: int) -> list[list[int]]:
        """The first tokens, up to `most` and half of the document, of so many documents; if only some
        are learnt, those before the first of these."""
        return _prompts(self, count, most)


@dataclass
class PackedDocuments(SplitData):
    """Documents, or pieces of them, packed into windows; see `spec.PackedTokens`.

    In each epoch documents of equal length change places, so that other ones meet in a window.

    Attributes:
        tokens, learnt: see `Documents`.
        starts, sizes: (documents,) int64: see `Documents`; window after window.
        firsts, counts: (windows,) int64: the first document of each window, and how many it holds.
        length: tokens in a window.
        pad: the token in the rest of a window.
    """

    _by_sample = ("firsts", "counts")

    tokens: Tensor
    starts: Tensor
    sizes: Tensor
    firsts: Tensor
    counts: Tensor
    length: int
    pad: int
    learnt: Tensor | None = None

    def __post_init__(self) -> None:
        self._most = int(self.counts.max()) if len(self.counts) else 0
        self._sizes = (self.sizes.cpu(),)  # an epoch's order is drawn on the host
        self._order: tuple[int, Tensor] | None = None

    @classmethod
    def packed(cls, documents: Documents, length: int) -> PackedDocuments:
        """The documents packed into windows of `length` tokens, which is at least the longest."""
        windows = torch.tensor(best_fit(documents.sizes.tolist(), length), dtype=torch.int64)
        order, counts = windows.argsort(stable=True), torch.bincount(windows)
        firsts = counts.cumsum(0) - counts
        starts, sizes = documents.starts[order], documents.sizes[order]
        return cls(
            documents.tokens, starts, sizes, firsts, counts, length, documents.pad, documents.learnt
        )

    @property
    def asked(self) -> float:
        """Mean number of tokens in a window, without padding."""
        return float(self.sizes.sum()) / max(1, len(self))

    def select(self, index: Tensor) -> PackedDocuments:
        """See `SplitData.select`: only the documents of these windows are kept, or others would take
        their places."""
        counts = self.counts[index]
        firsts = counts.cumsum(0) - counts
        within = torch.arange(int(counts.sum())) - firsts.repeat_interleave(counts)
        kept = self.firsts[index].repeat_interleave(counts) + within
        starts, sizes = self.starts[kept], self.sizes[kept]
        return replace(self, starts=starts, sizes=sizes, firsts=firsts, counts=counts)

    def unpacked(self) -> Documents:
        """The same documents, each in a row."""
        return Documents(self.tokens, self.starts, self.sizes, self.pad, self.learnt)

    def take(self, chosen: Chosen, options: GatherOptions = _STORED) -> tuple[Tensor, Tensor]:
        """See `SplitData.take`."""
        firsts, counts = self.firsts[chosen], self.counts[chosen]
        nth = torch.arange(self._most, device=self.device)
        held = (firsts[:, None] + nth).clamp(max=len(self.starts) - 1)
        sizes = self.sizes[held].masked_fill(nth >= counts[:, None], 0)
        ends = sizes.cumsum(1)
        place = torch.arange(self.length, device=self.device).repeat(len(ends), 1)
        inside = place < ends[:, -1:]
        document = torch.searchsorted(ends, place, right=True).clamp(max=self._most - 1)
        begins = torch.where(inside, (ends - sizes).gather(1, document), ends[:, -1:])
        starts = self._starts(options.key)[held].gather(1, document)
        inputs, targets = _gathered(self, starts + place - begins, inside)
        return torch.stack([inputs, place - begins], dim=1), targets

    def prompts(self, count: int, most: int) -> list[list[int]]:
        """See `Documents.prompts`."""
        return _prompts(self, count, most)

    def _starts(self, key: int) -> Tensor:
        """The first tokens of the documents in their places of an epoch, (documents,)."""
        if not key:
            return self.starts
        if self._order is None or self._order[0] != key:
            (sizes,) = self._sizes
            drawn = torch.randperm(len(sizes), generator=generator_of(key))
            order = torch.empty_like(drawn)
            order[sizes.argsort(stable=True)] = drawn[sizes[drawn].argsort(stable=True)]
            self._order = key, self.starts[to_device(order, self.device)]
        return self._order[1]


def _gathered(part: Documents | PackedDocuments, index: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens at `index`, and those after them as targets: both of the shape of `index`."""
    index = index.clamp(max=len(part.tokens) - 2)
    inputs = gather_tokens(part.tokens, index).masked_fill(~inside, part.pad)
    if part.learnt is not None:
        inside = inside & part.learnt[index + 1]
    return inputs, gather_tokens(part.tokens, index + 1).masked_fill(~inside, IGNORED)


def _prompts(part: Documents | PackedDocuments, count: int, most: int) -> list[list[int]]:
    bounds = [len(part.sizes) * place // count for place in range(count + 1)]
    prompts = []
    for place, after in pairwise(bounds):
        if place < after:
            start, size = int(part.starts[place]), int(part.sizes[place])
            width = max(1, min(most, size // 2))
            if part.learnt is not None:
                width = 1 + int(part.learnt[start + 1 : start + 1 + size].int().argmax())
            prompts.append(part.tokens[start : start + width].tolist())
    return prompts
