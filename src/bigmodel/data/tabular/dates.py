"""Dates, times of day and durations: how a column of them is written, and what a model reads of each.

All become seconds: since 1970 in Greenwich (dates, also such without a time), since midnight (times of
day), or as they are (durations). Names of months are English, whatever the machine's language is.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from bigmodel.data.tabular.notation import Numbers, drawn
from bigmodel.data.tabular.values import Cells, is_text, numbers, without_marks, words

TimeKind = Literal["date", "time", "duration"]
TIME_KINDS: tuple[TimeKind, ...] = get_args(TimeKind)

ISO, ISO_WITH_ZONE, ISO_SOME_ZONES = "ISO", "ISO with zone", "ISO, some with zone"
TIME_OF_DAY, DURATION = "time of day", "duration"
PLAINEST: dict[TimeKind, str] = {"date": ISO, "time": TIME_OF_DAY, "duration": DURATION}
UNITS = {f"{unit} since 1970": 1000.0**power for power, unit in enumerate(("seconds", "milliseconds"))}

_DAY = 86_400  # seconds
_PIVOT = 69  # as in POSIX: 69 is 1969, and 68 is 2068
_LIKELY = 0.5  # share of a sample that a way has to fit to be tried on all
_MICROSECONDS = len("2020-01-31 10:30:00.000000")
_FEW = 30  # cells of the sample, at first
_MONTHS = [
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
]
_WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_ZONE = r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"
_FRACTION = r"(?:[.,](?P<fraction>\d{1,9}))?"


_BEGINNING = (
    r"^[+-]?P?T?\d|^(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)"
)


def _names(names: list[str], length: int | None = None) -> str:
    return f"(?i:{'|'.join(name[:length] for name in names)})"


_DIRECTIVES = {
    "Y": r"(?P<year>\d{4})",
    "y": r"(?P<short_year>\d{2})",
    "m": r"(?P<month>\d{1,2})",
    "b": rf"(?P<named_month>{_names(_MONTHS, 3)})",
    "B": rf"(?P<named_month>{_names(_MONTHS)})",
    "d": r"(?P<day>\d{1,2})",
    "a": _names(_WEEKDAYS, 3),
    "A": _names(_WEEKDAYS),
    "H": r"(?P<hour>\d{1,2})",
    "I": r"(?P<half_hour>\d{1,2})",
    "p": r"(?P<half>(?i:[ap]\.?m\.?))",
    "M": r"(?P<minute>\d{1,2})",
    "S": r"(?P<second>\d{1,2})",
    "f": r"(?P<fraction>\d{1,9})",
    "z": _ZONE,
    "%": "%",
}
_DATES = (
    *("%d.%m.%Y", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%d %b %Y", "%d %B %Y"),
    *("%m-%d-%Y", "%Y.%m.%d", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y"),
    *("%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%d-%m-%y", "%m-%d-%y", "%d-%b-%y", "%d %b %y"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_UNPUNCTUATED = ("%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S")  # numbers, where nobody says more
_NEARLY_ISO = ("%Y-%m-%d %I:%M %p", "%Y-%m-%d %I:%M:%S %p", "%Y-%m")
FORMATS = (*(day + time for day in _DATES for time in _TIMES), *_NEARLY_ISO)
WAYS = (ISO, ISO_WITH_ZONE, ISO_SOME_ZONES, *FORMATS, TIME_OF_DAY, DURATION)
"""How dates and times may be written; where two would do for as many cells, the first counts."""


class When(NamedTuple):
    """How a column of dates or times is written.

    Attributes:
        way: one of `WAYS` or `UNITS`, or a format as for `strptime`.
        other: another way that reads as many cells, and otherwise; empty: there is none.
    """

    way: str
    other: str = ""


def pattern_of(way: str) -> str:
    """A format as for `strptime` as a regular expression (RE2), whose groups are named.

    Raises:
        ValueError: it is no such format, or says neither a year nor an hour.
    """
    found, place = "", 0
    text = way.replace("%F", "%Y-%m-%d").replace("%T", "%H:%M:%S").replace("%D", "%m/%d/%y")
    while place < len(text):
        if text[place] == "%":
            directive = _DIRECTIVES.get(text[place + 1 : place + 2])
            if directive is None:
                raise ValueError(f"%{text[place + 1 : place + 2]} is none of {_known()}")
            if text[place + 2 : place + 3] == "%" or text[:place][-2:-1] == "%":
                directive = directive.replace("{1,2}", "{2}")  # 20200131: nothing tells them apart
            found += directive
            if text[place + 1] == "S" and "%f" not in text:
                found += _FRACTION
            place += 2
        else:
            found += _blank(text[place + 1 :]) if text[place].isspace() else re.escape(text[place])
            place += 1
    _check_groups(re.findall(r"\?P<(\w+)>", found))
    return f"^{found}$"


def check_format(way: str) -> None:
    """Raises ValueError where a user's format is none."""
    try:
        pattern_of(way)
    except ValueError as error:
        raise ValueError(f"{way!r} is no format of dates, such as %d/%m/%Y: {error}") from None


def _blank(rest: str) -> str:
    return r"\s*" if rest.startswith("%p") else r"\s+"  # 8:15PM


def _known() -> str:
    return " ".join(f"%{letter}" for letter in _DIRECTIVES)


def _check_groups(groups: list[str]) -> None:
    plain = [
        group.removeprefix("short_").removeprefix("named_").removeprefix("half_") for group in groups
    ]
    twice = next((group for group in plain if plain.count(group) > 1), None)
    if twice is not None:
        raise ValueError(f"it says the {twice} twice")
    if "year" not in plain and ("hour" not in plain or {"month", "day"} & set(plain)):
        raise ValueError("it says neither a year (%Y, %y) nor a time of day alone (%H, %I)")
    if "day" in plain and "month" not in plain:
        raise ValueError("it says a day, but no month (%m, %b, %B)")
    if ("half_hour" in groups) != ("half" in groups):
        raise ValueError("%I and %p go together")


def kind_of(way: str) -> TimeKind:
    """What is written so."""
    if way in (TIME_OF_DAY, DURATION):
        return "time" if way == TIME_OF_DAY else "duration"
    return "time" if _is_format(way) and not re.search(r"%[YyFD]", way) else "date"


def _is_format(way: str) -> bool:
    return "%" in way


_ISO_DAY = r"^(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
_ISO_CLOCK = rf"[T ](?P<hour>\d{{2}})(?::(?P<minute>\d{{2}})(?::(?P<second>\d{{2}}){_FRACTION})?)?"
_CLOCK = rf"(?P<hour>\d+):(?P<minute>\d{{2}}):(?P<second>\d{{2}}){_FRACTION}"
_PATTERNS = {
    ISO: [rf"{_ISO_DAY}(?:{_ISO_CLOCK})?$"],
    ISO_WITH_ZONE: [rf"{_ISO_DAY}{_ISO_CLOCK}{_ZONE}$"],
    ISO_SOME_ZONES: [rf"{_ISO_DAY}(?:{_ISO_CLOCK}(?:{_ZONE})?)?$"],
    TIME_OF_DAY: [
        pattern_of("%H:%M"),
        pattern_of("%H:%M:%S"),
        pattern_of("%I:%M %p"),
        pattern_of("%I:%M:%S %p"),
        pattern_of("%I %p"),
    ],
    DURATION: [
        rf"^(?P<sign>[+-]?){_CLOCK}$",
        rf"^(?P<days>[+-]?\d+) days?(?:,? (?P<sign>[+-]?){_CLOCK})?$",  # of pandas and of Python
        r"^(?P<sign>[+-]?)P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?"
        rf"(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+){_FRACTION}S)?)?$",  # ISO 8601
    ],
}


def described(way: str) -> str:
    """What a column holds that is written so."""
    kind = kind_of(way)
    return f"{kind}s" if way == kind else f"{kind}s ({way})"


def read_times(column: Any, way: str) -> Cells:
    """A column of dates or times written in a `way` as seconds; one of a type for them is read by that.

    Args:
        column: text, or of a type of Arrow's for times of the same kind.
    """
    if timed_as(column.type) == kind_of(way):
        values = _of_type(column)
        there = ~np.isnan(values)
    else:
        text = without_marks(words(column))
        there = text.is_valid().to_numpy()
        values = _of_text(text, way)
    odd = there & np.isnan(values)
    return Cells(values, odd, np.zeros_like(odd), int(np.count_nonzero(there)))


def timed_as(kind: Any) -> TimeKind | None:
    """What a type of Arrow's for times holds; None: it is not for times."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date"
    if pa.types.is_time(kind):
        return "time"
    return "duration" if pa.types.is_duration(kind) else None


def way_of_type(kind: Any) -> str:
    """The way in which text holds what a column of a type of Arrow's for times holds."""
    import pyarrow as pa

    zone = pa.types.is_timestamp(kind) and kind.tz is not None
    return ISO_WITH_ZONE if zone else PLAINEST[timed_as(kind) or "date"]


def find_way(column: Any, kind: TimeKind | None = None) -> When | None:
    """How most cells of a column are written as dates or times; None where hardly any is one.

    Args:
        column: of any type.
        kind: what the user says that it holds: then numbers may be dates as well.
    """
    if timed_as(column.type) is not None:
        return When(way_of_type(column.type))
    if kind is None and not is_text(column.type):
        return None
    ways = [*WAYS, *(_UNPUNCTUATED if kind else ())]
    text = without_marks(words(column)).drop_null()
    counted = _counted(text, [way for way in ways if kind in (None, kind_of(way))])
    if not counted:
        return _numbers_as_dates(column) if kind == "date" else None
    most = max(counted.values())
    best, *others = (way for way, count in counted.items() if count == most)
    if best.startswith(ISO):  # which is never read otherwise
        return When(best)
    read = _of_text(text, best) if others else None
    other = next((way for way in others if _differ(best, read, way, text)), "")
    return When(best, other)


def _counted(text: Any, ways: list[str]) -> dict[str, int]:
    """How many cells each way reads, of those that read most."""
    import pyarrow.compute as pc

    some = drawn(text)
    few = some.take(np.linspace(0, len(some) - 1, min(len(some), _FEW)).astype(np.int64))
    if _LIKELY * len(few) > (pc.sum(pc.match_substring_regex(few, _BEGINNING)).as_py() or 0):
        return {}  # as most columns of words are
    ways = [way for way in ways if _count(_of_text(few, way)) >= _LIKELY * len(few) > 0]
    counted = {way: _count(_of_text(some, way)) for way in ways}
    most = max(counted.values(), default=0)
    if most < _LIKELY * len(some) or most == 0:
        return {}
    if len(some) < len(text):
        near = [way for way, count in counted.items() if count >= 0.8 * most]
        if len(near) > 1 and _count(_of_text(text, near[0])) == len(text) and near[0].startswith(ISO):
            return {near[0]: len(text)}  # ISO is never read otherwise
        counted = {way: _count(_of_text(text, way)) for way in near}
    return counted


def _count(values: Numbers) -> int:
    return int(np.count_nonzero(~np.isnan(values)))


def _differ(best: str, read: Numbers | None, way: str, text: Any) -> bool:
    if kind_of(best) != kind_of(way):
        return True
    assert read is not None
    return not np.array_equal(read, _of_text(text, way), equal_nan=True)


def _numbers_as_dates(column: Any) -> When | None:
    """Numbers that somebody says are dates: of seconds up to the year 5138, or else of milliseconds."""
    values = numbers(column).values
    if np.isnan(values).all():
        return None
    return When(list(UNITS)[int(np.nanmedian(np.abs(values)) >= 1e11)])


def _of_type(column: Any) -> Numbers:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    narrow = pa.types.is_date32(kind) or pa.types.is_time32(kind)
    whole = pc.cast(pc.cast(column, pa.int32()) if narrow else column, pa.int64())
    ticks = pc.fill_null(whole, 0).to_numpy()
    if pa.types.is_date32(kind):
        values: Numbers = ticks * float(_DAY)
    else:
        unit = "ms" if pa.types.is_date64(kind) else kind.unit
        second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        values = ticks // second + ticks % second / second  # ticks may be more than a float64 holds
    values[column.is_null().to_numpy()] = np.nan
    return values


def _of_text(text: Any, way: str) -> Numbers:
    """Text as seconds, NaN where it is missing or not written so."""
    import pyarrow.compute as pc

    if way in UNITS:
        values = numbers(text).values
        values /= UNITS[way]
        return values
    if way in (ISO, ISO_WITH_ZONE) and (stamps := _iso_stamps(text, way)) is not None:
        return _of_type(stamps)
    patterns = _PATTERNS.get(way) or [pattern_of(way)]
    values = np.full(len(text), np.nan)
    for pattern in patterns:
        found = pc.extract_regex(text, pattern)
        fits = found.is_valid().to_numpy()
        if fits.any():
            values[fits] = _Parts(found.drop_null()).seconds(kind_of(way))
    return values


def _iso_stamps(text: Any, way: str) -> Any:
    """The same much faster, where each cell that looks like a date is one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    stamp = pa.timestamp("us", tz=None if way == ISO else "UTC")
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(text, stamp)
    likely = pc.match_substring_regex(text, _PATTERNS[way][0])
    text = pc.if_else(likely, text, None)
    if way == ISO:
        text = pc.utf8_slice_codeunits(text, 0, _MICROSECONDS)
    else:
        text = pc.replace_substring_regex(text, r"([.,]\d{6})\d+", r"\1")
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(text, stamp)
    return None


class _Parts:
    """What a pattern's groups hold of cells that all fit it."""

    def __init__(self, found: Any) -> None:
        import pyarrow as pa

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
            values += days * float(_DAY) - self._zone()
            wrong |= never
        values[wrong] = np.nan
        return values

    def _duration(self) -> Numbers:
        clock = self.number("hour", 0) * 3600 + self.number("minute", 0) * 60 + self.number("second", 0)
        clock += self.number("hours", 0) * 3600 + self.number("minutes", 0) * 60
        values = clock + self.number("seconds", 0) + self.fraction()
        values += self.number("weeks", 0) * 7 * float(_DAY)
        days = self.number("days", 0) * float(_DAY)
        sign = 1 - 2 * self._is("sign", "^-")
        if "hours" in self.groups:  # ISO: a sign is that of all
            said = [self.groups[name] for name in ("weeks", "days", "hours", "minutes", "seconds")]
            values = (values + days) * sign
            values[~np.any([_filled(group) for group in said], axis=0)] = np.nan
        else:
            values = days + values * sign
        values[(self.number("minute", 0) > 59) | (self.number("second", 0) > 59)] = np.nan
        return values

    def _days(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Days since 1970, and which of them never were."""
        year = self.number("year", 1970)
        if "short_year" in self.groups:
            short = self.number("short_year", 70)
            year = short + np.where(short < _PIVOT, 2000, 1900)
        month, day = self.number("month", 1), self.number("day", 1)
        if "named_month" in self.groups:
            month = self._named_month()
        months = (year - 1970) * 12 + month.clip(1, 12) - 1
        first, after = (m.astype("M8[M]").astype("M8[D]").astype(np.int64) for m in (months, months + 1))
        wrong = (month < 1) | (month > 12) | (day < 1) | (day > after - first)
        return first + day - 1, wrong

    def _named_month(self) -> NDArray[np.int64]:
        import pyarrow as pa
        import pyarrow.compute as pc

        names = pa.array([name[:3] for name in _MONTHS])
        short = pc.utf8_slice_codeunits(pc.utf8_lower(self.groups["named_month"]), 0, 3)
        found: NDArray[np.int64] = pc.index_in(short, value_set=names).to_numpy().astype(np.int64)
        return found + 1

    def _zone(self) -> NDArray[np.int64]:
        """Seconds by which a cell's clock is before Greenwich's."""
        import pyarrow.compute as pc

        if "zone" not in self.groups:
            return np.zeros(self.rows, np.int64)
        digits = pc.replace_substring_regex(self.groups["zone"], r"[^0-9]", "")
        offset = _whole(pc.utf8_rpad(digits, 4, "0"), 0)
        return (offset // 100 * 3600 + offset % 100 * 60) * (1 - 2 * self._is("zone", "^-"))

    def number(self, group: str, default: int) -> NDArray[np.int64]:
        if group not in self.groups:
            return np.full(self.rows, default)
        return _whole(self.groups[group], default)

    def fraction(self) -> Numbers:
        import pyarrow.compute as pc

        if "fraction" not in self.groups:
            return np.zeros(self.rows)
        return _whole(pc.utf8_rpad(self.groups["fraction"], 9, "0"), 0) / 1e9

    def _is(self, group: str, pattern: str) -> NDArray[np.int64]:
        import pyarrow.compute as pc

        if group not in self.groups:
            return np.zeros(self.rows, np.int64)
        found = pc.match_substring_regex(self.groups[group], pattern).to_numpy(zero_copy_only=False)
        return cast("NDArray[np.int64]", found.astype(np.int64))


def _whole(text: Any, default: int) -> NDArray[np.int64]:
    """Digits as numbers, a default where there are none; no number of them is too long for seconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digits = pc.if_else(pc.equal(text, ""), str(default), pc.utf8_slice_codeunits(text, 0, 12))
    found: NDArray[np.int64] = pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False)
    return found


def _filled(text: Any) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    found: NDArray[np.bool_] = pc.not_equal(text, "").to_numpy(zero_copy_only=False)
    return found


DATE_PARTS = ("year", "month", "day", "weekday", "hour")
PARTS: dict[TimeKind, tuple[str, ...]] = {
    "date": (*DATE_PARTS, "second"),
    "time": ("hour", "sine", "cosine"),
    "duration": ("seconds",),
}
"""What a model reads of each kind: of a date its parts, Monday being 0, and, where all are within one
hour, the second of that hour; of a time of day the hour with its fraction, and where it stands on the
clock's round; of a duration the seconds."""


def part_of(values: Any, kind: TimeKind, part: str, library: Any = np) -> Any:
    """One of a kind's `PARTS` of seconds; NaN where a value is missing.

    Args:
        values: float64, an array or a tensor.
        library: numpy or torch, whichever they are of.
    """
    if kind == "duration":
        return values + 0.0
    if kind == "time":
        turn = values * (2 * math.pi / _DAY)
        return (
            values / 3600 if part == "hour" else (library.sin if part == "sine" else library.cos)(turn)
        )
    floor = library.floor
    if part == "second":
        return values - 3600 * floor(values / 3600)
    days = floor(values / _DAY)
    if part == "hour":
        return floor((values - days * _DAY) / 3600)
    if part == "weekday":
        return days + 3 - 7 * floor((days + 3) / 7)  # 1970 began on a Thursday
    return _on_the_calendar(days, part, floor)


def _on_the_calendar(days: Any, part: str, floor: Any) -> Any:
    """Year, month or day of days since 1970, in whole numbers that float64 holds exactly.

    Source: Hinnant, chrono-Compatible Low-Level Date Algorithms, `civil_from_days`: years begin in
    March, so that a leap day is the last of a year, and eras have 400 of them.
    """
    since = days + 719_468  # the first of March in the year 0
    era = floor(since / 146_097)
    day = since - era * 146_097
    year = floor((day - floor(day / 1460) + floor(day / 36_524) - floor(day / 146_096)) / 365)
    day = day - (365 * year + floor(year / 4) - floor(year / 100))
    month = floor((5 * day + 2) / 153)  # 0 is March
    if part == "day":
        return day - floor((153 * month + 2) / 5) + 1
    next_year = floor(month / 10)
    return year + era * 400 + next_year if part == "year" else month + 3 - 12 * next_year
