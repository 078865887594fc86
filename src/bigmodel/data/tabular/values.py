"""What stands in a column of a table, as numbers, dates or words, whatever kind of file it came from.

Everything is done on whole columns: a table of a million rows is read in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_MISSING = ("", "NA", "N/A", "n/a", "na", "#N/A", "NaN", "nan", "NAN", "null", "NULL", "?")
_NO_NUMBERS = (*_MISSING, "None", "-")  # which may be words of their own among others
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity|nan)$"
_STRANGE = r"[,'$€£¥%]"
_WRITTEN = r"^[+-]?[$€£¥]?\s?(\d+|\d{1,3}([,.' ]\d{3})+)([.,]\d+)?\s?[$€£¥%]?$"
_SAMPLE = 1000  # values that decide which ways of writing a date are tried on all
_COUNTERS = ("", "id", "index", "row", "no", "nr", "number", "unnamed: 0", "rowid", "row_id")
_DATES = ("%d.%m.%Y", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%d %b %Y", "%d %B %Y")
_TIMES = ("", " %H:%M", " %H:%M:%S")
DATE_FORMATS = ("ISO", "ISO with zone", *(day + time for day in _DATES for time in _TIMES))
"""How dates may be written; where two would do for all values, the first counts."""


def kind_of(column: Any) -> str:
    """What a column holds: `number`, `date`, `text`, `empty`, or `other`, such as lists.

    Identifiers with leading zeros, such as 007, are text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if column.null_count == len(column):
        return "empty"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date"
    if pa.types.is_boolean(kind):
        return "text"
    if not _is_text(kind):
        return "other"
    with_zero = column.filter(pc.starts_with(column, "0"))
    if pc.any(pc.match_substring_regex(with_zero, r"^0\d+$")).as_py() is True:
        return "text"
    if numbers(column) is not None:
        return "number"
    return "text" if date_format(column) is None else "date"


def numbers(column: Any) -> Numbers | None:
    """A column as numbers, NaN where a value is missing; None where one is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = pa.types.is_integer(column.type)  # some beyond 2^53 lie between two float64: take the nearer
    for prepare in (None, _without_marks):
        try:
            values = column if prepare is None else prepare(column)
            found: Numbers = pc.cast(values, pa.float64(), safe=not whole).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        return found if found.flags.writeable else found.copy()
    return None


def counts_rows(name: str, column: Any) -> bool:
    """Whether a column of numbers only counts the rows, by what it holds and by its name."""
    if name.lower().strip("_# ") not in _COUNTERS and not name.startswith("column "):
        return False
    values = numbers(column)
    return values is not None and len(values) > 1 and bool((np.diff(values) == 1).all())


def whole_numbers(column: Any) -> bool:
    """Whether all values of a column of numbers are written as whole ones: 1, but not 1.0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _is_text(column.type):
        return bool(pa.types.is_integer(column.type))
    try:
        pc.cast(_without_marks(column), pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def first_without_number(column: Any) -> tuple[int, str]:
    """Row and value of the first in a column that is no number."""
    import pyarrow.compute as pc

    text = _without_marks(words(column))
    row = pc.index(pc.match_substring_regex(text, _NUMBER), False).as_py()
    return row, str(text[row].as_py())


def strange_number(column: Any) -> tuple[int, str] | None:
    """Row and value of the first number in a column of text that is all numbers, but not written as
    numbers are read: with a decimal comma, thousands set apart, or a unit; None where it is not so."""
    import pyarrow.compute as pc

    if not _is_text(column.type):
        return None
    text = _without_marks(column)
    row: int = pc.index(pc.match_substring_regex(text, _STRANGE), True).as_py()
    if row < 0 or not pc.all(pc.match_substring_regex(text, _WRITTEN)).as_py():
        return None
    return row, str(text[row].as_py())


def words(column: Any) -> Any:
    """A column as text, without spaces around it; null where a value is missing or empty.

    Numbers are written alike whatever file they came from: 1, not 1.0.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_text(column.type):
        text = pc.utf8_trim_whitespace(column)
        empty = pc.equal(text, "")
        return pc.if_else(empty, None, text) if pc.any(empty).as_py() else text
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return pc.cast(column, pa.string())


def marks_of(column: Any, *, words_too: bool) -> list[str]:
    """The words of a column of text that stand for a missing value, such as R's NA.

    Args:
        words_too: the column holds words, among which None and - may be words like others.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _is_text(column.type):
        return []
    text, marks = words(column), _MISSING if words_too else _NO_NUMBERS
    found = text.filter(pc.is_in(text, value_set=pa.array(marks, text.type)))
    return sorted(found.unique().to_pylist())


def words_without(column: Any, marks: Sequence[str]) -> Any:
    """A column as `words`, some of which are null as well."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = words(column)
    if not marks:
        return text
    return pc.if_else(pc.is_in(text, value_set=pa.array(marks, text.type)), None, text)


def date_format(column: Any) -> str | None:
    """How the dates of a column are written, one of `DATE_FORMATS`; None where it holds others too."""
    if not _is_text(column.type):
        return DATE_FORMATS[0]
    some = column.drop_null().slice(0, _SAMPLE)
    fitting = (way for way in DATE_FORMATS if moments(some, way) is not None)
    return next((way for way in fitting if moments(column, way) is not None), None)


def moments(column: Any, way: str) -> Any:
    """A column of dates written in a `way` as Arrow timestamps, null where a value is missing; None
    where one is no such date. Times with a zone are given as in Greenwich."""
    import pyarrow as pa
    import pyarrow.compute as pc

    micro = pa.timestamp("us")
    try:
        if not _is_text(column.type):
            return pc.cast(column, micro)
        text = _without_marks(column)
        if way == "ISO":
            return pc.cast(text, micro)
        if way == "ISO with zone":
            return pc.cast(pc.cast(text, pa.timestamp("us", tz="UTC")), micro)
        found = pc.strptime(text, format=way, unit="us", error_is_null=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    earliest = pc.min(pc.year(found)).as_py()
    short = earliest is not None and earliest < 1000  # 24 that was read as the year 24
    return None if found.null_count > text.null_count or short else found


def first_without_date(column: Any, way: str) -> tuple[int, str]:
    """Row and value of the first in a column that is no date written in that `way`."""
    text = _without_marks(words(column))
    low, high = 0, len(text) - 1
    while low < high:  # halving: only the first part that fails is looked into
        middle = (low + high) // 2
        if moments(text.slice(low, middle - low + 1), way) is None:
            high = middle
        else:
            low = middle + 1
    return low, str(text[low].as_py())


DATE_PARTS = ("year", "month", "day", "weekday", "hour")


def date_part(found: Any, part: str) -> Numbers:
    """One of `DATE_PARTS` of timestamps as numbers, Monday being 0; NaN where a value is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    taken = getattr(pc, "day_of_week" if part == "weekday" else part)(found)
    values: Numbers = pc.cast(taken, pa.float64()).to_numpy()
    return values if values.flags.writeable else values.copy()


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _without_marks(column: Any) -> Any:
    """A column of text whose words for a missing value are null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not _is_text(column.type):
        return column
    text = pc.utf8_trim_whitespace(column)
    marked = pc.is_in(text, value_set=pa.array(_NO_NUMBERS, text.type))
    return pc.if_else(marked, None, text)
