"""What the data looks like: the one contract between data, model and loss.

A data source describes itself with a `DataSpec`. A model reads its input sizes and output width from
it, a loss checks that it can score the target, metrics follow from the target, and reports turn
outputs back into words. No size is typed twice. Plain Python: nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from bigmodel.errors import counted


@dataclass(frozen=True)
class Image:
    """Inputs of shape (batch, channels, height, width)."""

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.height, self.width)

    def __str__(self) -> str:
        return f"images {self.channels}×{self.height}×{self.width}"


@dataclass(frozen=True)
class Sequence:
    """Inputs of shape (batch, steps, features): real vectors in time order."""

    steps: int
    features: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.steps, self.features)

    def __str__(self) -> str:
        return f"sequences of {counted(self.steps, 'step')} × {counted(self.features, 'feature')}"


@dataclass(frozen=True)
class Tokens:
    """Inputs of shape (batch, length): integers in [0, vocab_size).

    Attributes:
        length: the most tokens a sample has; a batch may be narrower.
        pad: the token that pads shorter samples at the end; None if all have full length.
    """

    length: int
    vocab_size: int
    pad: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def __str__(self) -> str:
        most = "up to " if self.pad is not None else ""
        return f"{most}{counted(self.length, 'token')} out of {self.vocab_size:,}"


@dataclass(frozen=True)
class PackedTokens(Tokens):
    """Inputs of shape (batch, 2, length): several texts in a row, none of which sees another.

    Row 0 holds the tokens, row 1 the position of each within its own text: a text begins at each 0.
    A single text in a row may come as (batch, length), as for `Tokens`.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        return (2, self.length)

    def __str__(self) -> str:
        return f"whole texts packed into {counted(self.length, 'token')} out of {self.vocab_size:,}"


@dataclass(frozen=True)
class Features:
    """Inputs of shape (batch, count): real values without an order, some perhaps categories.

    Attributes:
        names: the columns' names; empty if they have none.
        categories: the number of categories of each column, which then holds their indices as whole
            numbers, 0 for a category not seen in training; 0 for a column of real values. Empty if all
            columns are real.
    """

    count: int
    names: tuple[str, ...] = ()
    categories: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count,)

    def __str__(self) -> str:
        categories = sum(size > 0 for size in self.categories)
        among = f", {categories:,} of them categories" if categories else ""
        return counted(self.count, "feature") + among


@dataclass(frozen=True)
class TokenPair:
    """Inputs of shape (batch, 2, length): a text, and a second one whose next tokens are predicted.

    Row 0 holds the source, row 1 the target shifted by one: `start`, then its tokens. Both share a
    vocabulary and are padded with `pad`; the source and the predicted target end with `end`.
    """

    length: int
    vocab_size: int
    pad: int
    start: int
    end: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (2, self.length)

    def __str__(self) -> str:
        return f"pairs of up to {counted(self.length, 'token')} out of {self.vocab_size:,}"


Modality = Image | Sequence | Tokens | Features
"""An input of one kind, which may be a part of a `Multimodal` one."""


@dataclass(frozen=True)
class Multimodal:
    """Inputs of shape (batch, width), float32: several parts side by side, each flattened.

    The first columns say whether a sample has each part, 1.0 or 0.0. The values of a missing part mean
    nothing. Tokens are whole numbers, which float32 represents exactly up to 2^24.

    Attributes:
        names: of the parts, such as the columns of a table that they come from.
        parts: what each one is.
    """

    names: tuple[str, ...]
    parts: tuple[Modality, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.parts) + sum(math.prod(part.shape) for part in self.parts),)

    @property
    def slices(self) -> list[slice]:
        """The columns of each part."""
        sizes = (math.prod(part.shape) for part in self.parts)
        bounds = list(accumulate(sizes, initial=len(self.parts)))
        return [slice(*ends) for ends in pairwise(bounds)]

    def __str__(self) -> str:
        named = zip(self.names, self.parts, strict=True)
        return ", ".join(f"{name} ({part})" for name, part in named)


Input = Modality | TokenPair | Multimodal


class _Named:
    """Base of targets with named outputs: a model gives one number for each."""

    names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def output_size(self) -> int:
        return self.count


@dataclass(frozen=True)
class Classes(_Named):
    """Targets of shape (batch,): one class index each. A model gives one logit per class.

    Attributes:
        names: the label of each class, by index.
        counts: the number of training samples of each class, for balanced weights.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]

    def __str__(self) -> str:
        return counted(self.count, "class", "classes")


@dataclass(frozen=True)
class Flags(_Named):
    """Targets of shape (batch, count), each 0.0 or 1.0: labels that are not mutually exclusive."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return counted(self.count, "yes/no label")


@dataclass(frozen=True)
class Values(_Named):
    """Targets of shape (batch, count): real values, standardised with the training set's statistics.

    `value = standardised * std + mean` restores the data's own unit, in which errors are reported.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return counted(self.count, "real value")


IGNORED = -100
"""The target of a position without a prediction, such as padding."""


@dataclass(frozen=True)
class NextTokens:
    """Targets of shape (batch, length): the next token at each position, or `IGNORED`.

    A model gives one logit per token of the vocabulary at each position, (batch, length, vocab_size).

    Attributes:
        characters: the number of characters of each token; None if they are not counted.
        end: the token that ends a text; None if texts have no end.
    """

    vocab_size: int
    characters: tuple[int, ...] | None = None
    end: int | None = None

    @property
    def output_size(self) -> int:
        return self.vocab_size

    def __str__(self) -> str:
        return "the next token"


@dataclass(frozen=True)
class Multitask:
    """Targets of shape (batch, count), float32: several of different kinds, a column each.

    A class is given by its index, a value standardised. A model gives the outputs of all, side by side.

    Attributes:
        names: of the targets.
        parts: each of them; `Values` hold one value.
    """

    names: tuple[str, ...]
    parts: tuple[Classes | Values, ...]

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def output_size(self) -> int:
        return sum(part.output_size for part in self.parts)

    @property
    def columns(self) -> Values:
        """How the columns are scaled: values by their statistics, and classes not at all."""
        values = [part if isinstance(part, Values) else None for part in self.parts]
        mean = tuple(0.0 if part is None else part.mean[0] for part in values)
        return Values(self.names, mean, tuple(1.0 if part is None else part.std[0] for part in values))

    @property
    def slices(self) -> list[slice]:
        """The outputs of each target."""
        bounds = accumulate((part.output_size for part in self.parts), initial=0)
        return [slice(*ends) for ends in pairwise(bounds)]

    def __str__(self) -> str:
        named = zip(self.names, self.parts, strict=True)
        return ", ".join(f"{name} ({part})" for name, part in named)


Target = Classes | Flags | Values | NextTokens | Multitask

KINDS: dict[type, str] = {
    Classes: "classes",
    Flags: "yes/no labels",
    Values: "real values",
    NextTokens: "tokens",
    Multitask: "several targets",
}
"""The kinds of target in words."""

UNDEFINED = "undefined"
"""The prediction shown for a sample if the model gives NaN or infinity."""


@dataclass(frozen=True)
class DataSpec:
    """What a data source holds: its name, inputs and targets, and the number of samples in each set."""

    name: str
    input: Input
    target: Target
    sizes: dict[str, int] = field(default_factory=dict)

    def label(self, prediction: AnySequence[float]) -> str:
        """One sample's output in words: the likeliest class, the flags set, or values in their unit;
        `UNDEFINED` if it is NaN or infinite.

        Args:
            prediction: the model's raw output for one sample, `output_size` numbers.
        """
        if isinstance(self.target, Multitask):
            parts = zip(self.target.names, self.target.parts, self.target.slices, strict=True)
            return ", ".join(f"{name} {self._of(part).label(prediction[p])}" for name, part, p in parts)
        decisive = [max(prediction)] if isinstance(self.target, Classes) else prediction
        if any(map(math.isnan, prediction)) or any(map(math.isinf, decisive)):
            return UNDEFINED
        match self.target:
            case Classes(names=names):
                return names[max(range(len(names)), key=lambda index: prediction[index])]
            case Flags(names=names):
                chosen = [name for name, logit in zip(names, prediction, strict=True) if logit > 0]
                return ", ".join(chosen) or "none"
            case Values(names=names, mean=mean, std=std):
                own = [p * s + m for p, s, m in zip(prediction, std, mean, strict=True)]
                return ", ".join(f"{value:.4g}" for value in own)
            case NextTokens():
                raise TypeError("tokens are put into words by the source's reader")

    def truth(self, target: int | AnySequence[float]) -> str:
        """One sample's target in words, comparable to `label`.

        Args:
            target: a class index, or `output_size` flags or standardised values.
        """
        if isinstance(self.target, Classes):
            assert isinstance(target, int)
            return self.target.names[target]
        assert not isinstance(target, int)
        if isinstance(self.target, Multitask):
            parts = zip(self.target.names, self.target.parts, target, strict=True)
            return ", ".join(
                f"{name} {self._of(part).truth(int(t) if isinstance(part, Classes) else [t])}"
                for name, part, t in parts
            )
        return self.label([t - 0.5 for t in target] if isinstance(self.target, Flags) else target)

    def _of(self, part: Classes | Values) -> DataSpec:
        return replace(self, target=part)

    def __str__(self) -> str:
        parts = ", ".join(f"{size:,} {part}" for part, size in self.sizes.items())
        return f"{self.name}: {self.input} → {self.target} ({parts})"
