"""Infers the kind of a column from all of its cells.

A column is of the kind that nearly all of its cells are of. The others, such as one `unknown` among
numbers, are invalid: they count as missing and are reported. If they are more than a few, the column is
of another kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from mimetypes import MimeTypes
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigmodel.data.libraries import pa
from bigmodel.data.tabular import number_formats, numeric
from bigmodel.data.tabular.column_options import MediaKind
from bigmodel.data.tabular.date_formats import DEFAULT_FORMATS, MeasuredKind, TimeKind, time_kind
from bigmodel.data.tabular.dates import DateFormat, find_date_format, parse_times, time_kind_of_type
from bigmodel.data.tabular.number_formats import PLAIN, FormatChoice, NumberFormat
from bigmodel.data.tabular.numeric import ParsedCells

MAX_INVALID = 0.05
"""Share of a column's cells, missing ones aside, that may be invalid."""

MAX_INVALID_IF_CHOSEN = 0.5
"""The same if the user sets the kind of the column."""

_LOOKED_AT, _WORDS = 1000, 4  # cells, most of which are texts if they have so many words each
_FILE_TYPES = MimeTypes(())  # of Python alone, and not of the system, so that they are the same anywhere
_MAX_KEPT = 1000  # different invalid cells that are stored


@dataclass(frozen=True)
class InvalidCells:
    """The invalid cells of a column.

    Attributes:
        filled: how many cells of the column are not empty.
        count: how many of them are invalid.
        row, value: row, counted from 0, and content of the first one.
        known: how many of them do not count against a limit, as they were invalid in training already.
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
        """Those of a chunk of a column.

        Args:
            column: the chunk.
            invalid: which of its cells are.
            filled: how many are not empty.
            first: the row at which the chunk begins.
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
        """Those of two chunks, the earlier one first."""
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

    @property
    def are_minority(self) -> bool:
        """Whether there are some, and few enough if the user sets the kind of the column."""
        return self.count > 0 and self.are_few(MAX_INVALID_IF_CHOSEN)

    def summary(self, noun: str) -> str:
        """How many there are: `3 of 100 cells are not numbers`."""
        noun = f"{noun}s" if self.count > 1 else noun
        if self.too_large:
            noun = f"finite {noun} that a model can hold"
        are = "are not" if self.count > 1 else "is not a"
        return f"{self.count:,} of {self.filled:,} cells {are} {noun}"

    def __str__(self) -> str:
        """The first one."""
        return f"the first in row {self.row:,} (counted from 0): {self.value!r}"


NONE_INVALID = InvalidCells()


def invalid_values(column: Any, invalid: NDArray[np.bool_]) -> list[str]:
    """The contents of the invalid cells of a column, the most frequent first."""
    if not invalid.any():
        return []
    return list(numeric.value_counts(_texts_at(column, invalid)))[:_MAX_KEPT]


def _texts_at(column: Any, invalid: NDArray[np.bool_]) -> Any:
    return numeric.text_values(column.take(np.flatnonzero(invalid)))


ColumnKind = MeasuredKind | Literal["text", "empty", "other"]


class InferredType(NamedTuple):
    """How a column is read.

    Attributes:
        kind: what it holds; `other` is anything else, such as lists.
        number_format: the format of its numbers, or of those among its words.
        other: another format that reads as many cells, but as other numbers.
        date_format: the format of its dates, times of day or durations.
        invalid: the cells that are not numbers or dates; of text, those that keep it from being numbers,
            and none if they are the most.
        deciding_cell: the first cell that `other` does not fit, if any.
        zero_led: the cells with a leading zero, as identifiers have; in a column of numbers, a few.
        cells: the numbers, of text whose cells are all in the plain format. Reading them takes long.
    """

    kind: ColumnKind
    number_format: NumberFormat = PLAIN
    other: NumberFormat | None = None
    date_format: DateFormat | None = None
    invalid: InvalidCells = NONE_INVALID
    deciding_cell: str = ""
    zero_led: InvalidCells = NONE_INVALID
    cells: ParsedCells | None = None

    @property
    def choice(self) -> FormatChoice:
        """The formats that its numbers can be read in."""
        return FormatChoice(self.number_format, self.other, self.deciding_cell)

    @property
    def mostly_measured(self) -> bool:
        """Whether it is text, but most of its cells are of the `measured_kind`."""
        return self.kind == "text" and self.invalid.are_minority

    @property
    def measured_kind(self) -> MeasuredKind:
        """What its valid cells are, if they are not words."""
        return "number" if self.date_format is None else time_kind(self.date_format.time_format)


def infer_type(column: Any) -> InferredType:
    """The kind of a column: numbers or dates if at least 95 % of its cells are.

    Identifiers with leading zeros, such as 007, are text if they are more than a few. So are true and
    false, in any kind of file.
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
    cells = numeric.parse_plain_numbers(column)
    zero_led = _leading_zeros(column, cells)
    if not zero_led.are_few():
        return InferredType("text", zero_led=zero_led)
    numbers = None if cells is None else _as_plain_numbers(column, cells)
    if numbers is None and numeric.is_boolean_text(numeric.without_missing(column)):
        return InferredType("text")
    numbers = numbers or _as_formatted_numbers(column)
    if numbers.invalid.filled == 0:
        return InferredType("empty")
    if numbers.invalid.are_few():
        return numbers._replace(zero_led=zero_led)
    times = as_times(column)
    if times.invalid.are_few():
        return times
    mostly_times = times.invalid.are_few(MAX_INVALID_IF_CHOSEN)
    return (times if mostly_times else numbers)._replace(kind="text")


def media_kind(column: Any) -> MediaKind | None:
    """What a column of words holds if they are no categories: texts, or paths of pictures or recordings;
    None: none of them."""
    if not numeric.is_text(column.type):
        return None
    cells = column.drop_null().slice(0, _LOOKED_AT).to_pylist()
    kinds = Counter((_FILE_TYPES.guess_type(cell)[0] or "").partition("/")[0] for cell in cells)
    named: dict[MediaKind, int] = {kind: kinds[kind] for kind in ("image", "audio")}
    named["text"] = sum(len(cell.split()) >= _WORDS for cell in cells)
    kind = max(named, key=lambda kind: named[kind])
    return kind if named[kind] > len(cells) / 2 else None


def _leading_zeros(column: Any, cells: ParsedCells | None) -> InvalidCells:
    zero_led = numeric.leading_zeros(column, cells)
    if not zero_led.any():
        return NONE_INVALID
    filled = numeric.without_missing(column)
    return InvalidCells.of(column, zero_led, len(filled) - filled.null_count)


def as_times(column: Any, kind: TimeKind | None = None, time_format: str = "") -> InferredType:
    """A column read as dates, times of day or durations, however many of its cells are invalid.

    Args:
        column: of any kind but `other`.
        kind: which of the three the user says that it holds; None: any.
        time_format: the format that the user sets; empty: to be inferred.
    """
    date_format = DateFormat(time_format) if time_format else find_date_format(column, kind)
    date_format = date_format or DateFormat(DEFAULT_FORMATS[kind or "date"])
    cells = parse_times(column, date_format.time_format)
    invalid = InvalidCells.of(column, cells.invalid, cells.filled)
    return InferredType(time_kind(date_format.time_format), date_format=date_format, invalid=invalid)


def as_numbers(column: Any, number_format: NumberFormat | None = None) -> InferredType:
    """A column read as numbers, however many of its cells are invalid.

    Args:
        column: of any kind but `other`.
        number_format: their format, if it is known.
    """
    if number_format is not None:
        return _numbers_in_format(column, FormatChoice(number_format))
    if not numeric.is_text(column.type):
        return _numbers_in_format(column, FormatChoice(PLAIN))
    if (cells := numeric.parse_plain_numbers(column)) is not None:
        return _as_plain_numbers(column, cells)
    choice = number_formats.find_number_format(numeric.without_missing(column))
    return _numbers_in_format(column, choice or FormatChoice(PLAIN))


def _as_plain_numbers(column: Any, cells: ParsedCells) -> InferredType:
    """A column whose cells are all numbers in the plain format."""
    choice = number_formats.check_plain_format(numeric.without_missing(column.slice(0, 1000)))
    if choice.other is not None:
        choice = number_formats.check_plain_format(numeric.without_missing(column))
    return _number_type(choice, InvalidCells(cells.filled))._replace(cells=cells)


def _as_formatted_numbers(column: Any) -> InferredType:
    """Other text; if hardly any cell is a number, the few are not read."""
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
