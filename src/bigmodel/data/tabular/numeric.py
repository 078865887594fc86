"""What stands in a column of a table, as numbers or words, whatever kind of file it came from.

Everything is done on whole columns: a table of a million rows is read in seconds.
"""

from __future__ import annotations

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
_SAMPLE = 1000  # values that decide whether all are looked at


def is_boolean_text(text: Any) -> bool:
    """Whether a column of text holds true or false, in any case, and nothing but 1 and 0 beside."""
    filled = text.drop_null()
    if not _all_boolean(filled.slice(0, _SAMPLE)) or not _all_boolean(filled):
        return False
    text_values = pa.array(["true", "false"], text.type)
    return bool(pc.any(pc.is_in(pc.utf8_lower(filled), value_set=text_values), min_count=0).as_py())


def _all_boolean(text: Any) -> bool:

    known = pc.is_in(pc.utf8_lower(text), value_set=pa.array([*_DIGITS], text.type))
    return bool(pc.all(known, min_count=0).as_py())


def booleans_to_digits(text: Any) -> Any:
    """A column that `is_boolean_text` with 1 for true and 0 for false."""
    places = pc.index_in(pc.utf8_lower(text), value_set=pa.array([*_DIGITS], text.type))
    return pa.array([*_DIGITS.values()], text.type).take(places)


_MISSING_WORDS = ("", "NA", "N/A", "n/a", "na", "#N/A", "NaN", "nan", "NAN", "null", "NULL", "?")
_NOT_NUMBERS = (*_MISSING_WORDS, "None", "-")  # which may be words of their own among others
_INDEX_NAMES = ("", "id", "index", "row", "no", "nr", "number", "rowid", "row_id")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__|Unnamed: 0(\.\d+)*|index|level_0")

MAX_EXACT_INTEGER = 2**53
"""From here on, two whole numbers may be one float64."""

MAX_FLOAT32 = float(np.finfo(np.float32).max)
"""The largest number that a model can hold."""


class ParsedCells(NamedTuple):
    """The cells of a column as numbers.

    Attributes:
        values: NaN where one is missing or invalid.
        invalid: which hold anything that is no finite number, written as the column's are.
        infinite: which of them are numbers all the same.
        filled: how many hold anything.
    """

    values: Numbers
    invalid: NDArray[np.bool_]
    infinite: NDArray[np.bool_]
    filled: int

    @property
    def too_large(self) -> NDArray[np.bool_]:
        """Which are numbers that no model can hold."""
        return np.abs(self.values) > MAX_FLOAT32

    @classmethod
    def of(cls, values: Numbers, filled: NDArray[np.bool_]) -> ParsedCells:
        """Of values, which are changed in place, and which cells hold anything."""
        invalid, infinite = filled & ~np.isfinite(values), np.isinf(values)
        values[infinite] = np.nan
        return cls(values, invalid, infinite, int(np.count_nonzero(filled)))


def parse_numbers(column: Any, number_format: NumberFormat = PLAIN) -> ParsedCells:
    """A column as numbers, where they are written in a `number_format`."""
    kind = column.type
    if not (is_number_type(kind) or pa.types.is_boolean(kind)):
        text = column if is_text(kind) else text_values(column)
        if number_format == PLAIN and (cells := parse_plain_numbers(text)) is not None:
            return cells
        text = without_missing(text)
        if number_format == PLAIN and is_boolean_text(text):
            text = booleans_to_digits(text)
        return ParsedCells.of(number_format.read(text), text.is_valid().to_numpy())
    whole = pa.types.is_integer(kind)  # beyond 2^53 between two float64: take the nearer
    values = number_formats.to_floats(column, safe=not whole)
    return ParsedCells.of(values, ~np.isnan(values))


def parse_plain_numbers(text: Any) -> ParsedCells | None:
    """A column of text, where all of it is numbers in the plainest way: much faster than others."""
    values = _cast_all(text)
    if values is None:
        values = _cast_all(without_missing(text))
    return None if values is None else ParsedCells.of(values, ~np.isnan(values))


def is_number_type(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _cast_all(text: Any) -> Numbers | None:
    """Text as numbers, where all of it is written in the plainest way: much faster."""
    try:
        return number_formats.to_floats(text)
    except pa.ArrowInvalid:
        return None


def is_row_index(name: str, column: Any, place: int) -> bool:
    """Whether a column of numbers only counts the rows, by what it holds and by its name.

    An index that pandas has written counts the rows that there were before some were taken out.

    Args:
        place: of the column in its file, from 0.
    """
    nameless = name == f"column {place + 1}"
    index = _PANDAS_INDEX.fullmatch(name) is not None or (nameless and place == 0)
    if not index and not nameless and name.lower().strip("_# ") not in _INDEX_NAMES:
        return False
    values = parse_numbers(column).values
    if index:
        whole = bool((values == np.trunc(values)).all())  # false where one is missing
        return whole and len(values) > 1 and len(np.unique(values)) == len(values)
    return len(values) > 1 and bool((np.diff(values) == 1).all())


def all_whole(column: Any, number_format: NumberFormat = PLAIN) -> bool:
    """Whether all numbers of a column are written as whole ones: 1, but not 1.0."""
    if not is_text(column.type):
        decimal = pa.types.is_decimal(column.type) and column.type.scale <= 0
        return bool(pa.types.is_integer(column.type)) or decimal
    text = number_formats.normalize_number_text(without_missing(column))
    text = text.filter(number_format.fits(text))
    mark = number_format.decimal
    broken = pc.match_substring_regex(text, rf"\d[{mark}eE]|[{mark}]\d")
    return not pc.any(broken, min_count=0).as_py()


def identifier_groups(column: Any, number_format: NumberFormat) -> str:
    """The first of numbers that all have as many groups of digits, three or more, as identifiers have.

    Empty where they have not, have decimals or a unit, or their groups are set apart by a comma.
    """
    if number_format.thousands not in (".", " ") or number_format.unit or not is_text(column.type):
        return ""
    text = without_missing(column)
    text = text.filter(number_format.fits(number_formats.normalize_number_text(text)))
    missing = pc.count_substring(number_formats.normalize_number_text(text), number_format.thousands)
    fewest, most = pc.min_max(missing).as_py().values()
    if fewest != most or (most or 0) < 2 or not all_whole(text, number_format):
        return ""
    return str(text[0].as_py())


def leading_zeros(column: Any) -> NDArray[np.bool_]:
    """Which cells of a column of text may be identifiers, such as 007."""

    found: NDArray[np.bool_] = pc.fill_null(pc.starts_with(column, "0"), False).to_numpy()
    if found.any():
        with_zero = column.take(np.flatnonzero(found))
        found = found.copy()
        found[found] = pc.match_substring_regex(with_zero, r"^0\d+$").to_numpy()
    return found


def text_values(column: Any) -> Any:
    """A column as text, without spaces around it; null where a value is missing or empty.

    Numbers are written alike whatever file they came from: 1, not 1.0.
    """
    if is_text(column.type):
        text = pc.utf8_trim_whitespace(column)
        empty = pc.equal(text, "")
        return pc.if_else(empty, None, text) if pc.any(empty).as_py() else text
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return pc.cast(to_castable(column), pa.string())


def missing_words_in(column: Any, *, words_too: bool) -> list[str]:
    """The words of a column of text that stand for a missing value, such as R's NA.

    Args:
        words_too: the column holds words, among which None and - may be words like others.
    """
    if not is_text(column.type):
        return []
    text, missing = text_values(column), _MISSING_WORDS if words_too else _NOT_NUMBERS
    found = text.filter(pc.is_in(text, value_set=pa.array(missing, text.type)))
    return sorted(found.unique().to_pylist())


def text_without(column: Any, missing: Sequence[str]) -> Any:
    """A column as `words`, some of which are null as well."""
    text = text_values(column)
    if not missing:
        return text
    return pc.if_else(pc.is_in(text, value_set=pa.array(missing, text.type)), None, text)


def is_text(kind: Any) -> bool:

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def without_missing(column: Any) -> Any:
    """A column of text whose words for a missing value are null."""
    if not is_text(column.type):
        return column
    text = pc.utf8_trim_whitespace(column)
    marked = pc.is_in(text, value_set=pa.array(_NOT_NUMBERS, text.type))
    return pc.if_else(marked, None, text)


def is_number(text: str) -> bool:
    """Whether a word is one that Python takes for a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
