"""Splits samples into training and held-out parts.

Both come in a random order that depends on the seed, so that the first samples of each are a mix.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from bigmodel.data.counter_rng import generator_of
from bigmodel.errors import DataError, counted


def plain_split(samples: int, fraction: float, seed: int, part: str = "val") -> tuple[Tensor, Tensor]:
    """Indices of the training and the validation set, drawn without regard to the targets.

    Args:
        samples: how many there are.
        fraction: share held out; the validation set has `round(samples * fraction)` samples.
        seed: of the draw.
        part: that is held out, `val` or `test`, for messages.

    Raises:
        DataError: one of the parts would be empty.
    """
    held_out = _held_out(samples, fraction, part)
    order = torch.randperm(samples, generator=generator_of(seed))
    return order[held_out:], order[:held_out]


def stratified_split(
    labels: Tensor, fraction: float, seed: int, part: str = "val"
) -> tuple[Tensor, Tensor]:
    """Indices of the training and the validation set, each with every class in proportion.

    The validation set has exactly `round(samples * fraction)` samples. A class with two or more samples
    is in both parts if the sizes allow it; a class with a single sample is for training.

    Args:
        labels: (samples,) int64, 0 or more.
        fraction, seed, part: as in `plain_split`.

    Raises:
        DataError: one of the parts would be empty.
    """
    samples = len(labels)
    held_out = _held_out(samples, fraction, part)
    counts = torch.bincount(labels)
    quota = _allocate(counts, held_out)

    order = torch.randperm(samples, generator=generator_of(seed))
    by_class = labels[order].argsort(stable=True)  # places in `order`, class by class
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(order)  # of each sample within its class, in the random order
    rank[by_class] = torch.arange(samples) - first.repeat_interleave(counts)
    chosen = rank < quota[labels[order]]
    return order[~chosen], order[chosen]


def group_split(
    groups: Sequence[Hashable], fraction: float, seed: int, part: str = "val"
) -> tuple[Tensor, Tensor]:
    """Indices of the training and the validation set, with all samples of a group in the same one.

    Groups are drawn in a random order and held out while that brings the validation set closer to its
    size; a large group may make it larger or smaller than requested.

    Args:
        groups: of each sample, such as a patient or a speaker.
        fraction, seed, part: as in `plain_split`.

    Raises:
        DataError: there is only one group, or one of the parts would be empty.
    """
    wanted = _held_out(len(groups), fraction, part)
    numbers: dict[Hashable, int] = {}
    member = torch.tensor([numbers.setdefault(group, len(numbers)) for group in groups])
    if len(numbers) < 2:
        raise DataError(
            f"data.group: all {len(groups):,} samples belong to one group, {next(iter(numbers))!r}, so "
            f"none can be held out. Group by something else, or set data.{part}_path."
        )
    sizes = torch.bincount(member).tolist()
    chosen: list[int] = []
    held = 0
    for group in torch.randperm(len(numbers), generator=generator_of(seed)).tolist():
        nearer = abs(held + sizes[group] - wanted) < abs(held - wanted)
        if (nearer or held == 0) and len(chosen) < len(numbers) - 1:
            chosen.append(group)
            held += sizes[group]
    is_chosen = torch.zeros(len(numbers), dtype=torch.bool)
    is_chosen[chosen] = True
    order = torch.randperm(len(groups), generator=generator_of(seed))
    out = is_chosen[member[order]]
    return order[~out], order[out]


def fold_split(
    samples: int,
    folds: int,
    fold: int,
    seed: int,
    *,
    labels: Tensor | None = None,
    groups: Sequence[Hashable] | None = None,
    class_names: Sequence[str] = (),
) -> tuple[Tensor, Tensor]:
    """Indices of the training and the validation set of one fold of a cross-validation.

    Every sample is in the validation set of exactly one fold. Folds differ by one sample at most, each
    class included; those of groups as little as whole groups allow, the largest being dealt out first.

    Args:
        samples: how many there are.
        folds: how many folds.
        fold: the one held out, from 0.
        seed: of the draw.
        labels: (samples,) int64, for stratified folds.
        groups: of each sample; all samples of a group are in the same fold, whatever their labels.
        class_names: for messages.

    Raises:
        DataError: there are fewer samples, groups or samples of a class than folds, or a class has no
            training sample in one of them. Each fold is refused alike.
    """
    order = torch.randperm(samples, generator=generator_of(seed))
    if groups is not None:
        member = _group_folds(groups, folds, seed)
        if labels is not None:
            _check_not_in_one_fold(member, labels, groups, folds, class_names)
    else:
        _check_enough(samples, folds, "the training set has {}", "sample")
        if labels is None:
            labels = torch.zeros(samples, dtype=torch.int64)
        counts = {label: n for label, n in enumerate(torch.bincount(labels).tolist()) if n}
        rarest = min(counts, key=lambda label: counts[label])
        name = _class_name(rarest, class_names)
        _check_enough(counts[rarest], folds, f"class {name} has {{}} for training", "sample")
        by_class = order[labels[order].argsort(stable=True)]
        member = torch.empty_like(order)
        member[by_class] = torch.arange(samples) % folds
    out = member[order] == fold
    return order[~out], order[out]


def _group_folds(groups: Sequence[Hashable], folds: int, seed: int) -> Tensor:
    """The fold of each sample, (samples,)."""
    numbers: dict[Hashable, int] = {}
    member = torch.tensor([numbers.setdefault(group, len(numbers)) for group in groups])
    _check_enough(len(numbers), folds, "the training set has {}", "group")
    sizes = torch.bincount(member)
    shuffled = torch.randperm(len(numbers), generator=generator_of(seed))
    fold_of, filled = torch.empty(len(numbers), dtype=torch.int64), [0] * folds
    for group in shuffled[sizes[shuffled].argsort(descending=True, stable=True)].tolist():
        fold = filled.index(min(filled))
        fold_of[group] = fold
        filled[fold] += int(sizes[group])
    return fold_of[member]


_BOUNDS = ("amin", "amax")


def _check_not_in_one_fold(
    member: Tensor, labels: Tensor, groups: Sequence[Hashable], folds: int, class_names: Sequence[str]
) -> None:
    """Raises DataError if all samples of a class are in one fold, which then has none for training."""
    bounds = torch.full((int(labels.max()) + 1,), -1)
    first, last = (bounds.scatter_reduce(0, labels, member, how, include_self=False) for how in _BOUNDS)
    for label in ((first == last) & (first >= 0)).nonzero().flatten().tolist():
        own = (labels == label).nonzero().flatten().tolist()
        whose = len({groups[index] for index in own})
        way = "Another data.split_seed may help" if whose > 1 else "Provide more groups of it"
        raise DataError(
            f"data.folds={folds}: class {_class_name(label, class_names)} has"
            f" {counted(len(own), 'sample')} for training, all in {counted(whose, 'group')} of one fold:"
            f" when that is held out, none is left to train on. {way}, or remove the class."
        )


def _class_name(label: int, class_names: Sequence[str]) -> str:
    return repr(class_names[label] if class_names else str(label))


def _check_enough(count: int, folds: int, text: str, unit: str) -> None:
    if count < folds:
        way = f"Use at most {count} folds, or provide more data." if count > 1 else "Provide more data."
        said = text.format(counted(count, unit))
        raise DataError(f"data.folds={folds}: {said}, fewer than folds. {way}")


def _held_out(samples: int, fraction: float, part: str) -> int:
    """The number of samples to hold out: at least one, leaving at least one."""
    held_out = round(samples * fraction)
    purpose = "the test" if part == "test" else "validation"
    if samples < 2:
        raise DataError(
            f"the training set has {counted(samples, 'sample')}: at least 2 are needed, one for "
            f"training and one to hold out for {purpose}."
        )
    if held_out == 0:
        raise DataError(
            f"data.{part}_fraction={fraction:g} of {samples} samples leaves no samples for {purpose}."
            f" Raise it to at least {exact_fraction(1, samples)}, or provide more data."
        )
    if held_out == samples:
        raise DataError(
            f"data.{part}_fraction={fraction:g} of {samples} samples leaves no training samples."
            f" Lower it to at most {exact_fraction(samples - 1, samples)}, or provide more data."
        )
    return held_out


def exact_fraction(held_out: int, samples: int) -> str:
    """The fraction that holds out exactly so many samples, in as few digits as possible."""
    texts = (f"{held_out / samples:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if round(samples * float(text)) == held_out)


def check_learnable(labels: Tensor, fraction: float, part: str = "val") -> None:
    """Raises DataError if the held-out set leaves a class without a sample for training.

    Args:
        labels, fraction, part: as in `stratified_split`.
    """
    counts = torch.bincount(labels)
    spare = int((counts - 1).clamp(min=0).sum())
    if round(len(labels) * fraction) <= spare:
        return
    way = "Provide two samples of each class"
    if spare:
        way = f"Lower it to at most {exact_fraction(spare, len(labels))}"
    raise DataError(
        f"data.{part}_fraction={fraction:g} of {len(labels):,} samples leaves a class without a "
        f"training sample: beyond one for each of {int((counts > 0).sum()):,} classes, {spare} are "
        f"left. {way}, or provide more data."
    )


def _allocate(counts: Tensor, held_out: int) -> Tensor:
    """The number of each class to hold out, `held_out` in total: largest remainders within bounds."""
    ideal = counts.double() * held_out / counts.sum()
    least = (counts >= 2).long()
    most = torch.where(counts >= 2, counts - 1, 0)
    if least.sum() > held_out:
        least = torch.zeros_like(counts)
    if most.sum() < held_out:
        most = counts
    quota = ideal.floor().long().clamp(min=least, max=most)
    while (missing := held_out - int(quota.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = quota < most if step > 0 else quota > least
        owed = torch.where(movable, (ideal - quota) * step, -torch.inf)
        quota[owed.topk(min(abs(missing), int(movable.sum()))).indices] += step
    return quota
