"""What a reader keeps of the target, so that new files' answers are scored as those of training were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.normalize import scored
from bigmodel.data.spelling_variants import ValueIndex, canonical_names
from bigmodel.errors import DataError, did_you_mean, join_names
from bigmodel.registry import Config
from bigmodel.spec import Classes, Flags, Target, Values


class TargetEncoder(Config):
    """The kind of a target, and what turns the data's own answers into it and back.

    Attributes:
        kind: of the target; `none` where answers cannot be read from new files.
        names: labels of classes in the order of their indices, or of flags or values.
        mean, std: of each value.
    """

    kind: Literal["classes", "flags", "values", "none"] = "none"
    names: list[str] = Field([])
    mean: list[float] = Field([])
    std: list[float] = Field([])

    @classmethod
    def of(cls, target: Target) -> TargetEncoder:
        """What to keep of a target, once the training part has completed it."""
        match target:
            case Classes(names=names):
                return cls(kind="classes", names=list(names))
            case Flags(names=names):
                return cls(kind="flags", names=list(names))
            case Values(names=names, mean=mean, std=std):
                return cls(kind="values", names=list(names), mean=list(mean), std=list(std))
            case _:
                return cls()

    def blank(self, samples: int) -> Tensor:
        """Targets of the right shape that mean nothing, for samples whose answers are not asked for."""
        if self.kind == "classes":
            return torch.zeros(samples, dtype=torch.int64)
        return torch.zeros(samples, max(len(self.names), 1))

    def scored(self, own: Tensor) -> Tensor:
        """Answers as a loss reads them: class indices and flags as they are, values standardised."""
        match self.kind:
            case "values":
                return scored(own, Values(tuple(self.names), tuple(self.mean), tuple(self.std)))
            case "flags":
                return scored(own, Flags(tuple(self.names)))
            case _:
                return own

    def indices(self, labels: Sequence[Any], where: str) -> Tensor:
        """Class indices, (samples,) int64, of labels.

        Raises:
            DataError: training did not have one of them.
        """
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
    """The classes that labels name, in order, and the class of each label that is spelt otherwise.

    Args:
        labels: of all samples.
        before: the answers that a run has learnt from these very labels; it told them apart by itself.
    """
    if before is not None and set(before.names) == set(labels):
        return tuple(before.names), {}
    names = canonical_names(Counter(labels))
    aliases = {word: name for word, name in names.items() if word != name}
    return sorted_names(list(names.values())), aliases


def sorted_names(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once: by size where all are whole numbers, else by the alphabet."""
    names = list(dict.fromkeys(names))
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
