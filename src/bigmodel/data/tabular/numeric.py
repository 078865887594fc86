"""Columns of a table as numbers or words, whatever kind of file they came from.

Everything is done on whole columns: a table of a million rows is read in seconds.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigmodel.data.libraries import pa, pc
from bigmodel.data.tabular import number_formats
from bigmodel.data.tabular.json_values import to_castable
from bigmodel.data.tabular.number_formats import PLAIN, NumberFormat, Numbers

_DIGITS = {"true": "1", "false": "0", "1": "1", "0": "0", "1.0": "1", "0.0": "0"}
_SAMPLE = 1000  # values that are checked first


def is_boolean_text(text: Any) -> bool:
    """Whether a column of text holds true or false, in any case, and at most 1 and 0 besides."""
    filled = text.drop_null()
    for cells in (filled.slice(0, _SAMPLE), filled):
        if not pc.all(_is_one_of(pc.utf8_lower(cells), [*_DIGITS]), min_count=0).as_py():
            return False
    words = _is_one_of(pc.utf8_lower(filled), ["true", "false"])
    return bool(pc.any(words, min_count=0).as_py())


def booleans_to_digits(text: Any) -> Any:
    """A column that `is_boolean_text` with 1 for true and 0 for false."""
    places = pc.index_in(pc.utf8_lower(text), value_set=pa.array([*_DIGITS], text.type))
    return pa.array([*_DIGITS.values()], text.type).take(places)


def _is_one_of(text: Any, words: Sequence[str]) -> Any:
    return pc.is_in(text, value_set=pa.array(words, text.type))


_MISSING_WORDS = ("", "NA", "N/A", "n/a", "na", "#N/A", "NaN", "nan", "NAN", "null", "NULL", "?")
_NOT_NUMBERS = (*_MISSING_WORDS, "None", "-")  # the last two may be values of a column of words
_INDEX_NAMES = ("", "id", "index", "row", "no", "nr", "number", "rowid", "row_id")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__|Unnamed: 0(\.\d+)*|index|level_0")

MAX_EXACT_INTEGER = 2**53
"""From here on, two integers may be the same float64."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)
"""The largest number that a model can hold."""


class ParsedCells(NamedTuple):
    """The cells of a column as numbers.

    Attributes:
        values: NaN for a missing or invalid one.
        invalid: which are neither empty nor a finite number in the format of the column.
        infinite: which of the invalid ones are infinite.
        filled: how many are not empty.
    """

    values: Numbers
    invalid: NDArray[np.bool_]
    infinite: NDArray[np.bool_]
    filled: int

    @property
    def too_large(self) -> NDArray[np.bool_]:
        """Which are too large for float32."""
        return np.abs(self.values) > MAX_FLOAT32

    @classmethod
    def of(cls, values: Numbers, filled: NDArray[np.bool_]) -> ParsedCells:
        """From values, which are changed in place; `filled` cells are not empty."""
        invalid, infinite = filled & ~np.isfinite(values), np.isinf(values)
        values[infinite] = np.nan
        return cls(values, invalid, infinite, int(np.count_nonzero(filled)))


def parse_numbers(column: Any, number_format: NumberFormat = PLAIN) -> ParsedCells:
    """A column as numbers; text is read in a `number_format`."""
    kind = column.type
    if not (is_number_type(kind) or pa.types.is_boolean(kind)):
        text = column if is_text(kind) else text_values(column)
        if number_format == PLAIN and (cells := parse_plain_numbers(text)) is not None:
            return cells
        text = without_missing(text)
        if number_format == PLAIN and is_boolean_text(text):
            text = booleans_to_digits(text)
        return ParsedCells.of(number_format.read(text), text.is_valid().to_numpy())
    whole = pa.types.is_integer(kind)  # beyond 2^53, round to the nearest float64
    values = number_formats.to_floats(column, safe=not whole)
    return ParsedCells.of(values, ~np.isnan(values))


def parse_plain_numbers(text: Any) -> ParsedCells | None:
    """A column of text as numbers, if all are in the plain format, which is much faster; else None."""
    for with_missing_words in (False, True):  # looking for them takes longer than reading numbers
        with contextlib.suppress(pa.ArrowInvalid):
            values = number_formats.to_floats(without_missing(text) if with_missing_words else text)
            return ParsedCells.of(values, ~np.isnan(values))
    return None


def is_number_type(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def is_row_index(name: str, column: Any, place: int) -> bool:
    """Whether a column of numbers only counts the rows, judged by its values and its name.

    An index written by pandas has gaps if rows were removed before.

    Args:
        place: of the column in its file, from 0.
    """
    nameless = name == f"column {place + 1}"
    index = _PANDAS_INDEX.fullmatch(name) is not None or (nameless and place == 0)
    if not index and not nameless and name.lower().strip("_# ") not in _INDEX_NAMES:
        return False
    values = parse_numbers(column).values
    if index:
        whole = bool((values == np.trunc(values)).all())  # NaN is not whole
        return whole and len(values) > 1 and len(np.unique(values)) == len(values)
    return len(values) > 1 and bool((np.diff(values) == 1).all())


def all_whole(column: Any, number_format: NumberFormat = PLAIN) -> bool:
    """Whether all numbers of a column are written as integers: 1, but not 1.0."""
    if not is_text(column.type):
        decimal = pa.types.is_decimal(column.type) and column.type.scale <= 0
        return bool(pa.types.is_integer(column.type)) or decimal
    text = number_formats.normalize_number_text(without_missing(column))
    text = text.filter(number_format.fits(text))
    mark = number_format.decimal
    broken = pc.match_substring_regex(text, rf"\d[{mark}eE]|[{mark}]\d")
    return not pc.any(broken, min_count=0).as_py()


def identifier_groups(column: Any, number_format: NumberFormat) -> str:
    """The first number, if all have three or more groups of digits, equally many, like identifiers.

    Empty otherwise, and if they have decimals or a unit, or a comma between groups.
    """
    if number_format.thousands not in (".", " ") or number_format.unit or not is_text(column.type):
        return ""
    text = without_missing(column)
    text = text.filter(number_format.fits(number_formats.normalize_number_text(text)))
    marks = pc.count_substring(number_formats.normalize_number_text(text), number_format.thousands)
    fewest, most = pc.min_max(marks).as_py().values()
    if fewest != most or (most or 0) < 2 or not all_whole(text, number_format):
        return ""
    return str(text[0].as_py())


def leading_zeros(column: Any, cells: ParsedCells | None = None) -> NDArray[np.bool_]:
    """Which cells of a column of text may be identifiers, such as 007.

    Args:
        cells: the result of `parse_plain_numbers`, if it is known.
    """
    begins: NDArray[np.bool_] = pc.fill_null(pc.starts_with(column, "0"), False).to_numpy()
    if cells is not None:  # matching a pattern takes long, and 0.5 begins with a zero as well
        begins = begins & ~(cells.values > np.floor(cells.values))
    places = np.flatnonzero(begins)
    zero_led = np.zeros(len(column), np.bool_)
    if len(places):
        zero_led[places] = pc.match_substring_regex(column.take(places), r"^0\d+$").to_numpy()
    return zero_led


def text_values(column: Any) -> Any:
    """A column as text, without spaces around it; missing and empty values are null.

    Numbers are written alike whatever file they came from: 1, not 1.0.
    """
    if is_text(column.type):
        text = pc.utf8_trim_whitespace(column)
        empty = pc.equal(text, "")
        return pc.if_else(empty, None, text) if pc.any(empty).as_py() else text
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return pc.cast(to_castable(column), pa.string())


def missing_words_in(column: Any, *, words_too: bool, cells: ParsedCells | None = None) -> list[str]:
    """The words for missing values in a column of text, such as R's NA.

    Args:
        words_too: the column holds words, so that None and - may be values like others.
        cells: the result of `parse_plain_numbers`, if it is known.
    """
    if not is_text(column.type) or (
        cells is not None and cells.filled == len(column) - column.null_count
    ):
        return []
    text, missing = text_values(column), _MISSING_WORDS if words_too else _NOT_NUMBERS
    return sorted(text.filter(_is_one_of(text, missing)).unique().to_pylist())


def text_without(column: Any, missing: Sequence[str]) -> Any:
    """`text_values` of a column, with some words null as well."""
    text = text_values(column)
    return pc.if_else(_is_one_of(text, missing), None, text) if missing else text


def value_counts(text: Any) -> dict[str, int]:
    """How often each word occurs in a column of text, the most frequent first."""
    counts = text.drop_null().value_counts().to_pylist()
    counts.sort(key=lambda row: (-row["counts"], row["values"]))
    return {row["values"]: row["counts"] for row in counts}


def is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def without_missing(column: Any) -> Any:
    """A column of text with null for missing values; others are unchanged."""
    if not is_text(column.type):
        return column
    text = pc.utf8_trim_whitespace(column)
    return pc.if_else(_is_one_of(text, _NOT_NUMBERS), None, text)


def is_number(text: str) -> bool:
    """Whether Python reads a word as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
