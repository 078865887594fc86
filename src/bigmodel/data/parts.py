"""One part of the data as it is stored: tensors, windows of a long text, texts of their own lengths.

All of them give samples by index, as inputs and targets; what differs is how little they keep. A batch
of texts is as wide as its longest one, so such parts say how long each sample is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bigmodel.spec import IGNORED

Chosen = slice | Tensor
"""Which samples: a stretch of them, or their indices, (count,) int64."""


@dataclass(frozen=True)
class Giving:
    """How a part is to give samples.

    Attributes:
        draw: a number of the epoch, 0 for none; parts that may give a sample in several ways, such as
            windows of a text, choose by it.
        pinned: into page-locked memory, which a device copies from without anyone waiting.
        width: of texts, how wide the batch is to be; 0: as its longest, which has to be looked up, and
            waited for where the part lies on a device.
    """

    draw: int = 0
    pinned: bool = False
    width: int = 0

    def kept(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Samples that were made just now, in the memory that is asked for."""
        return (inputs.pin_memory(), targets.pin_memory()) if self.pinned else (inputs, targets)


PLAINLY = Giving()


class Stored(ABC):
    """One part of the data, training, validation or test, as it is stored.

    Subclasses are dataclasses whose fields that are tensors are all that is stored.
    """

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    @abstractmethod
    def take(self, chosen: Chosen, how: Giving = PLAINLY) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some samples, in that order, where they are stored.

        Args:
            chosen: which.
            how: what else is to be heeded.
        """

    @abstractmethod
    def select(self, index: Tensor) -> Self:
        """The samples at `index`, (count,) int64, in that order, as a part of their own."""

    @property
    def lengths(self) -> Tensor | None:
        """How many tokens each sample has, (samples,) int64, where a batch is as wide as its longest;
        None where all samples are alike."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """Whatever is stored, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> Self:
        """The same part, kept on another device."""
        moved = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[type-var]

    @property
    def device(self) -> torch.device:
        """Where it is stored."""
        return next(iter(self.tensors().values())).device

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return sum(value.nbytes for value in self.tensors().values())


@dataclass
class Part(Stored):
    """Samples that are all alike, ready in two tensors.

    Attributes:
        inputs: (samples, *spec.input.shape); images may be uint8.
        targets: as in `Batch`.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return self.targets.shape[0]

    def take(self, chosen: Chosen, how: Giving = PLAINLY) -> tuple[Tensor, Tensor]:
        """See `Stored.take`."""
        return _taken(self.inputs, chosen, how.pinned), _taken(self.targets, chosen, how.pinned)

    def select(self, index: Tensor) -> Part:
        """See `Stored.select`."""
        return Part(self.inputs.index_select(0, index), self.targets.index_select(0, index))


@dataclass
class Windows(Stored):
    """Windows of one long text, each asked for the token after every position.

    Attributes:
        stream: (tokens,) any integer type; the whole text.
        starts: (windows,) int64: where each window begins.
        length: tokens in a window.
        ragged: whether the last window may reach beyond the text; what lies there asks for nothing.
    """

    stream: Tensor
    starts: Tensor
    length: int
    ragged: bool = False

    @classmethod
    def side_by_side(cls, stream: Tensor, length: int, *, whole: bool) -> Windows:
        """Windows that together ask for every token of the text but the first.

        Args:
            whole: keep a last one that the text does not fill, to judge by every token.
        """
        asked = len(stream) - 1
        count = -(-asked // length) if whole else asked // length
        return cls(stream, torch.arange(max(count, 0)) * length, length, ragged=count * length > asked)

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, chosen: Chosen, how: Giving = PLAINLY) -> tuple[Tensor, Tensor]:
        """See `Stored.take`. Each epoch's windows begin up to a window later than they are stored."""
        starts, last = self.starts[chosen], len(self.stream) - self.length - 1
        if how.draw:
            starts = (starts + how.draw % self.length).clamp(max=max(last, 0))
        index = starts[:, None] + torch.arange(self.length + 1, device=starts.device)
        tokens = self.stream[index.clamp(max=len(self.stream) - 1)].long()
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        if self.ragged:
            targets = targets.masked_fill(index[:, 1:] >= len(self.stream), IGNORED)
        return how.kept(inputs, targets)

    def select(self, index: Tensor) -> Windows:
        """See `Stored.select`."""
        return replace(self, starts=self.starts[index])


@dataclass
class Texts(Stored):
    """Texts of different lengths, each with a target.

    Attributes:
        tokens: (all tokens,) any integer type; one text after another.
        starts, sizes: (samples,) int64: where each text begins, and how many tokens it has.
        targets: as in `Batch`.
        pad: fills up texts that are shorter than the longest of a batch.
    """

    tokens: Tensor
    starts: Tensor
    sizes: Tensor
    targets: Tensor
    pad: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Tensor:
        """See `Stored.lengths`."""
        return self.sizes

    def take(self, chosen: Chosen, how: Giving = PLAINLY) -> tuple[Tensor, Tensor]:
        """See `Stored.take`."""
        sizes = self.sizes[chosen]
        inputs = _padded(
            self.tokens, self.starts[chosen], sizes, how.width or int(sizes.max()), self.pad
        )
        targets = self.targets[chosen]
        return how.kept(inputs, targets)

    def select(self, index: Tensor) -> Texts:
        """See `Stored.select`."""
        starts, sizes, targets = (x[index] for x in (self.starts, self.sizes, self.targets))
        return replace(self, starts=starts, sizes=sizes, targets=targets)


@dataclass
class TextPairs(Stored):
    """Pairs of texts, of which the second is asked for token by token; see `spec.TokenPair`.

    Attributes:
        tokens: (all tokens,) any integer type; one text after another, each with its end token.
        starts, sizes: (samples, 2) int64: where source and target begin, and how many tokens they have.
        pad: fills up texts that are shorter than the longest of a batch.
        start: stands before the target's first token.
    """

    tokens: Tensor
    starts: Tensor
    sizes: Tensor
    pad: int
    start: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Tensor:
        """See `Stored.lengths`: of the longer of the two."""
        return self.sizes.amax(1)

    def take(self, chosen: Chosen, how: Giving = PLAINLY) -> tuple[Tensor, Tensor]:
        """See `Stored.take`."""
        starts, sizes = self.starts[chosen], self.sizes[chosen]
        width = how.width or int(sizes.max())
        source, target = (
            _padded(self.tokens, starts[:, side], sizes[:, side], width, self.pad) for side in (0, 1)
        )
        asked = torch.arange(width, device=sizes.device) < sizes[:, 1:]
        known = torch.cat([target.new_full((len(target), 1), self.start), target[:, :-1]], dim=1)
        known = known.masked_fill(~asked, self.pad)
        inputs, targets = torch.stack([source, known], dim=1), target.masked_fill(~asked, IGNORED)
        return how.kept(inputs, targets)

    def select(self, index: Tensor) -> TextPairs:
        """See `Stored.select`."""
        return replace(self, starts=self.starts[index], sizes=self.sizes[index])


def _taken(stored: Tensor, chosen: Chosen, pinned: bool) -> Tensor:
    """Samples of one tensor."""
    if not pinned:
        return stored[chosen] if isinstance(chosen, slice) else stored.index_select(0, chosen)
    count = chosen.stop - chosen.start if isinstance(chosen, slice) else len(chosen)
    locked = torch.empty((count, *stored.shape[1:]), dtype=stored.dtype, pin_memory=True)
    if isinstance(chosen, slice):
        return locked.copy_(stored[chosen])
    return torch.index_select(stored, 0, chosen, out=locked)


def _padded(tokens: Tensor, starts: Tensor, sizes: Tensor, width: int, pad: int) -> Tensor:
    """Texts side by side, filled up at their end: (texts, width) int64."""
    place = torch.arange(width, device=tokens.device)
    inside = place < sizes[:, None]
    index = (starts[:, None] + place).clamp(max=len(tokens) - 1)
    return tokens[index].long().masked_fill(~inside, pad)
