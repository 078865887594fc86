"""Dates, times of day and durations: how they are written is found out, and they are read as seconds."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from bigmodel.data.tabular.date_formats import calendar_part, time_kind
from bigmodel.data.tabular.dates import find_date_format, parse_times
from bigmodel.data.tabular.type_inference import infer_type

FRIDAY = datetime.datetime(2020, 1, 31, 10, 30, tzinfo=datetime.UTC).timestamp()


def column(*values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("time_format", "value"),
    [
        ("ISO", "2020-01-31 10:30"),
        ("ISO", "2020-01-31T10:30:00.000000000"),
        ("ISO with zone", "2020-01-31T12:30:00+02:00"),
        ("ISO with zone", "2020-01-31 10:30:00 UTC"),
        ("ISO with zone", "2020-01-31T05:00:00.000-0530"),
        ("%d.%m.%Y %H:%M", "31.01.2020 10:30"),
        ("%Y/%m/%d %H:%M:%S", "2020/01/31 10:30:00"),
        ("%m/%d/%Y %H:%M", "01/31/2020 10:30"),
        ("%d/%m/%Y %H:%M", "31/01/2020 10:30"),
        ("%m/%d/%Y %I:%M %p", "1/31/2020 10:30 AM"),
        ("%d %b %Y %H:%M", "31 Jan 2020 10:30"),
        ("%B %d, %Y %I:%M:%S %p", "January 31, 2020 10:30:00 a.m."),
        ("%d.%m.%y %H:%M", "31.1.20 10:30"),
        ("%Y-%m-%d %H:%M", "2020-1-31 10:30"),
        ("%a, %d %b %Y %H:%M:%S %z", "Fri, 31 Jan 2020 12:30:00 +0200"),
        ("%a %b %d %H:%M:%S %Y", "Fri Jan 31 10:30:00 2020"),
        ("%a %b %d %H:%M:%S %z %Y", "Fri Jan 31 10:30:00 UTC 2020"),
    ],
)
def test_ways_to_write_a_date(time_format, value):
    values = column(value, None)
    assert find_date_format(values).time_format == time_format
    np.testing.assert_array_equal(parse_times(values, time_format).values, [FRIDAY, np.nan])


def test_months_without_a_day_are_dates():
    values = column("2020-01", "2021-12")
    assert infer_type(values).kind == "date"
    assert calendar_part(
        parse_times(values, find_date_format(values).time_format).values, "date", "month"
    ).tolist() == [1, 12]
    assert infer_type(column("2020-01", "2021-13")).kind == "text"


@pytest.mark.parametrize(
    "cells", [("04/2020", "12/2021"), ("Apr-2020", "Dec-2021"), ("April 2020", "December 2021")]
)
def test_other_ways_to_write_months_without_a_day(cells):
    values = column(*cells)
    assert infer_type(values).kind == "date"
    assert parse_times(values, find_date_format(values).time_format).values.tolist() == [
        1_585_699_200,
        1_638_316_800,
    ]


def test_september_may_have_four_letters():
    assert find_date_format(column("1 Sept 2020", "1 Jan 2020")) == ("%d %b %Y", "")


@pytest.mark.parametrize("between", ["/", "-", "."])
def test_of_two_ways_years_of_two_digits_are_where_the_dates_lie_closest(between):
    days = [
        f"{year}{between}{month:02d}{between}{7 * month % 31 + 1:02d}"
        for year in range(20, 26)
        for month in range(1, 13)
    ]
    best, last = (between.join(time_format) for time_format in (("%y", "%m", "%d"), ("%d", "%m", "%y")))
    assert find_date_format(column(*days)) == (best, last)
    around = [between.join(reversed(day.split(between))) for day in days]
    assert find_date_format(column(*around)) == (last, best)


def test_minutes_have_two_digits():
    assert infer_type(column("2:1", "3:2", "1:0")).kind == "text"


@pytest.mark.parametrize(
    ("values", "kind", "seconds"),
    [
        (["08:15", "23:59"], "time", [29_700, 86_340]),
        (["8:15 AM", "12 p.m.", "12:30AM"], "time", [29_700, 43_200, 1_800]),
        (["08:15:00.25", "23:59:00"], "time", [29_700.25, 86_340]),
        (["01:30:00", "-30:00:00"], "duration", [5_400, -108_000]),
        (["1 days 02:03:04", "-1 days +23:59:59.5"], "duration", [93_784, -0.5]),
        (["1 day, 2:03:04", "0:00:01"], "duration", [93_784, 1]),
        (["PT1H30M", "P1DT0.5S", "-P1W", "PT90M"], "duration", [5_400, 86_400.5, -604_800, 5_400]),
    ],
)
def test_times_of_day_and_durations(values, kind, seconds):
    inferred = infer_type(column(*values))
    assert inferred.kind == kind
    np.testing.assert_array_equal(
        parse_times(column(*values), inferred.date_format.time_format).values, seconds
    )


def test_all_values_decide_between_ways_to_write_a_date():
    assert find_date_format(column("01/02/2020", "03/04/2020")) == ("%m/%d/%Y", "%d/%m/%Y")
    assert find_date_format(column("01/02/2020", "13/04/2020")) == ("%d/%m/%Y", "")
    assert find_date_format(column("01/01/2020", "02/02/2020")) == (
        "%m/%d/%Y",
        "",
    )  # the same either way
    assert find_date_format(column("01/02/20")) == ("%m/%d/%y", "%d/%m/%y")
    assert find_date_format(column("01:30:00", "02:00:00")) == ("time of day", "duration")
    zoned = ["2023-01-01 01:00:00.000000123+01:00", "2023-07-01 00:00:00.123456789+02:00"]
    for cells in (zoned, [cell[:-6] for cell in zoned]):
        assert find_date_format(column(*cells)).other == ""  # ISO is never read otherwise
    late = find_date_format(column(*["01/02/2020"] * 1500, "13/02/2020"))
    assert late == ("%d/%m/%Y", "")


def test_some_zones_are_read_and_the_others_are_in_utc():
    values = column("2020-01-31T12:30:00+02:00", "2020-01-31T10:30:00", "2020-01-31 10:30:00Z")
    assert find_date_format(values).time_format == "ISO, some with zone"
    assert parse_times(values, "ISO, some with zone").values.tolist() == [FRIDAY] * 3
    assert parse_times(values, "ISO").invalid.tolist() == [True, False, True]


def test_two_digits_of_a_year_are_read_as_posix_says():
    found = calendar_part(parse_times(column("01.01.69", "01.01.68"), "%d.%m.%y").values, "date", "year")
    assert found.tolist() == [1969, 2068]


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp(unit, tz=zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "Asia/Tokyo")]
    + [pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]
    + [pa.duration(unit) for unit in ("s", "ms", "us", "ns")],
    ids=str,
)
def test_types_for_times_are_read_as_what_they_are(kind):
    ticks = {"[s": 1, "[ms": 10**3, "[us": 10**6, "[ns": 10**9}
    per = next((ticks[unit] for unit in ticks if f"{unit}]" in f"{kind}" or f"{unit}," in f"{kind}"), 0)
    second = 39 * 3600 if "time" not in str(kind) or "stamp" in str(kind) else 15 * 3600
    whole = {"date32[day]": 1, "date64[ms]": 86_400_000}.get(str(kind), second * per)
    narrow = pa.int32() if kind.bit_width == 32 else pa.int64()
    values = pa.chunked_array([pa.array([whole, None], narrow).cast(kind)])
    seconds = 86_400 if "date" in str(kind) else second
    time_format = find_date_format(values).time_format
    np.testing.assert_array_equal(parse_times(values, time_format).values, [seconds, np.nan])
    assert infer_type(values).kind == time_kind(time_format)


def test_the_last_of_nine_digits_costs_nothing():
    values = column(1_580_466_600_123_456_789)
    stamps = pa.chunked_array([values.chunk(0).cast(pa.timestamp("ns"))])
    text = column("2020-01-31 10:30:00.123456789")
    for found in (parse_times(stamps, "ISO"), parse_times(text, "ISO")):
        np.testing.assert_allclose(found.values, [FRIDAY + 0.123456789], rtol=0, atol=1e-6)


def test_dates_far_away_are_read():
    days = pa.chunked_array([pa.array([3_000_000, -1_000_000], pa.int32()).cast(pa.date32())])
    years = calendar_part(parse_times(days, "ISO").values, "date", "year").tolist()
    assert years == [10_183, -768]  # 3e6 and -1e6 days of 365.2425 to a year


def test_numbers_that_somebody_says_are_dates():
    assert find_date_format(column(20200131, 20200228), "date").time_format == "%Y%m%d"
    assert find_date_format(column("1580466600"), "date").time_format == "seconds since 1970"
    assert find_date_format(column(1_580_466_600_000), "date").time_format == "milliseconds since 1970"
    for values, time_format in [
        (column(1_580_466_600_000), "milliseconds since 1970"),
        (column("1580466600.0"), "seconds since 1970"),
    ]:
        assert parse_times(values, time_format).values.tolist() == [FRIDAY]


def test_durations_of_hours_alone_are_found():
    written = pa.chunked_array([["PT1H30M", "-PT5M", "PT2H"]])
    assert infer_type(written).kind == "duration"
