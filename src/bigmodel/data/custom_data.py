"""Custom data, read from the user's files: the options that all such sources share, and the split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from bigmodel.data.base import PART_ORDER, SET_NAMES, DataConfig, PartName
from bigmodel.data.paths import check_no_device
from bigmodel.data.splits import check_learnable, fold_split, group_split, plain_split, stratified_split
from bigmodel.errors import ConfigError, DataError, did_you_mean, join_names

Share = Annotated[float, Field(ge=0, lt=1)]


def _as_strings(words: Any) -> Any:
    """Hydra parses -999 as a number and null as None."""
    if not isinstance(words, list):
        return words
    plain = ("null" if word is None else word for word in words)
    return [str(word) if isinstance(word, int | float) else word for word in plain]


Words = Annotated[list[str], BeforeValidator(_as_strings)]
"""A list of words as in a file, though they may look like numbers."""


class CustomDataConfig(DataConfig):
    """Where the user's data is, and how it is split."""

    path: str | None = Field(None, description="path of the data: a file or a folder")
    val_path: str | None = Field(
        None, description="path of the validation set; null: val_fraction of the data"
    )
    test_path: str | None = Field(
        None, description="path of the test set; null: test_fraction of the data"
    )
    test_fraction: Share = Field(0.0, description="share held out for one test at the end, 0 to 1")
    max_bad: int = Field(0, ge=0, description="unreadable samples that may be skipped")


def resolve_path(config: CustomDataConfig, key: str = "path") -> Path:
    """The path in an option of a source.

    Raises:
        ConfigError: it is not set.
        DataError: there is no such file or folder.
    """
    value = getattr(config, key)
    if value is None:
        raise ConfigError(f"data.{key}: is required. Set data.{key}=<file or folder>.")
    path = Path(value).expanduser()
    if not path.exists():
        near = sorted(p.name for p in path.absolute().parent.glob("*"))[:1000]
        raise DataError(
            f"data.{key}={value}: there is no such file or folder in {path.absolute().parent}."
            f"{did_you_mean(path.name, near)}"
        )
    check_no_device(path, f"data.{key}")
    return path


def separate_parts(config: CustomDataConfig, parts: Collection[str] = ()) -> list[PartName]:
    """The parts with a path of their own, `val_path` or `test_path`.

    Args:
        parts: those at `path`.

    Raises:
        ConfigError: `path` has that part too.
        DataError: another part has the same path.
    """
    taken, separate = {_resolved(config.path or ""): "data.path"}, list[PartName]()
    for part in PART_ORDER[1:]:
        key = f"{part}_path"
        value = getattr(config, key)
        if value is None:
            continue
        if part in parts:
            raise ConfigError(
                f"data.{key}={value}: data.path has a {SET_NAMES[part]} set of its own. Remove one of"
                " them, or set data.path to the training set only."
            )
        path = _resolved(value)
        if path in taken:
            raise DataError(
                f"data.{key}={value}: it is {taken[path]} as well: an evaluation set must not be "
                f"training data. Use other samples, or leave it out and set data.{part}_fraction."
            )
        taken[path] = f"data.{key}"
        separate.append(part)
    return separate


def _resolved(path: str) -> Path:
    return Path(path).expanduser().resolve()


def check_no_folds(config: CustomDataConfig) -> None:
    """Raises ConfigError if folds are set; for data that has a validation set of its own."""
    if config.folds is not None:
        raise ConfigError(
            f"data.folds={config.folds}: the data has a validation set of its own. Leave the folds out,"
            " or the validation set."
        )


def split_samples(
    config: CustomDataConfig,
    samples: int,
    *,
    labels: Tensor | None = None,
    groups: Sequence[Any] | None = None,
    assigned_parts: Sequence[str | None] | None = None,
    named: Callable[[int], str] = "row {}".format,
    class_names: Sequence[str] = (),
) -> dict[PartName, Tensor]:
    """The samples of each part, without parts that have a path of their own (`val_path`, `test_path`).

    Args:
        samples: how many there are.
        labels: (samples,) int64 class indices, for a stratified split.
        groups: of each sample, such as a patient: all samples of a group go to the same part.
        assigned_parts: of each sample according to the data itself: train, val (or valid, validation,
            dev) or test. A part without any sample is held out by its fraction.
        named: names a sample in messages.
        class_names: the same for classes.

    Raises:
        DataError: a part would be empty, an assigned part is unknown, or a group is empty.
    """
    if groups is not None:
        _check_groups(groups, named)
    rest, parts = torch.arange(samples), {}
    if assigned_parts is not None:
        parts = _split_as_marked(assigned_parts, named)
        rest = parts.pop("train", torch.empty(0, dtype=torch.int64))
        if not config.validation and "val" in parts:
            rest = torch.cat([rest, parts.pop("val")])
    if "val" in parts or config.val_path is not None:
        check_no_folds(config)
    held: list[tuple[PartName, float]] = []
    if config.test_path is None and "test" not in parts and config.test_fraction > 0:
        held.append(("test", config.test_fraction))
    by_fraction = config.validation and config.cross_validation is None
    if by_fraction and config.val_path is None and "val" not in parts:
        held.append(("val", config.val_fraction))
    seed = config.split_seed
    for name, fraction in held:
        if groups is not None:
            kept, out = group_split([groups[i] for i in rest.tolist()], fraction, seed, name)
        elif labels is not None:
            check_learnable(labels[rest], fraction, name)
            kept, out = stratified_split(labels[rest], fraction, seed, name)
        else:
            kept, out = plain_split(len(rest), fraction, seed, name)
        parts[name], rest = rest[out], rest[kept]
    if config.cross_validation is not None:
        kept, out = fold_split(
            len(rest),
            *config.cross_validation,
            seed,
            labels=None if labels is None else labels[rest],
            groups=None if groups is None else [groups[i] for i in rest.tolist()],
            class_names=class_names,
        )
        parts["val"], rest = rest[out], rest[kept]
    if len(rest) == 0:
        raise DataError("data: no training sample is left.")
    return {"train": rest, **parts}


_PART_SPELLINGS: dict[PartName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
PART_NAMES = {spelling: part for part, names in _PART_SPELLINGS.items() for spelling in names}
"""Names of the parts, in lower case."""


def _split_as_marked(
    assigned_parts: Sequence[str | None], named: Callable[[int], str]
) -> dict[PartName, Tensor]:
    rows: dict[PartName, list[int]] = {}
    for row, mark in enumerate(assigned_parts):
        part = PART_NAMES.get(str(mark).strip().lower())
        if part is None:
            where = f"{named(row)} (counted from 0)"
            wrong = f"is empty in {where}" if _empty(mark) else f"{mark!r} in {where} names no set"
            known = "train, val (or valid, validation, dev) and test"
            raise DataError(f"data.split: {wrong}. Allowed are {known}.")
        rows.setdefault(part, []).append(row)
    if "train" not in rows:
        raise DataError("data.split: no row is marked train, so there is nothing to train on.")
    return {part: torch.tensor(index) for part, index in rows.items()}


def _check_groups(groups: Sequence[Any], named: Callable[[int], str]) -> None:
    """Raises DataError for samples without a group: as one group, they would all go to the same part;
    as a group each, related samples might be separated."""
    empty = [row for row, group in enumerate(groups) if _empty(group)]
    if empty:
        raise DataError(
            f"data.group: is empty for {len(empty):,} of {len(groups):,} samples, the first in "
            f"{named(empty[0])} (counted from 0). Fill it in; a sample without a group needs a value of "
            "its own."
        )


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def check_trained_classes(names: Sequence[str], training: Tensor, where: str, what: str) -> None:
    """Raises DataError if a class has no training sample.

    Args:
        names: of the classes.
        training: (samples,) int64, the classes of the training set.
        where: begins the message.
        what: the samples are called, such as `rows`.
    """
    counts = torch.bincount(training, minlength=len(names)).tolist()
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"{where}: no {what} of label {join_names(list(map(repr, missing)))} are in the training "
            "set, so the model never sees it. Add some, or remove it from the other sets; with "
            "groups, another data.split_seed may help."
        )


def check_classes(names: Sequence[str], what: str) -> None:
    """Raises DataError if there are fewer than two classes; the message begins with `what`."""
    if len(names) < 2:
        raise DataError(
            f"{what}: all samples have the same label, {names[0]!r}, so there is nothing to predict"
            ". Is it the right target?"
            if names
            else f"{what}: there are no labels."
        )
