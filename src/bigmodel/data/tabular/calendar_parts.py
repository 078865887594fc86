"""The parts of dates, times of day and durations that a model reads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bigmodel.data.tabular.date_formats import TimeKind

DAY = 86_400  # seconds

PARTS: dict[TimeKind, tuple[str, ...]] = {
    "date": ("year", "month", "day", "weekday", "hour", "second"),
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
        turn = values * (2 * math.pi / DAY)
        return (
            values / 3600 if part == "hour" else (library.sin if part == "sine" else library.cos)(turn)
        )
    floor = library.floor
    if part == "second":
        return values - 3600 * floor(values / 3600)
    days = floor(values / DAY)
    if part == "hour":
        return floor((values - days * DAY) / 3600)
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
