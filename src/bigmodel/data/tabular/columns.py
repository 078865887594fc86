"""Columns of a table that a model reads: what was learnt of each, and how its values become numbers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bigmodel.data.normalize import value_statistics
from bigmodel.data.tabular.kinds import option
from bigmodel.data.tabular.values import (
    DATE_PARTS,
    Numbers,
    date_part,
    first_without_date,
    first_without_number,
    moments,
    numbers,
    words,
)
from bigmodel.errors import DataError
from bigmodel.registry import Config

Rows = NDArray[np.int64]
"""Indices of rows of a table."""


class Scale(Config):
    """What one column of numbers is filled up with and standardised by: figures of the training part."""

    fill: float
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def learnt(cls, values: Numbers, normalize: bool) -> Scale:
        """Of the training part's values, NaN where one is missing."""
        fill = float(np.nanmedian(values))
        if not normalize:
            return cls(fill=fill)
        filled = np.where(np.isnan(values), fill, values)
        mean, std = value_statistics(torch.from_numpy(filled)[:, None])
        return cls(fill=fill, mean=mean.item(), std=std.item())

    def __call__(self, values: Numbers, missing: NDArray[np.bool_]) -> Numbers:
        """Values as a model reads them; they are changed in place."""
        values[missing] = self.fill
        values -= self.mean
        values /= self.std
        return values


class NumberColumn(Config):
    """A column of numbers.

    Attributes:
        flag: whether a second column says which values are missing; it does where any are in training.
    """

    kind: Literal["number"] = "number"
    name: str
    scale: Scale
    flag: bool

    @classmethod
    def learn(
        cls, name: str, column: Any, rows: Rows, normalize: bool, where: str
    ) -> NumberColumn | str:
        """What the rows of the training part tell; or why the column tells a model nothing."""
        values = _finite_numbers(name, column, where)[rows]
        missing = np.isnan(values)
        if missing.all():
            return "empty"
        if not missing.any() and values.min() == values.max():
            return "constant"
        return cls(name=name, scale=Scale.learnt(values, normalize), flag=bool(missing.any()))

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """Name of each column for the model, and how many categories it has, 0 for real values."""
        return [(self.name, 0), *_flag(self.name, self.flag)]

    def encode(self, column: Any, out: NDArray[np.float32], where: str, first: int) -> int:
        """Writes a stretch of the values as a model reads them into `out`, (rows, outputs).

        Args:
            column: the stretch.
            out: where to write.
            where, first: the file and the row at which the stretch begins, for messages.

        Returns:
            How many values are none that training has seen; numbers and dates always are.
        """
        values = _finite_numbers(self.name, column, where, first)
        missing = np.isnan(values)
        out[:, 0] = self.scale(values, missing)
        if self.flag:
            out[:, 1] = missing
        return 0


class DateColumn(Config):
    """A column of dates, split into year, month, day, weekday (0 is Monday) and hour.

    Attributes:
        way: how they are written; see `values.DATE_FORMATS`.
        parts: those of them that differ in training.
        flag: see `NumberColumn`.
    """

    kind: Literal["date"] = "date"
    name: str
    way: str
    parts: dict[str, Scale]
    flag: bool

    @classmethod
    def learn(
        cls, name: str, column: Any, rows: Rows, normalize: bool, way: str, where: str
    ) -> DateColumn | str:
        """See `NumberColumn.learn`."""
        found = _dates(name, column, way, where).take(rows)
        if found.null_count == len(found):
            return "empty"
        parts = {part: date_part(found, part) for part in DATE_PARTS}
        differing = {
            part: Scale.learnt(values, normalize)
            for part, values in parts.items()
            if np.nanmin(values) != np.nanmax(values)
        }
        if not differing and found.null_count == 0:
            return "constant"
        return cls(name=name, way=way, parts=differing, flag=found.null_count > 0)

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """See `NumberColumn.outputs`."""
        return [*((f"{self.name} ({part})", 0) for part in self.parts), *_flag(self.name, self.flag)]

    def encode(self, column: Any, out: NDArray[np.float32], where: str, first: int) -> int:
        """See `NumberColumn.encode`."""
        found = _dates(self.name, column, self.way, where, first)
        missing = found.is_null().to_numpy()
        for place, (part, scale) in enumerate(self.parts.items()):
            out[:, place] = scale(date_part(found, part), missing)
        if self.flag:
            out[:, -1] = missing
        return 0


class CategoryColumn(Config):
    """A column of words that are compared, not measured.

    Attributes:
        values: the categories of the training part, the most frequent first; None is a missing value.
            They count from 1: 0 is whatever is not among them.
    """

    kind: Literal["category"] = "category"
    name: str
    values: list[str | None]

    @classmethod
    def learn(
        cls, name: str, column: Any, rows: Rows, most: int, min_count: int, chosen: bool
    ) -> CategoryColumn | str:
        """See `NumberColumn.learn`.

        Args:
            most: categories at most; rarer values than those become 0.
            min_count: rows that a category needs in training.
            chosen: a category by the user's word, however many values there are.
        """
        counted = words(column).take(rows).value_counts().to_pylist()
        rowless = len(rows) - sum(row["counts"] for row in counted if row["values"] is None)
        if len(counted) == 1:
            return "constant" if rowless else "empty"
        if not chosen and len(counted) > max(2, rowless / 2):
            return "all different" if len(counted) == len(rows) else f"{len(counted):,} different values"
        counted.sort(key=lambda row: (-row["counts"], row["values"] is None, row["values"] or ""))
        values = [row["values"] for row in counted if row["counts"] >= min_count][:most]
        if not values:
            return f"no value occurs {min_count} times"
        return cls(name=name, values=values)

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """See `NumberColumn.outputs`."""
        return [(self.name, len(self.values) + 1)]

    def encode(self, column: Any, out: NDArray[np.float32], where: str, first: int) -> int:  # noqa: ARG002
        """See `NumberColumn.encode`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        text = words(column)
        found = pc.index_in(text, value_set=pa.array(self.values, text.type))
        out[:, 0] = pc.add(pc.fill_null(found, -1), 1).to_numpy()
        return int(found.null_count)


Learnt = NumberColumn | DateColumn | CategoryColumn


def _flag(name: str, flag: bool) -> list[tuple[str, int]]:
    return [(f"{name} (missing)", 0)] if flag else []


def _finite_numbers(name: str, column: Any, where: str, first: int = 0) -> Numbers:
    """A column as numbers, NaN where one is missing.

    Raises:
        DataError: one is infinite or no number.
    """
    values = numbers(column)
    if values is None:
        row, value = first_without_number(column)
        comma = " Decimals need a point, not a comma." if _has_comma(value) else ""
        raise DataError(
            f"{where}: column '{name}' is one of numbers, but row {first + row} (counted from 0) holds"
            f" {value!r}.{comma} Leave the field empty where the value is missing; for words, train"
            f" with {option(name, 'category')}"
        )
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"{where}: column '{name}' holds {values[row]} in row {first + row} (counted from 0), which"
            " cannot be learnt from. Leave the field empty where the value is missing."
        )
    return values


def _has_comma(value: str) -> bool:
    return value.count(",") == 1 and value.replace(",", "").lstrip("+-").isdigit()


def _dates(name: str, column: Any, way: str, where: str, first: int = 0) -> Any:
    found = moments(column, way)
    if found is None:
        row, value = first_without_date(column, way)
        raise DataError(
            f"{where}: column '{name}' is one of dates ({way}), but row {first + row} (counted from 0)"
            f" holds {value!r}. Leave the field empty where the date is missing."
        )
    return found
