"""Reads pairs of texts: the lines of two files, or two columns of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import Field

from bigmodel.data.base import SET_NAMES, PartName
from bigmodel.data.custom_data import resolve_path
from bigmodel.data.tabular.table_file import as_strings, get_column, read_table
from bigmodel.data.texts.files import TextFilesConfig, read_lines
from bigmodel.errors import ConfigError, DataError

_TWO_WAYS = (
    "Set data.source=train.de data.target=train.en for the lines of two files, or"
    " data.path=pairs.csv data.source=de data.target=en for two columns of one."
)


class PairFilesConfig(TextFilesConfig):
    """Where pairs of texts are."""

    path: str | None = Field(
        None, description="a table whose columns source and target are; null: they are files"
    )
    source: str | None = Field(
        None, description="file of the source texts, one per line, or their column"
    )
    target: str | None = Field(None, description="file of the target texts, or their column")
    max_bad: int = Field(0, ge=0, description="unreadable rows of a table that may be skipped")
    val_source: str | None = Field(
        None, description="the validation set's file of sources; null: val_fraction of the data"
    )
    val_target: str | None = Field(None, description="the validation set's file of targets")
    test_source: str | None = Field(
        None, description="the test set's file of sources; null: test_fraction of the data"
    )
    test_target: str | None = Field(None, description="the test set's file of targets")
    val_path: str | None = Field(
        None, description="the validation set's table, where path is one; null: val_fraction"
    )
    test_path: str | None = Field(
        None, description="the test set's table, where path is one; null: test_fraction"
    )


@dataclass(frozen=True)
class Pairs:
    """Pairs in the order of their file.

    Attributes:
        sources, targets: the two texts of each pair.
        places: of each pair in messages, such as `line 5`.
        left_out: how many pairs were left out, by reason.
    """

    sources: list[str]
    targets: list[str]
    places: Sequence[str]
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    def __add__(self, more: Pairs) -> Pairs:
        left_out = dict(Counter(self.left_out) + Counter(more.left_out))
        places = [*self.places, *more.places]
        return Pairs(self.sources + more.sources, self.targets + more.targets, places, left_out)

    def at(self, index: Sequence[int]) -> Pairs:
        """The pairs at some indices; the others are not counted in `left_out`."""
        columns = (self.sources, self.targets, self.places)
        sources, targets, places = ([column[row] for row in index] for column in columns)
        return Pairs(sources, targets, places)


def check_paths(config: PairFilesConfig) -> None:
    """Raises ConfigError if the path of a side is missing."""
    for key in ("source", "target"):
        if getattr(config, key) is None:
            raise ConfigError(f"data.{key}: is not set. {_TWO_WAYS}")
    for part in ("val", "test"):
        table, sides = f"{part}_path", [f"{part}_source", f"{part}_target"]
        given = [key for key in sides if getattr(config, key) is not None]
        if config.path is not None and given:
            raise ConfigError(
                f"data.{given[0]}={getattr(config, given[0])}: with data.path, the"
                f" {SET_NAMES[part]} set is a table with the same columns. Set data.{table}=<file>."
            )
        if config.path is None and getattr(config, table) is not None:
            raise ConfigError(
                f"data.{table}={getattr(config, table)}: without data.path, the"
                f" {SET_NAMES[part]} set is two files too. Set data.{sides[0]}=<file>"
                f" data.{sides[1]}=<file>."
            )
        if len(given) == 1:
            missing = next(key for key in sides if key not in given)
            raise ConfigError(f"data.{missing}: is not set, but data.{given[0]} is: both are needed.")


def read_part(config: PairFilesConfig, part: PartName) -> Pairs | None:
    """A part's pairs, without those with an empty side; None: the part has no path of its own.

    Raises:
        DataError: they cannot be read, or the sides differ in length.
    """
    prefix = "" if part == "train" else f"{part}_"
    if config.path is not None:
        key = f"{prefix}path"
        if getattr(config, key) is None:
            return None
        path, names = resolve_path(config, key), (str(config.source), str(config.target))
        return drop_empty(read_pair_table(path, f"data.{key}", names, config.max_bad, config.encoding))
    if getattr(config, f"{prefix}source") is None:
        return None
    source, target = (resolve_path(config, f"{prefix}{side}") for side in ("source", "target"))
    return drop_empty(read_pair_files(source, target, config.encoding))


def read_pair_files(source: Path, target: Path, encoding: str) -> Pairs:
    """Pairs from the lines of two files.

    Raises:
        DataError: they cannot be read, or one has more lines than the other.
    """
    sources, targets = read_lines(source, encoding), read_lines(target, encoding)
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources):,} lines, but {target} has {len(targets):,}: each line must be "
            "the translation of the same line in the other file, so both need the same number of "
            "lines. Has a line been lost or broken in two?"
        )
    return Pairs(sources, targets, line_names(sources))


def read_pair_table(path: Path, key: str, names: tuple[str, str], max_bad: int, encoding: str) -> Pairs:
    """Pairs from two columns of a table; missing texts are empty.

    Raises:
        DataError: the table cannot be read, or has no such columns.
    """
    table = read_table(path, key, max_bad, encoding)
    sources, targets = (
        ["" if text is None else text for text in as_strings(get_column(table, name, f"data.{option}"))]
        for name, option in zip(names, ("source", "target"), strict=True)
    )
    return Pairs(sources, targets, [f"row {row}" for row in range(len(sources))], table.left_out)


def line_names(lines: Sequence[str]) -> list[str]:
    """Names of a file's lines in messages."""
    return [f"line {number}" for number in range(1, len(lines) + 1)]


def drop_empty(pairs: Pairs) -> Pairs:
    """The pairs without an empty side; the others are counted."""
    both = zip(pairs.sources, pairs.targets, strict=True)
    kept = [row for row, sides in enumerate(both) if all(map(str.strip, sides))]
    return keep_rows(pairs, kept, "pairs with an empty side")


def keep_rows(pairs: Pairs, kept: Sequence[int], reason: str) -> Pairs:
    """The pairs at some indices; the others are counted under `reason`."""
    if len(kept) == len(pairs):
        return pairs
    left_out = {**pairs.left_out, reason: len(pairs) - len(kept)}
    return replace(pairs.at(kept), left_out=left_out)
