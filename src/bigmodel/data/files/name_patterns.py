"""Labels, groups and sets of files, found in their paths by patterns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bigmodel.data.custom_data import PART_NAMES
from bigmodel.data.libraries import regex
from bigmodel.data.text_encoding import Encoding
from bigmodel.errors import DataError, join_names, require
from bigmodel.registry import Config

PART_FOLDERS = set(PART_NAMES)
"""Names of folders that hold a set, not a class."""

_SECONDS = 5  # of the processor for one path, which takes microseconds


class FilePatterns(Config):
    """How labels, groups and sets of files are found."""

    label_pattern: str | None = Field(
        None,
        description="regular expression for paths in the folder, its one group the label; null: folders",
    )
    group_pattern: str | None = Field(
        None,
        description="regular expression whose one group names what stays in one set; null: none",
    )
    test_pattern: str | None = Field(
        None, description="regular expression that finds the test set's paths; null: by folder"
    )
    file: str = Field("file", description="column of a list that names the files")
    label: str = Field("label", description="column of a list that holds the labels")
    group: str | None = Field(
        None, description="column of a list whose equal values stay in one set; null: none"
    )
    split: str | None = Field(
        None, description="column of a list that says train, val or test; null: none"
    )
    root: str | None = Field(
        None, description="folder that a list's paths start from; null: that of the list"
    )
    encoding: Encoding = Field(
        "utf-8",
        description="encoding of a list: utf-8, cp1252, utf-16, …; a byte-order mark is recognised",
    )
    task: Literal["auto", "classes", "values"] = Field(
        "auto",
        description="what labels are: classes, values, or auto: values if a list has fractions",
    )

    @field_validator("label_pattern", "group_pattern", "test_pattern")
    @classmethod
    def _sound_pattern(cls, pattern: str | None, info: ValidationInfo) -> str | None:
        if pattern is None:
            return None
        require("regex", f"data.{info.field_name}")
        try:
            groups = regex.compile(pattern).groups
        except (regex.error, RecursionError) as error:
            raise ValueError(f"it is not a regular expression: {error}") from error
        if info.field_name != "test_pattern" and groups != 1:
            raise ValueError(
                f"it needs exactly one capturing group and has {groups}. Use (?:…) for the others"
            )
        return pattern

    def for_new_files(self) -> FilePatterns:
        """The options that new files need: for their labels, and for where those of a list are."""
        needed = self.model_dump(include={"label_pattern", "file", "label", "task", "encoding"})
        root = None if self.root is None else str(Path(self.root).expanduser().absolute())
        return FilePatterns(**needed, root=root)


Labels = list[str] | list[float]


@dataclass(frozen=True)
class Files:
    """Samples that are files.

    Attributes:
        paths: in their order.
        names: of each file, as the user knows it: its path within the folder or list.
        labels: of each file; numbers if a list has real values; empty if no labels are needed.
        groups: of each file; None if unknown.
        assigned_parts: the set of each file; None if unknown.
        ignored: how many files of other kinds there are, by suffix.
        system_files: names of files that operating systems have left beside them.
        aliases: labels that are spelt differently from their class, with that class.
        empty: folders that could name a class, but hold no file.
    """

    paths: list[Path]
    names: list[str]
    labels: Labels = field(default_factory=list)
    groups: list[str] | None = None
    assigned_parts: list[str] | None = None
    ignored: Counter[str] = field(default_factory=Counter)
    system_files: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    @property
    def real(self) -> bool:
        """Whether labels are real numbers."""
        return len(self.labels) > 0 and isinstance(self.labels[0], float)

    def extended(self, more: Files, folder: str) -> Files:
        """These files, followed by those of another folder."""
        return replace(
            self,
            paths=self.paths + more.paths,
            names=self.names + more.names,
            ignored=self.ignored + more.ignored,
            system_files=sorted({*self.system_files, *more.system_files}),
            empty=[*self.empty, *(f"{folder}/{name}" for name in more.empty)],
        )


def kinds_of_files(counts: Counter[str]) -> str:
    """How many files there are of each kind, the most frequent first."""
    kinds = [f"{count:,} {kind}" for kind, count in counts.most_common()]
    return f"{counts.total():,} other files: {join_names(kinds)}"


def _search(pattern: str, name: str, key: str) -> Any:
    """The match of a pattern in a path, or None.

    Raises:
        DataError: matching takes too long.
    """
    try:
        return regex.search(pattern, name, timeout=_SECONDS)
    except TimeoutError:
        raise DataError(
            f"data.{key}={pattern!r}: looks for a match in {name!r} for more than {_SECONDS} seconds. A "
            "repetition within a repetition, such as (a+)+, can be matched in countless ways: remove "
            "one of the two."
        ) from None


_COMMON_PATTERNS = ("^([^_]+)_", "^([^-]+)-", "^([^ .]+) ", r"_([^_.]+)\.", r"-([^-.]+)\.", r"^(\D+)\d")


def suggest_pattern(names: Sequence[str]) -> str:
    """A common pattern that finds a few classes in names of files; the first one if none does."""
    for pattern in _COMMON_PATTERNS:
        matches = [re.search(pattern, name) for name in names]
        labels = Counter(match[1] for match in matches if match is not None)
        if len(labels) > 1 and labels.total() == len(names) and min(labels.values()) > 1:
            return pattern
    return _COMMON_PATTERNS[0]


def match_groups(pattern: str, names: Sequence[str], key: str, where: str) -> list[str]:
    """What the group of a pattern matches in each path.

    Raises:
        DataError: it matches nothing in some path.
    """
    matches = [_search(pattern, name, key) for name in names]
    missing = [n for n, match in zip(names, matches, strict=True) if match is None or not match[1]]
    if missing:
        raise DataError(
            f"data.{key}={pattern!r}: finds nothing in {len(missing):,} of {len(names):,} paths of"
            f" {where}: {join_names(missing)}."
        )
    return [match[1] for match in matches if match is not None]


def mark_test_files(
    pattern: str, names: Sequence[str], assigned_parts: list[str] | None, where: str
) -> list[str]:
    """The set of each file, given a pattern for paths of the test set.

    Raises:
        DataError: all paths match, or none.
    """
    is_test = [_search(pattern, name, "test_pattern") is not None for name in names]
    if all(is_test) or not any(is_test):
        matched = "every" if all(is_test) else "none"
        raise DataError(
            f"data.test_pattern={pattern!r}: finds {matched} of {len(names):,} paths of {where}, such as"
            f" {names[0]}."
        )
    folder_marks = assigned_parts or ["train"] * len(names)
    return ["test" if hit else mark for hit, mark in zip(is_test, folder_marks, strict=True)]


def parse_number(label: str | float, where: str) -> float:
    """A label as a number; `where` is the option or file, for the message if it is not one."""
    try:
        return float(label)
    except ValueError:
        raise DataError(f"{where}: label {label!r} is not a number.") from None
