"""Samples of each class, described for the header of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from bigmodel.errors import MAX_NAMES, join_names
from bigmodel.spec import Classes, Target


def count_classes(targets: Iterable[Tensor], classes: int) -> list[int]:
    """Samples of each class in all parts.

    Args:
        targets: of each part, (samples,) int64 class indices.
    """
    counts: list[int] = torch.bincount(torch.cat(list(targets)), minlength=classes).tolist()
    return counts


def class_summary(names: Sequence[str], counts: Sequence[int]) -> str:
    """The classes with their counts, in order; if there are many, the largest."""
    both = list(zip(names, counts, strict=True))
    if len(both) > MAX_NAMES:
        both.sort(key=lambda each: -each[1])
    return join_names([_with_count(name, count) for name, count in both])


def describe_target(target: Target, targets: Iterable[Tensor]) -> tuple[str, list[tuple[str, str]]]:
    """The target in a few words, classes with their counts; and warnings about the classes.

    Args:
        targets: of each part.
    """
    if not isinstance(target, Classes):
        return str(target), []
    counts = count_classes(targets, target.count)
    return class_summary(target.names, counts), class_warnings(target.names, counts)


def _with_count(name: str, count: int) -> str:
    return f"{name} ({count:,})" if name[-1:].isdigit() else f"{name} {count:,}"


def class_warnings(names: Sequence[str], counts: Sequence[int]) -> list[tuple[str, str]]:
    """Warnings about classes with a single sample, and about names that differ only in case."""
    lines = []
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if count := len(single):
        several = f"{count:,} classes have a single sample each"
        have = "1 class has a single sample" if count == 1 else several
        lines.append(f"{have}, which is too few to evaluate: {join_names(single)}")
    variants: dict[str, list[str]] = defaultdict(list)
    for name in names:
        variants[name.casefold()].append(name)
    similar = [name for each in variants.values() if len(each) > 1 for name in each]
    if similar:
        lines.append(f"classes that differ only in case are distinguished: {join_names(similar)}")
    return [("Warning", line) for line in lines]
