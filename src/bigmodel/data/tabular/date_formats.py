"""Formats of dates, times of day and durations, and a pattern for each.

Names of months are English, whatever the locale.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, get_args

import numpy as np

TimeKind = Literal["date", "time", "duration"]
TIME_KINDS: tuple[TimeKind, ...] = get_args(TimeKind)
MeasuredKind = Literal["number", TimeKind]

ISO, ISO_WITH_ZONE, ISO_SOME_ZONES = "ISO", "ISO with zone", "ISO, some with zone"
TIME_OF_DAY, DURATION = "time of day", "duration"
DEFAULT_FORMATS: dict[TimeKind, str] = {"date": ISO, "time": TIME_OF_DAY, "duration": DURATION}
EPOCH_UNITS = {"seconds since 1970": 1.0, "milliseconds since 1970": 1000.0}

MONTHS = [
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
]
_WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_ZONE = r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"
_FRACTION = r"(?:[.,](?P<fraction>\d{1,9}))?"


def _names(names: list[str], length: int | None = None) -> str:
    return f"(?i:{'|'.join(name[:length] for name in names)})"


_DIRECTIVES = {
    "Y": r"(?P<year>\d{4})",
    "y": r"(?P<short_year>\d{2})",
    "m": r"(?P<month>\d{1,2})",
    "b": rf"(?P<named_month>{_names(MONTHS, 3).replace('sep', 'sept?')})",
    "B": rf"(?P<named_month>{_names(MONTHS)})",
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
    *("%y/%m/%d", "%y-%m-%d", "%y.%m.%d", "%Y-%m-%d"),  # the last is ISO, but for its zeros
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
DIGIT_FORMATS = ("%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S")  # numbers, unless the user sets the kind
_MONTHS_ALONE = ("%Y-%m", "%m/%Y", "%b-%Y", "%b %Y", "%B %Y")
_OF_MAILS_AND_LOGS = (
    *("%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S"),  # RFC 2822
    *("%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y"),  # C's ctime, and POSIX's date
)
FORMATS = (*(day + time for day in _DATES for time in _TIMES), *_MONTHS_ALONE, *_OF_MAILS_AND_LOGS)
KNOWN_FORMATS = (ISO, ISO_WITH_ZONE, ISO_SOME_ZONES, *FORMATS, TIME_OF_DAY, DURATION)
"""Formats that are tried; if two fit equally many cells, the first is used."""


def format_pattern(time_format: str) -> str:
    """The regular expression (RE2), with named groups, for a format of `strptime`.

    Raises:
        ValueError: it is not a format, or contains neither a year nor an hour.
    """
    pattern, place = "", 0
    text = time_format.replace("%F", "%Y-%m-%d").replace("%T", "%H:%M:%S").replace("%D", "%m/%d/%y")
    while place < len(text):
        if text[place] == "%":
            directive = _DIRECTIVES.get(text[place + 1 : place + 2])
            if directive is None:
                known = " ".join(f"%{letter}" for letter in _DIRECTIVES)
                raise ValueError(f"%{text[place + 1 : place + 2]} is none of {known}")
            if text[place + 2 : place + 3] == "%" or text[:place][-2:-1] == "%":
                directive = directive.replace("{1,2}", "{2}")  # 20200131 has no separators
            pattern += directive
            if text[place + 1] == "S" and "%f" not in text:
                pattern += _FRACTION
            place += 2
        else:
            space = r"\s*" if text.startswith("%p", place + 1) else r"\s+"  # 8:15PM
            pattern += space if text[place].isspace() else re.escape(text[place])
            place += 1
    _check_groups(re.findall(r"\?P<(\w+)>", pattern))
    return f"^{pattern}$"


def check_format(time_format: str) -> None:
    """Raises ValueError if a text is not a date format."""
    try:
        format_pattern(time_format)
    except ValueError as error:
        raise ValueError(f"{time_format!r} is not a date format, such as %d/%m/%Y: {error}") from None


def _check_groups(groups: list[str]) -> None:
    plain = [re.sub("^(short|named|half)_", "", group) for group in groups]
    twice = next((group for group in plain if plain.count(group) > 1), None)
    if twice is not None:
        raise ValueError(f"it contains the {twice} twice")
    if "year" not in plain and ("hour" not in plain or {"month", "day"} & set(plain)):
        raise ValueError("it contains neither a year (%Y, %y) nor a time of day (%H, %I)")
    if "day" in plain and "month" not in plain:
        raise ValueError("it contains a day, but no month (%m, %b, %B)")
    if ("half_hour" in groups) != ("half" in groups):
        raise ValueError("%I and %p go together")


def time_kind(time_format: str) -> TimeKind:
    """Whether a format is one of dates, times of day or durations."""
    if time_format in (TIME_OF_DAY, DURATION):
        return "time" if time_format == TIME_OF_DAY else "duration"
    return "time" if "%" in time_format and not re.search(r"%[YyFD]", time_format) else "date"


_ISO_DAY = r"^(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
_ISO_CLOCK = rf"[T ](?P<hour>\d{{2}})(?::(?P<minute>\d{{2}})(?::(?P<second>\d{{2}}){_FRACTION})?)?"
_CLOCK = rf"(?P<hour>\d+):(?P<minute>\d{{2}}):(?P<second>\d{{2}}){_FRACTION}"
PATTERNS = {
    ISO: [rf"{_ISO_DAY}(?:{_ISO_CLOCK})?$"],
    ISO_WITH_ZONE: [rf"{_ISO_DAY}{_ISO_CLOCK}{_ZONE}$"],
    ISO_SOME_ZONES: [rf"{_ISO_DAY}(?:{_ISO_CLOCK}(?:{_ZONE})?)?$"],
    TIME_OF_DAY: [
        # 2:1 is a score
        format_pattern(time_format).replace(r"(?P<minute>\d{1,2})", r"(?P<minute>\d{2})")
        for time_format in ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p", "%I %p")
    ],
    DURATION: [
        rf"^(?P<sign>[+-]?){_CLOCK}$",
        rf"^(?P<days>[+-]?\d+) days?(?:,? (?P<sign>[+-]?){_CLOCK})?$",  # of pandas and of Python
        r"^(?P<sign>[+-]?)P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?"
        rf"(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+){_FRACTION}S)?)?$",  # ISO 8601
    ],
}


def describe_format(time_format: str) -> str:
    """What a column in a format holds: `dates (%d/%m/%Y)`."""
    kind = time_kind(time_format)
    return f"{kind}s" if time_format == kind else f"{kind}s ({time_format})"


DAY = 86_400  # seconds

CALENDAR_PARTS: dict[TimeKind, tuple[str, ...]] = {
    "date": ("year", "month", "day", "weekday", "hour", "second"),
    "time": ("hour", "sine", "cosine"),
    "duration": ("seconds",),
}
"""Model inputs for each kind. Of a date: its parts, Monday being 0, and the second within the hour if
all are within one hour. Of a time of day: the hour with its fraction, and sine and cosine of its angle
on a 24-hour clock. Of a duration: the seconds."""


def calendar_part(values: Any, kind: TimeKind, part: str, library: Any = np) -> Any:
    """One of the `CALENDAR_PARTS` of seconds; NaN for a missing value.

    Args:
        values: float64, an array or a tensor.
        library: its library, numpy or torch.
    """
    if kind == "duration":
        return values + 0.0
    if kind == "time":
        if part == "hour":
            return values / 3600
        return (library.sin if part == "sine" else library.cos)(values * (2 * math.pi / DAY))
    floor = library.floor
    if part == "second":
        return values - 3600 * floor(values / 3600)
    days = floor(values / DAY)
    if part == "hour":
        return floor((values - days * DAY) / 3600)
    if part == "weekday":
        return days + 3 - 7 * floor((days + 3) / 7)  # 1970 began on a Thursday
    return _year_month_day(days, part, floor)


def _year_month_day(days: Any, part: str, floor: Any) -> Any:
    """Year, month or day of days since 1970, in integers that float64 holds exactly.

    Source: Hinnant, chrono-Compatible Low-Level Date Algorithms, `civil_from_days`: years begin in
    March, so that a leap day is the last of a year, and an era is 400 years.
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
