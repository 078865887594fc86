"""Dates, times of day and durations: how a column of them is written is found out, and it is read.

All become seconds: since 1970 in Greenwich (dates, also such without a time), since midnight (times of
day), or as they are (durations).
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bigmodel.data.libraries import pa, pc
from bigmodel.data.tabular.date_formats import (
    DAY,
    DEFAULT_FORMATS,
    DIGIT_FORMATS,
    EPOCH_UNITS,
    ISO,
    ISO_WITH_ZONE,
    KNOWN_FORMATS,
    MONTHS,
    PATTERNS,
    TimeKind,
    format_pattern,
    time_kind,
)
from bigmodel.data.tabular.number_formats import Numbers, sample_cells
from bigmodel.data.tabular.numeric import (
    ParsedCells,
    is_text,
    parse_numbers,
    text_values,
    without_missing,
)

_CENTURY_PIVOT = 69  # as in POSIX: 69 is 1969, and 68 is 2068
_MIN_FIT = 0.5  # share of a sample that a way has to fit to be tried on all
_MICROSECONDS = len("2020-01-31 10:30:00.000000")
_FIRST_CELLS = 30  # cells of the sample, at first
_BEGINNING = (
    r"^[+-]?P?T?\d|^(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)"
)


class DateFormat(NamedTuple):
    """How a column of dates or times is written.

    Attributes:
        time_format: one of `KNOWN_FORMATS` or `EPOCH_UNITS`, or a format as for `strptime`.
        other: another way that reads as many cells, and otherwise; empty: there is none.
    """

    time_format: str
    other: str = ""


def parse_times(column: Any, time_format: str) -> ParsedCells:
    """A column of dates or times as seconds; `time_format` says how text is written.

    Args:
        column: text, or of a type of Arrow's for times of the same kind.
    """
    if time_kind_of_type(column.type) == time_kind(time_format):
        values = _typed_seconds(column)
        filled = ~np.isnan(values)
    else:
        text = without_missing(text_values(column))
        filled = text.is_valid().to_numpy()
        values = _text_seconds(text, time_format)
    invalid = filled & np.isnan(values)
    return ParsedCells(values, invalid, np.zeros_like(invalid), int(np.count_nonzero(filled)))


def time_kind_of_type(kind: Any) -> TimeKind | None:
    """What a type of Arrow's for times holds; None: it is not for times."""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date"
    if pa.types.is_time(kind):
        return "time"
    return "duration" if pa.types.is_duration(kind) else None


def format_of_type(kind: Any) -> str:
    """The way in which text holds what a column of a type of Arrow's for times holds."""
    zone = pa.types.is_timestamp(kind) and kind.tz is not None
    return ISO_WITH_ZONE if zone else DEFAULT_FORMATS[time_kind_of_type(kind) or "date"]


def find_date_format(column: Any, kind: TimeKind | None = None) -> DateFormat | None:
    """How most cells of a column are written as dates or times; None if hardly any is one.

    Args:
        column: of any type.
        kind: what the user says that it holds: then numbers may be dates as well.
    """
    if time_kind_of_type(column.type) is not None:
        return DateFormat(format_of_type(column.type))
    if kind is None and not is_text(column.type):
        return None
    ways = [*KNOWN_FORMATS, *(DIGIT_FORMATS if kind else ())]
    text = without_missing(text_values(column)).drop_null()
    counted = _count_fits(
        text, [time_format for time_format in ways if kind in (None, time_kind(time_format))]
    )
    if not counted:
        return _numbers_as_dates(column) if kind == "date" else None
    most = max(counted.values())
    best, *others = _closest_first(
        text, [time_format for time_format, count in counted.items() if count == most]
    )
    if best.startswith(ISO):  # which is never read otherwise
        return DateFormat(best)
    read = _text_seconds(text, best) if others else None
    other = next(
        (time_format for time_format in others if _reads_differently(best, read, time_format, text)), ""
    )
    return DateFormat(best, other)


def _count_fits(text: Any, ways: list[str]) -> dict[str, int]:
    """How many cells each way reads, of those that read most."""
    some = sample_cells(text)
    few = some.take(np.linspace(0, len(some) - 1, min(len(some), _FIRST_CELLS)).astype(np.int64))
    if _MIN_FIT * len(few) > (pc.sum(pc.match_substring_regex(few, _BEGINNING)).as_py() or 0):
        return {}  # as most columns of words are
    ways = [
        time_format
        for time_format in ways
        if _count(_text_seconds(few, time_format)) >= _MIN_FIT * len(few) > 0
    ]
    counted = {time_format: _count(_text_seconds(some, time_format)) for time_format in ways}
    most = max(counted.values(), default=0)
    if most < _MIN_FIT * len(some) or most == 0:
        return {}
    if len(some) < len(text):
        near = [time_format for time_format, count in counted.items() if count >= 0.8 * most]
        if (
            len(near) > 1
            and _count(_text_seconds(text, near[0])) == len(text)
            and near[0].startswith(ISO)
        ):
            return {near[0]: len(text)}  # ISO is never read otherwise
        counted = {time_format: _count(_text_seconds(text, time_format)) for time_format in near}
    return counted


def _closest_first(text: Any, ways: list[str]) -> list[str]:
    """Ways that read as many cells. Where a year of two digits may stand first or last, first comes the
    way by which most dates lie closer together: years are fewer than days."""
    first = next((time_format for time_format in ways if time_format.startswith("%y")), None)
    if first is None or first == ways[0]:
        return ways
    spreads = [
        np.subtract(*np.nanpercentile(_text_seconds(text, time_format), [90, 10]))
        for time_format in (ways[0], first)
    ]
    if spreads[1] >= spreads[0]:
        return ways
    return [first, *(time_format for time_format in ways if time_format != first)]


def _count(values: Numbers) -> int:
    return int(np.count_nonzero(~np.isnan(values)))


def _reads_differently(best: str, read: Numbers | None, time_format: str, text: Any) -> bool:
    if time_kind(best) != time_kind(time_format):
        return True
    assert read is not None
    return not np.array_equal(read, _text_seconds(text, time_format), equal_nan=True)


def _numbers_as_dates(column: Any) -> DateFormat | None:
    """Numbers that somebody says are dates: of seconds up to the year 5138, or else of milliseconds."""
    values = parse_numbers(column).values
    if np.isnan(values).all():
        return None
    return DateFormat(list(EPOCH_UNITS)[int(np.nanmedian(np.abs(values)) >= 1e11)])


def _typed_seconds(column: Any) -> Numbers:

    kind = column.type
    narrow = pa.types.is_date32(kind) or pa.types.is_time32(kind)
    whole = pc.cast(pc.cast(column, pa.int32()) if narrow else column, pa.int64())
    ticks = pc.fill_null(whole, 0).to_numpy()
    if pa.types.is_date32(kind):
        values: Numbers = ticks * float(DAY)
    else:
        unit = "ms" if pa.types.is_date64(kind) else kind.unit
        second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        values = ticks // second + ticks % second / second  # ticks may be more than a float64 holds
    values[column.is_null().to_numpy()] = np.nan
    return values


def _text_seconds(text: Any, time_format: str) -> Numbers:
    """Text as seconds, NaN where it is missing or not written so."""
    if time_format in EPOCH_UNITS:
        values = parse_numbers(text).values
        values /= EPOCH_UNITS[time_format]
        return values
    if time_format in (ISO, ISO_WITH_ZONE) and (stamps := _iso_stamps(text, time_format)) is not None:
        return _typed_seconds(stamps)
    patterns = PATTERNS.get(time_format) or [format_pattern(time_format)]
    values = np.full(len(text), np.nan)
    for pattern in patterns:
        found = pc.extract_regex(text, pattern)
        fits = found.is_valid().to_numpy()
        if fits.any():
            values[fits] = _MatchedGroups(found.drop_null()).seconds(time_kind(time_format))
    return values


def _iso_stamps(text: Any, time_format: str) -> Any:
    """The same much faster, where each cell that looks like a date is one."""
    stamp = pa.timestamp("us", tz=None if time_format == ISO else "UTC")
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(text, stamp)
    likely = pc.match_substring_regex(text, PATTERNS[time_format][0])
    text = pc.if_else(likely, text, None)
    if time_format == ISO:
        text = pc.utf8_slice_codeunits(text, 0, _MICROSECONDS)
    else:
        text = pc.replace_substring_regex(text, r"([.,]\d{6})\d+", r"\1")
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(text, stamp)
    return None


class _MatchedGroups:
    """What a pattern's groups hold of cells that all fit it."""

    def __init__(self, found: Any) -> None:

        whole = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        fields = [whole.type.field(place).name for place in range(whole.type.num_fields)]
        self.groups = dict(zip(fields, whole.flatten(), strict=True))
        self.rows = len(whole)

    def seconds(self, kind: TimeKind) -> Numbers:
        """NaN where parts are there that cannot be, such as a 13th month."""
        if kind == "duration":
            return self._duration()
        hour, minute, second = self.number("hour", 0), self.number("minute", 0), self.number("second", 0)
        wrong = (hour > 23) | (minute > 59) | (second > 59)
        if "half" in self.groups:
            half_hour = self.number("half_hour", 12)
            wrong |= (half_hour < 1) | (half_hour > 12)
            hour = half_hour % 12 + 12 * self._is("half", r"^[pP]")
        values = hour * 3600 + minute * 60 + second + self.fraction()
        if kind == "date":
            days, never = self._days()
            values += days * float(DAY) - self._zone()
            wrong |= never
        values[wrong] = np.nan
        return values

    def _duration(self) -> Numbers:
        clock = self.number("hour", 0) * 3600 + self.number("minute", 0) * 60 + self.number("second", 0)
        clock += self.number("hours", 0) * 3600 + self.number("minutes", 0) * 60
        values = clock + self.number("seconds", 0) + self.fraction()
        values += self.number("weeks", 0) * 7 * float(DAY)
        days = self.number("days", 0) * float(DAY)
        sign = 1 - 2 * self._is("sign", "^-")
        if "hours" in self.groups:  # ISO: a sign is that of all
            said = [self.groups[name] for name in ("weeks", "days", "hours", "minutes", "seconds")]
            values = (values + days) * sign
            values[~np.any([_nonempty(group) for group in said], axis=0)] = np.nan
        else:
            values = days + values * sign
        values[(self.number("minute", 0) > 59) | (self.number("second", 0) > 59)] = np.nan
        return values

    def _days(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Days since 1970, and which of them never were."""
        year = self.number("year", 1970)
        if "short_year" in self.groups:
            short = self.number("short_year", 70)
            year = short + np.where(short < _CENTURY_PIVOT, 2000, 1900)
        month, day = self.number("month", 1), self.number("day", 1)
        if "named_month" in self.groups:
            month = self._named_month()
        months = (year - 1970) * 12 + month.clip(1, 12) - 1
        first, after = (m.astype("M8[M]").astype("M8[D]").astype(np.int64) for m in (months, months + 1))
        wrong = (month < 1) | (month > 12) | (day < 1) | (day > after - first)
        return first + day - 1, wrong

    def _named_month(self) -> NDArray[np.int64]:

        names = pa.array([name[:3] for name in MONTHS])
        short = pc.utf8_slice_codeunits(pc.utf8_lower(self.groups["named_month"]), 0, 3)
        found: NDArray[np.int64] = pc.index_in(short, value_set=names).to_numpy().astype(np.int64)
        return found + 1

    def _zone(self) -> NDArray[np.int64]:
        """Seconds by which a cell's clock is before Greenwich's."""
        if "zone" not in self.groups:
            return np.zeros(self.rows, np.int64)
        digits = pc.replace_substring_regex(self.groups["zone"], r"[^0-9]", "")
        offset = _digits_to_int(pc.utf8_rpad(digits, 4, "0"), 0)
        return (offset // 100 * 3600 + offset % 100 * 60) * (1 - 2 * self._is("zone", "^-"))

    def number(self, group: str, default: int) -> NDArray[np.int64]:
        if group not in self.groups:
            return np.full(self.rows, default)
        return _digits_to_int(self.groups[group], default)

    def fraction(self) -> Numbers:

        if "fraction" not in self.groups:
            return np.zeros(self.rows)
        return _digits_to_int(pc.utf8_rpad(self.groups["fraction"], 9, "0"), 0) / 1e9

    def _is(self, group: str, pattern: str) -> NDArray[np.int64]:

        if group not in self.groups:
            return np.zeros(self.rows, np.int64)
        found = pc.match_substring_regex(self.groups[group], pattern).to_numpy(zero_copy_only=False)
        return cast("NDArray[np.int64]", found.astype(np.int64))


def _digits_to_int(text: Any, default: int) -> NDArray[np.int64]:
    """Digits as numbers, a default where there are none; no number of them is too long for seconds."""
    digits = pc.if_else(pc.equal(text, ""), str(default), pc.utf8_slice_codeunits(text, 0, 12))
    found: NDArray[np.int64] = pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False)
    return found


def _nonempty(text: Any) -> NDArray[np.bool_]:

    found: NDArray[np.bool_] = pc.not_equal(text, "").to_numpy(zero_copy_only=False)
    return found
