"""What a reader keeps of the target: targets of new files are encoded as those of training were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.normalize import scale_targets
from bigmodel.data.spelling_variants import ValueIndex, canonical_names
from bigmodel.errors import DataError, did_you_mean, first_line, join_names
from bigmodel.registry import Config
from bigmodel.spec import Classes, Flags, Multitask, Target, Values


class TargetEncoder(Config):
    """Encodes labels and values of new files as targets.

    Attributes:
        kind: of the target; `none` if targets cannot be read from new files.
        names: of the classes in the order of their indices, or of flags or values.
        mean, std: of each value.
    """

    kind: Literal["classes", "flags", "values", "none"] = "none"
    names: list[str] = Field([])
    mean: list[float] = Field([])
    std: list[float] = Field([])

    @classmethod
    def of(cls, target: Target) -> TargetEncoder:
        """The encoder of a target whose statistics are filled in; see `assemble.completed`."""
        match target:
            case Classes(names=names):
                return cls(kind="classes", names=list(names))
            case Flags(names=names):
                return cls(kind="flags", names=list(names))
            case Values(names=names, mean=mean, std=std):
                return cls(kind="values", names=list(names), mean=list(mean), std=list(std))
            case Multitask():
                return cls.of(target.columns)
            case _:
                return cls()

    def placeholders(self, samples: int) -> Tensor:
        """Placeholder targets of the right shape, for samples that are read without targets."""
        if self.kind == "classes":
            return torch.zeros(samples, dtype=torch.int64)
        return torch.zeros(samples, max(len(self.names), 1))

    def scale(self, targets: Tensor) -> Tensor:
        """Targets as a loss reads them: class indices as they are, flags as floats, values scaled."""
        if self.kind == "values":
            return scale_targets(targets, Values(tuple(self.names), tuple(self.mean), tuple(self.std)))
        return targets.float() if self.kind == "flags" else targets

    def read(self, targets: Sequence[Any] | None, samples: int, where: str) -> Tensor:
        """Labels or numbers in memory, one for each sample, as a loss reads them; `where` begins a
        message.

        Args:
            targets: None: placeholders.

        Raises:
            DataError: there are more or fewer, one is no label of training, or no finite number.
        """
        if targets is None:
            return self.placeholders(samples)
        if len(targets) != samples:
            raise DataError(f"{where}: there are {len(targets):,} targets for {samples:,} samples.")
        if self.kind == "classes":
            return self.indices(targets, where)
        try:
            numbers = torch.tensor([float(number) for number in targets], dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: targets must be numbers: {first_line(error)}.") from error
        if self.kind != "values" or not bool(numbers.isfinite().all()):
            raise DataError(f"{where}: targets must be finite numbers.")
        return self.scale(numbers[:, None])

    def indices(self, labels: Sequence[Any], where: str) -> Tensor:
        """See `class_indices`."""
        return class_indices(labels, self.names, where)


def class_indices(labels: Sequence[Any], names: Sequence[str], where: str) -> Tensor:
    """The index of each label among `names`, (samples,) int64; `where` begins a message.

    Raises:
        DataError: a label is not among them.
    """
    words = [str(label) for label in labels]
    different = dict.fromkeys(words)
    index = ValueIndex(names).of(different)
    unknown = [word for word in different if word not in index]
    if unknown:
        known = f"{join_names(names)}.{did_you_mean(unknown[0], names)}"
        raise DataError(
            f"{where}: the training data has no label {join_names(list(map(repr, unknown)))}; its"
            f" labels are {known} Correct or remove these samples."
        )
    return torch.tensor([index[word] for word in words], dtype=torch.int64)


def class_names(
    labels: Sequence[str], before: TargetEncoder | None = None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The classes of labels, in order; and the class of each label that is spelt in another way.

    Args:
        labels: of all samples.
        before: the encoder of a resumed run; if its classes are exactly these labels, they stay.
    """
    if before is not None and set(before.names) == set(labels):
        return tuple(before.names), {}
    names = canonical_names(Counter(labels))
    aliases = {word: name for word, name in names.items() if word != name}
    return sorted_names(list(names.values())), aliases


def sorted_names(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once: in numerical order if all are whole numbers, else alphabetically."""
    names = list(dict.fromkeys(names))
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
