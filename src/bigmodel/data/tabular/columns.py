"""Input columns of a table: what is learnt of each from the training set, and how cells are encoded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from bigmodel.data import spelling_variants
from bigmodel.data.fitted_state import FittedState
from bigmodel.data.libraries import pc
from bigmodel.data.normalize import value_statistics
from bigmodel.data.tabular import date_formats
from bigmodel.data.tabular.column_options import MediaKind, column_option
from bigmodel.data.tabular.date_formats import CALENDAR_PARTS, MeasuredKind, TimeKind
from bigmodel.data.tabular.dates import DateFormat, parse_times
from bigmodel.data.tabular.number_formats import PLAIN, NumberFormat, Numbers
from bigmodel.data.tabular.numeric import (
    MAX_EXACT_INTEGER,
    MAX_FLOAT32,
    ParsedCells,
    parse_numbers,
    text_values,
)
from bigmodel.data.tabular.type_inference import MAX_INVALID, NONE_INVALID, InvalidCells, invalid_values
from bigmodel.errors import DataError
from bigmodel.registry import Config

MISSING = "(missing)"
"""A cell without a value, where samples are shown."""

RowIndex = NDArray[np.int64]
"""Indices of rows of a table."""


class Scale(Config):
    """Fills missing numbers and standardises a column, by statistics of the training set."""

    fill: float
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def fit(cls, values: Numbers, normalize: bool) -> Scale:
        """From the values of the training set, NaN for a missing one."""
        fill = float(np.nanmedian(values))
        if not normalize:
            return cls(fill=fill)
        filled = np.where(np.isnan(values), fill, values)
        mean, std = value_statistics(torch.from_numpy(filled)[:, None])
        return cls(fill=fill, mean=mean.item(), std=std.item())

    @property
    def most(self) -> float:
        """The largest distance from the mean whose square is a float32 after standardising."""
        return math.sqrt(MAX_FLOAT32) * self.std

    def overflows(self, values: Numbers) -> NDArray[np.bool_]:
        """Which values are too large for a model."""
        return (values < self.mean - self.most) | (values > self.mean + self.most)

    def __call__(self, values: Numbers, missing: NDArray[np.bool_]) -> Numbers:
        """Filled and standardised values; they are changed in place."""
        values[missing] = self.fill
        values -= self.mean
        values /= self.std
        return values

    def cell(self, value: float) -> str:
        """A standardised value in its own unit, with the digits that float32 holds of its deviation."""
        digits = 5 - math.floor(math.log10(self.std)) if self.std > 0 else 5
        return f"{round(value * self.std + self.mean, max(0, digits)) + 0.0:.10g}"  # no -0


class ExcludedColumn(NamedTuple):
    """Why a column is not an input.

    Attributes:
        reason: in words.
        possible_kind: the kind that makes it an input if the user sets it; None if there is none.
    """

    reason: str
    possible_kind: MeasuredKind | MediaKind | Literal["category"] | None = None


@dataclass(frozen=True)
class NewCells:
    """Cells of new rows that are unlike those of training.

    Attributes:
        unseen: how many values are not among the categories.
        invalid: cells that are not of the kind of the column.
        aliases: other spellings of categories, with the category.
    """

    unseen: int = 0
    invalid: InvalidCells = NONE_INVALID
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: NewCells) -> NewCells:
        """Those of two chunks of a column."""
        aliases = {**self.aliases, **other.aliases}
        return NewCells(self.unseen + other.unseen, self.invalid + other.invalid, aliases)


class MeasuredColumn(FittedState):
    """Base of columns of numbers and of dates.

    Attributes:
        flag: whether an input of its own marks missing values; it does if training has any.
        invalid: what invalid cells held in any set; see `type_inference`.
        max_invalid: share of cells that may be invalid.
    """

    name: str
    flag: bool
    invalid: list[str] = Field([])
    max_invalid: float = MAX_INVALID

    def _real_outputs(self, names: Iterable[str]) -> list[tuple[str, int]]:
        """Outputs of real values, and one for the `flag`."""
        flags = [f"{self.name} (missing)"] if self.flag else []
        return [(name, 0) for name in (*names, *flags)]


class NumberColumn(MeasuredColumn):
    """A column of numbers."""

    kind: Literal["number"] = "number"
    scale: Scale
    number_format: NumberFormat = PLAIN

    @property
    def noun(self) -> str:
        """What one of its cells is."""
        return "number"

    @property
    def described(self) -> str:
        """What its cells are, with their format."""
        return f"numbers ({self.number_format})" if str(self.number_format) else "numbers"

    @classmethod
    def fit(
        cls,
        name: str,
        column: Any,
        rows: RowIndex,
        normalize: bool,
        where: str,
        number_format: NumberFormat = PLAIN,
        max_invalid: float = MAX_INVALID,
        cells: ParsedCells | None = None,
    ) -> NumberColumn | ExcludedColumn:
        """The column as learnt from the rows of the training set, or why it cannot be an input.

        Args:
            name: of the column.
            column: all its cells.
            rows: those of the training set.
            normalize: standardise the values.
            where: the file, for messages.
            number_format: of its numbers.
            max_invalid: see the class.
            cells: its numbers, if they are known.

        Raises:
            DataError: more than a few numbers are too large for a model.
        """
        cells = cells or parse_numbers(column, number_format)
        values = cells.values[rows]
        _check_size(f"{where}: column '{name}'", column_option(name, "ignore"), values, normalize)
        missing = np.isnan(values)
        if missing.all():
            return ExcludedColumn("empty")
        if not missing.any() and values.min() == values.max():
            if abs(values[0]) >= MAX_EXACT_INTEGER and len(text_values(column).take(rows).unique()) > 1:
                return ExcludedColumn("equal in the digits that a number keeps", "category")
            return ExcludedColumn("constant")
        return cls(
            name=name,
            scale=Scale.fit(values, normalize),
            flag=bool(missing.any()),
            number_format=number_format,
            invalid=invalid_values(column, cells.invalid & ~cells.infinite),
            max_invalid=max_invalid,
        )

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """Name of each model input, and how many categories it has, 0 for real values."""
        return self._real_outputs([self.name])

    def encode(self, column: Any, out: NDArray[np.float32], first: int) -> NewCells:
        """Writes a chunk of the column as model inputs into `out`, (rows, outputs).

        Args:
            column: the chunk.
            out: where to write.
            first: the row at which the chunk begins, for messages.

        Returns:
            The cells that are unlike those of training.
        """
        cells = parse_numbers(column, self.number_format)
        large = self.scale.overflows(cells.values)
        missing = np.isnan(cells.values) | large
        out[:, 0] = self.scale(cells.values, missing)
        if self.flag:
            out[:, 1] = missing
        mask, beyond = cells.invalid | large, large | cells.infinite
        invalid = InvalidCells.of(column, mask, cells.filled, first, self.invalid, beyond)
        known = invalid.known + int(np.count_nonzero(large))
        return NewCells(invalid=replace(invalid, known=known))

    def cells(self, values: Sequence[float]) -> dict[str, str]:
        """The cell that gives these model inputs, by name."""
        return {self.name: MISSING if self.flag and values[1] else self.scale.cell(values[0])}


class DateColumn(MeasuredColumn):
    """A column of dates, times of day or durations, whose model inputs are `CALENDAR_PARTS`.

    Attributes:
        time_format: see `date_formats.KNOWN_FORMATS`.
        other: another format that fits all of training, but reads other dates.
        parts: those that vary in training.
    """

    kind: Literal["date"] = "date"
    time_format: str
    other: str = ""
    parts: dict[str, Scale]

    @property
    def times(self) -> TimeKind:
        """Which of the three its cells are."""
        return date_formats.time_kind(self.time_format)

    @property
    def noun(self) -> str:
        """See `NumberColumn.noun`."""
        return self.times

    @property
    def described(self) -> str:
        """See `NumberColumn.described`."""
        return date_formats.describe_format(self.time_format)

    @classmethod
    def fit(
        cls,
        name: str,
        column: Any,
        rows: RowIndex,
        normalize: bool,
        date_format: DateFormat,
        max_invalid: float = MAX_INVALID,
    ) -> DateColumn | ExcludedColumn:
        """See `NumberColumn.fit`."""
        time_format = date_format.time_format
        cells, kind = parse_times(column, time_format), date_formats.time_kind(time_format)
        values = cells.values[rows]
        missing = np.isnan(values)
        if missing.all():
            return ExcludedColumn("empty")
        parts = {part: date_formats.calendar_part(values, kind, part) for part in CALENDAR_PARTS[kind]}
        scales = {
            part: Scale.fit(numbers, normalize)
            for part, numbers in parts.items()
            if np.nanmin(numbers) != np.nanmax(numbers)
        }
        if len(scales) > 1:
            scales.pop("second", None)
        if not scales and not missing.any():
            return ExcludedColumn("constant")
        return cls(
            name=name,
            time_format=time_format,
            other=date_format.other,
            parts=scales,
            flag=bool(missing.any()),
            invalid=invalid_values(column, cells.invalid),
            max_invalid=max_invalid,
        )

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """See `NumberColumn.outputs`."""
        return self._real_outputs(f"{self.name} ({part})" for part in self.parts)

    def encode(self, column: Any, out: NDArray[np.float32], first: int) -> NewCells:
        """See `NumberColumn.encode`."""
        cells = parse_times(column, self.time_format)
        missing = np.isnan(cells.values)
        for place, (part, scale) in enumerate(self.parts.items()):
            out[:, place] = scale(date_formats.calendar_part(cells.values, self.times, part), missing)
        if self.flag:
            out[:, -1] = missing
        invalid = InvalidCells.of(column, cells.invalid, cells.filled, first, self.invalid)
        return NewCells(invalid=invalid)

    def cells(self, values: Sequence[float]) -> dict[str, str]:
        """See `NumberColumn.cells`: the parts of the date."""
        missing = self.flag and values[-1]
        parts = zip(self.outputs, self.parts.values(), values, strict=False)
        return {name: MISSING if missing else scale.cell(value) for (name, _), scale, value in parts}


class CategoryColumn(FittedState):
    """A column of categories.

    Attributes:
        values: the categories of the training set, the most frequent first; None is a missing value.
            They are encoded from 1; 0 stands for all other values.
        aliases: other spellings in training, with their category; see `spelling_variants`.
    """

    kind: Literal["category"] = "category"
    name: str
    values: list[str | None]
    aliases: dict[str, str] = Field({})

    @classmethod
    def fit(
        cls, name: str, column: Any, rows: RowIndex, most: int, min_count: int, chosen: bool
    ) -> CategoryColumn | ExcludedColumn:
        """See `NumberColumn.fit`.

        Args:
            most: categories at most; rarer values become 0.
            min_count: rows that a category needs in training.
            chosen: the user sets the kind, so that any number of values is allowed.
        """
        text = text_values(column).take(rows)
        missing = int(text.null_count)
        limit = len(rows) if chosen else max(2, (len(rows) - missing) / 2)
        # Counting a million different values takes seconds, so too many are refused before.
        if (different := spelling_variants.too_many_values(text, limit)) is not None:
            return _too_many_values(different + (missing > 0), len(rows))
        words = spelling_variants.count_values(text)
        counted: Counter[str | None] = Counter({None: missing} if missing else {})
        for word, name_of_value in spelling_variants.canonical_names(words).items():
            counted[name_of_value] += words[word]
        if len(counted) == 1:
            return ExcludedColumn("empty" if missing else "constant")
        if len(counted) > limit:
            return _too_many_values(len(counted), len(rows))
        ranked = sorted(counted, key=lambda value: (-counted[value], value is None, value or ""))
        values = [value for value in ranked if counted[value] >= min_count][:most]
        if not values:
            reason = f"no value occurs {min_count} times, as data.min_count={min_count} asks for"
            return ExcludedColumn(reason)
        places = spelling_variants.ValueIndex(values).of(words)
        aliases = {word: str(values[place]) for word, place in places.items() if word != values[place]}
        return cls(name=name, values=values, aliases=aliases)

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """See `NumberColumn.outputs`."""
        return [(self.name, len(self.values) + 1)]

    def encode(self, column: Any, out: NDArray[np.float32], first: int) -> NewCells:  # noqa: ARG002
        """See `NumberColumn.encode`."""
        places, aliases = spelling_variants.index_of_values(text_values(column), self.values)
        out[:, 0] = pc.add(pc.fill_null(places, -1), 1).to_numpy()
        return NewCells(int(places.null_count), aliases=aliases)

    def cells(self, values: Sequence[float]) -> dict[str, str]:
        """See `NumberColumn.cells`."""
        place = int(values[0])
        value = self.values[place - 1] if place else "(not in training)"
        return {self.name: MISSING if value is None else value}


def _too_many_values(different: int, rows: int) -> ExcludedColumn:
    reason = "all different" if different == rows else f"{different:,} different values"
    return ExcludedColumn(reason, "category")


FittedColumn = NumberColumn | DateColumn | CategoryColumn


def _check_size(what: str, ignoring: str, values: Numbers, normalize: bool) -> None:
    """Replaces a few numbers too large for float32 by NaN, in place.

    Raises:
        DataError: there are many, which standardising does not make small enough.
    """
    too_large = np.abs(values) > MAX_FLOAT32
    count, filled = int(np.count_nonzero(too_large)), int(np.count_nonzero(~np.isnan(values)))
    if count <= MAX_INVALID * filled:
        values[too_large] = np.nan
        return
    with np.errstate(over="ignore", invalid="ignore"):
        learnable = normalize and np.isfinite(np.nanvar(values))
    if not learnable:
        raise DataError(
            f"{what} holds numbers as large as {np.nanmax(np.abs(values)):.3g}"
            f"; the largest that a model accepts is {MAX_FLOAT32:.3g}. Use another unit"
            + ("" if normalize else ", or set data.normalize=true")
            + f", or leave it out: {ignoring}"
        )
