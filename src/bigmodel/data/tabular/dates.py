"""Infers the format of a column of dates, times of day or durations, and reads it as seconds.

Dates become seconds since 1970 in UTC, times of day seconds since midnight.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bigmodel.data.libraries import pa, pc
from bigmodel.data.tabular import date_formats, numeric
from bigmodel.data.tabular.date_formats import DAY, DEFAULT_FORMATS, ISO, ISO_WITH_ZONE, TimeKind
from bigmodel.data.tabular.json_values import TICKS_PER_SECOND
from bigmodel.data.tabular.number_formats import Numbers, sample_cells
from bigmodel.data.tabular.numeric import ParsedCells

_CENTURY_PIVOT = 69  # as in POSIX: 69 is 1969, and 68 is 2068
_MIN_FIT = 0.5  # share of a sample that a format must fit to be tried on all cells
_MICROSECONDS = len("2020-01-31 10:30:00.000000")
_FIRST_CELLS = 30  # cells of the sample, at first
_BEGINNING = (
    r"^[+-]?P?T?\d|^(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)"
)


class DateFormat(NamedTuple):
    """The format of a column of dates or times.

    Attributes:
        time_format: one of `KNOWN_FORMATS` or `EPOCH_UNITS`, or a format of `strptime`.
        other: another format that reads as many cells, but differently; empty: there is none.
    """

    time_format: str
    other: str = ""


def parse_times(column: Any, time_format: str) -> ParsedCells:
    """A column of dates or times as seconds.

    Args:
        column: text in a `time_format`, or a column of an Arrow type for times of the same kind.
    """
    if time_kind_of_type(column.type) == date_formats.time_kind(time_format):
        values = _typed_seconds(column)
        filled = ~np.isnan(values)
    else:
        text = numeric.without_missing(numeric.text_values(column))
        filled = text.is_valid().to_numpy()
        values = _text_seconds(text, time_format)
    invalid = filled & np.isnan(values)
    return ParsedCells(values, invalid, np.zeros_like(invalid), int(np.count_nonzero(filled)))


def time_kind_of_type(kind: Any) -> TimeKind | None:
    """What an Arrow type for times holds; None: it is not for times."""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date"
    if pa.types.is_time(kind):
        return "time"
    return "duration" if pa.types.is_duration(kind) else None


def find_date_format(column: Any, kind: TimeKind | None = None) -> DateFormat | None:
    """The format of most cells of a column as dates or times; None if hardly any is one.

    Args:
        column: of any type.
        kind: set by the user: then numbers may be dates as well.
    """
    if (typed := time_kind_of_type(column.type)) is not None:
        zone = pa.types.is_timestamp(column.type) and column.type.tz is not None
        return DateFormat(ISO_WITH_ZONE if zone else DEFAULT_FORMATS[typed])
    if kind is None and not numeric.is_text(column.type):
        return None
    formats = [*date_formats.KNOWN_FORMATS]
    if kind is not None:
        formats = [*formats, *date_formats.DIGIT_FORMATS]
        formats = [form for form in formats if date_formats.time_kind(form) == kind]
    text = numeric.without_missing(numeric.text_values(column)).drop_null()
    counted = _count_fits(text, formats)
    if not counted:
        return _numbers_as_dates(column) if kind == "date" else None
    most = max(counted.values())
    best, *others = _closest_first(text, [form for form, count in counted.items() if count == most])
    if best.startswith(ISO):  # unambiguous
        return DateFormat(best)
    read = _text_seconds(text, best) if others else np.empty(0)
    for other in others:
        alike = date_formats.time_kind(best) == date_formats.time_kind(other)
        if not alike or not np.array_equal(read, _text_seconds(text, other), equal_nan=True):
            return DateFormat(best, other)
    return DateFormat(best)


def _count_fits(text: Any, formats: list[str]) -> dict[str, int]:
    """How many cells each format reads, for those that read the most."""
    some = sample_cells(text)
    few = some.take(np.linspace(0, len(some) - 1, min(len(some), _FIRST_CELLS)).astype(np.int64))
    if _MIN_FIT * len(few) > (pc.sum(pc.match_substring_regex(few, _BEGINNING)).as_py() or 0):
        return {}  # as most columns of words are
    formats = [form for form in formats if _count(few, form) >= _MIN_FIT * len(few) > 0]
    counted = {form: _count(some, form) for form in formats}
    most = max(counted.values(), default=0)
    if most < _MIN_FIT * len(some) or most == 0:
        return {}
    if len(some) < len(text):
        near = [form for form, count in counted.items() if count >= 0.8 * most]
        if len(near) > 1 and near[0].startswith(ISO) and _count(text, near[0]) == len(text):
            return {near[0]: len(text)}  # ISO is unambiguous
        counted = {form: _count(text, form) for form in near}
    return counted


def _closest_first(text: Any, formats: list[str]) -> list[str]:
    """Sorts formats that read equally many cells. If a two-digit year may come first or last, the format
    that puts most dates closer together comes first: dates span fewer years than days."""
    first = next((form for form in formats if form.startswith("%y")), None)
    if first is None or first == formats[0]:
        return formats
    both = (np.nanpercentile(_text_seconds(text, form), [10, 90]) for form in (formats[0], first))
    usual, by_year = (high - low for low, high in both)
    return formats if by_year >= usual else [first, *(form for form in formats if form != first)]


def _count(text: Any, time_format: str) -> int:
    return int(np.count_nonzero(~np.isnan(_text_seconds(text, time_format))))


def _numbers_as_dates(column: Any) -> DateFormat | None:
    """The unit of numbers that are dates: seconds up to the year 5138, else milliseconds."""
    values = numeric.parse_numbers(column).values
    if np.isnan(values).all():
        return None
    return DateFormat(list(date_formats.EPOCH_UNITS)[int(np.nanmedian(np.abs(values)) >= 1e11)])


def _typed_seconds(column: Any) -> Numbers:
    kind = column.type
    narrow = pa.types.is_date32(kind) or pa.types.is_time32(kind)
    whole = pc.cast(pc.cast(column, pa.int32()) if narrow else column, pa.int64())
    ticks = pc.fill_null(whole, 0).to_numpy()
    if pa.types.is_date32(kind):
        values: Numbers = ticks * float(DAY)
    else:
        second = TICKS_PER_SECOND["ms" if pa.types.is_date64(kind) else kind.unit]
        values = ticks // second + ticks % second / second  # ticks may be more than a float64 holds
    values[column.is_null().to_numpy()] = np.nan
    return values


def _text_seconds(text: Any, time_format: str) -> Numbers:
    """Text as seconds; NaN for cells that are missing or in another format."""
    if time_format in date_formats.EPOCH_UNITS:
        values = numeric.parse_numbers(text).values
        values /= date_formats.EPOCH_UNITS[time_format]
        return values
    if time_format in (ISO, ISO_WITH_ZONE) and (stamps := _iso_stamps(text, time_format)) is not None:
        return _typed_seconds(stamps)
    patterns = date_formats.PATTERNS.get(time_format) or [date_formats.format_pattern(time_format)]
    values = np.full(len(text), np.nan)
    for pattern in patterns:
        matches = pc.extract_regex(text, pattern)
        fits = matches.is_valid().to_numpy()
        if fits.any():
            values[fits] = _MatchedGroups(matches.drop_null()).seconds(
                date_formats.time_kind(time_format)
            )
    return values


def _iso_stamps(text: Any, time_format: str) -> Any:
    """Timestamps, which is much faster, if every cell that looks like a date is one; else None."""
    stamp = pa.timestamp("us", tz=None if time_format == ISO else "UTC")
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(text, stamp)
    likely = pc.match_substring_regex(text, date_formats.PATTERNS[time_format][0])
    text = pc.if_else(likely, text, None)
    if time_format == ISO:
        text = pc.utf8_slice_codeunits(text, 0, _MICROSECONDS)
    else:
        text = pc.replace_substring_regex(text, r"([.,]\d{6})\d+", r"\1")
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(text, stamp)
    return None


class _MatchedGroups:
    """The groups of a pattern, for cells that all match it."""

    def __init__(self, matches: Any) -> None:
        whole = matches.combine_chunks() if isinstance(matches, pa.ChunkedArray) else matches
        fields = [whole.type.field(place).name for place in range(whole.type.num_fields)]
        self.groups = dict(zip(fields, whole.flatten(), strict=True))
        self.rows = len(whole)

    def seconds(self, kind: TimeKind) -> Numbers:
        """NaN for an impossible date or time, such as in a 13th month."""
        if kind == "duration":
            return self._duration()
        hour, minute, second = map(self.number, ("hour", "minute", "second"))
        wrong = (hour > 23) | (minute > 59) | (second > 59)
        if "half" in self.groups:
            half_hour = self.number("half_hour", 12)
            wrong |= (half_hour < 1) | (half_hour > 12)
            hour = half_hour % 12 + 12 * self._matches("half", r"^[pP]")
        values = hour * 3600 + minute * 60 + second + self.fraction()
        if kind == "date":
            days, never = self._days()
            values += days * float(DAY) - self._zone()
            wrong |= never
        values[wrong] = np.nan
        return values

    def _duration(self) -> Numbers:
        hour, minute, second = map(self.number, ("hour", "minute", "second"))
        clock = hour * 3600 + minute * 60 + second + self.fraction()
        days, sign = self.number("days") * float(DAY), 1 - 2 * self._matches("sign", "^-")
        values = days + clock * sign
        if "hours" in self.groups:  # ISO 8601, whose sign applies to all
            units = ("weeks", "days", "hours", "minutes", "seconds")
            weeks, _, hours, minutes, seconds = map(self.number, units)
            clock = hours * 3600 + minutes * 60 + seconds + self.fraction() + weeks * 7 * float(DAY)
            values = (clock + days) * sign
            values[~np.any([self._matches(unit, ".") for unit in units], axis=0)] = np.nan
        values[(minute > 59) | (second > 59)] = np.nan
        return values

    def _days(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Days since 1970, and which are impossible."""
        year = self.number("year", 1970)
        if "short_year" in self.groups:
            short = self.number("short_year", 70)
            year = short + np.where(short < _CENTURY_PIVOT, 2000, 1900)
        month, day = self.number("month", 1), self.number("day", 1)
        if "named_month" in self.groups:
            short = pc.utf8_slice_codeunits(pc.utf8_lower(self.groups["named_month"]), 0, 3)
            names = pa.array([name[:3] for name in date_formats.MONTHS])
            month = pc.index_in(short, value_set=names).to_numpy() + 1
        months = (year - 1970) * 12 + month.clip(1, 12) - 1
        first, after = (m.astype("M8[M]").astype("M8[D]").astype(np.int64) for m in (months, months + 1))
        wrong = (month < 1) | (month > 12) | (day < 1) | (day > after - first)
        return first + day - 1, wrong

    def _zone(self) -> NDArray[np.int64]:
        """The offset from UTC in seconds."""
        if "zone" not in self.groups:
            return np.zeros(self.rows, np.int64)
        digits = pc.replace_substring_regex(self.groups["zone"], r"[^0-9]", "")
        offset = _digits_to_int(pc.utf8_rpad(digits, 4, "0"), 0)
        return (offset // 100 * 3600 + offset % 100 * 60) * (1 - 2 * self._matches("zone", "^-"))

    def number(self, group: str, default: int = 0) -> NDArray[np.int64]:
        """A group as a number; `default` if it is empty, or the pattern has no such group."""
        if group not in self.groups:
            return np.full(self.rows, default)
        return _digits_to_int(self.groups[group], default)

    def fraction(self) -> Numbers:
        if "fraction" not in self.groups:
            return np.zeros(self.rows)
        return _digits_to_int(pc.utf8_rpad(self.groups["fraction"], 9, "0"), 0) / 1e9

    def _matches(self, group: str, pattern: str) -> NDArray[np.int64]:
        """1 if a group matches a pattern, else 0."""
        if group not in self.groups:
            return np.zeros(self.rows, np.int64)
        matches = pc.match_substring_regex(self.groups[group], pattern).to_numpy(zero_copy_only=False)
        return cast("NDArray[np.int64]", matches.astype(np.int64))


def _digits_to_int(text: Any, default: int) -> NDArray[np.int64]:
    """Digits, at most 12, as numbers; `default` for an empty cell."""
    digits = pc.if_else(pc.equal(text, ""), str(default), pc.utf8_slice_codeunits(text, 0, 12))
    return cast("NDArray[np.int64]", pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False))
