"""The ways to write dates, and the calendar parts that a model reads of them."""

import datetime

import numpy as np
import pytest

from bigmodel.data.tabular.date_formats import CALENDAR_PARTS, calendar_part, format_pattern


@pytest.mark.parametrize(
    ("written", "why"),
    [("%d/%m", "neither a year"), ("%q", "%q is none of"), ("%Y-%d", "a day, but no month"),
     ("%d.%d.%Y", "contains the day twice"), ("%I:%M", "%I and %p"), ("", "neither a year"),
     ("%", "% is none of")],
)  # fmt: skip
def test_formats_that_are_none(written, why):
    with pytest.raises(ValueError, match=why):
        format_pattern(written)


def test_parts_of_a_date_are_those_of_the_standard_library():
    draw = np.random.default_rng(0)
    seconds = draw.uniform(-5e10, 2e11, 2000)
    since = datetime.datetime(1970, 1, 1)
    wanted = [since + datetime.timedelta(seconds=float(second)) for second in seconds]
    for part, read in [
        ("year", lambda d: d.year), ("month", lambda d: d.month), ("day", lambda d: d.day),
        ("weekday", lambda d: d.weekday()), ("hour", lambda d: d.hour),
    ]:  # fmt: skip
        assert calendar_part(seconds, "date", part).tolist() == [read(date) for date in wanted], part
    assert np.isnan(calendar_part(np.array([np.nan]), "date", "year"))


def test_a_time_of_day_goes_round():
    midnight, before, noon = (np.array([second]) for second in (0.0, 86_399.0, 43_200.0))
    place = {
        name: [calendar_part(at, "time", name)[0] for at in (midnight, before, noon)]
        for name in CALENDAR_PARTS["time"]
    }
    assert abs(place["cosine"][0] - place["cosine"][1]) < 1e-4
    assert abs(place["sine"][0] - place["sine"][1]) < 1e-4
    assert place["cosine"][2] == pytest.approx(-1)
    assert place["hour"] == [0, pytest.approx(23.9997, abs=1e-4), 12]
