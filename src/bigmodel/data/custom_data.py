"""Custom data, read from the user's files: the options that all such sources share, and the split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from bigmodel.data.base import DataConfig, PartName
from bigmodel.data.paths import check_no_device
from bigmodel.data.splits import check_learnable, group_split, plain_split, stratified_split
from bigmodel.errors import ConfigError, DataError, did_you_mean, join_names

Share = Annotated[float, Field(ge=0, lt=1)]


def _as_strings(words: Any) -> Any:
    """Hydra takes -999 for a number, and null for none."""
    if not isinstance(words, list):
        return words
    plain = ("null" if word is None else word for word in words)
    return [str(word) if isinstance(word, int | float) else word for word in plain]


Words = Annotated[list[str], BeforeValidator(_as_strings)]
"""A list of words as they stand in a file, which look like numbers there or here."""


class CustomDataConfig(DataConfig):
    """Where the user's data is, and how it is split."""

    path: str | None = Field(None, description="path of the data: a file or a folder")
    val_path: str | None = Field(
        None, description="path of the validation part; null: val_fraction of the data"
    )
    test_path: str | None = Field(
        None, description="path of the test part; null: test_fraction of the data"
    )
    test_fraction: Share = Field(0.0, description="share held out for one test at the end, 0 to 1")
    max_bad: int = Field(0, ge=0, description="unreadable samples that may be skipped")


def resolve_path(config: CustomDataConfig, key: str = "path") -> Path:
    """The path that an option of a source names.

    Raises:
        ConfigError: it is not given.
        DataError: nothing is there.
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
    """The parts that have a place of their own, `val_path` or `test_path`.

    Args:
        parts: those that `path` has.

    Raises:
        ConfigError: a part is there already.
        DataError: it is the place of another part.
    """
    taken, found = {_resolved(config.path or ""): "data.path"}, list[PartName]()
    names: tuple[PartName, PartName] = ("val", "test")
    for part in names:
        key = f"{part}_path"
        value = getattr(config, key)
        if value is None:
            continue
        if part in parts:
            raise ConfigError(
                f"data.{key}={value}: data.path has a {part} part of its own. Remove one of them, or "
                "set data.path to the training part only."
            )
        there = _resolved(value)
        if there in taken:
            raise DataError(
                f"data.{key}={value}: it is {taken[there]} as well: an evaluation part must not be "
                f"training data. Use other samples, or leave it out and set data.{part}_fraction."
            )
        taken[there] = f"data.{key}"
        found.append(part)
    return found


def _resolved(path: str) -> Path:
    return Path(path).expanduser().resolve()


def split_samples(
    config: CustomDataConfig,
    samples: int,
    *,
    labels: Tensor | None = None,
    groups: Sequence[Any] | None = None,
    assigned_parts: Sequence[str | None] | None = None,
    named: Callable[[int], str] = "row {}".format,
) -> dict[PartName, Tensor]:
    """Which samples go where; a part that has a file of its own (`val_path`, `test_path`) is left out.

    Args:
        samples: how many there are.
        labels: (samples,) int64 class indices, to share each class out in proportion.
        groups: what each sample belongs to, such as a patient: all of a group go to the same part.
        assigned_parts: where each sample goes as the data itself says: train, val (or valid,
            validation, dev) or test. A part that no sample is assigned to is held out by its fraction.
        named: what a message calls a sample.

    Raises:
        DataError: a part would be empty, a mark is none of these, or a group is empty.
    """
    if groups is not None:
        _check_groups(groups, named)
    rest, parts = torch.arange(samples), {}
    if assigned_parts is not None:
        parts = _split_as_marked(assigned_parts, named)
        rest = parts.pop("train", torch.empty(0, dtype=torch.int64))
    held: list[tuple[PartName, float]] = []
    if config.test_path is None and "test" not in parts and config.test_fraction > 0:
        held.append(("test", config.test_fraction))
    if config.val_path is None and "val" not in parts:
        held.append(("val", config.val_fraction))
    for name, fraction in held:
        kept, out = _held_out(config, name, rest, fraction, labels, groups)
        parts[name], rest = rest[out], rest[kept]
    if len(rest) == 0:
        raise DataError("data: no training sample is left.")
    return {"train": rest, **parts}


def _held_out(
    config: CustomDataConfig,
    part: PartName,
    rest: Tensor,
    fraction: float,
    labels: Tensor | None,
    groups: Sequence[Any] | None,
) -> tuple[Tensor, Tensor]:
    """Which places of `rest` are kept, and which are held out."""
    seed = config.split_seed
    if groups is not None:
        return group_split([groups[i] for i in rest.tolist()], fraction, seed, part)
    if labels is not None:
        check_learnable(labels[rest], fraction, part)
        return stratified_split(labels[rest], fraction, seed, part)
    return plain_split(len(rest), fraction, seed, part)


_PART_SPELLINGS: dict[PartName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
PART_NAMES = {spelling: part for part, names in _PART_SPELLINGS.items() for spelling in names}
"""How a part may be named, in small letters."""


def _split_as_marked(
    assigned_parts: Sequence[str | None], named: Callable[[int], str]
) -> dict[PartName, Tensor]:
    rows: dict[PartName, list[int]] = {}
    for row, mark in enumerate(assigned_parts):
        part = PART_NAMES.get(str(mark).strip().lower())
        if part is None:
            where = f"{named(row)} (counted from 0)"
            wrong = f"is empty in {where}" if _empty(mark) else f"{mark!r} in {where} names no part"
            known = "train, val (or valid, validation, dev) and test"
            raise DataError(f"data.split: {wrong}. Allowed are {known}.")
        rows.setdefault(part, []).append(row)
    if "train" not in rows:
        raise DataError("data.split: no row is marked train, so there is nothing to train on.")
    return {part: torch.tensor(index) for part, index in rows.items()}


def _check_groups(groups: Sequence[Any], named: Callable[[int], str]) -> None:
    """Refuses samples of no group: taken for one, they would all go to the same part; taken each for
    itself, what belongs together might be parted."""
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
    """Raises DataError if a class has no sample to learn from.

    Args:
        names: of the classes.
        training: (samples,) int64, the classes of those that are learnt from.
        where, what: begin a message, and call the samples: `rows`.
    """
    counts = torch.bincount(training, minlength=len(names)).tolist()
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"{where}: no {what} of label {join_names(list(map(repr, missing)))} are in the training "
            "part, so the model never sees it. Add some, or remove it from the other parts; with "
            "groups, another data.split_seed may help."
        )


def check_classes(names: Sequence[str], what: str) -> None:
    """Raises DataError if there are fewer than two classes to tell apart; `what` says where from."""
    if len(names) < 2:
        raise DataError(
            f"{what}: all samples have the same label, {names[0]!r}, so there is nothing to predict"
            ". Is it the right target?"
            if names
            else f"{what}: there are no labels."
        )
