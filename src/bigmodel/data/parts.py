"""One part of the data as it is stored: tensors, windows of a long text, texts of different lengths.

All gather inputs and targets by index; they differ in what they store. A batch of texts is as wide as
its longest text, so these parts know the length of each sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import ClassVar, Self

import torch
from torch import Tensor

from bigmodel.data.former_names import former_name
from bigmodel.spec import IGNORED

Chosen = slice | Tensor
"""Samples to gather: a slice, or indices, (count,) int64."""


@former_name("draw", "key")
@dataclass(frozen=True)
class GatherOptions:
    """How a part gathers samples.

    Attributes:
        key: from `counter_rng.key_of`, new in each epoch; varies samples that can be formed in several
            ways, such as windows of a text. 0: as they are stored.
        pinned: gather into page-locked memory, if the part supports it; saves a copy to a device.
        width: of a batch of texts; 0: that of its longest text, which makes the host wait if the part is
            on a device.
    """

    key: int = 0
    pinned: bool = False
    width: int = 0

    def kept(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Samples in page-locked memory if `pinned`, for parts that plugins define."""
        return (inputs.pin_memory(), targets.pin_memory()) if self.pinned else (inputs, targets)


_DEFAULT = GatherOptions()


class SplitData(ABC):
    """One part of the data, training, validation or test, as it is stored.

    Subclasses are dataclasses; the tensors among their fields are the stored data.
    """

    _by_sample: ClassVar[tuple[str, ...]]
    """Fields with a row for each sample."""

    def __len__(self) -> int:
        return len(getattr(self, self._by_sample[-1]))

    @abstractmethod
    def take(self, chosen: Chosen, options: GatherOptions = _DEFAULT) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some samples, in that order, on the part's device."""

    def select(self, index: Tensor) -> Self:
        """A part with the samples at `index`, (count,) int64, in that order."""
        return self._with_samples(lambda values: values.index_select(0, index))

    def split(self, sizes: Sequence[int]) -> list[Self]:
        """Parts of so many samples each, one after another; nothing is copied."""
        slices = [slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))]
        return [self._with_samples(itemgetter(rows)) for rows in slices]

    def _with_samples(self, choose: Callable[[Tensor], Tensor]) -> Self:
        """A part with the samples that `choose` takes of each tensor that has a row for each."""
        chosen = {name: choose(getattr(self, name)) for name in self._by_sample}
        return replace(self, **chosen)  # type: ignore[type-var]

    @property
    def lengths(self) -> Tensor | None:
        """Tokens of each sample, (samples,) int64, if a batch is as wide as its longest; else None."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> Self:
        """The same part on another device."""
        moved = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[type-var]

    @property
    def device(self) -> torch.device:
        """Where the stored tensors are."""
        return next(iter(self.tensors().values())).device

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.tensors().values())


# Former names, which plugins may import.
Stored = SplitData
Giving = GatherOptions
PLAINLY = _DEFAULT


@dataclass
class Part(SplitData):
    """Samples of one shape, in two tensors.

    Attributes:
        inputs: (samples, *spec.input.shape); images may be uint8.
        targets: as in `Batch`.
    """

    _by_sample = ("inputs", "targets")

    inputs: Tensor
    targets: Tensor

    def take(self, chosen: Chosen, options: GatherOptions = _DEFAULT) -> tuple[Tensor, Tensor]:
        """See `SplitData.take`."""
        inputs, targets = (_taken(x, chosen, options.pinned) for x in (self.inputs, self.targets))
        return inputs, targets

    def joined(self, other: SplitData) -> Part | None:
        """The samples of both; None: the other stores them in another way."""
        if not isinstance(other, Part):
            return None
        pairs = (self.inputs, other.inputs), (self.targets, other.targets)
        return Part(*map(torch.cat, pairs))


@dataclass(frozen=True)
class Multiples:
    """The numbers 0, step, 2·step, …, int64, computed when they are asked for: those of a very long text
    would take more memory than a run needs otherwise.

    Attributes:
        count: how many.
        step: from one to the next.
    """

    count: int
    step: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, chosen: Chosen) -> Tensor:
        if isinstance(chosen, slice):
            chosen = torch.arange(*chosen.indices(self.count))
        return chosen * self.step


@dataclass
class Windows(SplitData):
    """Windows of one long text; the targets are the token after every position.

    Attributes:
        stream: (tokens,) any integer type; the whole text.
        starts: (windows,) int64: start of each window.
        length: tokens in a window.
        ragged: the last window may extend beyond the text; positions there have no target.
        mapped: the stream is mapped from a file that its source keeps and has checked: nothing reads all
            of it, or copies it.
    """

    _by_sample = ("starts",)

    stream: Tensor
    starts: Tensor | Multiples
    length: int
    ragged: bool = False
    mapped: bool = False

    @classmethod
    def side_by_side(cls, stream: Tensor, length: int, *, whole: bool, mapped: bool = False) -> Windows:
        """Windows whose targets together are every token of the text but the first.

        Args:
            whole: keep a last window that the text does not fill, to evaluate on every token.
            mapped: see the class.
        """
        targets = len(stream) - 1
        count = -(-targets // length) if whole else targets // length
        starts = Multiples(max(count, 0), length)
        return cls(stream, starts, length, ragged=count * length > targets, mapped=mapped)

    def select(self, index: Tensor) -> Windows:
        """See `SplitData.select`."""
        return replace(self, starts=self.starts[index])

    def take(self, chosen: Chosen, options: GatherOptions = _DEFAULT) -> tuple[Tensor, Tensor]:
        """See `SplitData.take`. Windows are shifted by up to their length, differently in each epoch."""
        if isinstance(chosen, slice):  # on the device: a copy of computed starts would wait for it
            chosen = torch.arange(*chosen.indices(len(self.starts)), device=self.device)
        starts, last = self.starts[chosen], len(self.stream) - self.length - 1
        if options.key:
            starts = (starts + options.key % self.length).clamp(max=max(last, 0))
        index = starts[:, None] + torch.arange(self.length + 1, device=starts.device)
        tokens = gather_tokens(self.stream, index.clamp(max=len(self.stream) - 1))
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        if self.ragged:
            targets = targets.masked_fill(index[:, 1:] >= len(self.stream), IGNORED)
        return inputs, targets


@dataclass
class Texts(SplitData):
    """Texts of different lengths, each with a target.

    Attributes:
        tokens: (all tokens,) any integer type; text after text.
        starts, sizes: (samples,) int64: start and number of tokens of each text.
        targets: as in `Batch`.
        pad: the token that pads texts to the longest of a batch.
    """

    _by_sample = ("starts", "sizes", "targets")

    tokens: Tensor
    starts: Tensor
    sizes: Tensor
    targets: Tensor
    pad: int

    @property
    def lengths(self) -> Tensor:
        """See `SplitData.lengths`."""
        return self.sizes

    def take(self, chosen: Chosen, options: GatherOptions = _DEFAULT) -> tuple[Tensor, Tensor]:
        """See `SplitData.take`."""
        sizes = self.sizes[chosen]
        width = options.width or int(sizes.max())
        inputs = _padded(self.tokens, self.starts[chosen], sizes, width, self.pad)
        return inputs, self.targets[chosen]


@dataclass
class MultimodalPart(SplitData):
    """Samples of several kinds of data; see `spec.Multimodal`. Each kind is stored compactly, and all
    become float32 side by side when they are gathered.

    Attributes:
        stored: the values of each part by name, in the order of the spec, (samples, *shape): float32,
            bytes of pictures, or tokens of any integer type, padded.
        present: (samples, parts) bool: which parts a sample has.
        targets: as in `Batch`.
        scaling: scale and shift of some parts, by name, which broadcast over a batch of them:
            `model input = stored * scale + shift`.
    """

    _by_sample = ("present", "targets")

    stored: Mapping[str, Tensor]
    present: Tensor
    targets: Tensor
    scaling: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def take(self, chosen: Chosen, options: GatherOptions = _DEFAULT) -> tuple[Tensor, Tensor]:
        """See `SplitData.take`."""
        columns = [_taken(self.present, chosen, False).float()]
        for name, values in self.stored.items():
            taken = _taken(values, chosen, False).float()
            if name in self.scaling:
                scale, shift = self.scaling[name]
                taken = torch.addcmul(shift, taken, scale)
            columns.append(taken.flatten(1))
        return options.kept(torch.cat(columns, dim=1), _taken(self.targets, chosen, False))

    def joined(self, other: SplitData) -> MultimodalPart | None:
        """See `Part.joined`."""
        if not isinstance(other, MultimodalPart):
            return None
        stored = {name: torch.cat([own, other.stored[name]]) for name, own in self.stored.items()}
        present, targets = ((self.present, other.present), (self.targets, other.targets))
        return replace(self, stored=stored, present=torch.cat(present), targets=torch.cat(targets))

    def _with_samples(self, choose: Callable[[Tensor], Tensor]) -> Self:
        stored = {name: choose(values) for name, values in self.stored.items()}
        return replace(super()._with_samples(choose), stored=stored)

    def tensors(self) -> dict[str, Tensor]:
        """See `SplitData.tensors`."""
        stored = {f"stored.{name}": values for name, values in self.stored.items()}
        return super().tensors() | stored

    def to(self, device: torch.device) -> Self:
        """See `SplitData.to`."""
        return replace(
            self,
            stored={name: values.to(device) for name, values in self.stored.items()},
            present=self.present.to(device),
            targets=self.targets.to(device),
            scaling={
                k: (scale.to(device), shift.to(device)) for k, (scale, shift) in self.scaling.items()
            },
        )


Labelled = Part | Texts | MultimodalPart
"""Parts that store a target for each sample, in the tensor `targets`."""


@dataclass
class TextPairs(SplitData):
    """Pairs of texts; the second is predicted token by token. See `spec.TokenPair`.

    Attributes:
        tokens: (all tokens,) any integer type; text after text, each with its end token.
        starts, sizes: (samples, 2) int64: start and number of tokens of source and target.
        pad: the token that pads texts to the longest of a batch.
        start: the token before the target's first.
    """

    _by_sample = ("starts", "sizes")

    tokens: Tensor
    starts: Tensor
    sizes: Tensor
    pad: int
    start: int

    @property
    def lengths(self) -> Tensor:
        """See `SplitData.lengths`: of the longer text of each pair."""
        return self.sizes.amax(1)

    def take(self, chosen: Chosen, options: GatherOptions = _DEFAULT) -> tuple[Tensor, Tensor]:
        """See `SplitData.take`."""
        starts, sizes = self.starts[chosen], self.sizes[chosen]
        width = options.width or int(sizes.max())
        source, target = (
            _padded(self.tokens, starts[:, side], sizes[:, side], width, self.pad) for side in (0, 1)
        )
        inside = torch.arange(width, device=sizes.device) < sizes[:, 1:]
        # Teacher forcing: at each position the decoder reads the target up to the token before.
        previous = torch.cat([target.new_full((len(target), 1), self.start), target[:, :-1]], dim=1)
        previous = previous.masked_fill(~inside, self.pad)
        return torch.stack([source, previous], dim=1), target.masked_fill(~inside, IGNORED)


def _taken(stored: Tensor, chosen: Chosen, pinned: bool) -> Tensor:
    if isinstance(chosen, slice):
        return stored[chosen]  # a view: it is copied once, into page-locked memory or to the device
    if not pinned:
        return stored.index_select(0, chosen)
    # `index_select(…).pin_memory()` would copy every sample twice.
    locked = torch.empty((len(chosen), *stored.shape[1:]), dtype=stored.dtype, pin_memory=True)
    return torch.index_select(stored, 0, chosen, out=locked)


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32}
"""For unsigned types of more than a byte, torch lacks operations on some devices."""


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens at `index`, int64."""
    chosen = tokens.view(_SIGNED.get(tokens.dtype, tokens.dtype))[index].long()
    return chosen.bitwise_and_(0xFFFF) if tokens.dtype == torch.uint16 else chosen


def _padded(tokens: Tensor, starts: Tensor, sizes: Tensor, width: int, pad: int) -> Tensor:
    """Texts padded at their end: (texts, width) int64."""
    place = torch.arange(width, device=tokens.device)
    inside = place < sizes[:, None]
    index = (starts[:, None] + place).clamp(max=len(tokens) - 1)
    return tokens[index].long().masked_fill(~inside, pad)
