"""Infers what kind of column one is, from all of its cells.

A column is of the kind that nearly all of its cells are of. The others, such as one `unknown` among
numbers, are invalid: they count as missing and are reported. If they are more than a few, the column is
of another kind.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigmodel.data.libraries import pa
from bigmodel.data.tabular import number_formats, numeric
from bigmodel.data.tabular.date_formats import DEFAULT_FORMATS, TimeKind, time_kind
from bigmodel.data.tabular.dates import DateFormat, find_date_format, parse_times, time_kind_of_type
from bigmodel.data.tabular.number_formats import PLAIN, FormatChoice, NumberFormat

MAX_INVALID = 0.05
"""Share of a column's cells, missing ones aside, that may be invalid."""

MAX_INVALID_IF_CHOSEN = 0.5
"""The same where the user says what kind the column is of."""

_MAX_KEPT = 1000  # different invalid cells that are learnt by heart


@dataclass(frozen=True)
class InvalidCells:
    """The invalid cells of a column.

    Attributes:
        filled: cells of the column that hold anything.
        count: how many of them are invalid.
        row, value: where the first one stands, counted from 0, and what it holds.
        known: how many of them may be always invalid: words that were invalid in training already.
        too_large: the first is a number, but infinite or too large for a model.
    """

    filled: int = 0
    count: int = 0
    row: int = 0
    value: str = ""
    known: int = 0
    too_large: bool = False

    @classmethod
    def of(
        cls,
        column: Any,
        invalid: NDArray[np.bool_],
        filled: int,
        first: int = 0,
        known: Collection[str] = (),
        too_large: NDArray[np.bool_] | None = None,
    ) -> InvalidCells:
        """Those of a stretch of a column.

        Args:
            column: the stretch.
            invalid: which of its cells are.
            filled: how many hold anything.
            first: the row at which the stretch begins.
            known: words that were invalid in training.
            too_large: which cells are invalid because they are infinite or too large for a model.
        """
        count = int(np.count_nonzero(invalid))
        if count == 0:
            return cls(filled)
        cells = _texts_at(column, invalid).to_pylist()
        again = sum(cell in known for cell in cells) if known else 0
        row = int(invalid.argmax())
        large = too_large is not None and bool(too_large[row])
        return cls(filled, count, first + row, cells[0], again, large)

    def __add__(self, other: InvalidCells) -> InvalidCells:
        """Those of two stretches, the earlier one first."""
        first = self if self.count else other
        return replace(
            first,
            filled=self.filled + other.filled,
            count=self.count + other.count,
            known=self.known + other.known,
        )

    def are_few(self, most: float = MAX_INVALID) -> bool:
        """Whether they may be taken for missing; what was invalid in training may always be."""
        return self.count - self.known <= most * self.filled

    def __str__(self) -> str:
        """Which is the first."""
        return f"the first in row {self.row:,} (counted from 0): {self.value!r}"


NONE_INVALID = InvalidCells()


def invalid_values(column: Any, invalid: NDArray[np.bool_]) -> list[str]:
    """What stands in the invalid cells of a column, the most frequent first."""
    counted = _texts_at(column, invalid).value_counts().to_pylist()
    counted.sort(key=lambda row: (-row["counts"], row["values"]))
    return [row["values"] for row in counted[:_MAX_KEPT]]


def _texts_at(column: Any, invalid: NDArray[np.bool_]) -> Any:
    return numeric.text_values(column.take(np.flatnonzero(invalid)))


ColumnKind = Literal["number", "date", "time", "duration", "text", "empty", "other"]


class InferredType(NamedTuple):
    """How a column is read.

    Attributes:
        kind: what it holds; `other` is such as lists.
        number_format: how its numbers are written, or those that it holds among its words.
        other: another way that reads other numbers from as many cells.
        date_format: how its dates, times of day or durations are written.
        invalid: the cells that are no numbers or dates; of text, those that
            keep it from being numbers, and none where most do.
        deciding_cell: the first cell that `other` does not fit, if any.
        zero_led: the cells that have a leading zero, as identifiers have: of numbers, a few.
    """

    kind: ColumnKind
    number_format: NumberFormat = PLAIN
    other: NumberFormat | None = None
    date_format: DateFormat | None = None
    invalid: InvalidCells = NONE_INVALID
    deciding_cell: str = ""
    zero_led: InvalidCells = NONE_INVALID

    @property
    def choice(self) -> FormatChoice:
        """How its numbers can be read."""
        return FormatChoice(self.number_format, self.other, self.deciding_cell)

    @property
    def mostly_measured(self) -> bool:
        """Whether it is text that is mostly numbers, or dates or times if `date_format` is known."""
        some = self.invalid.count > 0
        return self.kind == "text" and some and self.invalid.are_few(MAX_INVALID_IF_CHOSEN)


def infer_type(column: Any) -> InferredType:
    """What kind of column one is: numbers or dates where 95 % of its cells are, or more.

    Identifiers with leading zeros, such as 007, are text where they are more than a few, and so are
    true and false, whatever kind of file they stand in.
    """
    kind = column.type
    if column.null_count == len(column):
        return InferredType("empty")
    if numeric.is_number_type(kind):
        return as_numbers(column)
    if time_kind_of_type(kind) is not None:
        return as_times(column)
    if pa.types.is_boolean(kind):
        return InferredType("text")
    if not numeric.is_text(kind):
        return InferredType("other")
    zero_led = _leading_zeros(column)
    if not zero_led.are_few():
        return InferredType("text", zero_led=zero_led)
    found = _as_plain_numbers(column)
    if found is None and numeric.is_boolean_text(numeric.without_missing(column)):
        return InferredType("text")
    found = found or _as_formatted_numbers(column)
    if found.invalid.filled == 0:
        return InferredType("empty")
    if found.invalid.are_few():
        return found._replace(zero_led=zero_led)
    timed = as_times(column)
    if timed.invalid.are_few():
        return timed
    if timed.invalid.are_few(MAX_INVALID_IF_CHOSEN):
        return timed._replace(kind="text")
    return found._replace(kind="text")


def _leading_zeros(column: Any) -> InvalidCells:
    found = numeric.leading_zeros(column)
    if not found.any():
        return NONE_INVALID
    filled = numeric.without_missing(column)
    return InvalidCells.of(column, found, len(filled) - filled.null_count)


def as_times(column: Any, kind: TimeKind | None = None, time_format: str = "") -> InferredType:
    """A column as one of dates, times of day or durations, however many of its cells are invalid.

    Args:
        column: of any kind but `other`.
        kind: which of the three the user says that it holds; None: any.
        time_format: how they are written, that the user names; empty: to be found out.
    """
    found = DateFormat(time_format) if time_format else find_date_format(column, kind)
    found = found or DateFormat(DEFAULT_FORMATS[kind or "date"])
    cells = parse_times(column, found.time_format)
    invalid = InvalidCells.of(column, cells.invalid, cells.filled)
    return InferredType(time_kind(found.time_format), date_format=found, invalid=invalid)


def as_numbers(column: Any, number_format: NumberFormat | None = None) -> InferredType:
    """A column as one of numbers, however many of its cells are invalid.

    Args:
        column: of any kind but `other`.
        number_format: how they are written, where that is known.
    """
    if number_format is not None:
        return _numbers_in_format(column, FormatChoice(number_format))
    if not numeric.is_text(column.type):
        return _numbers_in_format(column, FormatChoice(PLAIN))
    if (plain := _as_plain_numbers(column)) is not None:
        return plain
    found = number_formats.find_number_format(numeric.without_missing(column)) or FormatChoice(PLAIN)
    return _numbers_in_format(column, found)


def _as_plain_numbers(column: Any) -> InferredType | None:
    """Text of which all is numbers in the plainest way, which is soon known."""
    cells = numeric.parse_plain_numbers(column)
    if cells is None:
        return None
    choice = number_formats.check_plain_format(numeric.without_missing(column.slice(0, 1000)))
    if choice.other is not None:
        choice = number_formats.check_plain_format(numeric.without_missing(column))
    return _number_type(choice, InvalidCells(cells.filled))


def _as_formatted_numbers(column: Any) -> InferredType:
    """Other text; where hardly any of it is numbers, it is not read for the few."""
    text = numeric.without_missing(column)
    choice = number_formats.find_number_format(text)
    if choice is not None:
        return _numbers_in_format(column, choice)
    filled = len(text) - text.null_count
    return InferredType("text", invalid=InvalidCells(filled, filled))


def _numbers_in_format(column: Any, choice: FormatChoice) -> InferredType:
    cells = numeric.parse_numbers(column, choice.best)
    invalid = InvalidCells.of(column, cells.invalid & ~cells.infinite, cells.filled)
    return _number_type(choice, invalid)


def _number_type(choice: FormatChoice, invalid: InvalidCells) -> InferredType:
    best, other, cell = choice
    return InferredType("number", best, other, invalid=invalid, deciding_cell=cell)
